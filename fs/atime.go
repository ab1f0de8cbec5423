package fs

import (
	"sync"
	"time"
)

// atimes holds access times. They are local and never committed: reading must
// not make versions. They feed tiering. What is not here was last read when it
// was last written.
type atimes struct {
	mu sync.Mutex
	m  map[Ino]Time
}

// atimeLimit bounds how many are held: beyond it the oldest knowledge goes.
const atimeLimit = 1 << 18

func (t *atimes) get(ino Ino, otherwise Time) Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at, ok := t.m[ino]; ok {
		return at
	}
	return otherwise
}

func (t *atimes) set(ino Ino, at Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m == nil || len(t.m) >= atimeLimit {
		t.m = map[Ino]Time{}
	}
	t.m[ino] = at
}

// onRead notes a read as relatime does: if the file was not read since it was
// written, or not for a day.
func (t *atimes) onRead(ino Ino, n *inode, now time.Time) {
	at := t.get(ino, n.mtime)
	if !n.mtime.Before(at) || now.Sub(at.Std()) > 24*time.Hour {
		t.set(ino, TimeOf(now))
	}
}
