package discovery

import (
	"net/netip"
	"time"
)

// What is decoded. A device sends about four datagrams in 2.5 s, and several
// can live behind one address.
const (
	sourceRate  = 20 // datagrams a second from one address
	sourceBurst = 60
	totalRate   = 400 // from all together
	totalBurst  = 800
	sourcesMax  = 512 // addresses counted one by one; the others share one bucket
)

// bucket is a token bucket. The zero bucket is full.
type bucket struct {
	used float64
	at   time.Time
}

func (b *bucket) take(now time.Time, rate, burst float64) bool {
	b.used = max(0, b.used-now.Sub(b.at).Seconds()*rate)
	b.at = now
	if b.used+1 > burst {
		return false
	}
	b.used++
	return true
}

// limiter says whether a datagram is worth being decoded. Not safe for
// concurrent use.
type limiter struct {
	sources map[netip.Addr]*bucket
	others  bucket
	total   bucket
	swept   time.Time
}

func (l *limiter) allow(from netip.Addr, now time.Time) bool {
	b, ok := l.sources[from]
	if !ok {
		if len(l.sources) >= sourcesMax {
			l.sweep(now)
		}
		if len(l.sources) < sourcesMax {
			b = &bucket{at: now}
			if l.sources == nil {
				l.sources = map[netip.Addr]*bucket{}
			}
			l.sources[from] = b
		} else {
			b = &l.others
		}
	}
	// The own bucket first: a flood from one source shall not use up what
	// all have together.
	return b.take(now, sourceRate, sourceBurst) && l.total.take(now, totalRate, totalBurst)
}

// sweep forgets sources whose bucket is full again, at most once a second.
func (l *limiter) sweep(now time.Time) {
	if now.Sub(l.swept) < time.Second {
		return
	}
	l.swept = now
	for from, b := range l.sources {
		if now.Sub(b.at) > sourceBurst/sourceRate*time.Second {
			delete(l.sources, from)
		}
	}
}
