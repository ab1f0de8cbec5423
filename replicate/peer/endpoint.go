package peer

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"

	"github.com/quic-go/quic-go"
)

// receiveBuffer is what the transport asks the kernel for: a burst that
// arrives while this process does not run must fit, or it is lost.
const receiveBuffer = 7 * mib

// Endpoint is one UDP socket on which a device listens and dials. All methods
// may be called concurrently.
type Endpoint struct {
	self      Key
	options   Options
	cert      tls.Certificate
	udp       *net.UDPConn
	transport *quic.Transport
	listener  *quic.Listener
	reg       *registry
	up, down  *limit
	rush      rush

	ctx       context.Context // ends when Close begins
	cancel    context.CancelFunc
	closing   sync.Once
	closeErr  error
	measuring sync.WaitGroup
	working   sync.WaitGroup // those who dial, and the watch of a rush
	workingMu sync.Mutex     // no Add to working after ctx ended
}

// Listen opens the socket. The caller must call Accept again and again (only
// then are those who dial let in) and Close in the end. Errors are ErrOptions
// and what the network says, such as a port that is taken.
func Listen(options Options) (*Endpoint, error) {
	options, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	e := &Endpoint{self: publicKey(options.Key), options: options, reg: newRegistry(&options), up: newLimit(), down: newLimit()}
	e.rush.told = options.Rush
	e.SetRates(options.Up, options.Down)
	if e.cert, err = certificate(options.Key); err != nil {
		return nil, err
	}
	reset, err := resetKey(options.Key)
	if err != nil {
		return nil, err
	}
	addr, err := net.ResolveUDPAddr("udp", options.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", options.Listen, err)
	}
	if e.udp, err = net.ListenUDP("udp", addr); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", options.Listen, err)
	}
	quiet()
	conn, err := newSocket(e.udp)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", options.Listen, err), e.udp.Close())
	}
	e.transport = &quic.Transport{
		Conn:                conn,
		ConnectionIDLength:  8,
		StatelessResetKey:   reset,
		VerifySourceAddress: func(net.Addr) bool { return e.reg.crowded() },
		ConnContext:         e.reg.begin,
	}
	config := e.config()
	config.GetConfigForClient = func(*quic.ClientInfo) (*quic.Config, error) { return e.config(), nil }
	e.listener, err = e.transport.Listen(tlsConfig(e.cert, e.self, nil), config)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", options.Listen, err), e.transport.Close(), e.udp.Close())
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.measuring.Go(e.measure)
	if have, err := bufferSize(e.udp); err == nil && have < receiveBuffer {
		options.Logger.Info("the receive buffer is small; raise net.core.rmem_max for fast networks",
			"have", have, "want", receiveBuffer)
	}
	return e, nil
}

// config returns the settings of QUIC for a connection that begins now.
func (e *Endpoint) config() *quic.Config { return e.options.transport(e.reg.grow, e.windows) }

// resetKey derives the key of stateless resets from the device key, so that
// peers learn at once, not by silence, that this device was restarted.
func resetKey(private ed25519.PrivateKey) (*quic.StatelessResetKey, error) {
	b, err := hkdf.Key(sha256.New, private.Seed(), nil, "hearth/1 stateless reset", 32)
	if err != nil {
		return nil, fmt.Errorf("reset key: %w", err)
	}
	key := quic.StatelessResetKey(b)
	return &key, nil
}

// quiet keeps the transport from writing about buffers with the standard
// logger; Listen says it in the messages instead. A variable is the only way
// it offers.
func quiet() {
	const variable = "QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING"
	if _, ok := os.LookupEnv(variable); !ok {
		_ = os.Setenv(variable, "true") // fails for malformed names only
	}
}

// bufferSize asks the kernel for the size of the receive buffer.
func bufferSize(c *net.UDPConn) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	ctl := raw.Control(func(fd uintptr) { n, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF) })
	return n, errors.Join(ctl, err)
}

// Self returns the public device key of this endpoint.
func (e *Endpoint) Self() Key { return e.self }

// Port returns the UDP port.
func (e *Endpoint) Port() int { return e.udp.LocalAddr().(*net.UDPAddr).Port }

// Addr returns the address of the socket; its host is unspecified if it
// listens on all.
func (e *Endpoint) Addr() netip.AddrPort { return addrPort(e.udp.LocalAddr()) }

// Count returns how many connections there are, both directions.
func (e *Endpoint) Count() int { return e.reg.count() }

// Accept returns the next connection of a device that dialed this one and
// proved to have its key. It ends with the cause of ctx, or ErrClosed. What
// breaks a limit is closed with CodeTooMany and never seen here.
func (e *Endpoint) Accept(ctx context.Context) (*Conn, error) {
	for {
		qc, err := e.listener.Accept(ctx)
		switch {
		case e.ctx.Err() != nil:
			if err == nil {
				_ = qc.CloseWithError(quic.ApplicationErrorCode(CodeShutdown), "")
			}
			return nil, ErrClosed
		case err != nil && ctx.Err() != nil:
			return nil, fmt.Errorf("accept: %w", context.Cause(ctx))
		case err != nil:
			return nil, fmt.Errorf("accept: %w: %w", ErrClosed, err)
		}
		if a, ok := qc.Context().Value(attemptKey{}).(*attempt); ok {
			a.end()
		}
		c, err := e.enter(qc, false)
		if err == nil {
			return c, nil
		}
		e.options.Logger.Info("a connection was not let in", "from", qc.RemoteAddr().String(), "reason", err)
	}
}

// enter makes a Conn of a connection whose handshake is complete, within the
// limits, or closes it.
func (e *Endpoint) enter(qc *quic.Conn, dialed bool) (*Conn, error) {
	c, err := newConn(e, qc, dialed)
	if err != nil {
		_ = qc.CloseWithError(quic.ApplicationErrorCode(CodeDone), "")
		return nil, err
	}
	evicted, err := e.reg.admit(c)
	if err != nil {
		code := CodeTooMany
		if errors.Is(err, ErrClosed) {
			code = CodeShutdown
		}
		c.Close(code, err.Error())
		return nil, err
	}
	context.AfterFunc(qc.Context(), func() { e.reg.leave(qc) })
	if evicted != nil {
		e.options.Logger.Info("a stranger made room", "peer", evicted.peer, "from", evicted.Remote())
		evicted.Close(CodeTooMany, ErrTooMany.Error())
	}
	return c, nil
}

// Dial connects to the device at addr, host:port, where a host name is
// resolved and its addresses are tried in turn. With expect, another device
// there is a *WrongKeyError, and does not learn who dialed.
//
// Dial returns when the other side has proved its key; the other side may
// still refuse, which the first use of the connection says. Errors: those of
// ctx, ErrClosed, ErrWrongKey, ErrSelf, ErrIdentity, ErrTooMany (here),
// ErrRefused, ErrNoAnswer (after 5 s without a packet), and those of the
// network.
func (e *Endpoint) Dial(ctx context.Context, addr string, expect *Key) (*Conn, error) {
	if !e.enterWork() {
		return nil, ErrClosed
	}
	defer e.working.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(e.ctx, func() { cancel(ErrClosed) })()

	addrs, err := resolve(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	var errs []error
	for _, a := range addrs {
		qc, err := e.transport.Dial(ctx, net.UDPAddrFromAddrPort(a), tlsConfig(e.cert, e.self, expect), e.config())
		if err == nil {
			c, err := e.enter(qc, true)
			if err != nil {
				return nil, fmt.Errorf("dial %s: %w", addr, err)
			}
			return c, nil
		}
		errs = append(errs, failure(err))
		if ctx.Err() != nil {
			return nil, fmt.Errorf("dial %s: %w", addr, context.Cause(ctx))
		}
	}
	return nil, fmt.Errorf("dial %s: %w", addr, errors.Join(errs...))
}

// enterWork adds to working, unless Close began.
func (e *Endpoint) enterWork() bool {
	e.workingMu.Lock()
	defer e.workingMu.Unlock()
	if e.ctx.Err() != nil {
		return false
	}
	e.working.Add(1)
	return true
}

// resolve returns the addresses that addr stands for, at least one.
func resolve(ctx context.Context, addr string) ([]netip.AddrPort, error) {
	if a, err := netip.ParseAddrPort(addr); err == nil {
		return []netip.AddrPort{a}, nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port %q: %w", port, err)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	addrs := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		addrs[i] = netip.AddrPortFrom(ip.Unmap(), uint16(number))
	}
	return addrs, nil
}

// Close closes all connections with CodeShutdown, ends Accept and Dial, and
// closes the socket. It returns when all of that is done; a repeated call
// waits for the first and returns its error.
func (e *Endpoint) Close() error {
	e.closing.Do(func() {
		e.workingMu.Lock()
		e.cancel()
		e.workingMu.Unlock()
		e.working.Wait()
		e.measuring.Wait()
		var wg sync.WaitGroup
		for _, c := range e.reg.shut() {
			wg.Go(func() { c.Close(CodeShutdown, "shutting down") })
		}
		wg.Wait()
		e.closeErr = errors.Join(e.listener.Close(), e.transport.Close(), e.udp.Close())
	})
	return e.closeErr
}

// addrPort converts an address of the network package; IPv4 stays IPv4 on a
// socket for both.
func addrPort(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := u.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
