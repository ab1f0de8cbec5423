package mount

import (
	"sync"

	"hearth/fs"
)

// refs counts the lookups the kernel remembers, for each live inode. The drive
// holds one reference for all of them, so that an inode without a name lives
// until the kernel forgets it. The drive is told on the first and the last
// only; and as the kernel says no goodbye at unmount, the table does.
type refs struct {
	shards [16]refShard
}

type refShard struct {
	mu sync.Mutex
	n  map[uint64]uint64
}

func (r *refs) shard(node uint64) *refShard { return &r.shards[node%uint64(len(r.shards))] }

// add notes one more lookup of node.
func (r *refs) add(s *server, node uint64) {
	if s.drive == nil && s.followed == nil {
		return
	}
	sh := r.shard(node)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.n == nil {
		sh.n = map[uint64]uint64{}
	}
	sh.n[node]++
	if sh.n[node] == 1 && s.drive != nil {
		// Under the shard's lock: the next one must not answer the kernel
		// before the drive knows. Ref takes no lock that could wait for us.
		s.drive.Ref(fs.Ino(node), 1)
	}
}

// known reports whether the kernel remembers an inode. It never waits, as it is
// called under the drive's lock, which add asks for under its own: if it cannot
// tell at once the answer is no.
func (r *refs) known(ino fs.Ino) bool {
	sh := r.shard(uint64(ino))
	if !sh.mu.TryLock() {
		return false
	}
	defer sh.mu.Unlock()
	return sh.n[uint64(ino)] > 0
}

// has reports the same for certain; the kernel always knows the root. Not to
// be called under the drive's lock.
func (r *refs) has(node uint64) bool {
	if node == uint64(fs.RootIno) {
		return true
	}
	sh := r.shard(node)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.n[node] > 0
}

// drop takes back lookups.
func (r *refs) drop(s *server, node, lookups uint64) {
	if s.drive == nil && s.followed == nil {
		return
	}
	sh := r.shard(node)
	sh.mu.Lock()
	n, ok := sh.n[node]
	last := ok && n <= lookups
	if last {
		delete(sh.n, node)
	} else if ok {
		sh.n[node] = n - lookups
	}
	sh.mu.Unlock()
	if last && s.drive != nil {
		// Not under the lock: freeing an inode may wait for its data to be
		// sealed. A lookup that comes between finds the inode by a name, so
		// it is not one that can be freed.
		s.drive.Unref(fs.Ino(node), 1)
	}
}

// drain forgets everything.
func (r *refs) drain(s *server) {
	for i := range r.shards {
		sh := &r.shards[i]
		sh.mu.Lock()
		n := sh.n
		sh.n = nil
		sh.mu.Unlock()
		if s.drive == nil {
			continue
		}
		for node := range n {
			s.drive.Unref(fs.Ino(node), 1)
		}
	}
}

// len returns how many inodes the kernel knows.
func (r *refs) len() int {
	n := 0
	for i := range r.shards {
		sh := &r.shards[i]
		sh.mu.Lock()
		n += len(sh.n)
		sh.mu.Unlock()
	}
	return n
}
