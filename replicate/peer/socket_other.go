//go:build !linux

package peer

import "net"

// newSocket returns what the transport reads and writes.
func newSocket(c *net.UDPConn) (net.PacketConn, error) { return c, nil }
