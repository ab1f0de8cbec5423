package home

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"

	"hearth/cmd/control"
)

// maxName bounds a drive's name in bytes: it is a directory here and appears
// in the table of mounts.
const maxName = 64

// ErrName is what every refused drive name is.
var ErrName = errors.New("not a drive name")

// NameRule says in one line what CheckName accepts.
const NameRule = "a drive's name is up to 64 bytes of letters, digits, '.', '_' and '-', and starts with a letter or a digit"

// CheckName accepts what may name a drive: nothing that could be taken for a
// path, for an option, or for a part of the notation NAME:/path@WHEN. Letters
// of every script are fine; combining marks are not, so that one name has one
// spelling.
func CheckName(name string) error {
	bad := func(why string) error { return fmt.Errorf("%q is %w: %s", name, ErrName, why) }
	switch {
	case name == "":
		return bad("it is empty")
	case len(name) > maxName:
		return bad(fmt.Sprintf("it is longer than %d bytes", maxName))
	case !utf8.ValidString(name):
		return bad("it is not UTF-8")
	}
	for i, r := range name {
		word := unicode.IsLetter(r) || unicode.IsDigit(r)
		if i == 0 && !word {
			return bad(fmt.Sprintf("it starts with %q", r))
		}
		if !word && !strings.ContainsRune("._-", r) {
			return bad(fmt.Sprintf("it contains %q", r))
		}
	}
	return nil
}

// ErrNoDrives is the answer to everything in an empty home.
var ErrNoDrives = control.Failed("`hearth create NAME` makes one", "there are no drives yet")

// Known is nil if names has name, else an error that suggests others.
func Known(name string, names []string) error {
	for _, n := range names {
		if n == name {
			return nil
		}
	}
	if len(names) == 0 {
		return ErrNoDrives
	}
	if near := Similar(name, names); len(near) > 0 {
		return control.Failed("did you mean "+near[0]+"?", "there is no drive %s", control.Show(name))
	}
	return control.Failed("`hearth list` shows the drives", "there is no drive %s", control.Show(name))
}

// Similar returns those of names that someone who typed word may have meant,
// the likeliest first.
func Similar(word string, names []string) []string {
	type match struct {
		name string
		far  int
	}
	var found []match
	low := strings.ToLower(word)
	for _, n := range names {
		ln := strings.ToLower(n)
		far := distance(low, ln)
		near := 1 + len(word)/4
		if far > near && len(word) >= 2 && strings.HasPrefix(ln, low) {
			far = near
		}
		if far <= near {
			found = append(found, match{n, far})
		}
	}
	sort.SliceStable(found, func(i, j int) bool { return found[i].far < found[j].far })
	out := make([]string, len(found))
	for i, m := range found {
		out[i] = m.name
	}
	return out
}

// distance is the number of letters to insert, delete, replace or swap with
// their neighbour that turns a into b (optimal string alignment).
func distance(a, b string) int {
	ra, rb := []rune(a), []rune(b)
	var before, prev, cur []int
	prev = make([]int, len(rb)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(ra); i++ {
		cur = make([]int, len(rb)+1)
		cur[0] = i
		for j := 1; j <= len(rb); j++ {
			cost := 1
			if ra[i-1] == rb[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && ra[i-1] == rb[j-2] && ra[i-2] == rb[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev = prev, cur
	}
	return prev[len(rb)]
}
