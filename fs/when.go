package fs

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"hearth/log"
)

// When is a point in a drive's history as people write it. See ParseWhen.
type When struct {
	kind    whenKind
	version Version
	limit   time.Time // the state is the last one before this
	tag     string
}

type whenKind uint8

const (
	whenNewest whenKind = iota
	whenVersion
	whenTime
	whenTag
)

// ParseWhen reads WHEN notation:
//
//	@1234  @2.1234                a version, of this device or of writer 2
//	2026-11-22T10:04:05Z          a time; dots may stand for the colons, and
//	                              zones as +01:00 for the Z. Without a zone it
//	                              is in now's.
//	2026-11-22T10:04  2026-11-22  a shorter one, down to the year
//	90s 5m 2h 3d 2w 1y, 1h30m     ago; "2h ago" and "2h-ago" mean the same
//	yesterday                     the end of yesterday
//	now latest today              the newest version
//	anything else                 a tag
//
// A time stands for the whole period that it names, and means the last state
// in it: 2026-11-22 is how that day ended, 10:04 how that minute ended, and a
// time to the second as .history lists it finds the version made within that
// second. In the same way yesterday is how yesterday was left, and not the
// state 24 hours ago, which is 24h. A day or more ago counts calendar days:
// the clock shows the same time.
func ParseWhen(s string, now time.Time) (When, error) {
	bad := func(format string, args ...any) (When, error) {
		return When{}, fmt.Errorf("%q: %s: %w", s, fmt.Sprintf(format, args...), ErrInvalid)
	}
	switch s {
	case "":
		return bad("no time")
	case "now", "latest", "today":
		return When{kind: whenNewest}, nil
	case "yesterday":
		y, m, d := now.Date()
		return When{kind: whenTime, limit: time.Date(y, m, d, 0, 0, 0, 0, now.Location())}, nil
	}
	if rest, ok := strings.CutPrefix(s, "@"); ok {
		v, ok := parseVersion(rest)
		if !ok {
			return bad("not a version")
		}
		return When{kind: whenVersion, version: v}, nil
	}
	if t, ok := parseAgo(s, now); ok {
		// Exactly then counts as before.
		return When{kind: whenTime, limit: t.Add(1)}, nil
	}
	if looksLikeTime(s) {
		t, ok := parsePeriod(s, now.Location())
		if !ok {
			return bad("not a time")
		}
		return When{kind: whenTime, limit: t}, nil
	}
	if err := checkTag(s); err != nil {
		return When{}, err
	}
	return When{kind: whenTag, tag: s}, nil
}

// reserved are the names in .history that are not times.
var reserved = map[string]struct{}{
	"README": {}, "log": {}, "tags": {}, "by-file": {}, "deleted": {},
	"now": {}, "latest": {}, "today": {}, "yesterday": {}, HistoryName: {},
}

// checkTag refuses a tag that could be taken for something else, or that does
// not work as a name or in PATH@TAG.
func checkTag(name string) error {
	bad := func(why string) error { return fmt.Errorf("tag %q: %s: %w", name, why, ErrInvalid) }
	if err := checkName(name); err != nil && name != HistoryName {
		return fmt.Errorf("tag: %w", err)
	}
	if _, ok := reserved[name]; ok {
		return bad("the name has a meaning of its own")
	}
	if !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return bad("not plain text")
	}
	switch {
	case name != strings.TrimSpace(name):
		return bad("spaces around it")
	case strings.Contains(name, "@"):
		return bad("@ stands before a time")
	case name[0] == '.' || name[0] == '-':
		return bad("it begins with " + name[:1])
	}
	if _, ok := parseVersion(name); ok || looksLikeTime(name) {
		return bad("it looks like a version or a time")
	}
	if _, ok := parseAgo(name, time.Time{}); ok {
		return bad("it looks like a time")
	}
	return nil
}

// parseVersion reads "1234" or "2.1234".
func parseVersion(s string) (Version, bool) {
	var v Version
	if w, seq, ok := strings.Cut(s, "."); ok {
		n, ok := parseDigits(w, 0xffff)
		if !ok {
			return v, false
		}
		v.Writer, s = log.Writer(n), seq
	}
	var ok bool
	v.Seq, ok = parseDigits(s, 1<<62)
	return v, ok
}

// parseDigits reads a decimal number without sign.
func parseDigits(s string, limit uint64) (uint64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && n <= limit
}

// parseAgo reads "5m", "1h30m", "2h ago".
func parseAgo(s string, now time.Time) (time.Time, bool) {
	s = strings.TrimSuffix(strings.TrimSuffix(s, " ago"), "-ago")
	if s == "" {
		return time.Time{}, false
	}
	for s != "" {
		i := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
		if i <= 0 {
			return time.Time{}, false
		}
		n, ok := parseDigits(s[:i], 1_000_000)
		if !ok {
			return time.Time{}, false
		}
		switch s[i] {
		case 's':
			now = now.Add(-time.Duration(n) * time.Second)
		case 'm':
			now = now.Add(-time.Duration(n) * time.Minute)
		case 'h':
			now = now.Add(-time.Duration(n) * time.Hour)
		case 'd':
			now = now.AddDate(0, 0, -int(n))
		case 'w':
			now = now.AddDate(0, 0, -7*int(n))
		case 'y':
			now = now.AddDate(-int(n), 0, 0)
		default:
			return time.Time{}, false
		}
		s = s[i+1:]
	}
	return now, true
}

// looksLikeTime reports whether s begins as a time does: with a year of four
// digits that ends there or at a dash.
func looksLikeTime(s string) bool {
	_, ok := parseDigits(s[:min(4, len(s))], 9999)
	return ok && len(s) >= 4 && (len(s) == 4 || s[4] == '-')
}

// parsePeriod reads a time of any precision and returns the end of the period
// it names.
func parsePeriod(s string, zone *time.Location) (time.Time, bool) {
	p := timeParser{s: s, ok: true}
	parts := [6]int{0, 1, 1, 0, 0, 0}
	parts[0] = p.digits(4)
	n := 1
	var frac time.Duration
	unit := time.Second
	for n < 6 && p.sep(n) {
		parts[n] = p.digits(2)
		n++
	}
	if n == 6 && p.skip(".,") {
		frac, unit = p.fraction()
	}
	if n > 3 && p.s != "" {
		zone = p.zone()
	}
	if !p.ok || p.s != "" {
		return time.Time{}, false
	}
	t := time.Date(parts[0], time.Month(parts[1]), parts[2], parts[3], parts[4], parts[5], int(frac), zone)
	// time.Date takes the 31st of June for the 1st of July, and moves a time
	// that a change of the clock leaves out: only the former is wrong.
	u := time.Date(parts[0], time.Month(parts[1]), parts[2], parts[3], parts[4], parts[5], 0, time.UTC)
	if u.Year() != parts[0] || int(u.Month()) != parts[1] || u.Day() != parts[2] ||
		u.Hour() != parts[3] || u.Minute() != parts[4] || u.Second() != parts[5] {
		return time.Time{}, false
	}
	switch n {
	case 1:
		return t.AddDate(1, 0, 0), true
	case 2:
		return t.AddDate(0, 1, 0), true
	case 3:
		return t.AddDate(0, 0, 1), true
	case 4:
		return t.Add(time.Hour), true
	case 5:
		return t.Add(time.Minute), true
	}
	return t.Add(unit), true
}

// timeParser takes a time apart from the left.
type timeParser struct {
	s  string
	ok bool
}

func (p *timeParser) digits(n int) int {
	if len(p.s) < n {
		p.ok = false
		return 0
	}
	v, ok := parseDigits(p.s[:n], 9999)
	p.ok = p.ok && ok
	p.s = p.s[n:]
	return int(v)
}

// skip takes one character of set, if there is one.
func (p *timeParser) skip(set string) bool {
	if p.s == "" || !strings.Contains(set, p.s[:1]) {
		return false
	}
	p.s = p.s[1:]
	return true
}

// sep takes what stands before the n-th part.
func (p *timeParser) sep(n int) bool {
	switch n {
	case 1, 2:
		return p.skip("-")
	case 3:
		return p.skip("T ")
	}
	return p.skip(":.")
}

func (p *timeParser) fraction() (time.Duration, time.Duration) {
	unit := time.Second
	var v time.Duration
	digits := 0
	for ; digits < 9 && digits < len(p.s) && p.s[digits] >= '0' && p.s[digits] <= '9'; digits++ {
		unit /= 10
		v += time.Duration(p.s[digits]-'0') * unit
	}
	p.ok = p.ok && digits > 0
	p.s = p.s[digits:]
	return v, unit
}

// zone reads "Z" or "+01:00".
func (p *timeParser) zone() *time.Location {
	if p.skip("Z") {
		return time.UTC
	}
	sign := 1
	if p.skip("-") {
		sign = -1
	} else if !p.skip("+") {
		p.ok = false
		return time.UTC
	}
	h := p.digits(2)
	p.skip(":.")
	m := p.digits(2)
	p.ok = p.ok && h <= 14 && m < 60
	return time.FixedZone("", sign*(h*3600+m*60))
}

// ResolveWhen finds the version that a WHEN means in this drive: the newest
// kept one at or before that time, or exactly the version asked for. It is
// ErrNoVersion if there is none, and says which ones are near.
func (d *Drive) ResolveWhen(_ context.Context, w When) (Version, error) {
	k := d.kept()
	switch w.kind {
	case whenVersion:
		return k.exact(w.version)
	case whenTime:
		seq, err := k.lastBefore(w.limit)
		if err == nil && seq == 0 {
			err = k.beganAfter(w.limit)
		}
		return Version{d.writer, seq}, err
	case whenTag:
		t, err := k.tag(w.tag)
		if isNotExist(err) {
			return Version{}, fmt.Errorf("no tag is called %q: %w", w.tag, ErrNoVersion)
		}
		if err != nil {
			return Version{}, err
		}
		return k.exact(t.version)
	}
	return Version{d.writer, k.head.seq}, nil
}
