package tiering

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Ladder says how the history of a folder thins out with age.
type Ladder struct {
	// Rungs are in the order of age. None: only the present is kept.
	Rungs []Rung
	// Undelete is how long what was deleted can be brought back.
	Undelete time.Duration
}

// Rung says that of what is younger than Keep, and not on the rung before, one
// version for each Step is kept; every change, if Step is 0.
type Rung struct{ Step, Keep time.Duration }

const (
	day  = 24 * time.Hour
	week = 7 * day
	year = 365 * day

	longest = 200 * year // an age is a time.Duration, which ends at 292 years
	// maxRungs bounds what is read from an attribute anybody can set.
	maxRungs = 16
)

// DefaultUndelete is the undelete time of a ladder that names none.
const DefaultUndelete = 30 * day

// Default returns the ladder of what has none.
func Default() Ladder {
	return Ladder{
		Rungs:    []Rung{{0, day}, {time.Hour, week}, {day, 90 * day}, {week, 2 * year}},
		Undelete: DefaultUndelete,
	}
}

// None returns the ladder that keeps no history.
func None() Ladder { return Ladder{} }

// ErrLadder is matched by the errors of ParseLadder.
var ErrLadder = errors.New("not a retention ladder")

// ParseLadder reads a ladder: "none", or "all:AGE", then "STEP:AGE" with both
// rising, then "undelete:AGE"; each may be left out, but not all. Ages are whole
// numbers with one of the units s, m, h, d, w and y.
func ParseLadder(s string) (Ladder, error) {
	fail := func(format string, args ...any) (Ladder, error) {
		return Ladder{}, fmt.Errorf("%w: %s", ErrLadder, fmt.Sprintf(format, args...))
	}
	words := strings.Fields(s)
	if len(words) == 1 && words[0] == "none" {
		return None(), nil
	}
	if len(words) == 0 {
		return fail("it is empty")
	}
	l := Ladder{Undelete: DefaultUndelete}
	for i, word := range words {
		name, age, ok := strings.Cut(word, ":")
		if !ok {
			return fail("%q is not STEP:AGE", word)
		}
		keep, err := parseAge(age)
		if err != nil {
			return fail("%q: %v", word, err)
		}
		if name == "undelete" {
			if i != len(words)-1 {
				return fail("undelete comes last")
			}
			l.Undelete = keep
			break
		}
		r := Rung{Keep: keep}
		if name == "all" {
			if i != 0 {
				return fail("all comes first")
			}
		} else if r.Step, err = parseAge(name); err != nil {
			return fail("%q: %v", word, err)
		} else if r.Step == 0 {
			return fail("%q: a step cannot be 0", word)
		}
		l.Rungs = append(l.Rungs, r)
	}
	if err := l.Validate(); err != nil {
		return Ladder{}, err
	}
	return l, nil
}

// Validate reports what is wrong with a ladder; nil if nothing is.
func (l Ladder) Validate() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrLadder, fmt.Sprintf(format, args...))
	}
	if len(l.Rungs) > maxRungs {
		return fail("%d steps, at most %d", len(l.Rungs), maxRungs)
	}
	if l.Undelete < 0 || l.Undelete > longest || l.Undelete%time.Second != 0 {
		return fail("undelete:%v", l.Undelete)
	}
	for i, r := range l.Rungs {
		switch {
		case r.Keep <= 0 || r.Keep > longest || r.Keep%time.Second != 0:
			return fail("%s keeps nothing, or for too long", r)
		case r.Step < 0 || r.Step > r.Keep || r.Step%time.Second != 0:
			return fail("%s has a step longer than its age", r)
		case i == 0:
		case r.Keep <= l.Rungs[i-1].Keep:
			return fail("%s does not reach further than %s", r, l.Rungs[i-1])
		case r.Step <= l.Rungs[i-1].Step:
			return fail("%s is not coarser than %s", r, l.Rungs[i-1])
		}
	}
	return nil
}

// String returns the ladder as ParseLadder reads it.
func (r Rung) String() string {
	if r.Step == 0 {
		return "all:" + formatAge(r.Keep)
	}
	return formatAge(r.Step) + ":" + formatAge(r.Keep)
}

// String returns the ladder as ParseLadder reads it.
func (l Ladder) String() string {
	if len(l.Rungs) == 0 && l.Undelete == 0 {
		return "none"
	}
	var words []string
	for _, r := range l.Rungs {
		words = append(words, r.String())
	}
	return strings.Join(append(words, "undelete:"+formatAge(l.Undelete)), " ")
}

// every returns how long every change is kept.
func (l Ladder) every() time.Duration {
	if len(l.Rungs) > 0 && l.Rungs[0].Step == 0 {
		return l.Rungs[0].Keep
	}
	return 0
}

var units = []struct {
	name string
	d    time.Duration
}{{"y", year}, {"w", week}, {"d", day}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}

func parseAge(s string) (time.Duration, error) {
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 63)
		if err != nil || n > math.MaxInt64/uint64(u.d) {
			return 0, fmt.Errorf("%q is not a number of %s", digits, u.name)
		}
		return time.Duration(n) * u.d, nil
	}
	return 0, fmt.Errorf("%q has none of the units s, m, h, d, w, y", s)
}

// formatAge writes an age in the largest unit that it is a whole number of;
// weeks and years only where people would.
func formatAge(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	for _, u := range units {
		if d%u.d == 0 && (u.d != week || d == week || d < 5*week) {
			return strconv.FormatInt(int64(d/u.d), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(d/time.Second), 10) + "s"
}
