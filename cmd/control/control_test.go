package control

import (
	"encoding/json"
	"errors"
	iofs "io/fs"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// anyBytes makes names as file systems allow them. Each test has a generator of
// its own: they describe themselves lazily, unguarded against each other.
func anyBytes() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		return string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
	})
}

func TestPathsKeepBytes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		entry := DiffEntry{Path: PathOf(anyBytes().Draw(t, "path")), OldPath: OldPathOf(anyBytes().Draw(t, "old"))}
		change := Change{Paths: PathsOf(rapid.SliceOf(anyBytes()).Draw(t, "paths"))}
		var gotEntry DiffEntry
		var gotChange Change
		through(t, entry, &gotEntry)
		through(t, change, &gotChange)
		if gotEntry.Path.Raw() != entry.Path.Raw() || gotEntry.OldPath.Raw() != entry.OldPath.Raw() {
			t.Fatalf("%+v became %+v", entry, gotEntry)
		}
		want, got := change.Paths.Raw(), gotChange.Paths.Raw()
		if strings.Join(want, "\x00/") != strings.Join(got, "\x00/") || len(want) != len(got) {
			t.Fatalf("%q became %q", want, got)
		}
	})
}

func through(t *rapid.T, from, to any) {
	b, err := json.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, to); err != nil {
		t.Fatal(err)
	}
}

func TestPathJSON(t *testing.T) {
	t.Parallel()
	tests := []struct {
		path, want string
	}{
		{"/a b", `{"path":"/a b"}`},
		{"/日本", `{"path":"/日本"}`},
		{"/x\xff", `{"path":"/x\ufffd","path_bytes":"L3j/"}`},
		{"/new\nline", `{"path":"/new\nline"}`},
	}
	for _, tt := range tests {
		b, err := json.Marshal(PathOf(tt.path))
		if err != nil || string(b) != tt.want {
			t.Errorf("%q: %s, %v; want %s", tt.path, b, err, tt.want)
		}
	}
}

func TestShow(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain": "plain", "with space": "with space", "日本": "日本", "": "",
		"a\nb": `"a\nb"`, "\x1b[2J": `"\x1b[2J"`, "x\xff": `"x\xff"`, "\u202egnp": `"\u202egnp"`, "\u00a0": `"\u00a0"`,
	} {
		if got := Show(in); got != want {
			t.Errorf("Show(%q) = %s; want %s", in, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := Show(anyBytes().Draw(t, "name"))
		if !utf8.ValidString(s) || strings.ContainsAny(s, "\n\r\x1b\x00") {
			t.Fatalf("%q is not safe", s)
		}
	})
}

func TestErrors(t *testing.T) {
	t.Parallel()
	err := Usage("try this", "about %s: %w", "that", iofs.ErrNotExist)
	if !errors.Is(err, iofs.ErrNotExist) || err.Exit != ExitUsage || err.Hint != "try this" {
		t.Errorf("%+v", err)
	}
	if got := AsError(errors.Join(nil, err)); got != err {
		t.Errorf("found %+v in a joined error", got)
	}
	if got := AsError(iofs.ErrExist); got.Exit != ExitFailed || !errors.Is(got, iofs.ErrExist) {
		t.Errorf("%+v", got)
	}
}

func TestRows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := Change{Version: Version{Version: 7, At: "@7"}, Time: time.Unix(rapid.Int64().Draw(t, "time"), 0), Verb: "edited",
			SizeDelta: rapid.Int64().Draw(t, "size"), Program: anyBytes().Draw(t, "program"), Paths: PathsOf(rapid.SliceOf(anyBytes()).Draw(t, "paths"))}
		want := c.Row()
		line, rest, ok := strings.Cut(string(want.Append(nil)), "\n")
		if !ok || rest != "" {
			t.Fatalf("%q is not one line", want.Append(nil))
		}
		got, err := ParseRow(line)
		if err != nil || got.At != want.At || got.What != want.What || got.Size != want.Size || !got.Time.Equal(want.Time) {
			t.Fatalf("%+v became %+v, %v", want, got, err)
		}
	})
	for _, bad := range []string{"", "@1", "@1\t2", "@1\t2\t3", "@1\tx\t3\ty", "@1\t2\tx\ty"} {
		if _, err := ParseRow(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
