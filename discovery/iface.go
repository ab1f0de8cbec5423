package discovery

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
)

// linksMax bounds the interfaces used. Linux lets one socket join 20 groups
// (net.ipv4.igmp_max_memberships).
const linksMax = 16

// iface is a network interface that is fit for discovery.
type iface struct {
	net      net.Interface
	loopback bool
	prefixes []netip.Prefix // its addresses, sorted; link-local ones without zone
}

func (i iface) has4() bool {
	return slices.ContainsFunc(i.prefixes, func(p netip.Prefix) bool { return p.Addr().Is4() })
}

func (i iface) has6() bool {
	return slices.ContainsFunc(i.prefixes, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

func (i iface) equal(o iface) bool {
	return i.net.Index == o.net.Index && i.net.Name == o.net.Name && slices.Equal(i.prefixes, o.prefixes)
}

// onLink reports whether a can be the address of a neighbour on this interface,
// or of this machine. Whatever else somebody claims is not worth a datagram:
// nobody on a link shall have us dial beyond it.
func (i iface) onLink(a netip.Addr) bool {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a == limited4 || a.IsLoopback() != i.loopback {
		return false
	}
	if a.Is6() && a.IsLinkLocalUnicast() {
		return true
	}
	return slices.ContainsFunc(i.prefixes, func(p netip.Prefix) bool { return p.Contains(a) && broadcastOf(p) != a })
}

// broadcasts are the directed broadcast addresses of the interface.
func (i iface) broadcasts() []netip.Addr {
	var out []netip.Addr
	for _, p := range i.prefixes {
		if b := broadcastOf(p); b.IsValid() && !slices.Contains(out, b) {
			out = append(out, b)
		}
	}
	return out
}

// broadcastOf is the last address of an IPv4 network. Networks of one or two
// addresses have none (RFC 3021).
func broadcastOf(p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}
	}
	b := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(b)
}

// unfit says why an interface is not used, or "".
func unfit(i net.Interface, only []string) string {
	switch {
	case len(only) > 0 && !slices.Contains(only, i.Name):
		return "not chosen"
	case i.Flags&net.FlagUp == 0:
		return "down"
	case i.Flags&net.FlagLoopback != 0: // has no multicast flag, and carries it
		return ""
	case i.Flags&net.FlagRunning == 0:
		return "no carrier"
	case i.Flags&net.FlagPointToPoint != 0:
		return "point to point"
	case i.Flags&net.FlagMulticast == 0:
		return "no multicast"
	}
	// What a bridge takes from its ports never reaches a socket.
	if _, err := os.Stat("/sys/class/net/" + i.Name + "/brport"); err == nil {
		return "port of a bridge"
	}
	return ""
}

// scan lists the interfaces that are fit, and why the others are not.
func scan(only []string) (fit []iface, skipped map[string]string, err error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, nil, fmt.Errorf("list network interfaces: %w", err)
	}
	skipped = map[string]string{}
	for _, i := range all {
		if why := unfit(i, only); why != "" {
			skipped[i.Name] = why
			continue
		}
		addrs, err := i.Addrs()
		if err != nil { // it went away meanwhile
			skipped[i.Name] = err.Error()
			continue
		}
		f := iface{net: i, loopback: i.Flags&net.FlagLoopback != 0}
		for _, a := range addrs {
			ipnet, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, ok := netip.AddrFromSlice(ipnet.IP)
			ones, _ := ipnet.Mask.Size()
			if p := netip.PrefixFrom(ip.Unmap(), ones); ok && p.IsValid() {
				f.prefixes = append(f.prefixes, p)
			}
		}
		slices.SortFunc(f.prefixes, func(a, b netip.Prefix) int { return a.Compare(b) })
		switch {
		case len(f.prefixes) == 0:
			skipped[i.Name] = "no address"
		case len(fit) == linksMax:
			skipped[i.Name] = fmt.Sprintf("more than %d interfaces", linksMax)
		default:
			fit = append(fit, f)
		}
	}
	return fit, skipped, nil
}
