package replicate

import (
	"sync"
	"time"
)

// Bounds of a window, in bytes.
const (
	windowLeast = 128 << 10
	windowFirst = 512 << 10
	windowMost  = 16 << 20
	// windowEntries bounds it in entries, which may be small: as many as a lane's
	// requests can ask for.
	windowEntries = maxPending * pullEntries * 3 / 4
	// queueTime is the queue that a transfer nobody waits for may make: what a
	// person asks for meanwhile comes behind it.
	queueTime = 100 * time.Millisecond
	// rateTime is over what a rate is measured.
	rateTime = 100 * time.Millisecond
)

// window bounds what is asked of a peer ahead of its answers: twice what it is
// measured to send in a round trip and queueTime. A path that has more to give
// shows that by sending faster, which opens the window; on one that has not,
// the queue stays short. Safe for concurrent use.
type window struct {
	mu       sync.Mutex
	inFlight int64 // entries
	mean     int64 // bytes of an entry, of late
	limit    int64 // bytes
	rate     int64 // bytes a second, of late
	begun    time.Time
	arrived  int64 // bytes, since begun
}

func newWindow() *window { return &window{mean: 64 << 10, limit: windowFirst} }

// room returns how many more entries may be asked for; share is the part of
// the window that may be used, a number of quarters.
func (w *window) room(share int64) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int(max(min(w.limit/w.mean, windowEntries)*share/4, 1) - w.inFlight)
}

// open returns how many entries the window has.
func (w *window) open() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int(max(min(w.limit/w.mean, windowEntries), 1))
}

// asked counts entries that are asked for, and answered those that were.
func (w *window) asked(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.inFlight == 0 {
		w.begun, w.arrived = time.Now(), 0 // the time without requests is not the peer's
	}
	w.inFlight += int64(n)
}

func (w *window) answered(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inFlight -= int64(n)
}

// took counts an entry that arrived.
func (w *window) took(bytes int, rtt time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mean += (int64(bytes) - w.mean) / 8
	w.mean = max(w.mean, 256)
	w.arrived += int64(bytes)
	now := time.Now()
	took := now.Sub(w.begun)
	if took < rateTime {
		return
	}
	rate := w.arrived * int64(time.Second) / int64(took)
	w.rate = (w.rate + rate) / 2
	w.begun, w.arrived = now, 0
	per := float64(2*max(w.rate, rate)) / float64(time.Second)
	w.limit = min(max(int64(per*float64(rtt+queueTime)), windowLeast), windowMost)
}

// late returns after what time a request that was not answered is asked of
// another peer, too, when there is nothing else to ask for.
func (w *window) late(rtt time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rate == 0 {
		return time.Second
	}
	drain := time.Duration(float64(w.inFlight*w.mean) / float64(w.rate) * float64(time.Second))
	return 2*(drain+rtt) + queueTime
}
