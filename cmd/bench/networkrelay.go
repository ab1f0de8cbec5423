//go:build linux

package main

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

// relay is a slow network: a UDP port behind which another one is, each packet
// of which takes a while. It serves one client, the one that spoke last.
type relay struct {
	delay              time.Duration // each way
	front, back        *net.UDPConn
	toTarget, toClient chan delayed
	running            sync.WaitGroup
	ctx                context.Context
	cancel             context.CancelFunc

	mu     sync.Mutex
	client netip.AddrPort
}

// delayed is a packet on its way.
type delayed struct {
	due  time.Time
	data []byte
}

// underWay is how many packets may be on their way in each direction; more are
// lost.
const underWay = 16 << 10

// newRelay begins to pass packets on, until close.
func newRelay(port int, delay time.Duration) (*relay, error) {
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	back, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		_ = front.Close()
		return nil, err
	}
	r := &relay{delay: delay, front: front, back: back, toTarget: make(chan delayed, underWay), toClient: make(chan delayed, underWay)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	for _, c := range []*net.UDPConn{front, back} {
		_ = c.SetReadBuffer(4 * mib) // what the kernel allows; a small one only loses packets
	}
	r.running.Go(func() { r.take(front, r.toTarget, true) })
	r.running.Go(func() { r.take(back, r.toClient, false) })
	r.running.Go(func() { r.give(r.toTarget, func(b []byte) { _, _ = back.Write(b) }) })
	r.running.Go(func() {
		r.give(r.toClient, func(b []byte) {
			r.mu.Lock()
			to := r.client
			r.mu.Unlock()
			if to.IsValid() {
				_, _ = front.WriteToUDPAddrPort(b, to)
			}
		})
	})
	return r, nil
}

// addr is where the client finds it.
func (r *relay) addr() string { return r.front.LocalAddr().String() }

// take reads packets until the socket is closed. Errors that tell of a port
// where nobody listens are those of a network, which loses packets.
func (r *relay) take(c *net.UDPConn, into chan<- delayed, fromClient bool) {
	buf := make([]byte, 64*kib)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if r.ctx.Err() != nil {
			return
		}
		if err != nil {
			continue
		}
		if fromClient {
			r.mu.Lock()
			r.client = from
			r.mu.Unlock()
		}
		select {
		case into <- delayed{time.Now().Add(r.delay), append([]byte(nil), buf[:n]...)}:
		default:
		}
	}
}

// give passes packets on when they are due, in their order.
func (r *relay) give(from <-chan delayed, send func([]byte)) {
	for {
		select {
		case p := <-from:
			time.Sleep(time.Until(p.due))
			send(p.data)
		case <-r.ctx.Done():
			return
		}
	}
}

// close ends the network.
func (r *relay) close() {
	r.cancel()
	_ = r.front.Close()
	_ = r.back.Close()
	r.running.Wait()
}
