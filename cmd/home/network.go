package home

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	iofs "io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
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
	Drives    []Hex     `json:"drives,omitempty"` // marks of those it let read, see replicate.Mark, the newest last
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
	Audits    []Audited      `json:"audits,omitempty"`
	// Pins are which devices answered at those addresses.
	Pins map[string]Hex `json:"pins,omitempty"`
	// Banned are not spoken to, the newest last.
	Banned []Ban `json:"banned,omitempty"`
	// Contacts are where devices were met that others introduced, and Forgotten
	// those that are not to be met so; the newest last.
	Contacts  []Contact `json:"contacts,omitempty"`
	Forgotten []Hex     `json:"forgotten,omitempty"`
}

// Ban is a device that sent what did not verify.
type Ban struct {
	Key  Hex       `json:"key"`
	Name string    `json:"name,omitempty"` // as it called itself
	Why  string    `json:"why"`
	When time.Time `json:"when"`
}

// Ban adds a device to those that are not spoken to; most bounds them, and the
// oldest makes room.
func (n *Network) Ban(b Ban, most int) {
	n.Forgive(b.Key)
	n.Banned = append(n.Banned, b)
	n.Banned = n.Banned[max(0, len(n.Banned)-most):]
}

// Forgive takes a device out of them, and reports whether it was there.
func (n *Network) Forgive(key Hex) bool {
	before := len(n.Banned)
	n.Banned = slices.DeleteFunc(n.Banned, func(b Ban) bool { return b.Key == key })
	return len(n.Banned) < before
}

// Forget forgets a device, as if it was never met; it may be met again. It
// returns the addresses at which it is not to be looked for any more.
func (n *Network) Forget(key Hex) (addrs []string) {
	n.forgetContacts(key)
	n.Devices = slices.DeleteFunc(n.Devices, func(a Acquaintance) bool {
		if a.Key == key {
			addrs = append(addrs, a.Addresses...)
		}
		return a.Key == key
	})
	maps.DeleteFunc(n.Pins, func(addr string, k Hex) bool {
		if k == key {
			addrs = append(addrs, addr)
			n.Addresses = slices.DeleteFunc(n.Addresses, func(a string) bool { return a == addr })
		}
		return k == key
	})
	return addrs
}

// Pin remembers which device answers at an address that the user gave.
func (n *Network) Pin(addr string, key Hex) {
	if n.Pins == nil {
		n.Pins = map[string]Hex{}
	}
	for other := range n.Pins { // any that nobody tries to reach makes room
		if len(n.Pins) < maxDevices {
			break
		}
		if index(n.Addresses, other) < 0 {
			delete(n.Pins, other)
		}
	}
	n.Pins[addr] = key
}

// Knows reports whether a device was met.
func (n *Network) Knows(key Hex) bool {
	return slices.ContainsFunc(n.Devices, func(a Acquaintance) bool { return a.Key == key })
}

// Named is the device that is known by a name.
func (n *Network) Named(name string) (key Hex, ok bool) {
	for _, a := range n.Devices {
		if a.Name == name {
			return a.Key, true
		}
	}
	return Hex{}, false
}

// own makes a name that a device gave itself one that only it has here: another
// device must not become the one that a person knows by choosing its name.
func (n *Network) own(name string, key Hex) string {
	if other, ok := n.Named(name); !ok || name == "" || other == key {
		return name
	}
	return fmt.Sprintf("%s (%x)", name, key[:6])
}

// At is the device that is known at an address: the one that was pinned to it,
// else the one that was seen last of those that were there.
func (n *Network) At(addr string) (key Hex, ok bool) {
	if key, ok := n.Pins[addr]; ok {
		return key, true
	}
	var last time.Time
	for _, a := range n.Devices {
		if index(a.Addresses, addr) >= 0 && (!ok || a.Seen.After(last)) {
			key, last, ok = a.Key, a.Seen, true
		}
	}
	return key, ok
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
// newest are kept, and a name that another device has gets the beginning of the
// key. It reports whether anything but the time changed.
func (n *Network) Meet(a Acquaintance) bool {
	const addresses, drives = 8, 64
	a.Name = n.own(a.Name, a.Key)
	recalled := n.recall(a.Key)
	for i := range n.Devices {
		d := &n.Devices[i]
		if d.Key != a.Key {
			continue
		}
		changed := recalled || a.Name != "" && a.Name != d.Name || a.Beacon != (Hex{}) && a.Beacon != d.Beacon
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
		for _, id := range a.Drives {
			if !slices.Contains(d.Drives, id) {
				d.Drives = append(d.Drives, id)
				changed = true
			}
		}
		d.Drives = d.Drives[max(0, len(d.Drives)-drives):]
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
