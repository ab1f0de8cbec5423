package peer

import (
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	mib = 1 << 20

	handshakeTimeout = 5 * time.Second // without any packet; twice that in all

	// What a connection may receive ahead of the application before it has
	// shown that it reads.
	initialStreamWindow = 512 << 10
	initialConnWindow   = 768 << 10

	maxHandshakes    = 64 // attempts under way; more are refused unseen
	verifyHandshakes = 16 // from here on, an attempt must first prove its address
)

// Options say how an endpoint listens and what it allows. Only Key is needed;
// a zero stands for the default in brackets.
type Options struct {
	Key    ed25519.PrivateKey // device key
	Listen string             // UDP address, host:port [":0": any free port, IPv4 and IPv6]
	Logger *slog.Logger       // messages [none]

	// Up and Down limit what is sent and received, see [Endpoint.SetRates].
	Up, Down int64 // bytes a second [no limit]

	// Rush is told that much is carried, some 40 MB/s or more, and that it is not
	// any more, in turns, by one goroutine at a time [nobody is told].
	Rush func(bool)

	MaxConns   int // connections in all, both directions [256]
	MaxPerPeer int // connections with one device key, both directions [4]
	MaxStreams int // streams the other side may have open on a connection [64]

	// A device receives at most StreamWindow bytes of a stream, and ConnWindow
	// bytes of a connection, that the application has not read. Windows start
	// at 512 and 768 KiB and grow while the application keeps up; Memory bounds
	// the growth of all connections together. So unread data never takes more
	// than MaxConns * 768 KiB + Memory.
	StreamWindow int64 // [8 MiB, at most 64 MiB]
	ConnWindow   int64 // [16 MiB, at most 64 MiB]
	Memory       int64 // [256 MiB]

	// IdleTimeout is how long a silent connection lives. There is a sign of
	// life every 2/7 of it, and the transport starts the clock with the first
	// one that stays unanswered, so a pulled cable is noticed after at most 9/7
	// of it: 9 s. The smaller value of the two sides counts.
	IdleTimeout time.Duration // [7 s]
}

// withDefaults returns o with its zeros filled in, or ErrOptions.
func (o Options) withDefaults() (Options, error) {
	if len(o.Key) != ed25519.PrivateKeySize {
		return o, fmt.Errorf("%w: the device key has %d bytes", ErrOptions, len(o.Key))
	}
	if o.Listen == "" {
		o.Listen = ":0"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	for _, n := range []struct {
		v   *int
		std int
	}{{&o.MaxConns, 256}, {&o.MaxPerPeer, 4}, {&o.MaxStreams, 64}} {
		if *n.v == 0 {
			*n.v = n.std
		}
		if *n.v < 0 {
			return o, fmt.Errorf("%w: a negative limit", ErrOptions)
		}
	}
	for _, n := range []struct {
		v        *int64
		std, max int64
	}{{&o.StreamWindow, 8 * mib, 64 * mib}, {&o.ConnWindow, 16 * mib, 64 * mib}, {&o.Memory, 256 * mib, 1 << 40}} {
		if *n.v == 0 {
			*n.v = n.std
		}
		if *n.v < 0 || *n.v > n.max {
			return o, fmt.Errorf("%w: a window or memory of %d bytes", ErrOptions, *n.v)
		}
	}
	if o.Up < 0 || o.Down < 0 {
		return o, fmt.Errorf("%w: a negative rate", ErrOptions)
	}
	if o.IdleTimeout == 0 {
		o.IdleTimeout = 7 * time.Second
	}
	if o.IdleTimeout < 0 {
		return o, fmt.Errorf("%w: a negative time", ErrOptions)
	}
	return o, nil
}

// transport returns the settings of QUIC. Path MTU discovery and segmentation
// offload are on by default there, 0-RTT and datagrams off.
func (o *Options) transport(grow func(*quic.Conn, uint64) bool, windows func() (stream, conn int64)) *quic.Config {
	stream, conn := windows()
	return &quic.Config{
		Versions:                       []quic.Version{quic.Version1},
		HandshakeIdleTimeout:           handshakeTimeout,
		MaxIdleTimeout:                 o.IdleTimeout,
		KeepAlivePeriod:                o.IdleTimeout * 2 / 7,
		InitialStreamReceiveWindow:     uint64(stream),
		MaxStreamReceiveWindow:         uint64(o.StreamWindow),
		InitialConnectionReceiveWindow: uint64(conn),
		MaxConnectionReceiveWindow:     uint64(o.ConnWindow),
		AllowConnectionWindowIncrease:  grow,
		MaxIncomingStreams:             int64(o.MaxStreams),
		MaxIncomingUniStreams:          -1,
	}
}
