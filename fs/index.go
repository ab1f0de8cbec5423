package fs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"

	"hearth/log"
	"hearth/log/wire"
)

// index holds what can be lost: where equal blocks are, and which versions
// changed an inode. It is a Pebble database that one goroutine writes, behind
// the commits and only what is durable; it can be deleted at any time and is
// rebuilt from the log. An error in it degrades a feature, never a mount: it
// is then left alone, and its directory is replaced at the next start.
//
//	'b' digest[:16]            -> log index u64
//	'c' ino u64 ^seq u64       -> fileChange
//	'm' "blocks" | "versions"  -> u64: how far the index goes
//
// A nil index answers that it knows nothing.
type index struct {
	d      *Drive
	dir    string
	logger *slog.Logger

	mu        sync.Mutex
	wake      *sync.Cond
	pending   map[[16]byte]uint64 // appended, not yet durable or not yet written
	queue     []version           // committed, not yet written
	durable   bool                // the newest of queue is durable
	hurry     bool                // queue is to be written now
	batch     *time.Timer         // ends the wait for more of queue
	updates   []*indexUpdate      // what upkeep changed, to be written after queue
	expecting bool                // updates may come: see expect
	through   uint64              // versions written
	broken    error
	closing   bool
	opened    chan struct{} // closed once the database is open, or cannot be
	done      chan struct{}
	gaveUp    atomic.Bool // Pebble has met what it cannot go on from

	dbMu sync.RWMutex
	db   *pebble.DB
}

const indexBroken = "BROKEN"

// Commits are written to the index many at once: one at a time, each would wake
// a goroutine beside the program that waits for its fsync.
const (
	indexBatch = 256
	indexDelay = 100 * time.Millisecond
)

// openWait is how long a look-up waits for a database that is being opened.
const openWait = 200 * time.Millisecond

var (
	metaBlocks   = []byte("mblocks")
	metaVersions = []byte("mversions")
)

func openIndex(d *Drive) *index {
	x := &index{d: d, dir: filepath.Join(d.store.Dir(), "index"), logger: d.logger, pending: map[[16]byte]uint64{}, opened: make(chan struct{}), done: make(chan struct{})}
	x.wake = sync.NewCond(&x.mu)
	x.batch = time.AfterFunc(indexDelay, x.writeNow)
	go x.run()
	return x
}

// quiet passes Pebble's errors on, and keeps it from ending the process: its
// Fatalf must not return, so it ends the goroutine it is called on. What that
// goroutine held is held for ever, so such a database is never closed.
type quiet struct{ x *index }

func (q quiet) Infof(string, ...any) {}
func (q quiet) Errorf(format string, args ...any) {
	q.x.logger.Warn("index", "drive", q.x.d.store.ID(), "error", fmt.Sprintf(format, args...))
}
func (q quiet) Fatalf(format string, args ...any) {
	q.x.gaveUp.Store(true)
	q.x.fail(fmt.Errorf(format, args...))
	runtime.Goexit()
}

// fail stops using the index until the next start, which rebuilds it.
func (x *index) fail(err error) {
	x.mu.Lock()
	first := x.broken == nil
	if first {
		x.broken = err
	}
	x.pending, x.queue, x.updates = nil, nil, nil
	x.wake.Broadcast()
	x.mu.Unlock()
	if first {
		x.logger.Warn("index is out of use until it is rebuilt at the next start", "drive", x.d.store.ID(), "error", err)
		_ = os.WriteFile(filepath.Join(x.dir, indexBroken), nil, 0o600)
	}
}

func (x *index) open() error {
	for _, reason := range []string{indexBroken, indexUpdating} {
		if _, err := os.Stat(filepath.Join(x.dir, reason)); err == nil {
			if err := os.RemoveAll(x.dir); err != nil {
				return err
			}
		}
	}
	db, err := x.openDB()
	if err == nil {
		// It may know versions that were never synced and are gone.
		var from uint64
		x.db = db
		if from, err = x.meta(metaVersions); err == nil && from > x.d.Newest().Seq {
			err = fmt.Errorf("it is of version %d, the drive of %d", from, x.d.Newest().Seq)
		}
		x.db = nil
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}
	if err != nil {
		// Whatever is wrong with it, the log can make it again.
		x.logger.Info("rebuilding the index", "drive", x.d.store.ID(), "reason", err)
		if err := os.RemoveAll(x.dir); err != nil {
			return err
		}
		if db, err = x.openDB(); err != nil {
			return err
		}
	}
	x.dbMu.Lock()
	x.db = db
	x.dbMu.Unlock()
	return nil
}

func (x *index) openDB() (*pebble.DB, error) {
	// Pebble would make it for everybody to read; it has no names, but sizes
	// and times.
	if err := os.MkdirAll(x.dir, 0o700); err != nil {
		return nil, err
	}
	cache := pebble.NewCache(8 << 20)
	defer cache.Unref()
	o := &pebble.Options{
		Cache: cache, Logger: quiet{x}, DisableWAL: true, MemTableSize: 4 << 20,
		MaxOpenFiles: 128, FormatMajorVersion: pebble.FormatNewest,
		EventListener: &pebble.EventListener{
			BackgroundError: x.fail,
			// Whoever meets it gets an error, too. Without a listener Pebble
			// calls Fatalf, in the middle of a compaction.
			DataCorruption: func(pebble.DataCorruptionInfo) {},
		},
	}
	o.Experimental.CompactionScheduler = newCompactions()
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return pebble.Open(x.dir, o)
}

// run owns the database.
func (x *index) run() {
	defer close(x.done)
	finished := false
	defer func() { // Fatalf ends this goroutine
		if !finished {
			x.fail(errors.New("the database gave up"))
		}
	}()
	err := x.open()
	close(x.opened)
	if err != nil {
		x.fail(err)
	} else if err := x.catchUp(); err != nil {
		x.fail(err)
	}
	for {
		x.mu.Lock()
		for !x.closing && x.broken == nil && !x.due() {
			x.wake.Wait()
		}
		if x.broken != nil || !x.due() {
			x.mu.Unlock()
			break
		}
		queue, blocks, updates := x.queue, x.pending, x.updates
		if len(queue) > 0 {
			x.queue, x.pending, x.durable, x.hurry = nil, map[[16]byte]uint64{}, false, false
		}
		x.updates = nil
		x.mu.Unlock()
		var err error
		if len(queue) > 0 {
			err = x.write(queue, blocks)
		}
		if err == nil {
			err = x.apply(updates)
		}
		if err != nil {
			x.fail(err)
		}
	}
	finished = true
	x.dbMu.Lock()
	db := x.db
	x.db = nil
	x.dbMu.Unlock()
	x.mu.Lock()
	broken := x.broken
	x.mu.Unlock()
	if db != nil && broken == nil {
		if err := db.Flush(); err != nil {
			x.fail(err)
		}
	}
	if db != nil && !x.gaveUp.Load() {
		if err := db.Close(); err != nil && broken == nil {
			x.logger.Warn("closing the index", "drive", x.d.store.ID(), "error", err)
		}
	}
}

// due reports whether there is something that may be written. Under x.mu.
func (x *index) due() bool {
	if len(x.queue) == 0 {
		return len(x.updates) > 0
	}
	return x.durable && (x.hurry || x.closing || len(x.queue) >= indexBatch)
}

// writeNow has what is queued written.
func (x *index) writeNow() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.hurry = true
	x.wake.Broadcast()
}

func (x *index) close() error {
	if x == nil {
		return nil
	}
	x.batch.Stop()
	x.mu.Lock()
	x.closing = true
	x.wake.Broadcast()
	x.mu.Unlock()
	select {
	case <-x.done:
	case <-time.After(10 * time.Second): // a database on a full disk may never return
		x.logger.Warn("the index did not close in time", "drive", x.d.store.ID())
	}
	return nil
}

// find returns where a block with this descriptor may be.
func (x *index) find(desc log.Descriptor) (uint64, bool) {
	if x == nil {
		return 0, false
	}
	var key [16]byte
	copy(key[:], desc.Digest[:])
	x.mu.Lock()
	i, ok := x.pending[key]
	x.mu.Unlock()
	if ok {
		return i, true
	}
	select {
	case <-x.opened:
	default: // just started: worth a moment, but nothing depends on it
		select {
		case <-x.opened:
		case <-time.After(openWait):
		}
	}
	x.dbMu.RLock()
	defer x.dbMu.RUnlock()
	if x.db == nil {
		return 0, false
	}
	b, closer, err := x.db.Get(append([]byte{'b'}, key[:]...))
	if err != nil {
		if !errors.Is(err, pebble.ErrNotFound) {
			go x.fail(err)
		}
		return 0, false
	}
	defer closer.Close()
	if len(b) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(b), true
}

// add notes an appended block.
func (x *index) add(desc log.Descriptor, i uint64) {
	if x == nil {
		return
	}
	var key [16]byte
	copy(key[:], desc.Digest[:])
	x.mu.Lock()
	if x.pending != nil {
		x.pending[key] = i
	}
	x.mu.Unlock()
}

// committed queues a version; it is written once a durable one follows.
func (x *index) committed(v version, durable bool) {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.broken != nil {
		return
	}
	if len(x.queue) == 0 {
		x.batch.Reset(indexDelay)
	}
	x.queue = append(x.queue, v)
	if durable {
		x.durable = true
		if x.due() {
			x.wake.Broadcast()
		}
	}
}

// fileChange says what a version did to an inode.
type fileChange struct {
	seq    uint64
	time   int64
	what   what
	actor  uint64
	delta  int64
	size   uint64
	reason Reason
	undoes uint64 // the change that was undone or redone
	from   Ino    // of didReplace: whose name it took over
	// Who did it, so that a file's log needs no commits.
	uid     uint32
	program string
}

func changeKey(ino Ino, seq uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'c'}, uint64(ino))
	return binary.BigEndian.AppendUint64(b, ^seq)
}

func (c fileChange) encode() []byte {
	w := wire.Writer{B: make([]byte, 0, 32)}
	w.Varint(c.time)
	w.U16(uint16(c.what))
	w.Uvarint(c.actor)
	w.Varint(c.delta)
	w.Uvarint(c.size)
	w.U8(uint8(c.reason))
	w.Uvarint(c.undoes)
	w.Uvarint(uint64(c.from))
	w.Uvarint(uint64(c.uid))
	w.String(c.program)
	return w.B
}

func decodeFileChange(seq uint64, b []byte) (fileChange, error) {
	r := wire.NewReader(b)
	c := fileChange{seq: seq, time: r.Varint(), what: what(r.U16()), actor: r.Uvarint(), delta: r.Varint(), size: r.Uvarint(), reason: Reason(r.U8())}
	c.undoes, c.from, c.uid, c.program = r.Uvarint(), Ino(r.Uvarint()), getU32(r), r.String(maxProgram)
	return c, r.Done()
}

// fileChanges groups a commit's changes by inode, as the index keeps them.
func fileChanges(c *commit, changes []change) map[Ino]fileChange {
	out := make(map[Ino]fileChange, len(changes))
	for _, ch := range changes {
		f := out[ch.ino]
		f.seq, f.time, f.reason, f.undoes = c.seq, c.time, c.reason, c.undoes
		f.what |= ch.what
		f.delta += ch.delta
		if ch.what&didWrite != 0 {
			f.size = ch.size
		}
		if ch.what&didReplace != 0 {
			f.from = ch.parent
		}
		if f.actor == 0 || ch.what&didWrite != 0 {
			a := c.actors[ch.actor]
			f.actor, f.uid, f.program = a.id, a.uid, a.program
		}
		out[ch.ino] = f
	}
	return out
}

func (x *index) write(queue []version, blocks map[[16]byte]uint64) error {
	b := x.db.NewBatch()
	defer b.Close()
	for _, v := range queue {
		changes, err := x.d.allChanges(x.d.writer, v.commit)
		if err != nil {
			return err
		}
		for ino, f := range fileChanges(v.commit, changes) {
			if err := b.Set(changeKey(ino, v.seq), f.encode(), nil); err != nil {
				return err
			}
		}
	}
	var top uint64
	for key, i := range blocks {
		if err := b.Set(append([]byte{'b'}, key[:]...), binary.BigEndian.AppendUint64(nil, i), nil); err != nil {
			return err
		}
		top = max(top, i+1)
	}
	last := queue[len(queue)-1]
	if err := b.Set(metaVersions, binary.BigEndian.AppendUint64(nil, last.seq), nil); err != nil {
		return err
	}
	if err := b.Set(metaBlocks, binary.BigEndian.AppendUint64(nil, last.index+1), nil); err != nil {
		return err
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return err
	}
	x.mu.Lock()
	x.through = last.seq
	x.wake.Broadcast()
	x.mu.Unlock()
	return nil
}

func (x *index) meta(key []byte) (uint64, error) {
	b, closer, err := x.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer closer.Close()
	if len(b) != 8 {
		return 0, fmt.Errorf("index: %s is %d bytes", key, len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

// catchUp reads what the index does not know yet from the log.
func (x *index) catchUp() error {
	from, err := x.meta(metaVersions)
	if err != nil {
		return err
	}
	blocks, err := x.meta(metaBlocks)
	if err != nil {
		return err
	}
	// What is queued already is written after this; up to there it is ours.
	x.mu.Lock()
	to := x.d.Newest().Seq
	if len(x.queue) > 0 {
		to = x.queue[0].seq - 1
	}
	x.mu.Unlock()
	for at := from; at < to; {
		var queue []version
		for seq := at + 1; seq <= to && len(queue) < 256; seq++ {
			at = seq
			v, err := x.d.version(seq)
			if errors.Is(err, ErrNoVersion) {
				continue
			}
			if err != nil {
				return err
			}
			queue = append(queue, v)
		}
		if len(queue) == 0 {
			continue
		}
		last := queue[len(queue)-1]
		found := map[[16]byte]uint64{}
		for ; blocks <= last.index; blocks++ {
			desc, err := x.d.own.Descriptor(blocks)
			if err != nil {
				continue // a control entry
			}
			var key [16]byte
			copy(key[:], desc.Digest[:])
			found[key] = blocks
		}
		if err := x.write(queue, found); err != nil {
			return err
		}
		x.mu.Lock()
		stop := x.closing
		x.mu.Unlock()
		if stop {
			return nil
		}
	}
	x.mu.Lock()
	x.through = max(x.through, to)
	x.wake.Broadcast()
	x.mu.Unlock()
	return nil
}

// await waits until the index knows version seq.
func (x *index) await(ctx context.Context, seq uint64) bool {
	stop := context.AfterFunc(ctx, func() {
		x.mu.Lock()
		x.wake.Broadcast()
		x.mu.Unlock()
	})
	defer stop()
	x.mu.Lock()
	defer x.mu.Unlock()
	for x.through < seq && x.broken == nil && !x.closing && ctx.Err() == nil {
		if len(x.queue) > 0 && !x.due() {
			// A version cut without a sync is readable, so it may be indexed
			// too; what a crash then takes away, the next start finds out.
			x.durable, x.hurry = true, true
			x.wake.Broadcast()
		}
		x.wake.Wait()
	}
	return x.broken == nil && x.through >= seq
}
