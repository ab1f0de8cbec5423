package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hearth/cmd/client"
	"hearth/cmd/home"
)

// scanned is a home whose daemon is a child of the test, which may read its
// memory.
type scanned struct {
	t    *testing.T
	home *home.Home
	cmd  *exec.Cmd
}

func newScanned(t *testing.T, name string) *scanned {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	h, err := home.Ensure(dir)
	if err != nil {
		t.Fatal(err)
	}
	config := []byte(`{"listen": "127.0.0.1:0", "interfaces": ["lo"]}`)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &scanned{t: t, home: h}
	t.Cleanup(s.end)
	return s
}

func (s *scanned) command(args ...string) *exec.Cmd {
	cmd := exec.Command("hearth", args...)
	cmd.Env = append(os.Environ(), home.Variable+"="+s.home.Dir())
	return cmd
}

func (s *scanned) start() {
	s.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	cmd := s.command("daemon", "--ready-fd", strconv.Itoa(client.ReadyFD))
	cmd.ExtraFiles = []*os.File{w}
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		s.t.Fatal(err)
	}
	s.cmd = cmd
	if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || strings.TrimSpace(line) != client.Ready {
		s.t.Fatalf("the daemon did not start: %q, %v", line, err)
	}
}

// end ends the daemon, as kindly as it lets the test.
func (s *scanned) end() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(20*time.Second, func() { _ = s.cmd.Process.Kill() })
	_ = s.cmd.Wait()
	timer.Stop()
	s.cmd = nil
}

func (s *scanned) hearth(args ...string) string {
	s.t.Helper()
	cmd := s.command(args...)
	cmd.Stderr = new(bytes.Buffer)
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("hearth %s: %v\n%s", strings.Join(args, " "), err, cmd.Stderr)
	}
	return strings.TrimSpace(string(out))
}

// secrets are what must not be found, by what they are.
type needles map[string][]byte

// in returns which are in b.
func (n needles) in(b []byte) []string {
	var found []string
	for what, needle := range n {
		if bytes.Contains(b, needle) {
			found = append(found, what)
		}
	}
	return found
}

// files looks through all files of a home, names included.
func (s *scanned) files(n needles) map[string]bool {
	s.t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(s.home.Dir(), func(path string, e iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		b := []byte(path)
		if e.Type().IsRegular() {
			if b, err = os.ReadFile(path); err != nil {
				return err
			}
			b = append(append(b, 0), path...)
		}
		for _, what := range n.in(b) {
			found[what] = true
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return found
}

// memory looks through all of the daemon's memory that can be read.
func (s *scanned) memory(n needles) map[string]bool {
	s.t.Helper()
	proc := filepath.Join("/proc", strconv.Itoa(s.cmd.Process.Pid))
	maps, err := os.ReadFile(filepath.Join(proc, "maps"))
	if err != nil {
		s.t.Fatal(err)
	}
	mem, err := os.Open(filepath.Join(proc, "mem"))
	if errors.Is(err, iofs.ErrPermission) {
		s.t.Skip("this machine does not let a test read its children's memory")
	}
	if err != nil {
		s.t.Fatal(err)
	}
	defer mem.Close()
	const step, overlap = 4 << 20, 4096 // longer than any needle
	buf := make([]byte, step+overlap)
	found := map[string]bool{}
	var total int64
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
		if mode[0] != 'r' || to > 1<<62 || strings.Contains(line, "[v") {
			continue
		}
		for ; from < to; from += step {
			got, err := mem.ReadAt(buf[:min(step+overlap, to-from)], int64(from))
			if err != nil && !errors.Is(err, unix.EIO) {
				s.t.Fatalf("%x of %q: %v", from, line, err)
			}
			total += int64(got)
			for _, what := range n.in(buf[:got]) {
				found[what] = true
			}
		}
	}
	if total < 8<<20 {
		s.t.Fatalf("only %d bytes of memory could be read", total)
	}
	s.t.Logf("%d MiB of memory", total>>20)
	return found
}

// marker is a word that is nowhere else.
func marker(t *testing.T) string {
	t.Helper()
	b := make([]byte, 15)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return strings.ToLower(base32.StdEncoding.EncodeToString(b))
}

// Whoever holds a drive has all of it and nothing that it says: no name, no
// content, no attribute and no key is in the holder's files or in the memory of
// its daemon.
func TestHolderSecrecy(t *testing.T) {
	if !canMount() {
		t.Skip("this machine has no FUSE")
	}
	if _, err := exec.LookPath("fusermount3"); err != nil && os.Getuid() != 0 {
		t.Skip("fusermount3 is not installed")
	}
	author, holder := newScanned(t, "author"), newScanned(t, "holder")
	author.start()
	mnt := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	secret := needles{}
	word := func(what string) string {
		m := marker(t)
		secret[what] = []byte(m)
		return m
	}
	drive := word("the drive's name")
	author.hearth("create", drive)
	author.hearth("mount", drive, mnt)
	unmounted := false
	defer func() {
		if !unmounted {
			author.hearth("unmount", "--force", mnt)
		}
	}()

	// Names, contents (small, compressible, and of many blocks), a target, an
	// attribute, a tag, and what was deleted.
	dir := filepath.Join(mnt, word("a folder's name"))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(dir, 0o755))
	small := word("the contents of a small file")
	letter := filepath.Join(dir, word("a file's name"))
	must(os.WriteFile(letter, []byte("Dear Ada, "+small), 0o644))
	large := make([]byte, 12<<20)
	if _, err := rand.Read(large); err != nil {
		t.Fatal(err)
	}
	for i := range 16 {
		copy(large[i*700_001:], word(fmt.Sprintf("the contents of a large file, part %d", i)))
	}
	secret["random contents of a large file"] = large[5_000_000:][:64]
	must(os.WriteFile(filepath.Join(dir, "large"), large, 0o644))
	text := strings.Repeat(word("a repeated text")+"\n", 20_000)
	must(os.WriteFile(filepath.Join(dir, "text"), []byte(text), 0o644))
	must(os.Symlink(word("the target of a link"), filepath.Join(dir, "link")))
	must(unix.Setxattr(letter, "user."+word("an attribute's name"), []byte(word("an attribute")), 0))
	gone := filepath.Join(dir, word("a deleted file's name"))
	must(os.WriteFile(gone, []byte(word("the contents of a deleted file")), 0o644))
	author.hearth("sync", mnt)
	must(os.Remove(gone))
	author.hearth("tag", mnt, word("a tag"))
	author.hearth("sync", mnt)

	// The keys, in each form in which they could be written.
	var file struct {
		Data struct {
			LogSeed   string            `json:"log_seed"`
			OwnerSeed string            `json:"owner_seed"`
			Hold      string            `json:"hold_secret"`
			ReadKeys  map[string]string `json:"read_keys"`
		} `json:"data"`
	}
	b, err := os.ReadFile(filepath.Join(author.home.DriveDir(drive), "keys"))
	must(err)
	must(json.Unmarshal(b, &file))
	keys := &file.Data
	all := map[string]string{"the log's key": keys.LogSeed, "the owner's key": keys.OwnerSeed}
	for epoch, key := range keys.ReadKeys {
		all["the read key of epoch "+epoch] = key
	}
	if len(keys.ReadKeys) == 0 {
		t.Fatalf("no read key in %s", b)
	}
	inKeys := needles{}
	for what, text := range all {
		raw, err := hex.DecodeString(text)
		must(err)
		secret[what] = raw
		secret[what+", in hex"] = []byte(text)
		secret[what+", in base64"] = []byte(base64.StdEncoding.EncodeToString(raw))
		inKeys[what+", in hex"] = []byte(text)
	}

	// The same search finds all of it where it may be.
	author.hearth("cat", letter)
	here := author.memory(secret)
	for what := range secret {
		if strings.Contains(what, ", in ") || strings.Contains(what, "deleted") || strings.Contains(what, "a large file") {
			continue // not in memory, or not any more
		}
		if !here[what] {
			t.Errorf("the search of memory does not find %s where it is", what)
		}
	}
	for what := range inKeys {
		if !author.files(inKeys)[what] {
			t.Errorf("the search of files does not find %s where it is", what)
		}
	}
	// What is mounted on a machine every process there can see.
	author.hearth("unmount", mnt)
	unmounted = true

	link := author.hearth("share", "--hold", drive)
	holder.start()
	held := holder.hearth("join", link)
	size := func() (n int64) {
		for line := range strings.Lines(holder.hearth("verify", held, "--json")) {
			_, _ = fmt.Sscanf(strings.TrimSpace(line), `"bytes": %d,`, &n)
		}
		return n
	}
	var last int64
	awaitThat(t, "the holder has everything", func() bool {
		was := last
		last = size()
		return last > int64(len(large)) && last == was
	})
	if proved := author.hearth("verify", drive, "--holders"); !strings.Contains(proved, "has all") {
		t.Errorf("the holder does not prove that it has everything: %s", proved)
	}

	// And nothing where it must not be.
	hold, err := hex.DecodeString(keys.Hold)
	must(err)
	control := needles{"the hold secret, which it must have": hold}
	if len(holder.memory(control)) == 0 {
		t.Error("the search of the holder's memory finds nothing")
	}
	for what := range holder.memory(secret) {
		t.Errorf("%s is in the memory of the holder", what)
	}
	for what := range holder.files(secret) {
		t.Errorf("%s is in the files of the holder", what)
	}
	// It is all there, though.
	if held := diskBlocks(t, holder.home.DriveDir(held)); held < int64(len(large)) {
		t.Errorf("the holder has %d bytes", held)
	}
}

func diskBlocks(t *testing.T, dir string) (sum int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, e iofs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// awaitThat waits until something is so.
func awaitThat(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("it does not come about: %s", what)
		case <-tick.C:
		}
	}
}
