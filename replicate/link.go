package replicate

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"hearth/log"
	"hearth/log/wire"
)

// Link lets whoever has it join a drive: in text, hearth:// and the base64url,
// without padding, of
//
//	version u8, 1 | level u8 | drive id, 32 bytes | hold secret, 32 bytes |
//	link seed, 32 bytes, if the level is 2 | name string |
//	device key, 32 bytes | beacon secret, 32 bytes | addresses: count uvarint, strings |
//	the first 4 bytes of the BLAKE3-256 of what is before
type Link struct {
	Drive log.DriveID
	Hold  [32]byte
	Seed  *[32]byte // of the boxes with the read keys; nil: whoever joins cannot read
	Name  string    // of the drive; empty in a link that only lets hold
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
	if k.Seed != nil {
		w.Raw(k.Seed[:])
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
	switch level {
	case linkRead:
		seed := read32(r)
		k.Seed = &seed
	case linkHold:
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
