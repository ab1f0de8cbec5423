// Package crashfs is a [disk.FS] in memory whose machine can lose power, whose
// disk can fail, fill up and rot, all on command and from a seed.
//
// It owns the model of what a disk may do to a program that trusts it:
//
//   - What was written and not yet synced is, after [FS.Crash], kept, lost or
//     torn between 512-byte sectors, each write on its own, a later one
//     perhaps without an earlier one. Size changes, allocations and punched
//     holes likewise. A sector is one of the states the page cache ever had
//     for it, never a mixture.
//   - A directory entry is durable only after SyncDir of its directory. Before
//     that it may be lost although the file's contents were synced.
//   - WriteFile is atomic, and durable for that one name, as its contract says.
//   - A failed Datasync loses what was unsynced: the kernel calls the pages
//     clean and never writes them (see [SyncFailure]).
//   - [FS.Kill] is the end of the process alone: the page cache lives.
//
// Faults come from a [Policy], in both halves: an operation fails and nothing
// happened, or fails though it had happened. [Explore] runs a workload many
// times with crashes and faults at random places and prints a seed that
// replays the run that failed; [Mutant] breaks promises, to test that such a
// workload would notice.
//
// The same seed and the same sequence of calls give the same results; callers
// that use several goroutines order the calls themselves, or give that up.
//
// It imports disk and the standard library. It is not a file system for
// production, keeps no permissions and no symbolic links, and charges no space
// for names and inodes.
package crashfs

import (
	"errors"
	iofs "io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"hearth/log/disk"
)

// ErrCrashed is returned by every operation after the machine lost power.
var ErrCrashed = errors.New("the machine has crashed")

// ErrKilled is returned by every operation of a process that was killed.
var ErrKilled = errors.New("the process was killed")

// DefaultCapacity is the size of a disk that SetCapacity was not called on.
const DefaultCapacity = 1 << 40

// FS is one machine's file system as one process sees it. It starts as an
// empty root directory. Its methods may be called from several goroutines.
type FS struct {
	mu   sync.Mutex
	down error // set when the machine or the process is gone
	rng  *rand.Rand

	root    *inode
	nextIno uint64
	pending []*dirOp // entry changes that are not durable, oldest first
	used    int64    // blocks allocated by files that have a name or a handle
	total   int64    // capacity in blocks

	policy    Policy
	ops       int
	mutations int
	fuse      int  // mutations until the crash; negative: none planned
	failing   bool // the operation that runs will say that it failed
	onFailure SyncFailure
	trace     func(Op, error)
}

var _ disk.FS = (*FS)(nil)

// inode is a file or a directory. dur, ops and kids.durable are what a crash
// works from; the rest is what the process sees.
type inode struct {
	ino   uint64
	mtime time.Time

	// of a file
	cur     *content // the page cache
	dur     *content // what was on the disk at the last sync
	ops     []fileOp // what was done since, oldest first
	opBytes int
	stale   bool // cur shows bytes that the disk does not have and ops will not bring
	names   int
	handles int

	kids *kids // of a directory
}

type kids struct {
	current map[string]*inode
	durable map[string]*inode
}

func (n *inode) isDir() bool { return n.kids != nil }

// New returns an empty file system. The seed decides how torn what is torn at
// the moment of a crash or a failed sync will be.
func New(seed uint64) *FS {
	c := &FS{rng: newRand(seed), total: DefaultCapacity / BlockSize, fuse: -1}
	c.root = c.newDir()
	return c
}

func newRand(seed uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
}

func (c *FS) newFile() *inode {
	c.nextIno++
	return &inode{ino: c.nextIno, cur: newContent(), dur: newContent(), mtime: c.now()}
}

func (c *FS) newDir() *inode {
	c.nextIno++
	return &inode{ino: c.nextIno, mtime: c.now(), kids: &kids{
		current: make(map[string]*inode),
		durable: make(map[string]*inode),
	}}
}

// now is a clock that counts operations, so that times are deterministic.
func (c *FS) now() time.Time { return time.Unix(1, int64(c.ops)*1000) }

// SetCapacity sets the size of the disk, of which files take their blocks of
// 4 KiB. It may be less than what is in use: then nothing can be allocated
// until enough was freed.
func (c *FS) SetCapacity(bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total = bytes / BlockSize
}

// SetPolicy sets what injects faults from now on; nil ends it.
func (c *FS) SetPolicy(p Policy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.policy = p
}

// SetSyncFailure sets what a failed Datasync does to the page cache.
func (c *FS) SetSyncFailure(f SyncFailure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onFailure = f
}

// SetTrace has fn called after every operation, with its result; nil ends it.
// fn must not call the file system.
func (c *FS) SetTrace(fn func(Op, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trace = fn
}

// CrashAfter plans a power loss: the next n operations that change something
// run, the one after is the last (it happens, happens in part or does not, as
// the seed has it), and from then on everything returns ErrCrashed so that the
// program under test winds down. Then call Crash. A negative n calls it off.
func (c *FS) CrashAfter(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fuse = n
}

// PowerOff has every operation from now on return ErrCrashed.
func (c *FS) PowerOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down == nil {
		c.down = ErrCrashed
	}
}

// Down returns ErrCrashed or ErrKilled when the machine or process is gone.
func (c *FS) Down() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.down
}

// Ops returns the number of operations so far, and of those that change
// something.
func (c *FS) Ops() (all, mutations int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ops, c.mutations
}

// do runs one operation under the lock, with whatever fault is due. act does
// it, limited to its first limit bytes where that has a meaning; act's own
// error goes before an injected one. lost is what happens when the operation
// is to fail without having happened; nil means nothing.
func (c *FS) do(op Op, act func(limit int64) error, lost func()) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down != nil {
		return op.wrap(c.down)
	}
	op.Seq, op.Mutation = c.ops, c.mutations
	c.ops++
	fault := None
	if c.policy != nil {
		fault = c.policy(op)
	}
	if op.Kind.Mutates() {
		c.mutations++
		if c.fuse == 0 {
			fault = c.lastBreath(op)
		}
		c.fuse--
	}
	if c.trace != nil {
		defer func() { c.trace(op, err) }()
	}
	if fault.crash {
		c.down = ErrCrashed
	}
	switch fault.half {
	case halfLost:
		if lost != nil && !fault.crash {
			lost()
		}
		return op.wrap(fault.err)
	case halfDone, halfPart:
		c.failing = true
		defer func() { c.failing = false }()
		limit := op.Len
		if fault.half == halfPart {
			limit = min(limit, fault.n)
		}
		if err := act(limit); err != nil {
			return op.wrap(err)
		}
		return op.wrap(fault.err)
	}
	if err := act(op.Len); err != nil {
		return op.wrap(err)
	}
	return nil
}

// lastBreath decides what becomes of the operation during which power fails.
func (c *FS) lastBreath(op Op) Fault {
	switch c.rng.IntN(3) {
	case 0:
		return CrashLost
	case 1:
		if op.Len > 1 {
			end := op.Off + c.rng.Int64N(op.Len)
			return CrashPartial(max(0, end/SectorSize*SectorSize-op.Off))
		}
	}
	return CrashDone
}

// split returns the elements of an absolute or relative path.
func split(name string) []string {
	name = strings.Trim(filepath.ToSlash(filepath.Clean(name)), "/")
	if name == "" || name == "." {
		return nil
	}
	return strings.Split(name, "/")
}

// find returns the inode at a path.
func (c *FS) find(name string) (*inode, error) {
	n := c.root
	for _, elem := range split(name) {
		if !n.isDir() {
			return nil, syscall.ENOTDIR
		}
		kid, ok := n.kids.current[elem]
		if !ok {
			return nil, syscall.ENOENT
		}
		n = kid
	}
	return n, nil
}

// findFile is find for what must be a file.
func (c *FS) findFile(name string) (*inode, error) {
	n, err := c.find(name)
	if err == nil && n.isDir() {
		err = syscall.EISDIR
	}
	return n, err
}

// findDir is find for what must be a directory.
func (c *FS) findDir(name string) (*inode, error) {
	n, err := c.find(name)
	if err == nil && !n.isDir() {
		err = syscall.ENOTDIR
	}
	return n, err
}

// parent returns the directory that holds the last element of a path.
func (c *FS) parent(name string) (*inode, string, error) {
	elems := split(name)
	if len(elems) == 0 {
		return nil, "", syscall.EINVAL
	}
	dir, err := c.findDir(strings.Join(elems[:len(elems)-1], "/"))
	return dir, elems[len(elems)-1], err
}

// release gives a file's blocks back when it has neither name nor handle.
func (c *FS) release(n *inode) {
	if !n.isDir() && n.names == 0 && n.handles == 0 {
		c.used -= n.cur.blocks
	}
}

// change runs fn, which changes a file's page cache, and charges the blocks.
func (c *FS) change(n *inode, fn func(*content)) {
	before := n.cur.blocks
	fn(n.cur)
	c.used += n.cur.blocks - before
	n.mtime = c.now()
}

// info is the result of Stat.
type info struct {
	name string
	n    *inode
	size int64
	stat syscall.Stat_t
	mod  time.Time
}

func newInfo(name string, n *inode) *info {
	i := &info{name: name, n: n, mod: n.mtime}
	i.stat.Ino = n.ino
	if !n.isDir() {
		i.size = n.cur.size
		i.stat.Size = n.cur.size
		i.stat.Blocks = n.cur.blocks * (BlockSize / 512)
	}
	return i
}

func (i *info) Name() string       { return i.name }
func (i *info) Size() int64        { return i.size }
func (i *info) ModTime() time.Time { return i.mod }
func (i *info) IsDir() bool        { return i.n.isDir() }

// Sys returns a *syscall.Stat_t with Ino, Size and Blocks.
func (i *info) Sys() any { return &i.stat }

func (i *info) Mode() iofs.FileMode {
	if i.n.isDir() {
		return iofs.ModeDir | 0o700
	}
	return 0o600
}
