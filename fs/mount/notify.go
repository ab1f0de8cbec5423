package mount

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"hearth/fs"
)

// kernelCache is the half of fuse.Server that drops what the kernel cached.
type kernelCache interface {
	InodeNotify(node uint64, off, length int64) fuse.Status
	EntryNotify(parent uint64, name string) fuse.Status
}

// note is one thing the kernel has to drop: an inode, or a name in it.
type note struct {
	node  uint64
	entry bool
	name  string
}

const (
	// maxNotes bounds the queue. Whoever announces more waits for the kernel:
	// announcements are made outside all locks, so nothing is held up but the
	// undo that made a hundred thousand of them.
	maxNotes = 1 << 16
	// notesAgain is how long after it a raced announcement is repeated: by
	// then the answer that raced has reached the kernel.
	notesAgain = 50 * time.Millisecond
)

// notifier tells the kernel what changed behind its back. It does so in a
// goroutine of its own, because the kernel may hold a lock that a request
// waiting for us needs: announcing from a handler, or under a lock, deadlocks
// (go-fuse#334 is of this kind).
//
// The opposite race is an answer made before a change that arrives after its
// announcement. Answers know: ask counts announcements, and an answer that
// finds the count changed, or announcements under way, is valid for no time at
// all. What remains is the moment between that check and the write to the
// kernel, so names announced while a question is open are announced again.
type notifier struct {
	changes atomic.Uint64 // announcements made
	pending atomic.Int64  // announcements not delivered
	open    atomic.Int64  // questions not answered

	// has reports whether the kernel may remember an inode. What it does not
	// know it need not drop: after an undo of a removal that is nearly all. A
	// lookup is counted before its answer is found to be fresh, so one that
	// is under way is either seen here or not kept there.
	has func(node uint64) bool

	mu     sync.Mutex
	room   *sync.Cond
	queue  []note
	queued map[note]struct{}
	closed bool
	wake   chan struct{}
}

var _ fs.Notifier = (*notifier)(nil)

func newNotifier(has func(node uint64) bool) *notifier {
	n := &notifier{has: has, queued: map[note]struct{}{}, wake: make(chan struct{}, 1)}
	n.room = sync.NewCond(&n.mu)
	return n
}

// ask begins a question to the drive; answered ends it.
func (n *notifier) ask() uint64 {
	n.open.Add(1)
	return n.changes.Load()
}

func (n *notifier) answered() { n.open.Add(-1) }

// fresh reports whether an answer asked for then may be kept.
func (n *notifier) fresh(asked uint64) bool {
	return n.changes.Load() == asked && n.pending.Load() == 0
}

// idle reports whether the kernel knows of everything.
func (n *notifier) idle() bool { return n.pending.Load() == 0 }

// delivered notes that the kernel was told of one change.
func (n *notifier) delivered() {
	if n.pending.Add(-1) == 0 {
		n.mu.Lock()
		n.room.Broadcast() // settle waits for this
		n.mu.Unlock()
	}
}

// settle returns once the kernel knows of everything announced so far, or the
// mount is gone.
func (n *notifier) settle(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		n.mu.Lock()
		n.room.Broadcast()
		n.mu.Unlock()
	})
	defer stop()
	n.mu.Lock()
	defer n.mu.Unlock()
	for !n.idle() && !n.closed && ctx.Err() == nil {
		n.room.Wait()
	}
	return ctx.Err()
}

// InvalInode drops the kernel's attributes, pages, symbolic link target and
// ACLs of an inode.
func (n *notifier) InvalInode(ino fs.Ino) { n.push(note{node: uint64(ino)}) }

// InvalEntry drops what the kernel knows of a name.
func (n *notifier) InvalEntry(parent fs.Ino, name string) {
	n.push(note{node: uint64(parent), entry: true, name: name})
}

func (n *notifier) push(x note) {
	n.changes.Add(1)
	if !n.has(x.node) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(n.queue) >= maxNotes && !n.closed {
		n.room.Wait()
	}
	if _, dup := n.queued[x]; dup || n.closed {
		return
	}
	n.queued[x] = struct{}{}
	n.queue = append(n.queue, x)
	n.pending.Add(1)
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// take empties the queue.
func (n *notifier) take() []note {
	n.mu.Lock()
	defer n.mu.Unlock()
	q := n.queue
	n.queue = nil
	clear(n.queued)
	n.room.Broadcast()
	return q
}

// run delivers until ctx ends; nothing is accepted afterwards.
func (n *notifier) run(ctx context.Context, k kernelCache) {
	defer n.close()
	again := map[note]struct{}{}
	timer := time.NewTimer(notesAgain)
	timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			for x := range again {
				deliver(k, x)
			}
			clear(again)
		case <-n.wake:
			for _, x := range n.take() {
				raced := n.open.Load() > 0
				deliver(k, x)
				n.delivered()
				if x.entry && (raced || n.open.Load() > 0) && len(again) < maxNotes {
					if len(again) == 0 {
						timer.Reset(notesAgain)
					}
					again[x] = struct{}{}
				}
			}
		}
	}
}

// deliver tells the kernel. That it does not know the inode or name, or is
// gone, is no error.
func deliver(k kernelCache, x note) {
	if x.entry {
		k.EntryNotify(x.node, x.name)
	} else {
		k.InodeNotify(x.node, 0, 0)
	}
}

func (n *notifier) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	n.pending.Add(-int64(len(n.queue)))
	n.queue = nil
	n.room.Broadcast()
}
