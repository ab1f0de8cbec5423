package mount

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"hearth/fs"
)

// fakeKernel notes what it is told, one at a time when held.
type fakeKernel struct {
	mu   sync.Mutex
	told []note
	hold chan struct{} // if set, each delivery takes one
	some chan struct{}
}

func newFakeKernel() *fakeKernel { return &fakeKernel{some: make(chan struct{}, 1<<20)} }

func (k *fakeKernel) tell(x note) fuse.Status {
	if k.hold != nil {
		<-k.hold
	}
	k.mu.Lock()
	k.told = append(k.told, x)
	k.mu.Unlock()
	k.some <- struct{}{}
	return fuse.ENOENT
}

func (k *fakeKernel) InodeNotify(node uint64, _, _ int64) fuse.Status {
	return k.tell(note{node: node})
}
func (k *fakeKernel) EntryNotify(parent uint64, name string) fuse.Status {
	return k.tell(note{parent, true, name})
}

func (k *fakeKernel) wait(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case <-k.some:
		case <-time.After(10 * time.Second):
			t.Fatal("the kernel was not told")
		}
	}
}

// all says that the kernel knows every inode.
func all(uint64) bool { return true }

func startNotifier(t *testing.T, k kernelCache) *notifier {
	n := newNotifier(all)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.run(ctx, k) }()
	t.Cleanup(func() { cancel(); <-done })
	return n
}

func TestNotifierDelivers(t *testing.T) {
	k := newFakeKernel()
	n := startNotifier(t, k)
	n.InvalInode(7)
	n.InvalEntry(1, "name")
	k.wait(t, 2)
	if len(k.told) != 2 || k.told[0] != (note{node: 7}) || k.told[1] != (note{1, true, "name"}) {
		t.Fatalf("told %v", k.told)
	}
}

func TestNotifierRaces(t *testing.T) {
	k := newFakeKernel()
	k.hold = make(chan struct{})
	n := startNotifier(t, k)
	asked := n.ask()
	if !n.fresh(asked) || !n.idle() {
		t.Fatal("nothing changed yet")
	}
	n.InvalEntry(1, "name")
	if n.fresh(asked) {
		t.Error("an answer from before the change may be kept")
	}
	if later := n.ask(); n.fresh(later) || n.idle() {
		t.Error("an answer may be kept while the kernel has yet to hear of a change")
	} else {
		n.answered()
	}
	k.hold <- struct{}{}
	k.wait(t, 1)
	// A question is still open: the kernel is told once more, later.
	k.hold <- struct{}{}
	k.wait(t, 1)
	n.answered()
	for !n.idle() {
		time.Sleep(time.Millisecond)
	}
	if !n.fresh(n.ask()) {
		t.Error("answers are never kept again")
	}
	n.answered()
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.told) != 2 || k.told[0] != k.told[1] {
		t.Errorf("told %v", k.told)
	}
}

func TestNotifierBound(t *testing.T) {
	k := newFakeKernel()
	k.hold = make(chan struct{})
	n := startNotifier(t, k)
	const extra = 1000
	pushed := make(chan struct{})
	go func() {
		defer close(pushed)
		for i := range maxNotes + extra {
			n.InvalEntry(1, fmt.Sprint(i))
		}
	}()
	for n.pending.Load() < maxNotes {
		time.Sleep(time.Millisecond)
	}
	close(k.hold) // the kernel listens again
	<-pushed
	k.wait(t, maxNotes+extra)
}

func TestNotifierDeduplicates(t *testing.T) {
	n := newNotifier(all) // nobody delivers
	for range maxNotes * 2 {
		n.InvalInode(9)
	}
	if len(n.queue) != 1 || n.pending.Load() != 1 {
		t.Errorf("%d queued", len(n.queue))
	}
}

// What the kernel does not know is not announced, but answers under way are
// not kept all the same.
func TestNotifierUnknown(t *testing.T) {
	n := newNotifier(func(node uint64) bool { return node == 2 })
	asked := n.ask()
	n.InvalInode(3)
	n.InvalEntry(3, "x")
	if len(n.queue) != 0 || !n.idle() {
		t.Errorf("%d queued", len(n.queue))
	}
	if n.fresh(asked) {
		t.Error("an answer from before is kept")
	}
	n.InvalEntry(2, "x")
	if len(n.queue) != 1 {
		t.Errorf("%d queued", len(n.queue))
	}
}

func TestNotifierEnds(t *testing.T) {
	n := newNotifier(all)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n.run(ctx, newFakeKernel())
	for i := range maxNotes + 10 { // blocks nobody
		n.InvalInode(fs.Ino(i))
	}
	if !n.idle() {
		t.Error("announcements pile up after the end")
	}
}
