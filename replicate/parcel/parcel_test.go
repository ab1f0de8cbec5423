package parcel

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// loopback is a TCP connection with itself.
func loopback(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// tempDir is t.TempDir for trees whose folders may forbid to remove them.
func tempDir(t testing.TB) string {
	dir := t.TempDir()
	t.Cleanup(func() {
		filepath.WalkDir(dir, func(p string, d iofs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				os.Chmod(p, 0o700)
			}
			return nil
		})
	})
	return dir
}

func yes(context.Context, Offer) (Decision, error) { return Accept, nil }

// outcome is what both sides returned.
type outcome struct {
	sent, got       Report
	sendErr, getErr error
}

// transfer runs both sides over a pair of streams.
func transfer(ctx context.Context, a, b Stream, so SendOptions, ro ReceiveOptions) outcome {
	if ro.Decide == nil {
		ro.Decide = yes
	}
	var o outcome
	var wg sync.WaitGroup
	wg.Go(func() { o.sent, o.sendErr = Send(ctx, a, so) })
	wg.Go(func() { o.got, o.getErr = Receive(ctx, b, ro) })
	wg.Wait()
	return o
}

// mustTransfer is a transfer that works, over TCP.
func mustTransfer(t testing.TB, so SendOptions, ro ReceiveOptions) outcome {
	t.Helper()
	a, b := loopback(t)
	o := transfer(context.Background(), a, b, so, ro)
	if o.sendErr != nil || o.getErr != nil {
		t.Fatalf("send: %v; receive: %v", o.sendErr, o.getErr)
	}
	return o
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func random(seed uint64, n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(p)
	return p
}

// listing describes a tree in full: types, modes, times, targets, contents.
func listing(t testing.TB, root string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(root, func(p string, d iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		fmt.Fprintf(&out, "%q %o %d.%09d", rel, st.Mode, st.Mtim.Sec, st.Mtim.Nsec)
		switch {
		case d.Type().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " %d %x", len(b), hashOf(b))
		case d.Type()&iofs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " -> %q", target)
		}
		out.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func same(t testing.TB, from, to string) {
	t.Helper()
	a, b := strings.Split(listing(t, from), "\n"), strings.Split(listing(t, to), "\n")
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			t.Fatalf("trees differ\nsent:   %s\nplaced: %s", a[min(i, len(a)-1)], b[min(i, len(b)-1)])
		}
	}
}

// names lists a folder, hidden names included.
func names(t testing.TB, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, d := range list {
		out = append(out, d.Name())
	}
	return out
}

// sample makes a tree with some of everything.
func sample(t testing.TB, dir string) {
	write(t, dir+"/empty", nil)
	write(t, dir+"/with spaces  .txt", []byte("x"))
	write(t, dir+"/日本語/ñandú\n.txt", []byte("unicode"))
	write(t, dir+"/not \xff\xfe utf8", []byte("bytes"))
	write(t, dir+"/-rf *", []byte("y"))
	write(t, dir+"/"+strings.Repeat("n", 255), []byte("long"))
	deep := dir
	for range 60 {
		deep += "/d"
	}
	write(t, deep+"/bottom", []byte("deep"))
	write(t, dir+"/small", random(1, 4096))
	write(t, dir+"/edge", random(2, smallFile))
	write(t, dir+"/over", random(3, smallFile+1))
	write(t, dir+"/large", random(4, 9<<20+17))
	write(t, dir+"/sub/private", []byte("z"))
	for link, target := range map[string]string{"in": "sub/private", "sub/up": "../small", "sub/dangling": "nowhere", "self": "."} {
		if err := os.Symlink(target, dir+"/"+link); err != nil {
			t.Fatal(err)
		}
	}
	unreadable := os.FileMode(0)
	if os.Geteuid() != 0 {
		unreadable = 0o400 // without being root, it would not be sent
	}
	for name, mode := range map[string]os.FileMode{"small": 0o400, "large": 0o751, "empty": unreadable, "sub": 0o500, "日本語": 0o777} {
		if err := os.Chmod(dir+"/"+name, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir+"/hollow", 0o700); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"small", "large", "hollow", "sub", "日本語", "in", "."} {
		if err := setTime(unix.AT_FDCWD, dir+"/"+name, int64(1e9)-int64(i)*4e8, uint32(123456789+i)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	src, dst := tempDir(t), tempDir(t)
	sample(t, src+"/tree")
	write(t, src+"/file.bin", random(9, 3<<20))
	t.Run("tcp", func(t *testing.T) {
		dst := tempDir(t)
		o := mustTransfer(t, SendOptions{Paths: []string{src + "/tree", src + "/file.bin"}, Name: "me"}, ReceiveOptions{Dir: dst})
		for _, name := range o.got.Names {
			same(t, src+"/"+name, dst+"/"+name)
		}
		if !slices.Equal(o.got.Names, []string{"file.bin", "tree"}) || !slices.Equal(o.sent.Names, o.got.Names) {
			t.Fatalf("names %q, %q", o.got.Names, o.sent.Names)
		}
		if o.got.Files != o.sent.Files || o.got.Bytes != o.sent.Bytes || o.got.Files != 13 || o.got.Links != 4 || len(o.sent.Skipped) > 0 {
			t.Fatalf("reports %+v, %+v", o.got, o.sent)
		}
	})
	t.Run("pipe", func(t *testing.T) {
		a, b := net.Pipe()
		o := transfer(context.Background(), a, b, SendOptions{Paths: []string{src + "/tree"}}, ReceiveOptions{Dir: dst})
		if o.sendErr != nil || o.getErr != nil {
			t.Fatal(o.sendErr, o.getErr)
		}
		same(t, src+"/tree", dst+"/tree")
	})
	t.Run("nothing", func(t *testing.T) {
		dst := tempDir(t)
		mustTransfer(t, SendOptions{}, ReceiveOptions{Dir: dst})
		if n := names(t, dst); len(n) > 0 {
			t.Fatalf("left %q", n)
		}
	})
}

func TestSkips(t *testing.T) {
	src, dst := tempDir(t), tempDir(t)
	tree := src + "/t"
	write(t, tree+"/a/b/file", []byte("x"))
	write(t, src+"/secret", []byte("secret"))
	for link, target := range map[string]string{
		"abs": "/etc/passwd", "out": "../secret", "a/out": "../../secret", "a/b/trick": "../../../t/a", "a/b/mid": "x/../../file",
		"a/top": "../a", "a/b/up2": "../..",
	} {
		if err := os.Symlink(target, tree+"/"+link); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(tree+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("t", src+"/link"); err != nil {
		t.Fatal(err)
	}
	write(t, src+"/"+partialName(ID{1})+"/x", nil)
	o := mustTransfer(t, SendOptions{Paths: []string{tree, src + "/link", src + "/" + partialName(ID{1})}}, ReceiveOptions{Dir: dst})
	var got []string
	for _, s := range o.sent.Skipped {
		got = append(got, strings.TrimPrefix(s.Path, src+"/")+": "+s.Reason.String())
	}
	slices.Sort(got)
	link, special := SkippedLink.String(), SkippedSpecial.String()
	want := []string{partialName(ID{1}) + ": " + SkippedName.String(), "link: " + link, "t/a/b/mid: " + link, "t/a/b/trick: " + link,
		"t/a/out: " + link, "t/abs: " + link, "t/fifo: " + special, "t/out: " + link}
	if !slices.Equal(got, want) {
		t.Fatalf("skipped\n%q, want\n%q", got, want)
	}
	for _, name := range []string{"a/top", "a/b/up2"} {
		if _, err := os.Readlink(dst + "/t/" + name); err != nil {
			t.Error(err)
		}
	}
}

// Two that send the same name into one folder, and a third later: nothing is
// overwritten.
func TestNamesAreFree(t *testing.T) {
	src, dst := tempDir(t), tempDir(t)
	write(t, dst+"/photo.jpg", []byte("mine"))
	var wg sync.WaitGroup
	const n = 6
	for i := range n {
		write(t, fmt.Sprintf("%s/%d/photo.jpg", src, i), []byte{byte(i)})
		write(t, fmt.Sprintf("%s/%d/dir.d/f", src, i), []byte{byte(i)})
		a, b := loopback(t)
		wg.Go(func() {
			dir := fmt.Sprintf("%s/%d/", src, i)
			o := transfer(context.Background(), a, b, SendOptions{Paths: []string{dir + "photo.jpg", dir + "dir.d"}}, ReceiveOptions{Dir: dst})
			if o.sendErr != nil || o.getErr != nil {
				t.Error(o.sendErr, o.getErr)
				return
			}
			for k, rest := range []string{"/f", ""} {
				if b, err := os.ReadFile(dst + "/" + o.sent.Names[k] + rest); err != nil || b[0] != byte(i) {
					t.Error(b, err)
				}
			}
		})
	}
	wg.Wait()
	want := []string{"dir.d", "photo.jpg"}
	for i := 2; i <= n+1; i++ {
		if i <= n {
			want = append(want, fmt.Sprintf("dir.d (%d)", i))
		}
		want = append(want, fmt.Sprintf("photo (%d).jpg", i))
	}
	slices.Sort(want)
	if got := names(t, dst); !slices.Equal(got, want) {
		t.Fatalf("%q, want %q", got, want)
	}
	if b, _ := os.ReadFile(dst + "/photo.jpg"); string(b) != "mine" {
		t.Fatal("overwritten")
	}
}

func TestSameNameTwice(t *testing.T) {
	src, dst := tempDir(t), tempDir(t)
	write(t, src+"/1/x.tar.gz", []byte("1"))
	write(t, src+"/2/x.tar.gz", []byte("2"))
	o := mustTransfer(t, SendOptions{Paths: []string{src + "/1/x.tar.gz", src + "/2/x.tar.gz"}}, ReceiveOptions{Dir: dst})
	if want := []string{"x (2).tar.gz", "x.tar.gz"}; !slices.Equal(o.got.Names, want) {
		t.Fatalf("%q", o.got.Names)
	}
}

func TestFreeName(t *testing.T) {
	long := strings.Repeat("é", 126) + ".jpg"
	for _, c := range []struct {
		name string
		n    int
		dir  bool
		want string
	}{
		{"photo.jpg", 1, false, "photo.jpg"},
		{"photo.jpg", 2, false, "photo (2).jpg"},
		{".profile", 3, false, ".profile (3)"},
		{"v1.2", 2, true, "v1.2 (2)"},
		{"a.tar.gz", 2, false, "a (2).tar.gz"},
		{".tar.gz", 2, false, ".tar (2).gz"},
		{"plain", 10, false, "plain (10)"},
		{long, 2, false, strings.Repeat("é", 123) + " (2).jpg"},
	} {
		if got := freeName(c.name, c.n, c.dir); got != c.want || len(got) > MaxName {
			t.Errorf("%q %d: %q, want %q", c.name, c.n, got, c.want)
		}
	}
}

// Whatever ends the renames, the names taken stay what they are.
func TestRenameOver(t *testing.T) {
	dir := tempDir(t)
	write(t, dir+"/from/f", []byte("new"))
	write(t, dir+"/from/d/x", []byte("new"))
	write(t, dir+"/to/f", []byte("old"))
	write(t, dir+"/to/d/y", []byte("old"))
	from, _ := openDirAt(unix.AT_FDCWD, dir+"/from")
	to, _ := openDirAt(unix.AT_FDCWD, dir+"/to")
	defer unix.Close(from)
	defer unix.Close(to)
	for _, name := range []string{"f", "d"} {
		if err := renameOver(from, name, to, name, name == "d"); !errors.Is(err, unix.EEXIST) {
			t.Errorf("%s: %v", name, err)
		}
		if err := renameOver(from, name, to, name+"2", name == "d"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, _ := os.ReadFile(dir + "/to/f"); string(b) != "old" {
		t.Error("overwritten")
	}
	if b, _ := os.ReadFile(dir + "/to/d2/x"); string(b) != "new" {
		t.Error("not there")
	}
}

func TestDecline(t *testing.T) {
	src, dst := tempDir(t), tempDir(t)
	sample(t, src+"/tree")
	write(t, dst+"/mine", []byte("m"))
	before := listing(t, dst)
	for _, c := range []struct {
		what   string
		ro     ReceiveOptions
		want   error
		myself error
	}{
		{"no", ReceiveOptions{Decide: func(context.Context, Offer) (Decision, error) { return Decline, nil }}, ErrDeclined, ErrDeclined},
		{"busy", ReceiveOptions{Decide: func(context.Context, Offer) (Decision, error) { return Busy, nil }}, ErrBusy, ErrBusy},
		{"stranger", ReceiveOptions{Decide: func(context.Context, Offer) (Decision, error) { return Stranger, nil }}, ErrStranger, ErrStranger},
		{"error", ReceiveOptions{Decide: func(context.Context, Offer) (Decision, error) { return Accept, io.ErrNoProgress }}, ErrDeclined, io.ErrNoProgress},
		{"no space", ReceiveOptions{space: func(int) (space, error) { return space{9 << 20, 4096}, nil }}, ErrNoSpace, ErrNoSpace},
	} {
		t.Run(c.what, func(t *testing.T) {
			a, b := loopback(t)
			c.ro.Dir = dst
			o := transfer(context.Background(), a, b, SendOptions{Paths: []string{src + "/tree"}, Name: "Ann"}, c.ro)
			if !errors.Is(o.sendErr, c.want) || !errors.Is(o.getErr, c.myself) {
				t.Fatalf("send: %v; receive: %v", o.sendErr, o.getErr)
			}
			if after := listing(t, dst); after != before {
				t.Fatalf("changed\n%s\n%s", before, after)
			}
		})
	}
}

func TestOfferIsWhatComes(t *testing.T) {
	src, dst := tempDir(t), tempDir(t)
	sample(t, src+"/tree")
	write(t, src+"/one", []byte("12345"))
	var offer Offer
	mustTransfer(t, SendOptions{Paths: []string{src + "/tree", src + "/one"}, Name: "Ann", ID: ID{7}},
		ReceiveOptions{Dir: dst, Decide: func(_ context.Context, o Offer) (Decision, error) {
			offer = o
			return Accept, nil
		}})
	if offer.ID != (ID{7}) || offer.Name != "Ann" || offer.Files != 13 || offer.TopCount != 2 || offer.Resume ||
		offer.Tops[0] != (Top{"one", false, 1, 5}) || offer.Tops[1].Bytes != offer.Bytes-5 || !offer.Tops[1].Dir {
		t.Fatalf("%+v", offer)
	}
}

func TestProgress(t *testing.T) {
	src, dst := tempDir(t), tempDir(t)
	write(t, src+"/f", random(1, 40<<20))
	var last [2]Progress
	var calls [2]int
	start := time.Now()
	note := func(k int) func(Progress) {
		return func(p Progress) {
			if p.Done < last[k].Done {
				t.Errorf("went back from %d to %d", last[k].Done, p.Done)
			}
			last[k] = p
			calls[k]++
		}
	}
	o := mustTransfer(t, SendOptions{Paths: []string{src + "/f"}, Progress: note(0)}, ReceiveOptions{Dir: dst, Progress: note(1)})
	limit := int(time.Since(start)/tick) + 2
	for k, p := range last {
		if p.Done != 40<<20 || p.Total != p.Done || p.Files != 1 || p.FilesTotal != 1 || p.Left != 0 || p.Rate <= 0 || p.Current != "f" {
			t.Errorf("side %d: %+v", k, p)
		}
		if calls[k] < 1 || calls[k] > limit {
			t.Errorf("%d calls", calls[k])
		}
	}
	if o.sent.Moved != 40<<20 || o.got.Moved != 40<<20 {
		t.Error(o.sent.Moved, o.got.Moved)
	}
}

func TestManySmall(t *testing.T) {
	src, dst := tempDir(t), tempDir(t)
	for i := range 3000 {
		write(t, fmt.Sprintf("%s/many/%02d/%d", src, i%40, i), random(uint64(i), i%5000))
	}
	mustTransfer(t, SendOptions{Paths: []string{src + "/many"}}, ReceiveOptions{Dir: dst})
	same(t, src+"/many", dst+"/many")
	if n := names(t, dst); len(n) != 1 {
		t.Fatalf("left %q", n)
	}
}

func hashOf(b []byte) []byte {
	h := blake3.Sum256(b)
	return h[:8]
}
