package parcel

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"sync"
	"sync/atomic"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// partialPrefix begins the name of every partial folder, and of nothing that
// is sent: a sender could otherwise plant the beginning of a transfer.
const partialPrefix = ".hearth-incoming-"

func partialName(id ID) string { return partialPrefix + id.String() }

// workers is how many goroutines create small files or verify old ones. More
// than two gain little: creating files in one file system takes turns.
const workers = 2

// space is what statfs says.
type space struct{ free, block int64 }

// clampMul multiplies, and stays below what an int64 holds.
func clampMul(a, b uint64) int64 {
	const limit = 1 << 62
	if b != 0 && a > limit/b {
		return limit
	}
	return int64(a * b)
}

// store is the receiver's side of the disk: the destination, and in it the
// partial folder with the journal and the tree of what has come so far.
type store struct {
	m    *manifest
	root *os.Root // the destination
	dir  *os.File
	dest int
	name string // of the partial folder
	part int    // -1: there is none
	tree int
	j    *journal // nil: not locked by this store
	past *past    // nil: this is the first attempt
}

// openDest opens the destination; it changes nothing.
func openDest(dir string, id ID) (*store, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, err
	}
	return &store{root: root, dir: f, dest: int(f.Fd()), name: partialName(id), part: -1, tree: -1}, nil
}

// exists reports whether an earlier attempt left something.
func (s *store) exists() bool {
	st, err := statAt(s.dest, s.name)
	return err == nil && isKind(&st, unix.S_IFDIR)
}

// adopt opens what an earlier attempt left, if anything. ErrBusy: that
// attempt still runs.
func (s *store) adopt() error {
	part, err := openDirAt(s.dest, s.name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	s.part = part
	st, err := statFD(part)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		return fmt.Errorf("%s: %w: it is not this user's alone", s.name, iofs.ErrPermission)
	}
	return s.lock()
}

// lock opens the journal, makes it if it is missing, and keeps it locked.
func (s *store) lock() error {
	fd, err := openAt(s.part, journalName, unix.O_RDWR|unix.O_APPEND|unix.O_CREAT, 0o600)
	if err != nil {
		return fmt.Errorf("%s: journal: %w", s.name, err)
	}
	f := os.NewFile(uintptr(fd), journalName)
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrBusy
	}
	if err == nil {
		var st unix.Stat_t
		if st, err = statFD(fd); err == nil && st.Nlink == 0 { // removed while it was opened
			err = ErrBusy
		}
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("%s: %w", s.name, err)
	}
	s.j = &journal{f: f}
	return nil
}

// recall reads the journal of what was adopted. What belongs to another
// manifest is removed.
func (s *store) recall(m *manifest, digest [32]byte) error {
	s.m = m
	if s.part < 0 {
		return nil
	}
	p, err := s.j.load()
	if err != nil && !errors.Is(err, errJournal) {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	if err == nil && p.header.digest == digest {
		if s.tree, err = openDirAt(s.part, treeName); err == nil {
			s.past = p
			return nil
		}
		if !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if err := removeTree(s.root, s.name+"/"+treeName); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

// create makes a new partial folder, or begins anew in an emptied one.
func (s *store) create(h header) error {
	if s.part < 0 {
		if err := unix.Mkdirat(s.dest, s.name, 0o700); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		part, err := openDirAt(s.dest, s.name)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		s.part = part
		if err := s.lock(); err != nil {
			return err
		}
	}
	if err := unix.Mkdirat(s.part, treeName, 0o700); err != nil {
		return fmt.Errorf("%s: tree: %w", s.name, err)
	}
	tree, err := openDirAt(s.part, treeName)
	if err != nil {
		return fmt.Errorf("%s: tree: %w", s.name, err)
	}
	s.tree = tree
	if err := s.j.f.Truncate(0); err != nil {
		return fmt.Errorf("%s: journal: %w", s.name, err)
	}
	return s.j.put(headerRecord(h))
}

// close lets go of everything; the partial folder stays.
func (s *store) close() {
	for _, fd := range []int{s.tree, s.part} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if s.j != nil {
		s.j.f.Close()
	}
	s.dir.Close()
	s.root.Close()
}

// remove removes the partial folder while it is still locked.
func (s *store) remove() error { return removeTree(s.root, s.name) }

// dirs opens folders of the tree, for one goroutine.
func (s *store) dirs() *dirs {
	return &dirs{m: s.m, base: func(i uint32) (int, string) { return s.tree, s.m.entries[i].name }}
}

// skeleton makes all folders. They are the receiver's alone until the end,
// also those that an earlier attempt had given their modes.
func (s *store) skeleton(ctx context.Context) error {
	d := s.dirs()
	defer d.close()
	for i := range s.m.entries {
		if s.m.entries[i].kind != kindDir {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		dir, name, err := d.in(uint32(i))
		if err == nil {
			err = unix.Mkdirat(dir, name, 0o700)
		}
		if errors.Is(err, unix.EEXIST) {
			var st unix.Stat_t
			if st, err = statAt(dir, name); err == nil && !isKind(&st, unix.S_IFDIR) {
				err = unix.ENOTDIR
			}
			if err == nil {
				err = unix.Fchmodat(dir, name, 0o700, 0)
			}
		}
		if err != nil {
			return fmt.Errorf("%q: %w", s.m.path(uint32(i)), err)
		}
	}
	return nil
}

// verify hashes what the journal says is there. It returns for each entry how
// many verified bytes it has; -1 is a finished file.
func (s *store) verify(ctx context.Context) (map[uint32]int64, error) {
	var list []uint32
	for i := range s.m.entries {
		_, finished := s.past.finished[uint32(i)]
		if s.m.entries[i].kind == kindFile && (finished || len(s.past.prefixes[uint32(i)]) > 0) {
			list = append(list, uint32(i))
		}
	}
	there := map[uint32]int64{}
	var mu sync.Mutex
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			d := s.dirs()
			defer d.close()
			buf := make([]byte, 1<<20)
			for ctx.Err() == nil {
				k := int(next.Add(1)) - 1
				if k >= len(list) {
					return
				}
				if n := s.verified(ctx, d, list[k], buf); n != 0 {
					mu.Lock()
					there[list[k]] = n
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return there, nil
}

// verified is verify for one file. What cannot be read is not there.
func (s *store) verified(ctx context.Context, d *dirs, i uint32, buf []byte) int64 {
	dir, name, err := d.in(i)
	if err != nil {
		return 0
	}
	fd, err := openAt(dir, name, unix.O_RDONLY, 0)
	if errors.Is(err, unix.EACCES) { // finished, with a mode that shuts out its owner
		if st, err := statAt(dir, name); err != nil || !isKind(&st, unix.S_IFREG) ||
			unix.Fchmodat(dir, name, 0o600, 0) != nil {
			return 0
		}
		fd, err = openAt(dir, name, unix.O_RDONLY, 0)
	}
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	e := &s.m.entries[i]
	st, err := statFD(fd)
	if err != nil || !isKind(&st, unix.S_IFREG) {
		return 0
	}
	want, finished := s.past.finished[i]
	steps := s.past.prefixes[i]
	if finished {
		if st.Size != e.size {
			return 0
		}
		steps = []prefix{{e.size, want}}
	} else if unix.Fchmod(fd, 0o600) != nil { // sealed, but not written down
		return 0
	}
	h := blake3.New()
	at, good := int64(0), int64(0)
	for _, p := range steps {
		if p.length > st.Size || p.length >= e.size && !finished {
			break
		}
		for at < p.length {
			n := min(int64(len(buf)), p.length-at)
			if k, err := readFull(fd, buf[:n], at); err != nil || int64(k) < n || ctx.Err() != nil {
				return good
			}
			h.Write(buf[:n])
			at += n
		}
		if [32]byte(h.Sum(nil)) != p.hash {
			break
		}
		good = p.length
		if finished {
			// Modes and times may have been lost where the data was not.
			if s.seal(dir, name, fd, e.meta()) != nil {
				return 0
			}
			return -1
		}
	}
	return good
}

// makeFile creates a file of the tree. One that is there is the torn rest of
// an earlier attempt.
func (s *store) makeFile(dir int, name string) (int, error) {
	for tries := 0; ; tries++ {
		fd, err := openAt(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
		if !errors.Is(err, unix.EEXIST) || tries > 0 {
			return fd, err
		}
		if err := unix.Unlinkat(dir, name, 0); err != nil {
			return -1, err
		}
	}
}

// seal gives a file its mode and time.
func (s *store) seal(dir int, name string, fd int, v meta) error {
	if err := unix.Fchmod(fd, uint32(v.mode)); err != nil {
		return err
	}
	return setTime(dir, name, v.sec, v.nsec)
}

// writeSmall makes a whole file.
func (s *store) writeSmall(d *dirs, i uint32, data []byte) error {
	dir, name, err := d.in(i)
	if err != nil {
		return err
	}
	fd, err := s.makeFile(dir, name)
	if err != nil {
		return err
	}
	err = writeFull(fd, data)
	if err == nil {
		err = s.seal(dir, name, fd, s.m.entries[i].meta())
	}
	if e := unix.Close(fd); err == nil {
		err = e
	}
	return err
}

// need is how much space what is still to come takes.
func (s *store) need(there map[uint32]int64, block int64) int64 {
	block = max(block, 512)
	round := func(n int64) int64 { return (n + block - 1) / block * block }
	total := int64(1 << 20) // journal and folders that grow
	for i := range s.m.entries {
		e := &s.m.entries[i]
		switch n := there[uint32(i)]; {
		case e.kind == kindDir && s.past == nil:
			total += block
		case e.kind == kindFile && n >= 0:
			total += round(e.size) - round(n)
		}
	}
	return total
}

// removeTree removes a folder below root with all it holds. Folders may have
// modes that forbid it to an ordinary user.
func removeTree(root *os.Root, name string) error {
	err := root.RemoveAll(name)
	if err == nil || !errors.Is(err, iofs.ErrPermission) {
		return err
	}
	r, err := root.OpenRoot(name)
	if err != nil {
		return err
	}
	defer r.Close()
	iofs.WalkDir(r.FS(), ".", func(p string, d iofs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			r.Chmod(p, 0o700)
		}
		return nil
	})
	return root.RemoveAll(name)
}
