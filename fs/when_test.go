package fs

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// testClock is a clock that tests move.
type testClock struct {
	mu sync.Mutex
	t  time.Time
}

func newTestClock() *testClock {
	return &testClock{t: time.Date(2026, 11, 22, 10, 4, 5, 0, time.UTC)}
}

func (c *testClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *testClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// thin drops versions as retention does.
func (td *testDrive) thin(seqs ...uint64) {
	td.t.Helper()
	if err := td.Sync(ctx); err != nil {
		td.t.Fatal(err)
	}
	td.mu.Lock()
	for _, seq := range seqs {
		td.open.del(versionKey(Version{td.writer, seq}))
	}
	td.work.reason = ReasonUpkeep
	td.mutated()
	td.mu.Unlock()
	if err := td.Sync(ctx); err != nil {
		td.t.Fatal(err)
	}
	td.snapshots.drop()
}

func TestParseWhen(t *testing.T) {
	zone := time.FixedZone("X", 2*3600)
	now := time.Date(2026, 3, 10, 15, 30, 0, 0, zone)
	utc := func(s string) time.Time {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			panic(err)
		}
		return t
	}
	for s, want := range map[string]When{
		"@1234":                     {kind: whenVersion, version: Version{0, 1234}},
		"@2.1234":                   {kind: whenVersion, version: Version{2, 1234}},
		"now":                       {},
		"latest":                    {},
		"2026-11-22T10:04:05Z":      {kind: whenTime, limit: utc("2026-11-22T10:04:06Z")},
		"2026-11-22T10.04.05Z":      {kind: whenTime, limit: utc("2026-11-22T10:04:06Z")},
		"2026-11-22T10:04:05":       {kind: whenTime, limit: utc("2026-11-22T10:04:06+02:00")},
		"2026-11-22T10:04:05.25Z":   {kind: whenTime, limit: utc("2026-11-22T10:04:05.26Z")},
		"2026-11-22T10:04:05-03:30": {kind: whenTime, limit: utc("2026-11-22T10:04:06-03:30")},
		"2026-11-22T10:04Z":         {kind: whenTime, limit: utc("2026-11-22T10:05:00Z")},
		"2026-11-22T10.04":          {kind: whenTime, limit: utc("2026-11-22T10:05:00+02:00")},
		"2026-11-22T10Z":            {kind: whenTime, limit: utc("2026-11-22T11:00:00Z")},
		"2026-11-22 10":             {kind: whenTime, limit: utc("2026-11-22T11:00:00+02:00")},
		"2026-11-22":                {kind: whenTime, limit: utc("2026-11-23T00:00:00+02:00")},
		"2026-11":                   {kind: whenTime, limit: utc("2026-12-01T00:00:00+02:00")},
		"2026":                      {kind: whenTime, limit: utc("2027-01-01T00:00:00+02:00")},
		"yesterday":                 {kind: whenTime, limit: utc("2026-03-10T00:00:00+02:00")},
		"5m":                        {kind: whenTime, limit: now.Add(-5*time.Minute + 1)},
		"1h30m":                     {kind: whenTime, limit: now.Add(-90*time.Minute + 1)},
		"2h ago":                    {kind: whenTime, limit: now.Add(-2*time.Hour + 1)},
		"1h-ago":                    {kind: whenTime, limit: now.Add(-time.Hour + 1)},
		"3d":                        {kind: whenTime, limit: utc("2026-03-07T15:30:00.000000001+02:00")},
		"2w":                        {kind: whenTime, limit: utc("2026-02-24T15:30:00.000000001+02:00")},
		"before the move":           {kind: whenTag, tag: "before the move"},
		"v1.0":                      {kind: whenTag, tag: "v1.0"},
		"2nd-draft":                 {kind: whenTag, tag: "2nd-draft"},
		"1999bottles":               {kind: whenTag, tag: "1999bottles"},
	} {
		got, err := ParseWhen(s, now)
		if err != nil || got.kind != want.kind || got.version != want.version || got.tag != want.tag || !got.limit.Equal(want.limit) {
			t.Errorf("%q: got %+v, %v; want %+v", s, got, err, want)
		}
	}
	for _, s := range []string{
		"", "@", "@x", "@1.2.3", "@70000.1", "@-1", "@99999999999999999999", "a/b", "a@b", " x", "x ", "a\nb", "\xff",
		"2026-13", "2026-02-30", "2026-11-22T25", "2026-11-22T10:60", "2026-11-22T10:04:05.", "2026-11-22T10:04:05X",
		"2026-11-22Z", "2026-11-22T10:04:05+99:00", "1234", "12.34", ".hidden", "README", "log", "tags", HistoryName,
		strings.Repeat("x", 256), "..",
	} {
		if s == "1234" { // a year
			continue
		}
		if w, err := ParseWhen(s, now); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrNameTooLong) {
			t.Errorf("%q: got %+v, %v", s, w, err)
		}
	}
}

func FuzzParseWhen(f *testing.F) {
	for _, s := range []string{"@1", "@2.3", "2026-11-22T10:04:05.5+01:00", "5m", "1h30m ago", "yesterday", "tag", "2026-11"} {
		f.Add(s)
	}
	now := time.Date(2026, 3, 10, 15, 30, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		w, err := ParseWhen(s, now)
		if err != nil {
			return
		}
		switch w.kind {
		case whenVersion:
			if again, err := ParseWhen(w.version.String(), now); err != nil || again.version != w.version {
				t.Fatalf("%q is %v, which is %v, %v", s, w.version, again, err)
			}
		case whenTag:
			if checkTag(s) != nil {
				t.Fatalf("%q is taken for a tag that cannot be", s)
			}
		case whenTime:
			// A time as .history lists it means the second it names.
			if y := w.limit.Year(); y < 1 || y > 9999 {
				return
			}
			name := w.limit.UTC().Format(stampLayout)
			again, err := ParseWhen(name, now)
			if err != nil || again.limit.Before(w.limit) || again.limit.Sub(w.limit) > time.Second {
				t.Fatalf("%q ends at %v; %s ends at %v, %v", s, w.limit, name, again.limit, err)
			}
		}
	})
}

func TestResolveWhen(t *testing.T) {
	clock := newTestClock()
	td := newTestDrive(t, Options{Clock: clock.now, Delay: time.Hour, NoIndex: true})
	// Version n+1 is made n hours after the first.
	for i := range 20 {
		clock.pass(time.Hour)
		td.put(RootIno, "f", []byte{byte(i)})
		if err := td.Sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	resolve := func(s string) (Version, error) {
		w, err := ParseWhen(s, clock.now())
		if err != nil {
			t.Fatal(err)
		}
		return td.ResolveWhen(ctx, w)
	}
	check := func(s string, want uint64) {
		t.Helper()
		if got, err := resolve(s); err != nil || got.Seq != want {
			t.Errorf("%s is %v, %v; want @%d", s, got, err, want)
		}
	}
	check("now", 21)
	check("@7", 7)
	check("1h", 20)
	check("59m", 20)
	check("61m", 19)
	check("2026-11-22T12:04:05Z", 3)
	check("2026-11-22T12Z", 3)
	check("2026-11-22", 14) // 23:04
	check("yesterday", 14)
	if _, err := resolve("2026-11-21"); !errors.Is(err, ErrNoVersion) {
		t.Errorf("before the beginning: %v", err)
	}
	if err := td.Tag(ctx, "/", "mine"); err != nil {
		t.Fatal(err)
	}
	check("mine", 21)
	td.thin(5, 6, 7, 20)
	check("@8", 8)
	check("1h", 19)
	check("2026-11-22T15Z", 4)
	if _, err := resolve("@6"); !errors.Is(err, ErrNoVersion) || !strings.Contains(err.Error(), "@4") || !strings.Contains(err.Error(), "@8") {
		t.Errorf("a version that is not kept: %v", err)
	}
	for _, s := range []string{"@99", "@1.3", "no-such-tag"} {
		if _, err := resolve(s); !errors.Is(err, ErrNoVersion) {
			t.Errorf("%s: %v", s, err)
		}
	}
}

func TestResolveWhenModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		clock := newTestClock()
		td := newTestDrive(t, Options{Clock: clock.now, Delay: time.Hour, NoIndex: true})
		defer td.shut()
		made := map[uint64]time.Time{1: clock.now()}
		n := rapid.IntRange(1, 120).Draw(rt, "versions")
		for i := range n {
			clock.pass(time.Duration(rapid.IntRange(1, 5000).Draw(rt, "pause")) * time.Second)
			if _, err := td.Setattr(ctx, me, RootIno, SetAttr{Mode: ptr(uint32(0o700 + i%8))}); err != nil {
				rt.Fatal(err)
			}
			if err := td.commit(ctx, false); err != nil {
				rt.Fatal(err)
			}
			made[td.Newest().Seq] = clock.now()
		}
		var gone []uint64
		for seq := range td.Newest().Seq {
			if seq > 0 && rapid.IntRange(0, 2).Draw(rt, "thin") == 0 {
				gone = append(gone, seq)
				delete(made, seq)
			}
		}
		td.thin(gone...)
		made[td.Newest().Seq] = clock.now()
		for range 30 {
			at := clock.now().Add(-time.Duration(rapid.IntRange(0, 5000*n).Draw(rt, "ago")) * time.Second)
			want := uint64(0)
			for seq, t := range made {
				if !t.After(at) {
					want = max(want, seq)
				}
			}
			w, err := ParseWhen(at.Format(time.RFC3339), clock.now())
			if err != nil {
				rt.Fatal(err)
			}
			got, err := td.ResolveWhen(ctx, w)
			if want == 0 {
				if !errors.Is(err, ErrNoVersion) {
					rt.Fatalf("%v: got %v, %v", at, got, err)
				}
				continue
			}
			if err != nil || got.Seq != want {
				rt.Fatalf("%v: got %v, %v; want @%d", at, got, err, want)
			}
		}
	})
}

func ptr[T any](v T) *T { return &v }
