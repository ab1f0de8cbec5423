package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"hearth/cmd/control"
)

func TestIntersperse(t *testing.T) {
	t.Parallel()
	commands := (&app{}).commands()
	tests := []struct{ in, want string }{
		{"hearth", "hearth"},
		{"hearth status", "hearth status"},
		{"hearth log p -n 3", "hearth log -n 3 -- p"},
		{"hearth log -n=3 p", "hearth log -n=3 -- p"},
		{"hearth log p --n 3 --json", "hearth log --n 3 --json -- p"},
		{"hearth restore p@5m --exact --to d", "hearth restore --exact --to d -- p@5m"},
		{"hearth restore p --to", "hearth restore --to -- p"},
		{"hearth cat -- --json -x", "hearth cat -- --json -x"},
		{"hearth cat - x", "hearth cat -- - x"},
		{"hearth cat p --unknown q", "hearth cat --unknown -- p q"},
		{"hearth umount d --force", "hearth umount --force -- d"},
		{"hearth unknown p --json", "hearth unknown p --json"},
		{"hearth complete -- log --j", "hearth complete -- log --j"},
	}
	for _, tt := range tests {
		if got := strings.Join(intersperse(commands, strings.Fields(tt.in)), " "); got != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.in, got, tt.want)
		}
	}
}

func TestSplitDrive(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in, name, path string
		ok             bool
	}{
		{"home:/a/b", "home", "/a/b", true},
		{"home:", "home", "/", true},
		{"home:/", "home", "/", true},
		{"home:/a:b", "home", "/a:b", true},
		{"home:@5m", "home", "/@5m", true},
		{"home:/a@2026-11-22T10:04:05Z", "home", "/a@2026-11-22T10:04:05Z", true},
		{"home:a", "", "", false},
		{"./home:/a", "", "", false},
		{"/m/a@10:04", "", "", false},
		{"a@10:04", "", "", false},
		{"plain", "", "", false},
		{":/x", "", "", false},
	}
	for _, tt := range tests {
		if name, path, ok := splitDrive(tt.in); name != tt.name || path != tt.path || ok != tt.ok {
			t.Errorf("%s: %q, %q, %v", tt.in, name, path, ok)
		}
	}
}

func TestUnder(t *testing.T) {
	t.Parallel()
	mounts := []control.Mounted{
		{Drive: "home", Path: control.PathOf("/m")},
		{Drive: "inner", Path: control.PathOf("/m/in")},
		{Drive: "home", Path: control.PathOf("/old"), At: "@7"},
		{Drive: "odd", Path: control.PathOf("/odd@place")},
	}
	tests := []struct {
		full                      string
		timed                     bool
		drive, path, when, refuse string
	}{
		{full: "/m", drive: "home", path: "/"},
		{full: "/m/a/b", drive: "home", path: "/a/b"},
		{full: "/m/a@5m", timed: true, drive: "home", path: "/a@5m"},
		{full: "/m@5m", timed: true, drive: "home", path: "/@5m"},
		{full: "/m@5m", refuse: "no"},
		{full: "/m@5m/x", timed: true, refuse: "no"},
		{full: "/mm", refuse: "no"},
		{full: "/m/in", drive: "inner", path: "/"},
		{full: "/m/in/x", drive: "inner", path: "/x"},
		{full: "/m/inside", drive: "home", path: "/inside"},
		{full: "/old/x", drive: "home", path: "/x", when: "@7"},
		{full: "/odd@place/x", timed: true, drive: "odd", path: "/x"},
		{full: "/elsewhere", refuse: "no"},
	}
	for _, tt := range tests {
		got, ok := under(mounts, tt.full, tt.timed)
		if ok == (tt.refuse != "") || got.Drive != tt.drive || got.Raw() != tt.path || got.When != tt.when {
			t.Errorf("%s: %+v, %v", tt.full, got, ok)
		}
	}
}

func TestPhysical(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"real/sub", "other"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"link": "real", "real/up": "../other", "abs": filepath.Join(top, "real"), "loop": "loop2", "loop2": "loop", "last": "real/sub"} {
		if err := os.Symlink(to, filepath.Join(top, link)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(filepath.Join(top, "real"))
	tests := []struct{ in, want string }{
		{".", "real"}, {"..", "."}, {"sub", "real/sub"}, {"sub/", "real/sub"}, {"sub/.", "real/sub"}, {"./sub//x", "real/sub/x"},
		{"gone/deep/er", "real/gone/deep/er"}, {"gone/../x", "real/x"},
		{"../link/sub/x", "real/sub/x"}, {"../link", "link"}, {"../link/", "link"}, {"../last", "last"},
		{"up/../x", "x"}, // physically: other/.. is the top
		{"../abs/x", "real/x"}, {top + "/link/x@5m", "real/x@5m"},
	}
	for _, tt := range tests {
		if got, err := physical(tt.in); err != nil || got != filepath.Join(top, tt.want) {
			t.Errorf("%s: %s, %v; want %s", tt.in, got, err, tt.want)
		}
	}
	if _, err := physical("../loop/x"); err == nil {
		t.Error("a loop of links was followed")
	}
}

func TestVoice(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	v := newVoice(&out, &errs)
	v.location = time.UTC
	code := v.fail(errors.Join(control.Failed("do\nthat", "two\nlines\x1b[2J")))
	if want := "hearth: error: two; lines?[2J\nhearth: hint: do; that\n"; errs.String() != want || code != 1 {
		t.Errorf("%d, %q", code, errs.String())
	}
	errs.Reset()
	v.progress(control.Progress{What: "verify", Done: 1, Total: 2})
	if errs.Len() != 0 {
		t.Errorf("progress in a pipe: %q", errs.String())
	}
	v.errTerm = true
	v.progress(control.Progress{What: "verify", Done: 1, Total: 2})
	v.progress(control.Progress{What: "verify", Done: 2, Total: 2}) // too soon after the first
	if err := v.flush(); err != nil {
		t.Fatal(err)
	}
	if want := "\r\x1b[Kverify 50%\r\x1b[K"; errs.String() != want {
		t.Errorf("%q", errs.String())
	}
	list := &array{v: &v}
	list.close()
	for _, item := range []string{"0", "1"} {
		if err := list.add(json.RawMessage(item)); err != nil {
			t.Fatal(err)
		}
	}
	list.close()
	if err := v.table([][]string{{"NAME", "SIZE"}, {"a", "1"}, {"long", "2"}}); err != nil {
		t.Fatal(err)
	}
	a := &app{voice: v}
	if err := a.row(control.Change{Version: control.Version{Version: 7, At: "@7"}, Time: time.Unix(0, 0), Verb: "edited",
		Paths: control.PathsOf([]string{"/a", "/b\n"}), Files: 2, SizeDelta: -2048, Program: "vim", Undone: true}.Row(), delta); err != nil {
		t.Fatal(err)
	}
	if err := a.diffEntry(control.DiffEntry{Op: "moved", Path: control.PathOf("/new"), OldPath: control.OldPathOf("/old"), SizeBefore: 1, SizeAfter: 3}); err != nil {
		t.Fatal(err)
	}
	if err := a.flush(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"[]", "[", "0,", "1", "]", "a     1", "long  2",
		`@7       1970-01-01 00:00:00       -2KiB  edited /a, "/b\n"  (vim)  [undone]`,
		"moved      /old -> /new  +2B", "",
	}
	if got := strings.Split(out.String(), "\n"); !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
}
