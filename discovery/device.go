package discovery

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Device is somebody on the local network who can be dialled. Nothing in it is
// proven.
type Device struct {
	// ID is eight hexadecimal digits of its pseudonym. It changes by the hour.
	ID string
	// Key is whose pseudonym it is, if Known.
	Key Key
	// Known: it used a pseudonym of a device given to SetKnown. If not, it is a
	// stranger, and with an empty Name one that does not want to be seen.
	Known bool
	// Name is the display name it shows while it is visible, else "".
	Name string
	// Addrs are where to dial, the most promising first; IPv6 link-local ones
	// have their zone. Addresses that failed lately are left out.
	Addrs []netip.AddrPort
	// First and Last are when it was first and last heard.
	First, Last time.Time
	// Via names the methods that hear it.
	Via []string
}

// devices lists who has an address that can be tried: known devices first, then
// those with a name, then the other strangers.
func (t *table) devices(now time.Time) []Device {
	var out []Device
	for _, e := range t.entries {
		if d, ok := e.device(now); ok {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b Device) int {
		return cmp.Or(
			first(a.Known, b.Known),
			first(a.Name != "", b.Name != ""),
			cmp.Compare(a.Name, b.Name),
			cmp.Compare(a.ID, b.ID),
			slices.Compare(a.Key[:], b.Key[:]),
		)
	})
	return out
}

func (e *entry) device(now time.Time) (Device, bool) {
	d := Device{ID: e.who.id(), Key: e.key, Known: e.known, Name: e.name, First: e.first, Last: e.last}
	worked := map[netip.AddrPort]bool{}
	var via [methods]bool
	for _, l := range e.links {
		for ap, a := range l.addrs {
			for m, at := range a.via {
				via[m] = via[m] || !at.IsZero() && now.Sub(at) < method(m).ttl()
			}
			if now.Before(a.distrust) {
				continue
			}
			if _, twice := worked[ap]; !twice {
				d.Addrs = append(d.Addrs, ap)
			}
			worked[ap] = worked[ap] || a.worked
		}
	}
	for m, on := range via {
		if on {
			d.Via = append(d.Via, method(m).String())
		}
	}
	slices.SortFunc(d.Addrs, func(a, b netip.AddrPort) int {
		return cmp.Or(first(worked[a], worked[b]), cmp.Compare(rank(a.Addr()), rank(b.Addr())), a.Compare(b))
	})
	return d, len(d.Addrs) > 0
}

// rank orders addresses nobody has tried: this machine, then what does not need
// a zone, then the rest.
func rank(a netip.Addr) int {
	switch {
	case a.IsLoopback():
		return 0
	case a.Is4():
		return 1
	case !a.IsLinkLocalUnicast():
		return 2
	}
	return 3
}

// first sorts true before false.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// count is how many devices are heard by a method on a link.
func (t *table) count(via method, name string, now time.Time) int {
	n := 0
	for _, e := range t.entries {
		l, ok := e.links[name]
		if !ok {
			continue
		}
		for _, a := range l.addrs {
			if !a.via[via].IsZero() && now.Sub(a.via[via]) < via.ttl() {
				n++
				break
			}
		}
	}
	return n
}
