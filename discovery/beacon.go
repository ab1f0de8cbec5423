package discovery

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// BeaconPort is the UDP port beacons are sent to and from. It is outside the
// range Linux takes ephemeral ports from, and not assigned by IANA.
const BeaconPort = 29444

// Where beacons go. The IPv4 group is of the local scope (RFC 2365); the IPv6
// one is link-local with the transient bit, as RFC 3307 wants of groups that
// are not assigned.
var (
	group4   = netip.MustParseAddr("239.255.72.84")
	group6   = netip.MustParseAddr("ff12::8845:4152")
	limited4 = netip.MustParseAddr("255.255.255.255")
)

// The datagram, version 1. Numbers are big endian.
//
//	0   6   "HEARTH"
//	6   1   version, 1
//	7   1   kind: 1 here I am, 2 the same and who else is there?, 3 goodbye
//	8   16  pseudonym
//	24  2   UDP port of the QUIC listener, not 0
//	26  1   length n of the display name, 0 to 120; 0 unless visible
//	27  n   display name, UTF-8
//
// There is nothing after the name. A reader refuses other versions by their
// number: it does not guess at what it does not know.
const (
	beaconMagic   = "HEARTH"
	beaconVersion = 1
	beaconHeader  = 27
	beaconMax     = beaconHeader + nameMax
)

type beaconKind uint8

const (
	kindHere beaconKind = 1
	kindAsk  beaconKind = 2
	kindBye  beaconKind = 3
)

// beacon is the content of one datagram.
type beacon struct {
	kind beaconKind
	who  pseudonym
	port uint16
	name string
}

var errBeacon = errors.New("not a beacon")

// errVersion is a beacon of a version this program does not speak.
var errVersion = errors.New("beacon of another version")

// append adds the datagram to b. The name has passed cleanName.
func (a beacon) append(b []byte) []byte {
	b = append(b, beaconMagic...)
	b = append(b, beaconVersion, byte(a.kind))
	b = append(b, a.who[:]...)
	b = binary.BigEndian.AppendUint16(b, a.port)
	b = append(b, byte(len(a.name)))
	return append(b, a.name...)
}

func parseBeacon(b []byte) (beacon, error) {
	var a beacon
	if len(b) < beaconHeader || len(b) > beaconMax || !bytes.HasPrefix(b, []byte(beaconMagic)) {
		return a, errBeacon
	}
	if v := b[6]; v != beaconVersion {
		return a, fmt.Errorf("%w: %d", errVersion, v)
	}
	a.kind = beaconKind(b[7])
	if a.kind < kindHere || a.kind > kindBye {
		return beacon{}, fmt.Errorf("%w: kind %d", errBeacon, b[7])
	}
	a.who = pseudonym(b[8:24])
	a.port = binary.BigEndian.Uint16(b[24:26])
	if a.port == 0 {
		return beacon{}, fmt.Errorf("%w: port 0", errBeacon)
	}
	if n := int(b[26]); n != len(b)-beaconHeader {
		return beacon{}, fmt.Errorf("%w: name of %d bytes in a datagram of %d", errBeacon, n, len(b))
	}
	name := string(b[beaconHeader:])
	if a.name = cleanName(name); a.name != name {
		return beacon{}, fmt.Errorf("%w: a name that no sender writes", errBeacon)
	}
	return a, nil
}
