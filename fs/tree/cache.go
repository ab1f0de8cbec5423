package tree

import (
	"errors"
	"math/bits"
	"sync"
	"sync/atomic"

	"hearth/log"
)

const (
	maxShards = 16
	// slotCost is what a cached page costs beyond its plaintext: node, slot and
	// map entry.
	slotCost = 224
)

// Cache keeps decoded pages by reference, up to a number of bytes, shared by
// all trees of a drive. It is safe for concurrent use. Pages are evicted by
// CLOCK: one read a second time outlives those that a scan passes by.
//
// Two concurrent misses of one page read it once.
type Cache struct {
	shards []shard
	shift  uint // of the hash, to the number of the shard
}

// shard is one independently locked part: a ring of slots with a hand.
type shard struct {
	mu    sync.RWMutex
	slots map[log.Ref]*slot
	hand  *slot // the next candidate for eviction; nil when empty
	bytes int64
	limit int64
	loads map[log.Ref]*pageLoad
}

// slot holds the page itself, so that a hit is one cache line less away.
type slot struct {
	n          node
	ref        log.Ref
	prev, next *slot
	used       atomic.Bool // read since the hand last passed
}

// pageLoad is a read in progress that others wait for.
type pageLoad struct {
	done chan struct{}
	n    *node
	err  error
}

// errLoadAborted is seen by those who waited for a load that panicked.
var errLoadAborted = errors.New("reading a tree page was aborted")

// NewCache returns a cache of at most the given number of bytes.
func NewCache(bytes int64) *Cache {
	// A shard below a few dozen pages evicts by chance rather than by use.
	n := 1
	for n < maxShards && bytes/int64(n*2) >= 64*MaxPage {
		n *= 2
	}
	c := &Cache{shards: make([]shard, n), shift: uint(64 - bits.TrailingZeros(uint(n)))}
	for i := range c.shards {
		s := &c.shards[i]
		s.slots = make(map[log.Ref]*slot)
		s.loads = make(map[log.Ref]*pageLoad)
		s.limit = bytes / int64(n)
	}
	return c
}

// Len returns the number of pages in the cache.
func (c *Cache) Len() int {
	total := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		total += len(s.slots)
		s.mu.RUnlock()
	}
	return total
}

// Bytes returns what the pages in the cache cost.
func (c *Cache) Bytes() int64 {
	var total int64
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		total += s.bytes
		s.mu.RUnlock()
	}
	return total
}

func (c *Cache) shard(ref log.Ref) *shard {
	h := (ref.Index ^ uint64(ref.Writer)<<48) * 0x9e3779b97f4a7c15
	return &c.shards[h>>c.shift] // one shard: a shift by 64 is 0
}

// get returns a cached page or nil.
func (c *Cache) get(ref log.Ref) *node {
	if c == nil {
		return nil
	}
	s := c.shard(ref)
	s.mu.RLock()
	e := s.slots[ref]
	s.mu.RUnlock()
	if e == nil {
		return nil
	}
	if !e.used.Load() { // spares the cache line of a hot page
		e.used.Store(true)
	}
	return &e.n
}

// fill reads a page that get did not find, unless somebody else is reading it.
func (c *Cache) fill(ref log.Ref, p Pages) (*node, error) {
	if c == nil {
		return readNode(p, ref)
	}
	s := c.shard(ref)
	s.mu.Lock()
	if e := s.slots[ref]; e != nil {
		s.mu.Unlock()
		return &e.n, nil
	}
	if l := s.loads[ref]; l != nil {
		s.mu.Unlock()
		<-l.done
		if l.err != nil {
			return readNode(p, ref) // the other one may read only what is near
		}
		return l.n, nil
	}
	l := &pageLoad{done: make(chan struct{}), err: errLoadAborted}
	s.loads[ref] = l
	s.mu.Unlock()

	defer func() {
		s.mu.Lock()
		delete(s.loads, ref)
		if l.err == nil {
			s.insert(ref, l.n)
		}
		s.mu.Unlock()
		close(l.done)
	}()
	l.n, l.err = readNode(p, ref)
	return l.n, l.err
}

// put adds a page that was just written.
func (c *Cache) put(ref log.Ref, n *node) {
	if c == nil {
		return
	}
	s := c.shard(ref)
	s.mu.Lock()
	s.insert(ref, n)
	s.mu.Unlock()
}

func (e *slot) cost() int64 { return int64(cap(e.n.data)) + slotCost }

// insert adds a page behind the hand, so that it is the last to be considered
// for eviction, and makes room for it. The caller holds the lock.
func (s *shard) insert(ref log.Ref, n *node) {
	e := &slot{ref: ref, n: *n}
	if s.slots[ref] != nil || e.cost() > s.limit {
		return
	}
	for s.bytes+e.cost() > s.limit {
		s.evict()
	}
	if s.hand == nil {
		e.prev, e.next = e, e
		s.hand = e
	} else {
		e.prev, e.next = s.hand.prev, s.hand
		e.prev.next, e.next.prev = e, e
	}
	s.slots[ref] = e
	s.bytes += e.cost()
}

// evict removes the first page from the hand on that was not read since the
// hand last passed it. The ring must not be empty.
func (s *shard) evict() {
	for s.hand.used.Load() {
		s.hand.used.Store(false)
		s.hand = s.hand.next
	}
	e := s.hand
	if e.next == e {
		s.hand = nil
	} else {
		e.prev.next, e.next.prev = e.next, e.prev
		s.hand = e.next
	}
	delete(s.slots, e.ref)
	s.bytes -= e.cost()
}
