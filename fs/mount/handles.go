package mount

import "sync"

// handles is a table of what the kernel has open. A handle is an index with
// the slot's generation above it, so that a stale one is found out.
type handles[T any] struct {
	mu    sync.RWMutex
	slots []slot[T]
	free  []uint32
}

type slot[T any] struct {
	gen uint32
	v   *T
}

// add stores v and returns its handle, which is never 0.
func (h *handles[T]) add(v *T) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	var i uint32
	if n := len(h.free); n > 0 {
		i, h.free = h.free[n-1], h.free[:n-1]
	} else {
		i = uint32(len(h.slots))
		h.slots = append(h.slots, slot[T]{})
	}
	s := &h.slots[i]
	s.gen++
	s.v = v
	return uint64(s.gen)<<32 | uint64(i)
}

// get returns what a handle stands for, or nil.
func (h *handles[T]) get(fh uint64) *T {
	i := uint32(fh)
	h.mu.RLock()
	defer h.mu.RUnlock()
	if int(i) >= len(h.slots) || h.slots[i].gen != uint32(fh>>32) {
		return nil
	}
	return h.slots[i].v
}

// remove takes a handle out of the table and returns what it stood for, or nil.
func (h *handles[T]) remove(fh uint64) *T {
	i := uint32(fh)
	h.mu.Lock()
	defer h.mu.Unlock()
	if int(i) >= len(h.slots) || h.slots[i].gen != uint32(fh>>32) || h.slots[i].v == nil {
		return nil
	}
	v := h.slots[i].v
	h.slots[i].v = nil
	h.free = append(h.free, i)
	return v
}

// drain empties the table and returns what was in it.
func (h *handles[T]) drain() []*T {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []*T
	for i := range h.slots {
		if v := h.slots[i].v; v != nil {
			out = append(out, v)
		}
	}
	h.slots, h.free = nil, nil
	return out
}

// len returns how many handles are open.
func (h *handles[T]) len() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.slots) - len(h.free)
}
