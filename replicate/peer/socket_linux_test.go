package peer

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// sendTrain sends b with one system call, in packets of size bytes.
func sendTrain(t *rapid.T, c *net.UDPConn, b []byte, size int, to *net.UDPAddr) {
	oob := make([]byte, unix.CmsgSpace(2))
	h := (*[unix.SizeofCmsghdr]byte)(oob)
	binary.NativeEndian.PutUint64(h[:8], uint64(unix.CmsgLen(2)))
	binary.NativeEndian.PutUint32(h[8:12], unix.IPPROTO_UDP)
	binary.NativeEndian.PutUint32(h[12:16], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(oob[unix.CmsgLen(0):], uint16(size))
	if _, _, err := c.WriteMsgUDP(b, oob, to); err != nil {
		t.Fatal(err)
	}
}

// What is sent in trains and alone arrives as packets, whole, in order and with
// the address it came from.
func TestSocket(t *testing.T) {
	if unix.SizeofCmsghdr != 16 {
		t.Skip("the test writes control messages of 64-bit machines")
	}
	rapid.Check(t, func(t *rapid.T) {
		listen := func() *net.UDPConn {
			c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		from, to := listen(), listen()
		defer from.Close()
		defer to.Close()
		pc, err := newSocket(to)
		if err != nil {
			t.Fatal(err)
		}
		s, ok := pc.(*socket)
		if !ok {
			t.Skip("this kernel has no UDP_GRO")
		}
		var want [][]byte
		count := byte(0)
		for range rapid.IntRange(1, 4).Draw(t, "sends") {
			size := rapid.IntRange(1, 1452).Draw(t, "size")
			packets := rapid.IntRange(1, 14).Draw(t, "packets")
			last := rapid.IntRange(1, size).Draw(t, "last")
			train := make([]byte, 0, packets*size)
			for i := range packets {
				p := bytes.Repeat([]byte{count}, size)
				if i == packets-1 {
					p = p[:last]
				}
				count++
				want, train = append(want, p), append(train, p...)
			}
			sendTrain(t, from, train, size, to.LocalAddr().(*net.UDPAddr))
		}
		if err := to.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		ms := make([]ipv4.Message, rapid.IntRange(1, 9).Draw(t, "batch"))
		for len(want) > 0 {
			for i := range ms {
				ms[i] = ipv4.Message{Buffers: [][]byte{make([]byte, 1452)}, OOB: make([]byte, oobSize)}
			}
			n, err := s.ReadBatch(ms, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range ms[:n] {
				if len(want) == 0 {
					t.Fatal("a packet too many")
				}
				if got := m.Buffers[0][:m.N]; !bytes.Equal(got, want[0]) {
					t.Fatalf("%d bytes (%d...) arrived for %d (%d...)", len(got), got[0], len(want[0]), want[0][0])
				}
				if m.Addr.String() != from.LocalAddr().String() {
					t.Fatalf("from %v", m.Addr)
				}
				want = want[1:]
			}
		}
	})
}
