package replicate

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"hearth/fs"
	"hearth/log"

	"golang.org/x/mod/sumdb/tlog"
)

// What peers send is decoded without a panic, and what decodes encodes to the
// same.
func FuzzMessages(f *testing.F) {
	name := logName{drive: log.DriveID{1}, writer: 2}
	proof := log.HeadProof{Note: []byte("note"), Old: 3, Leaves: make([]byte, 64), Edges: [][]byte{{1}, nil}, Consistency: []tlog.Hash{{4}}, Base: make([]byte, 32)}
	add := func(b []byte) { f.Add(b[4:]) }
	add(encodeOffer([][32]byte{{1}, {2}}))
	add((&profile{name: "a", beacon: [32]byte{5}}).encode())
	add((&news{log: name, proof: proof, controls: []uint64{6, 700}}).encode())
	add((&holds{log: name, ranges: []span{{3, 4}, {500, 6}}}).encode())
	for _, q := range []request{
		{typ: msgInfo, log: logName{drive: name.drive}},
		{typ: msgProve, log: name, known: 7},
		{typ: msgGet, log: name, tiles: []log.TileRef{{Level: 1, N: 2}}, ranges: []span{{3, 4}, {500, 6}}},
		{typ: msgHave, log: name, ranges: []span{{3, 4}, {500, 60_000}}},
		{typ: msgWalk, log: name, walk: fs.Walk{Commit: log.Ref{Writer: 2, Index: 8}, Op: fs.WalkRead, Ino: 9, Name: "x", Off: 10, Len: 11}},
		{typ: msgProbe, log: name, nonce: [32]byte{12}, slices: []slice{{13, 14, 15}, {1600, 0, maxMessage}}},
		{typ: msgBoxes, log: logName{drive: name.drive}, recipient: [32]byte{9}},
	} {
		add(q.encode())
	}
	add((&walking{drive: log.DriveID{1}, yes: true}).encode())
	add((&epochNews{token: [32]byte{1}, entry: epochEntry(f)}).encode())
	add((&introduction{drive: name.drive, open: true, devices: []located{
		{seed32(9), netip.MustParseAddrPort("192.0.2.7:29443")}, {seed32(10), netip.MustParseAddrPort("[2001:db8::7]:29443")},
	}}).encode())
	f.Add([]byte{byte(msgBox), 2, 4})
	f.Add([]byte{byte(msgTile), 1, 2, 3})
	f.Add([]byte{byte(msgBlock), 1, 2, 3})
	f.Add([]byte{byte(msgGone), 1, 2})
	f.Add([]byte{byte(msgEnd), 0})
	f.Add(append([]byte{byte(msgHeld), 1}, make([]byte, 32)...))
	f.Add([]byte{byte(msgHas), 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		m := message{messageType(b[0]), b[1:]}
		same := func(again []byte, err error) {
			if err == nil && !bytes.Equal(again[4:], b) && len(again)-4 >= len(b) {
				t.Fatalf("%x encodes as %x", b, again[4:])
			}
		}
		switch m.typ {
		case msgOffer:
			tokens, err := decodeOffer(m.body)
			same(encodeOffer(tokens), err)
		case msgName:
			p, err := decodeProfile(m.body)
			same(p.encode(), err)
		case msgHead:
			h, err := decodeNews(m.body)
			same(h.encode(), err)
		case msgHolds:
			h, err := decodeHolds(m.body)
			if err == nil {
				same(h.encode(), nil)
				known := newHoldings()
				known.add(h.log, h.ranges)
			}
		case msgWalks:
			k, err := decodeWalking(m.body)
			same(k.encode(), err)
		case msgEpoch:
			n, _, err := decodeEpoch(m.body)
			same(n.encode(), err)
		case msgPeers:
			in, err := decodeIntroduction(m.body)
			if err != nil {
				return
			}
			same(in.encode(), nil)
			k := &contacts{all: map[located]*contact{}}
			for _, d := range in.devices {
				if passable(d.addr, netip.IPv6Loopback()) {
					k.add(d, seed32(1), in.drive, false, time.Now())
				}
			}
			k.next(company{drives: map[log.DriveID]int{in.drive: 0}}, time.Now())
		default:
			if q, err := decodeRequest(m); err == nil {
				same(q.encode(), nil)
			}
			_, _ = decodePart(m)
		}
		var buf []byte
		_, _ = readMessage(bytes.NewReader(b), &buf)
		if cap(buf) > 64<<10+2*len(b) {
			t.Fatalf("%d bytes of memory for %d", cap(buf), len(b))
		}
	})
}

func FuzzLink(f *testing.F) {
	f.Add((&Link{Name: "x", Seed: &[32]byte{1}, Addresses: []string{"a:1", "b:2"}}).String())
	f.Add((&Link{}).String())
	f.Add((&Link{Holder: [32]byte{1}, Epoch: 1 << 20}).String())
	f.Add((&Link{Name: "x"}).String() + (&Point{Version: fs.Version{Seq: 12}, Root: [32]byte{1}}).String())
	f.Add((&Link{Name: "x"}).String() + (&Point{Version: fs.Version{Writer: 3, Seq: 12}}).String())
	f.Add("hearth://AQ")
	f.Fuzz(func(t *testing.T, text string) {
		k, point, err := SplitLink(text)
		if err != nil {
			return
		}
		written := k.String()
		if point != nil {
			written += point.String()
		}
		again, same, err := SplitLink(written)
		if err != nil || again.String() != k.String() || (same == nil) != (point == nil) || same != nil && *same != *point {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

func epochEntry(f *testing.F) []byte {
	b, err := log.EncodeControl(&log.EpochBegun{Epoch: 1})
	if err != nil {
		f.Fatal(err)
	}
	return b
}
