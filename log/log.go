package log

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"hearth/log/disk"
	"hearth/log/seal"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// Options say which log to create or open.
type Options struct {
	FS     disk.FS
	Dir    string // the directory of the log; created if need be
	Writer Writer // its number, for messages

	Signer   *Signer       // nil: the log is read, not written
	Verifier *Verifier     // of the log's checkpoints; may be nil if there is a Signer
	Keys     *seal.Keyring // for ReadBlock and ReadData; may be nil

	// Known is a head of the log that was once durable, and may be zero. A
	// log that has lost it is not opened.
	Known Head

	// Reserve is the path of a file that keeps space back for commits on a
	// full disk; empty: none.
	Reserve string
	Logger  *slog.Logger // nil: slog.Default()
	// Inline has work that is otherwise done in the background done inside
	// the calls that make it due, so that a test sees one order of disk
	// operations.
	Inline bool
	// Tiny has segments of 256 KiB and all else to scale, for tests that want
	// to see much happen.
	Tiny bool
}

// Log is one writer's log in one directory: appended to, committed, read,
// dropped from. It is safe for concurrent use.
type Log struct {
	disk     disk.FS
	dir      string
	writer   Writer
	keyHash  [32]byte // SHA-256 of the log's public key
	signer   *Signer
	verifier *Verifier
	keys     *seal.Keyring
	slog     *slog.Logger
	segs     *segments
	tree     *hashTree
	reserve  *reserve
	health   health

	commitMu sync.Mutex       // one commit at a time
	spaceMu  sync.Mutex       // one Reclaim, Erase or Verify at a time
	punched  map[uint32]int64 // dead bytes in a segment when holes were punched; under spaceMu
	dropMu   sync.Mutex       // one Drop at a time

	markMu      sync.Mutex // guards the index files and what follows
	marked      mark
	locsFile    disk.File
	locsStale   bool // locations below the mark changed
	indexBroken bool

	appendMu   sync.Mutex // one appender; guards what follows
	tail       *segment
	zeroEnd    int64  // bytes of the tail from pendOff to here are zeros on disk
	noWindow   bool   // zeros were refused; do not try again in this segment
	recaps     []byte // of the entries since the last recap or checkpoint
	sinceHead  int64  // bytes appended since the last checkpoint
	zeroBuffer []byte

	syncMu sync.Mutex // one sync of the tail at a time

	mu        sync.RWMutex // guards what readers see
	locs      *locations
	next      uint64 // number of entries, durable or not
	tailNum   uint32
	pend      []byte // the end of the tail, not written yet
	pendOff   int64  // where pend belongs
	head      Head   // newest durable checkpoint
	headPos   position
	rewriting uint32
	dropped   *roaring64.Bitmap
	poison    error
	closed    bool
	committed chan struct{} // closed and replaced by each synced commit

	durable   atomic.Uint64 // head.Size
	unsynced  atomic.Int64  // bytes written to the tail since its last sync
	begun     atomic.Int64  // of unsynced, what a replica has begun to write out
	sinceMark atomic.Int64  // bytes and entries since the mark, see markDue
	wantZeros atomic.Bool
	wipeDue   atomic.Bool // of a replica: dropped blocks are still in the segments
	born      time.Time
	hurry     atomic.Int64 // when Hurry was called, since born; 0: never

	lastDropped atomic.Pointer[droppedFrame]

	replica bool
	known   Head          // of a replica: see Options
	whole   atomic.Uint64 // nothing before this is missing; under mu where it becomes less
	source  Source        // under mu
	present atomic.Uint64 // see Presence

	limits limits
	inline bool
	kick   chan struct{}
	life   context.Context // ends when Close begins
	stop   context.CancelFunc
	done   chan struct{} // closed when the background goroutine has ended
}

func newLog(o Options) (*Log, error) {
	l := &Log{
		disk: o.FS, dir: o.Dir, writer: o.Writer,
		signer: o.Signer, verifier: o.Verifier, keys: o.Keys, slog: o.Logger,
		headPos: position{offset: segmentHeader}, pendOff: math.MaxInt64, committed: make(chan struct{}),
		punched: make(map[uint32]int64),
		locs:    newLocations(), dropped: roaring64.New(),
		born: time.Now(), limits: newLimits(o.Tiny), inline: o.Inline, kick: make(chan struct{}, 1), done: make(chan struct{}),
	}
	l.life, l.stop = context.WithCancel(context.Background())
	if l.slog == nil {
		l.slog = slog.Default()
	}
	if l.verifier == nil {
		if l.signer == nil {
			return nil, errors.New("a log needs a signer or a verifier")
		}
		l.verifier = NewVerifier(l.signer.Public())
	}
	l.keyHash = sha256.Sum256(l.verifier.Public())
	l.segs = newSegments(o.FS, filepath.Join(o.Dir, "seg"))
	l.tree = newHashTree(o.FS, filepath.Join(o.Dir, "index"))
	return l, nil
}

func (l *Log) openReserve(path string) (err error) {
	if path == "" {
		return nil
	}
	l.reserve, err = newReserve(l.disk, path, l.dir, l.limits.reserve)
	return err
}

// CreateLog creates an empty log. A directory that holds one is an error.
func CreateLog(o Options) (*Log, error) {
	if o.Signer == nil {
		return nil, fmt.Errorf("creating the log %s: %w", o.Dir, ErrReadOnly)
	}
	l, err := newLog(o)
	if err != nil {
		return nil, err
	}
	err = l.create()
	if err == nil {
		err = l.openReserve(o.Reserve)
	}
	if err != nil {
		l.stop()
		return nil, errors.Join(fmt.Errorf("creating the log %s: %w", o.Dir, err), l.closeFiles())
	}
	l.start()
	return l, nil
}

func (l *Log) create() error {
	for _, dir := range []string{l.segs.dir, filepath.Join(l.dir, "index"), l.tree.dir} {
		if err := l.disk.MkdirAll(dir); err != nil {
			return err
		}
	}
	seg, err := l.createSegment(0, 0)
	if err != nil {
		return err
	}
	l.setTail(seg, segmentHeader)
	for _, dir := range []string{l.dir, filepath.Dir(l.dir)} {
		if err := l.disk.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// createSegment makes a segment file durable, entry and all. After an error
// there is none, also after a crash: recovery would take it for a sign that
// the segment before it was synced. If that is not certain, the error matches
// ErrPoisoned.
func (l *Log) createSegment(num uint32, first uint64) (*segment, error) {
	if num >= maxSegments {
		return nil, fmt.Errorf("log %s is full: it has %d segments", l.dir, num)
	}
	path := l.segs.path(num)
	file, err := l.disk.Create(path)
	if err == nil {
		if err = l.initSegment(file, num, first); err == nil {
			return l.segs.add(num, file), nil
		}
		err = errors.Join(fmt.Errorf("%s: %w", path, err), file.Close())
	}
	if failed := errors.Join(removeIfThere(l.disk, path), l.disk.SyncDir(l.segs.dir)); failed != nil {
		return nil, l.fail(errors.Join(err, failed))
	}
	return nil, err
}

func (l *Log) initSegment(file disk.File, num uint32, first uint64) error {
	if _, err := file.WriteAt(encodeSegmentHeader(num, first, l.keyHash), 0); err != nil {
		return err
	}
	if err := file.Datasync(); err != nil {
		return err
	}
	return l.disk.SyncDir(l.segs.dir)
}

// setTail makes seg, of which the caller gives up its use, the segment that
// is appended to, at off.
func (l *Log) setTail(seg *segment, off int64) {
	l.tail, l.zeroEnd, l.noWindow = seg, off, false
	l.mu.Lock()
	l.tailNum, l.pend, l.pendOff = seg.num, l.pend[:0], off
	l.mu.Unlock()
}

// start begins background work.
func (l *Log) start() {
	if l.inline {
		close(l.done)
		return
	}
	go l.background(l.life)
}

// bound returns ctx, ended also when the log is closed.
func (l *Log) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	end := context.AfterFunc(l.life, func() { cancel(fmt.Errorf("%s: %w", l.dir, ErrClosed)) })
	return ctx, func() {
		end()
		cancel(nil)
	}
}

// usable returns an error if the log cannot be used at all.
func (l *Log) usable() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	switch {
	case l.closed:
		return fmt.Errorf("%s: %w", l.dir, ErrClosed)
	case l.poison != nil:
		return l.poison
	}
	return nil
}

// writable returns an error if nothing can be appended.
func (l *Log) writable() error {
	if l.signer == nil {
		return fmt.Errorf("%s: %w", l.dir, ErrReadOnly)
	}
	return l.usable()
}

// fail poisons the log because of err, and returns what to return.
func (l *Log) fail(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.poison == nil {
		l.poison = fmt.Errorf("%s: %w: %w", l.dir, ErrPoisoned, err)
		l.slog.Error("writing a log failed; it must be reopened", "dir", l.dir, "err", err)
	}
	return l.poison
}

// Writer returns the number of the log's writer.
func (l *Log) Writer() Writer { return l.writer }

// Origin returns the origin of the log's checkpoints.
func (l *Log) Origin() string { return l.verifier.Origin() }

// Verifier returns the verifier of the log's checkpoints.
func (l *Log) Verifier() *Verifier { return l.verifier }

// Size returns the number of entries, durable or not.
func (l *Log) Size() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.next
}

// Head returns the newest durable checkpoint; of size 0 and without a note if
// there is none yet.
func (l *Log) Head() Head {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.head
}

// Root returns the root hash of the tree of the first size entries, durable
// or not.
func (l *Log) Root(size uint64) ([32]byte, error) { return l.tree.rootAt(size) }

// Bytes returns how much space the log's segments take, holes not counted.
func (l *Log) Bytes() (int64, error) {
	names, err := l.disk.List(l.segs.dir)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, name := range names {
		info, err := l.disk.Stat(filepath.Join(l.segs.dir, name))
		if err != nil {
			return 0, err
		}
		sum += allocated(info)
	}
	return sum, nil
}

// Close ends all work, advances the mark, truncates the unused part of the
// tail and closes the files. What was appended and not committed is lost.
func (l *Log) Close() error {
	l.stop()
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	l.spaceMu.Lock()
	defer l.spaceMu.Unlock()
	l.dropMu.Lock()
	defer l.dropMu.Unlock()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	broken := l.poison != nil
	l.mu.Unlock()
	<-l.done

	l.markMu.Lock()
	defer l.markMu.Unlock()
	var settled error
	if !broken {
		settled = l.settleLocked()
	}
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	if !broken {
		if err := errors.Join(settled, l.trimTail()); err != nil {
			l.slog.Warn("a log was not closed in good order; opening it will take longer", "dir", l.dir, "err", err)
		}
	}
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	return l.closeFiles()
}

// trimTail cuts off what was not committed, and the zeros.
func (l *Log) trimTail() error {
	if l.signer == nil || l.tail == nil {
		return nil
	}
	l.mu.RLock()
	end := l.pendOff
	if l.headPos.segment == l.tailNum {
		end = l.headPos.offset
	}
	l.mu.RUnlock()
	size, err := l.tail.file.Size()
	if err != nil || size == end {
		return err
	}
	if err := l.tail.file.Truncate(end); err != nil {
		return fmt.Errorf("trimming %s: %w", l.tail.path, err)
	}
	return l.tail.file.Datasync()
}

func (l *Log) closeFiles() error {
	var errs []error
	if l.tail != nil {
		l.segs.put(l.tail)
	}
	errs = append(errs, l.segs.close(), l.tree.close())
	if l.locsFile != nil {
		errs = append(errs, l.locsFile.Close())
	}
	return errors.Join(errs...)
}
