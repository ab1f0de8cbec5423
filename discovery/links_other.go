//go:build !linux

package discovery

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// watchLinks is not possible here: interfaces are looked at every few seconds.
func watchLinks() (*os.File, error) {
	return nil, fmt.Errorf("watch network interfaces: %w", errors.ErrUnsupported)
}

// BSD gives several sockets on one port each multicast with SO_REUSEPORT only.
// Which interface a datagram came by is IP_RECVPKTINFO.
var (
	options4 = []option{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR"},
		{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1, "SO_REUSEPORT"},
		{unix.SOL_SOCKET, unix.SO_BROADCAST, 1, "SO_BROADCAST"},
		{unix.IPPROTO_IP, unix.IP_RECVPKTINFO, 1, "IP_RECVPKTINFO"},
		{unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 1, "IP_MULTICAST_LOOP"},
		{unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 1, "IP_MULTICAST_TTL"},
		{unix.IPPROTO_IP, unix.IP_TTL, 1, "IP_TTL"},
	}
	options6 = []option{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR"},
		{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1, "SO_REUSEPORT"},
		{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO"},
		{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 1, "IPV6_MULTICAST_LOOP"},
		{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 1, "IPV6_MULTICAST_HOPS"},
	}
)

// leaveBy4 is the control message that sends a datagram by one interface: an
// in_pktinfo begins with its index.
func leaveBy4(index int) []byte {
	info := make([]byte, unix.SizeofInet4Pktinfo)
	binary.NativeEndian.PutUint32(info, uint32(index))
	return controlMessage(unix.IPPROTO_IP, unix.IP_PKTINFO, info)
}

// leaveBy6 is leaveBy4 for IPv6: an in6_pktinfo ends with the index.
func leaveBy6(index int) []byte {
	info := make([]byte, unix.SizeofInet6Pktinfo)
	binary.NativeEndian.PutUint32(info[16:], uint32(index))
	return controlMessage(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, info)
}

func controlMessage(level, kind int32, data []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(len(data)))
	copy(b[unix.CmsgLen(0):], data)
	return b
}
