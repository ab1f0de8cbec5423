package replicate

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strings"

	"hearth/log"
	"hearth/log/wire"
)

// Link lets whoever has it join a drive: in text, hearth:// and the base64url,
// without padding, of
//
//	version u8, 1 | level u8: 1 hold, 2 read | drive id, 32 bytes |
//	hold secret, 32 bytes | its epoch uvarint | link seed, 32 bytes | name string |
//	device key, 32 bytes | beacon secret, 32 bytes | addresses: count uvarint, strings |
//	the first 4 bytes of the BLAKE3-256 of what is before
type Link struct {
	Drive log.DriveID
	Hold  [32]byte
	Epoch uint32    // of Hold
	Seed  *[32]byte // of the boxes with the read keys; nil: whoever joins cannot read
	// Holder is the seed of the boxes with the hold secrets of later epochs, if
	// Seed is nil.
	Holder [32]byte
	Name   string // of the drive; empty in a link that only lets hold
	// Who made the link: the key, by which it is recognised on a LAN, and where
	// it was when the link was made.
	Device    [32]byte
	Beacon    [32]byte
	Addresses []string
}

// LinkScheme begins every link.
const LinkScheme = "hearth://"

// ErrLink is matched by the error about text that is no link.
var ErrLink = errors.New("not a Hearth link")

const (
	linkVersion  = 1
	linkHold     = 1
	linkRead     = 2
	maxAddresses = 16
	maxAddress   = 128
	maxLinkName  = 255
)

// String returns the link's text.
func (k *Link) String() string {
	var w wire.Writer
	w.U8(linkVersion)
	level := uint8(linkHold)
	if k.Seed != nil {
		level = linkRead
	}
	w.U8(level)
	w.Raw(k.Drive[:])
	w.Raw(k.Hold[:])
	w.Uvarint(uint64(k.Epoch))
	if k.Seed != nil {
		w.Raw(k.Seed[:])
	} else {
		w.Raw(k.Holder[:])
	}
	w.String(k.Name)
	w.Raw(k.Device[:])
	w.Raw(k.Beacon[:])
	w.Uvarint(uint64(len(k.Addresses)))
	for _, a := range k.Addresses {
		w.String(a)
	}
	sum := log.Describe(w.B).Digest
	w.Raw(sum[:4])
	return LinkScheme + base64.RawURLEncoding.EncodeToString(w.B)
}

// Recipient returns the name of the link in key boxes.
func (k *Link) Recipient() ([32]byte, error) {
	kind, seed := log.RecipientHolder, k.Holder
	if k.Seed != nil {
		kind, seed = log.RecipientLink, *k.Seed
	}
	key, err := log.NewBoxKey(kind, seed)
	if err != nil {
		return [32]byte{}, err
	}
	return key.ID(), nil
}

// Joined returns what a device knows of a drive that it joins by the link.
func (k *Link) Joined(g *log.Genesis, name string) log.Joined {
	j := log.Joined{Genesis: g, Name: name, Hold: k.Hold, Epoch: k.Epoch, Link: k.Seed}
	if k.Seed == nil && k.Holder != ([32]byte{}) {
		j.Holder = &k.Holder
	}
	return j
}

// ParseLink is the inverse of String. The error matches ErrLink.
func ParseLink(text string) (*Link, error) {
	body, ok := strings.CutPrefix(strings.TrimSpace(text), LinkScheme)
	if !ok {
		return nil, fmt.Errorf("%w: it does not begin with %s", ErrLink, LinkScheme)
	}
	if len(body) > 8192 {
		return nil, fmt.Errorf("%w: it is too long", ErrLink)
	}
	b, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil || len(b) < 4 {
		return nil, fmt.Errorf("%w: a part of it is missing, or letters were changed", ErrLink)
	}
	if b[0] != linkVersion {
		return nil, fmt.Errorf("%w: version %d, made by a newer program", ErrLink, b[0])
	}
	b, check := b[:len(b)-4], b[len(b)-4:]
	if sum := log.Describe(b).Digest; string(sum[:4]) != string(check) {
		return nil, fmt.Errorf("%w: a part of it is missing, or letters were changed", ErrLink)
	}
	r := wire.NewReader(b[1:])
	level := r.U8()
	k := &Link{Drive: read32(r), Hold: read32(r)}
	epoch := r.Uvarint()
	if epoch > math.MaxUint32 {
		r.Fail("epoch %d", epoch)
	}
	k.Epoch = uint32(epoch)
	switch level {
	case linkRead:
		seed := read32(r)
		k.Seed = &seed
	case linkHold:
		k.Holder = read32(r)
	default:
		r.Fail("level %d", level)
	}
	k.Name = r.String(maxLinkName)
	k.Device, k.Beacon = read32(r), read32(r)
	n := r.Count(1)
	if n > maxAddresses {
		r.Fail("%d addresses", n)
		n = 0
	}
	for range n {
		k.Addresses = append(k.Addresses, r.String(maxAddress))
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLink, err)
	}
	return k, nil
}
