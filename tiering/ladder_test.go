package tiering

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseLadder(t *testing.T) {
	for _, c := range []struct{ in, out string }{
		{"all:1d 1h:7d 1d:90d 1w:2y undelete:30d", "all:1d 1h:1w 1d:90d 1w:2y undelete:30d"},
		{"none", "none"},
		{"all:24h", "all:1d undelete:30d"},
		{"1h:12h undelete:0d", "1h:12h undelete:0s"},
		{"  all:90m   undelete:1w ", "all:90m undelete:1w"},
		{"undelete:30d", "undelete:30d"},
	} {
		l, err := ParseLadder(c.in)
		if err != nil || l.String() != c.out {
			t.Errorf("%q: %v, %v; want %s", c.in, l, err, c.out)
		}
	}
	if d, err := ParseLadder("all:1d 1h:7d 1d:90d 1w:2y undelete:30d"); err != nil || d.String() != Default().String() {
		t.Errorf("the default is %v, %v", Default(), err)
	}
	for _, in := range []string{
		"", "all", "all:", "all:1", "all:1x", "all:-1d", "all:0s", "1h:30m", "0s:1d", "1d:1h", "all:1d all:2d",
		"1h:7d all:1d", "all:1d 1h:1d", "1h:1d 30m:7d", "1d:7d 1d:8d", "undelete:1d all:1d", "none all:1d", "all:999y",
		"all:99999999999999999999d", "all:1d:2d", "one:1d", "undelete:900y", "all:1.5d",
		strings.Repeat("1h:1d ", 40),
	} {
		if l, err := ParseLadder(in); !errors.Is(err, ErrLadder) {
			t.Errorf("%q: %v, %v", in, l, err)
		}
	}
}

// A ladder reads as it is written.
func TestLadderRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := Ladder{Undelete: time.Duration(rapid.Int64Range(0, 1e7).Draw(rt, "undelete")) * time.Second}
		step, keep := time.Duration(0), time.Duration(0)
		for range rapid.IntRange(0, 6).Draw(rt, "rungs") {
			keep += time.Duration(rapid.Int64Range(1, 1e6).Draw(rt, "keep")) * time.Second
			l.Rungs = append(l.Rungs, Rung{step, keep})
			step += time.Duration(rapid.Int64Range(1, max(1, int64(keep/time.Second)/9)).Draw(rt, "step")) * time.Second
			keep = max(keep, step)
		}
		if err := l.Validate(); err != nil {
			rt.Fatal(err)
		}
		got, err := ParseLadder(l.String())
		if err != nil || got.String() != l.String() {
			rt.Fatalf("%s: %v, %v", l, got, err)
		}
	})
}

func FuzzParseLadder(f *testing.F) {
	for _, s := range []string{"none", "all:1d 1h:7d 1d:90d 1w:2y undelete:30d", "1h:1d undelete:0s", "all:1d\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLadder(s)
		if err != nil {
			return
		}
		if err := l.Validate(); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		again, err := ParseLadder(l.String())
		if err != nil || again.String() != l.String() {
			t.Fatalf("%q reads %q, then %q, %v", s, l, again, err)
		}
	})
}
