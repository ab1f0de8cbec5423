package discovery

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// watchLinks opens a netlink socket on which the kernel tells of every change
// of interfaces and addresses (rtnetlink(7)). What it tells is not read: it is
// the reason to look again.
func watchLinks() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch network interfaces: %w", err)
	}
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch network interfaces: %w", err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// SO_REUSEADDR lets several daemons share the port, of different users too, and
// Linux gives each of them every multicast and broadcast (SO_REUSEPORT would
// add nothing but the need of one user). The time to live of 1 keeps beacons on
// their link; IP_MULTICAST_ALL off keeps out what others joined.
var (
	options4 = []option{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR"},
		{unix.SOL_SOCKET, unix.SO_BROADCAST, 1, "SO_BROADCAST"},
		{unix.IPPROTO_IP, unix.IP_PKTINFO, 1, "IP_PKTINFO"},
		{unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0, "IP_MULTICAST_ALL"},
		{unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 1, "IP_MULTICAST_LOOP"},
		{unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 1, "IP_MULTICAST_TTL"},
		{unix.IPPROTO_IP, unix.IP_TTL, 1, "IP_TTL"},
	}
	options6 = []option{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR"},
		{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO"},
		{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 1, "IPV6_MULTICAST_LOOP"},
		{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 1, "IPV6_MULTICAST_HOPS"},
	}
)

// leaveBy4 is the control message that sends a datagram by one interface.
func leaveBy4(index int) []byte { return unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: int32(index)}) }

// leaveBy6 is leaveBy4 for IPv6.
func leaveBy6(index int) []byte { return unix.PktInfo6(&unix.Inet6Pktinfo{Ifindex: uint32(index)}) }
