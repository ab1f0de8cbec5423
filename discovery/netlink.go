package discovery

import (
	"context"
	"errors"
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

// follow calls changed after each message, until ctx ends or the socket fails.
func follow(ctx context.Context, f *os.File, changed func()) error {
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	defer f.Close()
	buf := make([]byte, 1<<16)
	for {
		_, err := f.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // messages were lost, which is a change too
		case err != nil:
			return fmt.Errorf("watch network interfaces: %w", err)
		}
		changed()
	}
}
