package main

import (
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// node is a file or folder as it should be. A state is never changed once it
// is made: the next one is a clone of it, which shares the contents.
type node struct {
	id    int // hard links of one file share it
	data  []byte
	sum   uint64
	names map[string]*node // of a folder
}

var sumSeed = maphash.MakeSeed()

func newFile(id int) *node   { return &node{id: id, sum: maphash.Bytes(sumSeed, nil)} }
func newFolder(id int) *node { return &node{id: id, names: map[string]*node{}} }

func (n *node) clone() *node {
	made := map[*node]*node{}
	var clone func(n *node) *node
	clone = func(n *node) *node {
		c := made[n]
		if c == nil {
			c = &node{id: n.id, data: n.data, sum: n.sum}
			made[n] = c
			if n.names != nil {
				c.names = make(map[string]*node, len(n.names))
				for name, child := range n.names {
					c.names[name] = clone(child)
				}
			}
		}
		return c
	}
	return clone(n)
}

func (n *node) set(data []byte) { n.data, n.sum = data, maphash.Bytes(sumSeed, data) }

// resize cuts or extends with zeros.
func (n *node) resize(size int) {
	data := make([]byte, size)
	copy(data, n.data)
	n.set(data)
}

func (n *node) write(p []byte, off int) {
	data := make([]byte, max(len(n.data), off+len(p)))
	copy(data, n.data)
	copy(data[off:], p)
	n.set(data)
}

// each calls fn for n and what is below it.
func (n *node) each(path string, fn func(path string, n *node)) {
	fn(path, n)
	for _, name := range slices.Sorted(maps.Keys(n.names)) {
		n.names[name].each(path+"/"+name, fn)
	}
}

func (n *node) find(id int) (found *node) {
	n.each("", func(_ string, c *node) {
		if c.id == id {
			found = c
		}
	})
	return found
}

func (n *node) holds(id int) bool { return n.find(id) != nil }

// dump renders a state as one line per path. .history gives every path a
// number of its own, so that only live it is seen which names are one file.
func (n *node) dump(live bool) string {
	links, first := map[int]int{}, map[int]string{}
	n.each("", func(path string, c *node) {
		links[c.id]++
		if links[c.id] == 1 {
			first[c.id] = path
		}
	})
	var lines []string
	n.each("", func(path string, c *node) {
		lines = append(lines, dumpLine(path, c.names != nil, links[c.id], len(c.data), c.sum, first[c.id], live))
	})
	return strings.Join(lines, "\n")
}

func dumpLine(path string, folder bool, links, size int, sum uint64, first string, live bool) string {
	switch {
	case folder:
		return path + "/"
	case live:
		return fmt.Sprintf("%s %d links as %s, %d:%x", path, links, first, size, sum)
	}
	return fmt.Sprintf("%s %d links, %d:%x", path, links, size, sum)
}

// dumpFolder renders a folder as node.dump does.
func dumpFolder(dir string, live bool) (string, error) {
	first := map[uint64]string{}
	var lines []string
	var walk func(path string) error
	walk = func(path string) error {
		var st unix.Stat_t
		if err := unix.Lstat(dir+path, &st); err != nil {
			return fmt.Errorf("stat %s: %w", dir+path, err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			lines = append(lines, dumpLine(path, true, 0, 0, 0, "", live))
			entries, err := os.ReadDir(dir + path) // sorted
			if err != nil {
				return err
			}
			for _, e := range entries {
				if err := walk(path + "/" + e.Name()); err != nil {
					return err
				}
			}
			return nil
		}
		data, err := os.ReadFile(dir + path)
		if err != nil {
			return err
		}
		if int64(len(data)) != st.Size {
			return fmt.Errorf("%s has %d bytes, and %d can be read", dir+path, st.Size, len(data))
		}
		if first[st.Ino] == "" {
			first[st.Ino] = path
		}
		lines = append(lines, dumpLine(path, false, int(st.Nlink), len(data), maphash.Bytes(sumSeed, data), first[st.Ino], live))
		return nil
	}
	err := walk("")
	return strings.Join(lines, "\n"), err
}

// state is what a worker's folder was, or may have been, after an operation
// that began and ended at these ticks of the clock; one that was cut short
// never ended.
type state struct {
	root         *node
	what         string
	began, ended int64
	text         [2]string
	part         *part // a write is there in part; root is the state without it
	found        *node // the state with the part that was seen last
}

// part is a write to a file.
type part struct {
	id, off int
	data    []byte
}

const never = math.MaxInt64

func (s *state) dump(live bool) string {
	t := &s.text[0]
	if live {
		t = &s.text[1]
	}
	if *t == "" {
		*t = s.root.dump(live)
	}
	return *t
}

// looks reports whether a folder that was rendered so is in this state, which
// it becomes if it stands for several: the kernel makes requests of whole pages
// of one write, and decides how many.
func (s *state) looks(seen string, live bool) bool {
	if s.part == nil {
		return s.dump(live) == seen
	}
	// All else must be as it is, or trying takes too long.
	got, want := strings.Split(seen, "\n"), strings.Split(s.root.dump(live), "\n")
	if len(got) != len(want) {
		return false
	}
	written := map[string]bool{}
	s.root.each("", func(path string, n *node) { written[path] = n.id == s.part.id })
	for i, line := range got {
		path, _, _ := strings.Cut(line, " ")
		if line != want[i] && !written[path] {
			return false
		}
	}
	const page = 4096
	for n := page - s.part.off%page; n < len(s.part.data); n += page {
		root := s.root.clone()
		root.find(s.part.id).write(s.part.data[:n], s.part.off)
		if root.dump(live) == seen {
			s.found = root
			return true
		}
	}
	return false
}

// handle is a file that a worker keeps open, also while it is renamed or has
// no name any more.
type handle struct {
	fd, id int
	flags  int
}

// worker does one operation after the other in a folder of its own, so that
// what the folder holds is known whatever the others do.
type worker struct {
	dir     string
	rand    *rand.Rand
	clock   *atomic.Int64 // of all workers
	killed  *atomic.Bool  // set before the daemon is killed
	syncing chan struct{} // hears of syncs that begin, if it listens

	history []*state
	copied  int // bytes of contents in history
	handles []handle
	lastID  int

	// What a sync has acknowledged: of this worker up to own, and of all what
	// had ended at tick.
	own  int
	tick int64
}

// errKilled ends a worker whose daemon was killed.
var errKilled = errors.New("the daemon was killed")

func dead(err error) bool { return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) }

func (w *worker) now() *node { return w.history[len(w.history)-1].root }

// done is the last state whose operation ended before tick.
func (w *worker) done(tick int64) int {
	return sort.Search(len(w.history), func(i int) bool { return w.history[i].ended >= tick }) - 1
}

// restart makes a state the only one.
func (w *worker) restart(k int) {
	root := w.history[k].root
	if w.history[k].part != nil {
		root = w.history[k].found
	}
	w.history = []*state{{root: root}}
	w.copied, w.own, w.tick = 0, 0, 0
}

// run works until the daemon is killed.
func (w *worker) run() error {
	defer func() {
		for _, h := range w.handles {
			_ = unix.Close(h.fd)
		}
		w.handles = nil
	}()
	// Whenever the daemon dies, there is a file that has data and no name.
	err := w.orphan()
	for err == nil {
		err = w.step()
	}
	if errors.Is(err, errKilled) {
		return nil
	}
	return err
}

// do makes a system call that leads to the given states, one after the other.
func (w *worker) do(what string, call func() error, next ...*state) error {
	began := w.clock.Add(1)
	from := len(w.history)
	for _, s := range next {
		s.what, s.began, s.ended = what, began, never
		w.history = append(w.history, s)
	}
	if err := call(); err != nil {
		return w.failed(what, err)
	}
	ended := w.clock.Add(1)
	for _, s := range w.history[from:] {
		s.ended = ended
	}
	return nil
}

func (w *worker) failed(what string, err error) error {
	// EIO: the daemon died while the kernel handed the request over.
	if (dead(err) || errors.Is(err, unix.EIO)) && w.killed.Load() {
		return errKilled
	}
	return fmt.Errorf("%s: %w", what, err)
}

// refused makes a system call that must fail and change nothing.
func (w *worker) refused(what string, call func() error) error {
	err := call()
	for _, e := range []error{unix.EEXIST, unix.ENOENT, unix.ENOTEMPTY, unix.EINVAL, unix.EISDIR, unix.ENOTDIR} {
		if errors.Is(err, e) {
			return nil
		}
	}
	if err == nil {
		return fmt.Errorf("%s worked", what)
	}
	return w.failed(what, err)
}

// acknowledge makes a system call after which, if it says anything, all that
// ended before it is durable, and all that this worker did.
func (w *worker) acknowledge(what string, says bool, call func() error) error {
	tick := w.clock.Add(1)
	select {
	case w.syncing <- struct{}{}:
	default:
	}
	if err := call(); err != nil {
		return w.failed(what, err)
	}
	if says {
		w.own, w.tick = len(w.history)-1, tick
	}
	return nil
}

const (
	maxHandles = 4
	// Until the daemon is killed all states are kept: contents change no more
	// when they have become too many.
	maxCopied = 48 << 20
)

func (w *worker) step() error {
	r := w.rand
	next := w.now().clone()
	dir, path := w.pick(next)
	name := string(rune('a' + r.IntN(6)))
	full := filepath.Join(path, name)
	old := dir.names[name]
	switch op := r.IntN(32); {
	case op < 3:
		mkdir := func() error { return unix.Mkdir(full, 0o755) }
		if old != nil {
			return w.refused("mkdir "+full, mkdir)
		}
		w.lastID++
		dir.names[name] = newFolder(w.lastID)
		return w.do("mkdir "+full, mkdir, &state{root: next})
	case op < 8:
		return w.open(next, dir, full, name)
	case op < 20 && (len(w.handles) == 0 || w.copied >= maxCopied):
		return nil
	case op < 18:
		return w.write(next, w.handles[r.IntN(len(w.handles))])
	case op < 20:
		h := w.handles[r.IntN(len(w.handles))]
		size := r.IntN(20_000)
		if n := next.find(h.id); n != nil {
			size = r.IntN(len(n.data) + 5000)
			n.resize(size)
			w.copied += size
		}
		return w.do(fmt.Sprintf("ftruncate to %d", size), func() error { return unix.Ftruncate(h.fd, int64(size)) }, &state{root: next})
	case op < 22:
		return w.remove(next, dir, full, name)
	case op < 25:
		return w.rename(next, dir, full, name)
	case op < 27:
		to, toPath := w.pick(next)
		toName := string(rune('a' + r.IntN(6)))
		toFull := filepath.Join(toPath, toName)
		link := func() error { return unix.Link(full, toFull) }
		if old == nil || to.names[toName] != nil {
			return w.refused("link "+full+" "+toFull, link)
		}
		if old.names != nil { // EPERM, from the kernel itself
			return nil
		}
		to.names[toName] = old
		return w.do("link "+full+" "+toFull, link, &state{root: next})
	case op < 28:
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return w.failed("open "+path, err)
		}
		defer unix.Close(fd)
		return w.acknowledge("fsync of "+path, true, func() error { return unix.Fsync(fd) })
	case op < 32 && len(w.handles) > 0:
		h := w.handles[r.IntN(len(w.handles))]
		if r.IntN(3) == 0 {
			return w.acknowledge("fdatasync", w.named(h), func() error { return unix.Fdatasync(h.fd) })
		}
		return w.acknowledge("fsync", w.named(h), func() error { return unix.Fsync(h.fd) })
	}
	return nil
}

// named reports whether an open file has a name. Without one, nothing of it
// outlives its handles, and its fsync says nothing.
func (w *worker) named(h handle) bool { return w.now().holds(h.id) }

// pick returns a random folder of a state and where it is.
func (w *worker) pick(n *node) (*node, string) {
	path := w.dir
	for w.rand.IntN(3) > 0 {
		var folders []string
		for _, name := range slices.Sorted(maps.Keys(n.names)) {
			if n.names[name].names != nil {
				folders = append(folders, name)
			}
		}
		if len(folders) == 0 {
			break
		}
		name := folders[w.rand.IntN(len(folders))]
		n, path = n.names[name], filepath.Join(path, name)
	}
	return n, path
}

// open opens a file, and makes or empties it.
func (w *worker) open(next, dir *node, full, name string) error {
	n := dir.names[name]
	flags := unix.O_RDWR | []int{0, 0, unix.O_APPEND, unix.O_SYNC, unix.O_DSYNC}[w.rand.IntN(5)]
	changed := true
	switch {
	case n == nil:
		flags |= unix.O_CREAT | unix.O_EXCL
		w.lastID++
		n = newFile(w.lastID)
		dir.names[name] = n
	case n.names != nil:
		return w.refused("open "+full, func() error {
			fd, err := unix.Open(full, flags, 0)
			if err == nil {
				_ = unix.Close(fd)
			}
			return err
		})
	case w.rand.IntN(4) == 0:
		flags |= unix.O_TRUNC
		n.resize(0)
	default:
		changed = false
	}
	var states []*state
	if changed {
		states = append(states, &state{root: next})
	}
	h := handle{id: n.id, flags: flags}
	err := w.do("open "+full, func() (err error) { h.fd, err = unix.Open(full, flags, 0o644); return err }, states...)
	if err != nil {
		return err
	}
	w.handles = append(w.handles, h)
	if len(w.handles) > maxHandles {
		i := w.rand.IntN(len(w.handles))
		_ = unix.Close(w.handles[i].fd)
		w.handles = slices.Delete(w.handles, i, i+1)
	}
	return nil
}

// write writes to an open file, at a place or at its end.
func (w *worker) write(next *node, h handle) error {
	size := 1 + w.rand.IntN([]int{10, 5000, 5000, 100_000, 300_000}[w.rand.IntN(5)])
	if w.rand.IntN(60) == 0 {
		size += 2 << 20 // more than one request takes
	}
	return w.writeSome(next, h, size)
}

func (w *worker) writeSome(next *node, h handle, size int) error {
	p := make([]byte, size)
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(w.rand.Uint32())
	}
	_, _ = rand.NewChaCha8(seed).Read(p) // never fails
	off := w.rand.IntN(20_000)
	n := next.find(h.id)
	if n != nil {
		off = w.rand.IntN(len(n.data) + 1)
		if w.rand.IntN(8) == 0 {
			off += w.rand.IntN(50_000) // a hole
		}
	}
	place := func() (int, error) { return unix.Pwrite(h.fd, p, int64(off)) }
	switch {
	case h.flags&unix.O_APPEND != 0:
		place = func() (int, error) { return unix.Write(h.fd, p) }
		if n != nil {
			off = len(n.data)
		}
	case w.rand.IntN(2) == 0:
		if _, err := unix.Seek(h.fd, int64(off), unix.SEEK_SET); err != nil {
			return w.failed("seek", err)
		}
		place = func() (int, error) { return unix.Write(h.fd, p) }
	}
	var states []*state
	if n != nil {
		states = append(states, &state{root: w.now(), part: &part{h.id, off, p}})
		n.write(p, off)
		w.copied += len(n.data) + len(p)
		states = append(states, &state{root: next})
	}
	what := fmt.Sprintf("write of %d at %d, flags %#x", size, off, h.flags)
	call := func() error {
		wrote, err := place()
		if err == nil && wrote < size {
			if w.killed.Load() {
				return errKilled
			}
			err = fmt.Errorf("only %d bytes", wrote)
		}
		return err
	}
	if h.flags&(unix.O_SYNC|unix.O_DSYNC) != 0 {
		return w.acknowledge(what, n != nil, func() error { return w.do(what, call, states...) })
	}
	return w.do(what, call, states...)
}

func (w *worker) remove(next, dir *node, full, name string) error {
	n := dir.names[name]
	unlink := func() error { return unix.Unlink(full) }
	rmdir := func() error { return unix.Rmdir(full) }
	switch {
	case n == nil:
		return w.refused("unlink "+full, unlink)
	case n.names == nil:
		delete(dir.names, name)
		return w.do("unlink "+full, unlink, &state{root: next})
	case len(n.names) > 0:
		return w.refused("rmdir "+full, rmdir)
	}
	delete(dir.names, name)
	return w.do("rmdir "+full, rmdir, &state{root: next})
}

func (w *worker) rename(next, dir *node, full, name string) error {
	n := dir.names[name]
	to, toPath := w.pick(next)
	toName := string(rune('a' + w.rand.IntN(6)))
	toFull := filepath.Join(toPath, toName)
	victim := to.names[toName]
	what := "rename " + full + " " + toFull
	rename := func() error { return unix.Rename(full, toFull) }
	switch {
	case n == nil:
		return w.refused(what, rename)
	case victim == n: // also two names of one file: both stay
		return w.do(what, rename)
	case n.holds(to.id),
		victim != nil && (victim.names != nil) != (n.names != nil),
		victim != nil && len(victim.names) > 0:
		return w.refused(what, rename)
	}
	delete(dir.names, name)
	to.names[toName] = n
	return w.do(what, rename, &state{root: next})
}

// orphan makes a file that has data on the disk, and no name.
func (w *worker) orphan() error {
	const name = "orphan"
	full := filepath.Join(w.dir, name)
	unlink := func() error { return unix.Unlink(full) }
	next := w.now().clone()
	if next.names[name] != nil { // the last kill came between the two calls below
		delete(next.names, name)
		if err := w.do("unlink "+full, unlink, &state{root: next}); err != nil {
			return err
		}
		next = next.clone()
	}
	w.lastID++
	next.names[name] = newFile(w.lastID)
	h := handle{id: w.lastID, flags: unix.O_RDWR}
	err := w.do("create "+full, func() (err error) {
		h.fd, err = unix.Open(full, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o644)
		return err
	}, &state{root: next})
	if err != nil {
		return err
	}
	w.handles = append(w.handles, h)
	next = next.clone()
	delete(next.names, name)
	if err := w.do("unlink "+full, unlink, &state{root: next}); err != nil {
		return err
	}
	if err := w.writeSome(next, h, 3<<20); err != nil { // the daemon does not keep that much in memory
		return err
	}
	return w.acknowledge("fsync of a file without a name", false, func() error { return unix.Fsync(h.fd) })
}

// none says that a folder is in none of the worker's states from one on.
func (w *worker) none(from int, seen string, live bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is in no state it was ever in:\n%s\n", w.dir, seen)
	from = min(from, len(w.history)-1)
	fmt.Fprintf(&b, "it was, or comes after:\n%s\n", w.history[from].dump(live))
	before := strings.Split(w.history[from].dump(live), "\n")
	for _, s := range w.history[from+1:] {
		fmt.Fprintf(&b, "then %s:\n", s.what)
		for _, line := range strings.Split(s.dump(live), "\n") {
			if !slices.Contains(before, line) {
				fmt.Fprintf(&b, "    %s\n", line)
			}
		}
		before = strings.Split(s.dump(live), "\n")
	}
	return errors.New(b.String())
}
