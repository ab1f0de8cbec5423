package home

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"time"
)

// Hex is 32 bytes that are written in hex.
type Hex [32]byte

// MarshalText implements encoding.TextMarshaler.
func (x Hex) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(x[:])), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (x *Hex) UnmarshalText(b []byte) error {
	if hex.DecodedLen(len(b)) != len(x) {
		return fmt.Errorf("%d letters where 64 belong", len(b))
	}
	_, err := hex.Decode(x[:], b)
	return err
}

// Identity is what makes this device the one it is to others. It is made when
// the device first speaks to another, and must not be in two places.
type Identity struct {
	Seed   Hex `json:"seed"`   // of the Ed25519 key that names the device
	Beacon Hex `json:"beacon"` // by which those it knows recognise it on a LAN
}

const identityFile = "device.key"

// HasIdentity reports whether this device has ever spoken to another.
func (h *Home) HasIdentity() bool {
	_, err := os.Stat(filepath.Join(h.dir, identityFile))
	return err == nil
}

// Identity reads it, or makes it.
func (h *Home) Identity() (Identity, error) {
	var id Identity
	err := h.read(identityFile, &id)
	if err != nil || id != (Identity{}) {
		return id, err
	}
	if _, err := os.Stat(filepath.Join(h.dir, identityFile)); !errors.Is(err, iofs.ErrNotExist) {
		return id, fmt.Errorf("%s has no key", filepath.Join(h.dir, identityFile))
	}
	for _, s := range []*Hex{&id.Seed, &id.Beacon} {
		if _, err := rand.Read(s[:]); err != nil {
			return Identity{}, err
		}
	}
	return id, h.write(identityFile, id)
}

// Acquaintance is a device that shares a drive with this one, or will.
type Acquaintance struct {
	Key       Hex       `json:"key"`
	Name      string    `json:"name,omitempty"`
	Beacon    Hex       `json:"beacon"`
	Addresses []string  `json:"addresses,omitempty"` // where it was
	Seen      time.Time `json:"seen"`
}

// Shared is a share link that was made here. The link itself is not kept.
type Shared struct {
	Drive     string    `json:"drive"`
	Recipient Hex       `json:"recipient,omitzero"` // of its key boxes
	Made      time.Time `json:"made"`
}

// Network is what this device knows of others: peers.json.
type Network struct {
	Devices   []Acquaintance `json:"devices"`
	Addresses []string       `json:"addresses"` // that the user gave
	Links     []Shared       `json:"links"`
}

// maxDevices bounds the record.
const maxDevices = 1024

// Network reads the record.
func (h *Home) Network() (Network, error) {
	var n Network
	err := h.read("peers.json", &n)
	return n, err
}

// SaveNetwork replaces the record.
func (h *Home) SaveNetwork(n Network) error { return h.write("peers.json", n) }

// Meet adds a device to the record or brings it up to date. Of addresses the
// newest are kept. It reports whether anything but the time changed.
func (n *Network) Meet(a Acquaintance) bool {
	const addresses = 8
	for i := range n.Devices {
		d := &n.Devices[i]
		if d.Key != a.Key {
			continue
		}
		changed := a.Name != "" && a.Name != d.Name || a.Beacon != (Hex{}) && a.Beacon != d.Beacon
		if a.Name != "" {
			d.Name = a.Name
		}
		if a.Beacon != (Hex{}) {
			d.Beacon = a.Beacon
		}
		for _, addr := range a.Addresses {
			if known := index(d.Addresses, addr); known < 0 {
				d.Addresses = append([]string{addr}, d.Addresses...)
				changed = true
			}
		}
		d.Addresses = d.Addresses[:min(len(d.Addresses), addresses)]
		d.Seen = a.Seen
		return changed
	}
	if len(n.Devices) >= maxDevices {
		oldest := 0
		for i := range n.Devices {
			if n.Devices[i].Seen.Before(n.Devices[oldest].Seen) {
				oldest = i
			}
		}
		n.Devices = append(n.Devices[:oldest], n.Devices[oldest+1:]...)
	}
	n.Devices = append(n.Devices, a)
	return true
}

func index(list []string, s string) int {
	for i, x := range list {
		if x == s {
			return i
		}
	}
	return -1
}
