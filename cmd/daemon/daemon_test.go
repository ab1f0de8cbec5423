package daemon

import (
	"testing"
	"time"

	"hearth/fs"
)

func TestSplitWhen(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		in, left, when string
		ok             bool
	}{
		{"/a@5m", "/a", "5m", true},
		{"/a@@1234", "/a", "1234", true},
		{"/a@1234", "/a", "1234", true},
		{"/a@@2.1234", "/a", "2.1234", true},
		{"/a@yesterday", "/a", "yesterday", true},
		{"/a@2026-11-22T10:04:05Z", "/a", "2026-11-22T10:04:05Z", true},
		{"/a@b@5m", "/a@b", "5m", true},
		{"/@5m", "/", "5m", true},
		{"/d/@5m", "/d", "5m", true},
		{"/a@b/c", "/a@b/c", "", false},
		{"/a@", "/a@", "", false},
		{"/a", "/a", "", false},
	}
	for _, tt := range tests {
		if left, when, ok := splitWhen(tt.in, now); left != tt.left || when != tt.when || ok != tt.ok {
			t.Errorf("%s: %q, %q, %v", tt.in, left, when, ok)
		}
	}
}

func TestSweepDue(t *testing.T) {
	t.Parallel()
	v := func(n uint64) fs.Version { return fs.Version{Seq: n} }
	var s sweepState
	now := time.Unix(0, 0)
	step := func(after time.Duration, newest uint64, want bool) {
		t.Helper()
		now = now.Add(after)
		if got := s.due(v(newest), now); got != want {
			t.Fatalf("after %v: due %v", now.Sub(time.Unix(0, 0)), got)
		}
		if want {
			s.swept, s.lastSweep = v(newest), now
		}
	}
	step(time.Minute, 1, false)   // just started
	step(2*time.Minute, 2, false) // written to
	step(4*time.Minute, 2, false) // not idle for long
	step(time.Minute, 2, true)
	step(time.Hour, 2, false) // nothing new, nothing aged
	step(6*time.Hour, 2, true)
	step(time.Hour, 3, false)
	step(idleTime, 3, true)
}
