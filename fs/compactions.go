package fs

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// compactions lets a database compact as much as it says that it may, like the
// scheduler that Pebble has by itself, which looks ten times a second whether
// there is something to do: an idle device would wake for each of its drives.
// This one looks when something has ended that may have changed it. It is of one
// database. All methods may be called concurrently.
type compactions struct {
	db   pebble.DBForCompaction // set by Register, before all else
	look chan struct{}          // holds one: something may be waiting
	stop chan struct{}
	done chan struct{}

	mu      sync.Mutex
	running int
	ended   bool
}

var _ pebble.CompactionScheduler = (*compactions)(nil)

func newCompactions() *compactions {
	return &compactions{look: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
}

// Register implements pebble.CompactionScheduler. The goroutine ends with
// Unregister.
func (c *compactions) Register(_ int, db pebble.DBForCompaction) {
	c.db = db
	go func() {
		defer close(c.done)
		for {
			select {
			case <-c.look:
				c.grant()
			case <-c.stop:
				return
			}
		}
	}()
}

// Unregister implements pebble.CompactionScheduler.
func (c *compactions) Unregister() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	close(c.stop)
	<-c.done
}

// TrySchedule implements pebble.CompactionScheduler. What is refused is granted
// when something that runs has ended.
func (c *compactions) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.room() {
		return false, nil
	}
	c.running++
	return true, grant{c}
}

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler: a
// flush has ended. Its caller holds locks of the database, so it is looked at
// later.
func (c *compactions) UpdateGetAllowedWithoutPermission() {
	select {
	case c.look <- struct{}{}:
	default:
	}
}

// room reports whether one more may run. The caller holds mu.
func (c *compactions) room() bool {
	return !c.ended && c.db.GetAllowedWithoutPermission() > c.running
}

// grant begins what waits and may run.
func (c *compactions) grant() {
	for {
		c.mu.Lock()
		room := c.room()
		c.mu.Unlock()
		if !room {
			return
		}
		if waiting, _ := c.db.GetWaitingCompaction(); !waiting || !c.db.Schedule(grant{c}) {
			return
		}
		c.mu.Lock()
		c.running++
		c.mu.Unlock()
	}
}

// grant is the permission for one compaction.
type grant struct{ c *compactions }

// Started implements pebble.CompactionGrantHandle.
func (grant) Started() {}

// MeasureCPU implements pebble.CompactionGrantHandle.
func (grant) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats implements pebble.CompactionGrantHandle.
func (grant) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// Done implements pebble.CompactionGrantHandle.
func (g grant) Done() {
	g.c.mu.Lock()
	g.c.running--
	g.c.mu.Unlock()
	g.c.UpdateGetAllowedWithoutPermission()
}
