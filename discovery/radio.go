package discovery

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// radio is the two sockets of the beacon. A socket of each family is bound to
// the wildcard address and joined to its group on every link; which link a
// datagram came by, and is to leave by, is in its control message (IP_PKTINFO).
// It belongs to one goroutine; only the connections are read by others.
type radio struct {
	port   uint16
	v4, v6 *net.UDPConn
	err4   error // why there is none
	err6   error
	joined map[membership]error
}

type membership struct {
	six   bool
	index int
}

// open opens the sockets that are not open, and returns those it opened. A
// machine without IPv6 has one.
func (r *radio) open(ctx context.Context) []*net.UDPConn {
	var opened []*net.UDPConn
	if r.v4 == nil {
		if r.v4, r.err4 = listen(ctx, "udp4", r.port, options4); r.err4 == nil {
			opened = append(opened, r.v4)
		}
	}
	if r.v6 == nil {
		if r.v6, r.err6 = listen(ctx, "udp6", r.port, options6); r.err6 == nil {
			opened = append(opened, r.v6)
		}
	}
	return opened
}

func (r *radio) close() {
	for _, c := range []*net.UDPConn{r.v4, r.v6} {
		if c != nil {
			c.Close()
		}
	}
}

// option is one setsockopt(2).
type option struct {
	level, name, value int
	what               string
}

func listen(ctx context.Context, network string, port uint16, options []option) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			for _, o := range options {
				if err := unix.SetsockoptInt(int(fd), o.level, o.name, o.value); err != nil {
					failed = fmt.Errorf("set %s: %w", o.what, err)
					return
				}
			}
		})
		return errors.Join(err, failed)
	}}
	pc, err := lc.ListenPacket(ctx, network, fmt.Sprintf(":%d", port))
	if err != nil {
		return nil, fmt.Errorf("open the socket of beacons: %w", err)
	}
	return pc.(*net.UDPConn), nil
}

// join joins the groups on these links, and leaves them on all others. An
// interface that came back has another index, or is still a member.
func (r *radio) join(links []iface) {
	want := map[membership]bool{}
	for _, l := range links {
		want[membership{false, l.net.Index}] = r.v4 != nil && l.has4()
		want[membership{true, l.net.Index}] = r.v6 != nil && l.has6()
	}
	for m := range r.joined {
		if !want[m] {
			r.member(m, false)
			delete(r.joined, m)
		}
	}
	for m, on := range want {
		if err, did := r.joined[m]; on && (!did || err != nil) {
			r.joined[m] = r.member(m, true)
		}
	}
}

func (r *radio) member(m membership, in bool) error {
	conn := r.v4
	if m.six {
		conn = r.v6
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("join the group of beacons: %w", err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		if m.six {
			name := unix.IPV6_LEAVE_GROUP
			if in {
				name = unix.IPV6_JOIN_GROUP
			}
			failed = unix.SetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IPV6, name,
				&unix.IPv6Mreq{Multiaddr: group6.As16(), Interface: uint32(m.index)})
			return
		}
		name := unix.IP_DROP_MEMBERSHIP
		if in {
			name = unix.IP_ADD_MEMBERSHIP
		}
		failed = unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, name,
			&unix.IPMreqn{Multiaddr: group4.As4(), Ifindex: int32(m.index)})
	})
	if errors.Is(failed, unix.EADDRINUSE) { // a member already
		failed = nil
	}
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("join the group of beacons: %w", err)
	}
	return nil
}

// send sends one datagram on a link by every beacon method that the link can
// carry, and reports what came of each.
func (r *radio) send(datagram []byte, l iface, report func(method, error)) {
	index := l.net.Index
	if l.has4() {
		err := r.err4
		if r.v4 != nil {
			err = errors.Join(r.joined[membership{false, index}], r.send4(datagram, index, group4))
		}
		report(byMulticast4, err)
	}
	if l.has6() {
		err := r.err6
		if r.v6 != nil {
			err = errors.Join(r.joined[membership{true, index}], r.send6(datagram, index))
		}
		report(byMulticast6, err)
	}
	to := l.broadcasts()
	if l.has4() && l.net.Flags&net.FlagBroadcast != 0 {
		to = append(to, limited4)
	}
	if len(to) == 0 {
		return
	}
	err := r.err4
	if r.v4 != nil {
		var errs []error
		for _, addr := range to {
			if err := r.send4(datagram, index, addr); err != nil {
				errs = append(errs, err)
			}
		}
		if len(errs) == len(to) { // one that leaves suffices
			err = errors.Join(errs...)
		}
	}
	report(byBroadcast4, err)
}

func (r *radio) send4(datagram []byte, index int, to netip.Addr) error {
	oob := leaveBy4(index)
	if _, _, err := r.v4.WriteMsgUDPAddrPort(datagram, oob, netip.AddrPortFrom(to, r.port)); err != nil {
		return fmt.Errorf("send a beacon: %w", err)
	}
	return nil
}

func (r *radio) send6(datagram []byte, index int) error {
	oob := leaveBy6(index)
	if _, _, err := r.v6.WriteMsgUDPAddrPort(datagram, oob, netip.AddrPortFrom(group6, r.port)); err != nil {
		return fmt.Errorf("send a beacon: %w", err)
	}
	return nil
}

// arrival reads a control message: the interface a datagram came by, and the
// address it was sent to. The layouts are in_pktinfo (index, local address,
// destination) and in6_pktinfo (destination, index).
func arrival(oob []byte) (index int, to netip.Addr, ok bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, netip.Addr{}, false
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO &&
			len(m.Data) >= unix.SizeofInet4Pktinfo:
			return int(binary.NativeEndian.Uint32(m.Data)), netip.AddrFrom4([4]byte(m.Data[8:12])), true
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO &&
			len(m.Data) >= unix.SizeofInet6Pktinfo:
			return int(binary.NativeEndian.Uint32(m.Data[16:])), netip.AddrFrom16([16]byte(m.Data[:16])), true
		}
	}
	return 0, netip.Addr{}, false
}
