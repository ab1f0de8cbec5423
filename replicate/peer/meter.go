package peer

import (
	"sync"
	"sync/atomic"
	"time"
)

// The rates of a connection are averages over rateSamples times sampleEvery.
const (
	sampleEvery = time.Second
	rateSamples = 4
)

// meter is what a connection carried, for its rates and for the limits.
type meter struct {
	wrote, read atomic.Uint64 // bytes of streams, as the limits saw them

	paidUp, paidDown int64 // for what was carried beside those; of Endpoint.measure alone

	mu      sync.Mutex
	samples [rateSamples]sample // the oldest at next
	next    int
}

type sample struct {
	at             time.Time
	sent, received uint64
}

// begin starts the rates of a new connection.
func (m *meter) begin(now time.Time) {
	for i := range m.samples {
		m.samples[i].at = now
	}
}

// tick samples a connection.
func (m *meter) tick(now time.Time, sent, received uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.samples[m.next] = sample{now, sent, received}
	m.next = (m.next + 1) % rateSamples
}

// rates returns the bytes a second of the last seconds.
func (m *meter) rates(now time.Time, sent, received uint64) (up, down float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.samples[m.next]
	t := now.Sub(old.at).Seconds()
	if t <= 0 {
		return 0, 0
	}
	return float64(sent-old.sent) / t, float64(received-old.received) / t
}

// settle pays a limit for what a connection carried beside the bytes of streams
// that have passed it, or, down, will pass when they are read: what waits to be
// read is paid once, however often it comes to wait. It returns what is left of
// most, the most that may be paid now; the rest is paid later.
func settle(l *limit, carried, passed uint64, paid *int64, most float64) float64 {
	owed := int64(carried - passed)
	if !l.on() {
		*paid = owed
		return most
	}
	if owed <= *paid {
		return most
	}
	n := min(owed-*paid, int64(most))
	*paid += n
	l.pay(true, int(n))
	return most - float64(n)
}

// measure samples all connections, until the endpoint is closed.
func (e *Endpoint) measure() {
	ticker := time.NewTicker(sampleEvery)
	defer ticker.Stop()
	for {
		select {
		case <-e.ctx.Done():
			return
		case now := <-ticker.C:
			part := overheadPart * sampleEvery.Seconds()
			up, down := part*float64(e.up.rate.Load()), part*float64(e.down.rate.Load())
			for _, c := range e.reg.all() {
				s := c.qc.ConnectionStats()
				m := &c.meter
				m.tick(now, s.BytesSent, s.BytesReceived)
				up = settle(e.up, s.BytesSent, m.wrote.Load(), &m.paidUp, up)
				down = settle(e.down, s.BytesReceived, m.read.Load(), &m.paidDown, down)
			}
		}
	}
}
