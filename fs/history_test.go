package fs

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// walk finds a node by a path in the .history of a directory.
func (k *desk) history(dir, path string) (HistoryNode, error) {
	k.t.Helper()
	n, err := k.History(ctx, k.ino(dir))
	k.must(err)
	for _, name := range strings.Split(path, "/") {
		if name == "" {
			continue
		}
		if n, err = n.Lookup(ctx, name); err != nil {
			return nil, err
		}
		if a, err := n.Attr(ctx); err != nil {
			k.t.Fatalf("%s: %v", path, err)
		} else if a.Mode&ModeType == ModeSymlink {
			target, err := n.Readlink(ctx)
			k.must(err)
			return k.history(dir, strings.Replace(path, name, target, 1))
		}
	}
	return n, nil
}

func (k *desk) list(dir, path string) []string {
	k.t.Helper()
	n, err := k.history(dir, path)
	k.must(err)
	return listAll(k.t, n)
}

// listAll lists a directory in small steps.
func listAll(t testing.TB, n HistoryNode) []string {
	t.Helper()
	out := []string{}
	for more := true; more; {
		more = false
		after := ""
		if len(out) > 0 {
			after = out[len(out)-1]
		}
		got := 0
		err := n.ReadDir(ctx, after, func(e DirEntry) bool {
			got++
			more = got == 3
			out = append(out, e.Name)
			return got < 3
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func (k *desk) text(dir, path string) string {
	k.t.Helper()
	n, err := k.history(dir, path)
	if err != nil {
		return err.Error()
	}
	a, err := n.Attr(ctx)
	k.must(err)
	b, err := io.ReadAll(io.NewSectionReader(readerAt{n}, 0, 1<<40))
	k.must(err)
	if int(a.Size) != len(b) {
		k.t.Errorf("%s: size %d, %d read", path, a.Size, len(b))
	}
	return string(b)
}

type readerAt struct{ HistoryNode }

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.HistoryNode.ReadAt(ctx, p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func TestHistoryTree(t *testing.T) {
	for _, noIndex := range []bool{false, true} {
		k := newDesk(t, Options{NoIndex: noIndex})
		k.mkdir(me, "/d")
		k.mkdir(me, "/d/sub")
		k.write(me, "/d/report.txt", "one")
		k.write(me, "/d/sub/x", "deep")
		first := k.cut(2 * time.Hour)
		editors["glib"](k, k.program(), "/d/report.txt", "two")
		k.cut(time.Hour)
		k.rm(k.program(), "/d/sub")
		k.write(k.program(), "/elsewhere", "x")
		k.cut(10 * time.Minute)
		editors["vim"](k, k.program(), "/d/report.txt", "three")
		last := k.cut(time.Minute)

		want := []string{
			"1h-ago", "2026-11-22T10.04.05Z", "2026-11-22T12.04.05Z", "2026-11-22T13.04.05Z", "2026-11-22T13.14.05Z",
			"@2", "@3", "@4", "@5", "README", "by-file", "deleted", "latest", "log", "tags",
		}
		if got := k.list("/d", ""); !slices.Equal(got, want) {
			t.Errorf("listed %q, want %q", got, want)
		}
		for path, want := range map[string]string{
			"@2/report.txt": "one", "@2/sub/x": "deep", "2026-11-22T10.04.05Z/report.txt": "one",
			"latest/report.txt": "three", "1h-ago/report.txt": "two", "2026-11-22/report.txt": "three",
			"2h/report.txt": "one", "now/report.txt": "three", "@0002/report.txt": "one",
			"deleted/sub/x": "deep",
			"by-file/report.txt/2026-11-22T10.04.05Z_@2_create.txt": "one",
			"by-file/report.txt/2026-11-22T13.14.05Z_@5_edit.txt":   "three",
			"by-file/report.txt/2026-11-22T13.14.05Z_@5_edit.doc":   "2026-11-22T13.14.05Z_@5_edit.doc: no such file or directory",
		} {
			if got := k.text("/d", path); got != want && !strings.HasSuffix(want, "directory") {
				t.Errorf("%s: %q, want %q", path, got, want)
			}
		}
		if got := k.list("/d", "by-file"); !slices.Equal(got, []string{"report.txt"}) {
			t.Errorf("by-file: %q", got)
		}
		wantVersions := []string{"2026-11-22T13.14.05Z_@5_edit.txt", "2026-11-22T12.04.05Z_@3_edit.txt", "2026-11-22T10.04.05Z_@2_create.txt"}
		if got := k.list("/d", "by-file/report.txt"); !slices.Equal(got, wantVersions) {
			t.Errorf("by-file/report.txt: %q", got)
		}
		if got := k.list("/d", "deleted"); !slices.Equal(got, []string{"sub"}) {
			t.Errorf("deleted: %q", got)
		}
		if got := k.list("/d", "@2"); !slices.Equal(got, []string{"report.txt", "sub"}) {
			t.Errorf("@2: %q", got)
		}
		if got := k.list("/", "deleted"); len(got) != 0 {
			t.Errorf("/ deleted: %q", got)
		}
		lines := "@5       2026-11-22 13:14:05Z       +2 B  saved report.txt\n" +
			"@4       2026-11-22 13:04:05Z       -4 B  deleted sub\n"
		if got := k.text("/d", "log"); !strings.HasPrefix(got, lines) || strings.Contains(got, "elsewhere") || strings.Count(got, "\n") != 4 {
			t.Errorf("log:\n%s", got)
		}
		if got := k.text("/d", "README"); strings.Count(got, "\n") < 15 {
			t.Errorf("README:\n%s", got)
		}
		for _, name := range []string{HistoryName, "@99", "@1", "2025", "nothing", "Makefile", ".git", "@2/nothing", "by-file/nothing", "by-file/report.txt/x",
			"deleted/report.txt", "by-file/report.txt/2026-11-22T13.14.05Z_@4_edit.txt", "by-file/sub/x", "tags/x", "deleted/" + strings.Repeat("x", 255)} {
			if n, err := k.history("/d", name); !errors.Is(err, ErrNotExist) {
				t.Errorf("%s: %v, %v", name, n, err)
			}
		}
		for _, dir := range []string{"", "@2", "by-file", "by-file/report.txt", "deleted", "deleted/sub"} {
			n, err := k.history("/d", dir)
			k.must(err)
			a, err := n.Attr(ctx)
			if err != nil || a.Nlink != 1 || !a.IsDir() {
				t.Errorf("%s: %+v, %v", dir, a, err)
			}
			if err := n.Mkdir(ctx, me, "x"); !errors.Is(err, ErrReadOnly) {
				t.Errorf("mkdir in %s: %v", dir, err)
			}
			if err := n.Rmdir(ctx, me, "sub"); !errors.Is(err, ErrReadOnly) {
				t.Errorf("rmdir in %s: %v", dir, err)
			}
		}
		n, err := k.history("/d", "by-file/report.txt/"+wantVersions[1])
		k.must(err)
		if a, _ := n.Attr(ctx); a.Mtime.Std() != time.Date(2026, 11, 22, 12, 4, 5, 0, time.UTC) || a.Size != 3 {
			t.Errorf("%+v", a)
		}
		// A file that is gone still has its versions.
		k.rm(k.program(), "/d/report.txt")
		k.cut(time.Minute)
		if got := k.list("/d", "by-file/report.txt"); !slices.Equal(got, wantVersions) {
			t.Errorf("by-file/report.txt, deleted: %q", got)
		}
		if got := k.list("/d", "deleted"); !slices.Equal(got, []string{"report.txt", "sub"}) {
			t.Errorf("deleted: %q", got)
		}
		if got := k.text("/d", "deleted/report.txt"); got != "three" {
			t.Errorf("deleted/report.txt: %q", got)
		}
		_, _ = first, last
	}
}

func TestTags(t *testing.T) {
	k := newDesk(t, Options{NoIndex: true})
	k.mkdir(me, "/d")
	k.mkdir(me, "/d/e")
	k.mkdir(me, "/other")
	k.write(me, "/d/f", "one")
	tags, err := k.history("/d", "tags")
	k.must(err)
	k.must(tags.Mkdir(ctx, Caller{Uid: 7}, "v1"))
	k.clock.pass(time.Minute)
	k.write(me, "/d/f", "two")
	k.must(k.Tag(ctx, "/", "whole"))
	k.must(k.Tag(ctx, "/other", "there"))
	k.must(k.TagVersion(ctx, "/d/e", Version{0, 2}, "deep"))
	for _, name := range []string{"v1", "yesterday", "2026-11-22", "@5", "5m", "a/b", "", "log", "\x01", ".x"} {
		if err := k.Tag(ctx, "/", name); err == nil {
			t.Errorf("tag %q was taken", name)
		}
	}
	if err := tags.Mkdir(ctx, me, "v1"); !errors.Is(err, ErrExist) {
		t.Errorf("mkdir twice: %v", err)
	}
	if got := k.text("/d", "tags/v1/f"); got != "one" {
		t.Errorf("tags/v1/f: %q", got)
	}
	if got := k.text("/d", "whole/f"); got != "two" {
		t.Errorf("whole/f: %q", got)
	}
	for dir, want := range map[string][]string{"/": {"deep", "there", "v1", "whole"}, "/d": {"deep", "v1", "whole"}, "/d/e": {"deep", "v1", "whole"}, "/other": {"there", "whole"}} {
		var got []string
		list, err := k.Tags(ctx, dir)
		k.must(err)
		for _, tag := range list {
			got = append(got, tag.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("tags of %s: %q, want %q", dir, got, want)
		}
		if got := k.list(dir, "tags"); !slices.Equal(got, want) {
			t.Errorf(".history/tags of %s: %q, want %q", dir, got, want)
		}
	}
	list, err := k.Tags(ctx, "/d")
	k.must(err)
	if v1 := list[1]; v1.Uid != 7 || v1.Path != "/d" || v1.Version.Seq != 2 {
		t.Errorf("%+v", v1)
	}
	if err := k.Untag(ctx, "/d/e", "v1"); !errors.Is(err, ErrPerm) {
		t.Errorf("untag from below: %v", err)
	}
	if err := tags.Rmdir(ctx, me, "nothing"); !errors.Is(err, ErrNotExist) {
		t.Errorf("rmdir: %v", err)
	}
	k.must(tags.Rmdir(ctx, me, "v1"))
	k.must(k.Untag(ctx, "/", "deep"))
	if got := k.list("/d", "tags"); !slices.Equal(got, []string{"whole"}) {
		t.Errorf("tags are left: %q", got)
	}
	k.reopen()
	if got := k.list("/d", "tags"); !slices.Equal(got, []string{"whole"}) {
		t.Errorf("tags after reopening: %q", got)
	}
}

func FuzzDecodeTag(f *testing.F) {
	f.Add(tagRecord{Version{2, 1234}, 1e18, 1000, 5}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := decodeTag(b)
		if err != nil {
			return
		}
		if again, err := decodeTag(rec.encode()); err != nil || again != rec {
			t.Fatalf("%+v became %+v, %v", rec, again, err)
		}
	})
}

func TestListsAreThinned(t *testing.T) {
	k := newDesk(t, Options{})
	const n = 3000
	for i := range n {
		k.write(me, "/f.txt", fmt.Sprint(i))
		k.cut(20 * time.Minute)
	}
	for _, dir := range []string{"", "by-file/f.txt"} {
		list := k.list("/", dir)
		if len(list) < 100 || len(list) > 260 {
			t.Errorf("%q lists %d", dir, len(list))
		}
		sorted := slices.Clone(list)
		slices.Sort(sorted)
		if len(slices.Compact(sorted)) != len(list) {
			t.Errorf("%q lists a name twice", dir)
		}
		for _, name := range list {
			if _, err := k.history("/", dir+"/"+name); err != nil {
				t.Errorf("%s/%s: %v", dir, name, err)
			}
		}
	}
	// Any exact name works.
	n0, err := k.history("/", "by-file/f.txt")
	k.must(err)
	listed := map[string]bool{}
	for _, name := range listAll(t, n0) {
		listed[name] = true
	}
	doc := n0.(*historyDocument)
	count := 0
	k.must(k.FileVersions(ctx, "/f.txt", 0, func(v FileVersion) bool {
		count++
		if count%97 == 0 {
			name := doc.entryName(docState{version: v.Version.Seq, time: v.Time.UnixNano(), reason: v.Reason, created: v.Created})
			if got := k.text("/", "by-file/f.txt/"+name); got != fmt.Sprint(n-count) {
				t.Errorf("%s: %q", name, got)
			}
		}
		return true
	}))
	if count != n {
		t.Errorf("%d versions, want %d", count, n)
	}
}
