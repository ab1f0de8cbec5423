package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// wire is a long cable: two taps, and a frame that goes into one comes out of
// the other after a delay. Kernels that can delay packets by themselves are
// rare, so it is done here.
type wire struct {
	delay time.Duration // one way
	// narrow lets only small frames leave the device: it answers to a sign of
	// life, and to nothing else.
	narrow atomic.Bool

	mu   sync.Mutex
	sent []sighting // UDP from the device's end
	come []sighting // and when it came there
}

// sighting is a datagram that passed.
type sighting struct {
	at   time.Time
	size int // of its payload
}

// lay lays the cable: an interface of one namespace to one of another.
func (w *wire) lay(l *lab, ns, dev, otherNS, otherDev string) {
	l.Helper()
	one, err := tap(ns, dev)
	l.must(err)
	other, err := tap(otherNS, otherDev)
	if err != nil {
		_ = one.Close()
		l.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { w.carry(one, other, true) })
	wg.Go(func() { w.carry(other, one, false) })
	l.Cleanup(func() {
		_ = one.Close()
		_ = other.Close()
		wg.Wait()
	})
}

// narrowest is the largest frame that passes a narrow wire: an acknowledgment
// or a ping, with the headers of Ethernet, IP and UDP.
const narrowest = 120

type delayed struct {
	due   time.Time
	frame []byte
}

// carry carries frames one way until the taps are closed. What does not fit in
// is lost, as in any queue.
func (w *wire) carry(from, to *os.File, out bool) {
	under := make(chan delayed, 16384)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(under)
	wg.Go(func() {
		for f := range under {
			if wait := time.Until(f.due); wait > 0 {
				<-time.After(wait)
			}
			_, _ = to.Write(f.frame) // fails while the interface is down: it is lost
			if !out {
				w.see(&w.come, f.frame)
			}
		}
	})
	buf := make([]byte, 65536)
	for {
		n, err := from.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil { // the interface is not up yet
			<-time.After(time.Millisecond)
			continue
		}
		f := delayed{time.Now().Add(w.delay), append([]byte(nil), buf[:n]...)}
		if out {
			w.see(&w.sent, f.frame)
			if n > narrowest && w.narrow.Load() {
				continue
			}
		}
		select {
		case under <- f:
		default:
		}
	}
}

// see notes a datagram of IPv4.
func (w *wire) see(into *[]sighting, frame []byte) {
	const ethernet, ipv4, udp = 14, 20, 8
	if len(frame) < ethernet+ipv4+udp || binary.BigEndian.Uint16(frame[12:]) != 0x0800 || frame[ethernet+9] != 17 {
		return
	}
	if dst := frame[ethernet+16]; dst >= 224 { // multicast
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	*into = append(*into, sighting{time.Now(), int(binary.BigEndian.Uint16(frame[ethernet+ipv4+4:])) - udp})
}

// Sizes of datagrams that carry a request: less is acknowledgments and pings,
// more is an offer, a handshake or a probe for the path's MTU.
const (
	leastRequest = 60
	mostRequest  = 300
)

// answerSlack is how late an answer may be, beside the round trip.
const answerSlack = 250 * time.Millisecond

// answered reports whether something that is no mere acknowledgment came when an
// answer could have. What only tells, as that blocks have arrived, gets none.
func (w *wire) answered(s sighting) bool {
	for _, c := range w.come {
		if wait := c.at.Sub(s.at); c.size >= leastRequest && wait >= 2*w.delay*9/10 && wait < 2*w.delay+answerSlack {
			return true
		}
	}
	return false
}

// rounds counts how often, since a time, the device sent requests that had to
// wait for what came before: those closer to each other than a round trip are
// one round, and what is not answered is no request.
func (w *wire) rounds(since time.Time) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	var last time.Time
	for _, s := range w.sent {
		if s.at.Before(since) || s.size < leastRequest || s.size > mostRequest {
			continue
		}
		if s.at.Sub(last) >= 2*w.delay*9/10 && w.answered(s) {
			n++
			last = s.at
		}
	}
	return n
}

// dump lists what was sent, for messages.
func (w *wire) dump(since time.Time) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := ""
	for _, s := range w.sent {
		if !s.at.Before(since) {
			out += fmt.Sprintf(" %d@%d", s.size, s.at.Sub(since).Milliseconds())
		}
	}
	return out
}

// tap makes a tap in a namespace and returns its other end.
func tap(ns, name string) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	made := make(chan result)
	go func() {
		// The thread is in the other namespace from here on: it is not given
		// back, and ends with this goroutine.
		runtime.LockOSThread()
		f, err := func() (*os.File, error) {
			at, err := unix.Open("/run/netns/"+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			defer unix.Close(at)
			if err := unix.Setns(at, unix.CLONE_NEWNET); err != nil {
				return nil, err
			}
			fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
			if err != nil {
				return nil, err
			}
			req, err := unix.NewIfreq(name)
			if err == nil {
				req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
				err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
			}
			if err != nil {
				unix.Close(fd)
				return nil, err
			}
			return os.NewFile(uintptr(fd), name), nil
		}()
		if err != nil {
			err = fmt.Errorf("a tap called %s in %s: %w", name, ns, err)
		}
		made <- result{f, err}
	}()
	r := <-made
	return r.f, r.err
}
