package fs

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"hearth/fs/tree"
	"hearth/log"
	"hearth/log/seal"
)

// Options configures an open drive. Store is required.
type Options struct {
	Store *log.Store
	// Memory bounds the page cache and the changes not yet committed, in
	// bytes; 0 means DefaultMemory.
	Memory int64
	// Delay is the longest a change stays unsaved when nobody asks for
	// durability; 0 means one second.
	Delay time.Duration
	// Clock returns the time for inodes and versions; nil means time.Now.
	Clock  func() time.Time
	Logger *slog.Logger
	// NoIndex leaves out the local indexes (deduplication, change index):
	// everything works from the log alone, more slowly.
	NoIndex bool
}

// DefaultMemory is the default of Options.Memory.
const DefaultMemory = 192 << 20

// Drive is an open drive. Close it to commit what is unsaved.
type Drive struct {
	store  *log.Store
	own    *log.Log
	writer log.Writer
	clock  func() time.Time
	logger *slog.Logger
	delay  time.Duration
	memory int64
	cache  *tree.Cache
	pages  pages
	index  *index
	spill  *spill

	sessions sessions
	atimes   atimes

	// commitMu is held through a whole commit, sealMu while runs are sealed
	// and placed. Order: commitMu, sealMu, mu.
	commitMu sync.Mutex
	sealMu   sync.Mutex

	mu      sync.RWMutex
	changed *sync.Cond // on mu: runs were placed, or there is room for more
	closed  bool
	failed  error // the log refused a commit for good; nothing more is accepted

	base    *tree.Tree
	buffer  *layer // of the newest commit, read-only
	frozen  *layer // of the commit in flight, or nil
	open    *layer
	head    version // newest commit
	openSeq uint64  // sequence number the open layer will get
	work    *work   // who did what in the open layer

	nextIno uint64
	inodes  uint64
	bytes   uint64

	dirty      map[Ino]*dirtyFile
	dirtyOrder list.List // of *dirtyFile, oldest first
	dirtyBytes int64
	refs       map[Ino]int64
	orphans    map[Ino]*orphan
	notifier   Notifier

	spaceLeft int64 // free bytes of the disk, when last asked
	spaceAt   time.Time

	mutations uint64    // counts changes; a commit covers those up to its freeze
	committed uint64    // mutations in the newest commit
	synced    uint64    // mutations known durable
	unsaved   time.Time // since when something is unsaved; zero: nothing is
	armed     bool      // the saver knows of it

	cuts     budget
	kick     chan struct{} // something became unsaved
	sealKick chan struct{} // much is unsealed
	stop     context.CancelFunc
	stopped  context.Context
	wg       sync.WaitGroup

	followed  bool // see follow.go, also of what follows
	walker    Walker
	current   atomic.Pointer[Snapshot]
	announced *Snapshot // the follower's own

	snapshots snapshotCache
	waiters   feedWaiters
	past      historyCaches
	upkeep    upkeepState
}

// version is a commit with its place in the log.
type version struct {
	*commit
	index uint64
}

// Create makes the first version of a drive in a fresh store: an empty root
// directory that belongs to the caller.
func Create(ctx context.Context, o Options, c Caller) (*Drive, error) {
	d := newDrive(o)
	d.base = tree.New(&d.pages, d.cache, tree.Root{})
	d.nextIno, d.inodes = firstIno, 1
	now := TimeOf(d.clock())
	root := &inode{mode: ModeDir | 0o755, nlink: 2, uid: c.Uid, gid: c.Gid, mtime: now, ctime: now, btime: now}
	root.changed = d.openVersion()
	d.open.put(inodeKey(RootIno), root.encode())
	d.mutations++
	d.work.reason = ReasonGenesis
	if err := d.commit(ctx, true); err != nil {
		return nil, fmt.Errorf("first commit of drive %s: %w", d.store.ID(), err)
	}
	if err := d.start(o); err != nil {
		return nil, err
	}
	return d, nil
}

// Open opens the newest version of a drive.
func Open(ctx context.Context, o Options) (*Drive, error) {
	d := newDrive(o)
	if d.own == nil {
		// Which log has the newest version is a question for drives with
		// several writers.
		var err error
		if d.own, err = o.Store.Replica(0); err != nil {
			return nil, err
		}
		d.followed, d.writer = true, 0
	}
	size := d.own.Head().Size
	if size == 0 {
		return nil, fmt.Errorf("drive %s has no version: %w", d.store.ID(), ErrNoVersion)
	}
	// A checkpoint is cut only after a commit: its last entry is the newest.
	head, err := d.newestCommit(size)
	if err != nil {
		return nil, err
	}
	d.show(head)
	if err := d.spill.clear(); err != nil {
		// No reason to keep people from their files.
		d.logger.Warn("space of deleted files", "drive", d.store.ID(), "error", err)
	}
	if err := d.start(o); err != nil {
		return nil, err
	}
	return d, nil
}

func newDrive(o Options) *Drive {
	d := &Drive{
		store: o.Store, own: o.Store.Own(), writer: o.Store.OwnWriter(),
		clock: o.Clock, logger: o.Logger, delay: o.Delay, memory: o.Memory,
		open: new(layer), buffer: new(layer), openSeq: 1,
		dirty: map[Ino]*dirtyFile{}, refs: map[Ino]int64{}, orphans: map[Ino]*orphan{},
		kick: make(chan struct{}, 1), sealKick: make(chan struct{}, 1),
	}
	if d.clock == nil {
		d.clock = time.Now
	}
	if d.logger == nil {
		d.logger = slog.New(slog.DiscardHandler)
	}
	if d.delay == 0 {
		d.delay = time.Second
	}
	if d.memory == 0 {
		d.memory = DefaultMemory
	}
	d.changed = sync.NewCond(&d.mu)
	d.cache = tree.NewCache(d.memory / 2)
	d.pages = pages{d}
	d.spill = newSpill(o.Store)
	d.work = newWork()
	d.upkeep.one = make(chan struct{}, 1)
	d.cuts = budget{burst: 64, perSecond: 20}
	d.stopped, d.stop = context.WithCancel(context.Background())
	return d
}

// start begins the background work of a drive that has its state.
func (d *Drive) start(o Options) error {
	if d.followed {
		// Indexes would need everything that they are about.
		d.wg.Add(1)
		go d.follow()
		return nil
	}
	if !o.NoIndex {
		d.index = openIndex(d)
	}
	d.wg.Add(2)
	go d.saver()
	go d.sealer()
	return nil
}

// layerOf returns a read-only layer of sorted changes.
func layerOf(changes []tree.Change) *layer {
	l := new(layer)
	for _, c := range changes {
		if c.Delete {
			l.del(c.Key)
		} else {
			l.put(c.Key, c.Value)
		}
	}
	return l
}

// Close commits what is unsaved and stops the background work. The store
// stays open. A second Close does nothing.
func (d *Drive) Close(ctx context.Context) error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	d.changed.Broadcast()
	d.mu.Unlock()
	d.stop()
	d.wg.Wait()
	err := errors.Join(d.dropOrphans(), d.commit(ctx, true), d.index.close())
	d.waiters.closeAll()
	return err
}

// SetNotifier sets who is told of changes made behind the kernel's back.
func (d *Drive) SetNotifier(n Notifier) {
	d.mu.Lock()
	d.notifier = n
	d.mu.Unlock()
}

// Store returns the block store below.
func (d *Drive) Store() *log.Store { return d.store }

// Newest returns the newest committed version.
func (d *Drive) Newest() Version {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return Version{d.writer, d.head.seq}
}

// Unsaved returns how many bytes of contents and metadata are not yet in a
// commit.
func (d *Drive) Unsaved() int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n := d.dirtyBytes + d.open.bytes
	if d.frozen != nil {
		n += d.frozen.bytes
	}
	return n
}

// live is the state with every change so far. The caller holds mu for as long
// as it uses the view.
func (d *Drive) live() *view {
	if d.frozen != nil {
		return &view{[]*layer{d.open, d.frozen, d.buffer}, d.base}
	}
	return &view{[]*layer{d.open, d.buffer}, d.base}
}

// viewOf is the state in which ino is found: an inode without a name has one
// of its own.
func (d *Drive) viewOf(ino Ino) *view {
	if o := d.orphans[ino]; o != nil {
		return o.view()
	}
	return d.live()
}

// target is the layer that takes changes to ino.
func (d *Drive) target(ino Ino) *layer {
	if o := d.orphans[ino]; o != nil {
		return o.layer
	}
	return d.open
}

func (d *Drive) openVersion() Version { return Version{d.writer, d.openSeq} }

func (d *Drive) now() Time { return TimeOf(d.clock()) }

// usable reports why the drive accepts no changes, if so. Under mu.
func (d *Drive) usable() error {
	if d.closed {
		return fmt.Errorf("drive %s is closed: %w", d.store.ID(), ErrStale)
	}
	if d.followed {
		return fmt.Errorf("drive %s is written by another device: %w", d.store.ID(), ErrReadOnly)
	}
	return d.failed
}

// mutated notes that the open layer or a dirty run changed. Under mu.
func (d *Drive) mutated() {
	d.mutations++
	if d.unsaved.IsZero() {
		d.arm()
	}
}

// putInode stores an inode's record, stamped as changed now. Under mu.
func (d *Drive) putInode(ino Ino, n *inode) {
	if v := d.openVersion(); n.changed != v {
		n.before, n.changed = n.changed, v
	}
	d.target(ino).put(inodeKey(ino), n.encode())
}

// pages reads and appends tree pages as blocks of the log.
type pages struct{ d *Drive }

func (p pages) ReadPage(ref log.Ref) ([]byte, error) {
	return p.d.store.ReadBlock(nil, ref, seal.Page)
}

func (p pages) AppendPage(plain []byte) (log.Ref, error) {
	index, err := p.d.appendBlock(seal.Page, plain)
	return log.Ref{Writer: p.d.writer, Index: index}, err
}

// appendBlock seals and appends one block.
func (d *Drive) appendBlock(kind seal.Kind, plain []byte) (uint64, error) {
	buf := blockBuffers.Get().(*[]byte)
	defer blockBuffers.Put(buf)
	stored, err := d.store.Keys().Seal((*buf)[:0], kind, plain)
	if err != nil {
		return 0, err
	}
	*buf = stored
	if kind == seal.Data {
		return d.own.Append(stored)
	}
	return d.own.AppendMeta(stored)
}

var blockBuffers = sync.Pool{New: func() any { b := make([]byte, 0, seal.MaxStored); return &b }}

// readCommit reads and decodes a commit block, without its further changes.
func (d *Drive) readCommit(ref log.Ref) (*commit, error) {
	b, err := d.store.ReadBlock(nil, ref, seal.Commit)
	if err != nil {
		return nil, err
	}
	c, err := decodeCommit(b)
	if err != nil {
		return nil, fmt.Errorf("block %v: %w", ref, err)
	}
	return c, nil
}

// allChanges returns every change of a commit.
func (d *Drive) allChanges(w log.Writer, c *commit) ([]change, error) {
	out := c.changes
	for _, index := range c.more {
		ref := log.Ref{Writer: w, Index: index}
		b, err := d.store.ReadBlock(nil, ref, seal.Commit)
		if err != nil {
			return nil, fmt.Errorf("changes of version %d: %w", c.seq, err)
		}
		more, err := decodeMore(b, len(c.actors))
		if err != nil {
			return nil, fmt.Errorf("block %v: %w", ref, err)
		}
		out = append(out[:len(out):len(out)], more...)
	}
	return out, nil
}
