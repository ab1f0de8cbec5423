package discovery

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// gatherTime is how long beacons wait in the socket's buffer after some were
// read: the devices of a network are heard a few times a second, not once for
// each of them, as waking up costs more than all that is done then. The first
// after a silence is heard at once.
const gatherTime = 250 * time.Millisecond

// gatherMost is after how many there is no such rest: of a flood, what is not read
// at once is lost in the kernel, and with it what other devices say.
const gatherMost = 64

// errDrained is returned by reader.read when nothing more has arrived.
var errDrained = errors.New("nothing more has arrived")

// reader reads datagrams with their control messages.
type reader struct {
	raw syscall.RawConn
	oob [128]byte
}

func newReader(conn *net.UDPConn) (*reader, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &reader{raw: raw}, nil
}

// read reads a datagram into b, as far as it fits. With wait it waits for one,
// until the socket is closed; else the error is errDrained when there is none.
func (r *reader) read(b []byte, wait bool) (n int, oob []byte, from netip.AddrPort, err error) {
	var oobn int
	var source unix.Sockaddr
	outer := r.raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, _, source, err = unix.Recvmsg(int(fd), b, r.oob[:], unix.MSG_DONTWAIT)
			if err != unix.EINTR {
				break
			}
		}
		if err == unix.EAGAIN {
			err = errDrained
			return !wait
		}
		return true
	})
	if outer != nil {
		return 0, nil, netip.AddrPort{}, outer
	}
	if err != nil {
		return 0, nil, netip.AddrPort{}, err
	}
	switch a := source.(type) {
	case *unix.SockaddrInet4:
		from = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		from = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return n, r.oob[:oobn], from, nil
}
