package daemon

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"hearth/cmd/control"
	"hearth/cmd/home"
	"hearth/replicate"
	"hearth/replicate/peer"
)

// What is remembered of other devices: who is who, and who lied.

func bans(known home.Network) map[[32]byte]string {
	all := map[[32]byte]string{}
	for _, b := range known.Banned {
		all[b.Key] = b.Why
	}
	return all
}

// save writes what is known. The caller holds mu.
func (n *network) save(what string) {
	if err := n.home.SaveNetwork(n.known); err != nil {
		n.logger.Error("what is known of other devices was not saved", "what", what, "err", err)
	}
}

// ban remembers a device that sent what did not verify.
func (n *network) ban(key [32]byte, name, why string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if name = clean(name); name == "" {
		name = n.named(key)
	}
	n.known.Ban(home.Ban{Key: key, Name: name, Why: why, When: time.Now()}, replicate.MaxBanned)
	n.save("that a device lied")
}

// wrongKey notes that another device than the known one answers at an address
// that the user gave. At others that is no news: addresses change hands.
func (n *network) wrongKey(addr string, want, got [32]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if pin, ok := n.known.Pins[addr]; !ok || pin != want {
		return
	}
	before, again := n.refused[addr]
	now := control.RefusedInfo{Address: addr, Expected: hex.EncodeToString(want[:]), Name: n.named(want),
		Found: hex.EncodeToString(got[:]), When: time.Now()}
	if n.refused == nil {
		n.refused = map[string]control.RefusedInfo{}
	}
	n.refused[addr] = now // at most one for each pin
	if !again || before.Found != now.Found {
		n.logger.Warn("another device answers where one is known", "addr", addr, "want", now.Expected, "got", now.Found)
	}
}

// unwelcome lists who is not let in, the newest last.
func (n *network) unwelcome() ([]control.BanInfo, []control.RefusedInfo) {
	n.mu.Lock()
	defer n.mu.Unlock()
	banned := []control.BanInfo{}
	for _, b := range n.known.Banned {
		banned = append(banned, control.BanInfo{Name: b.Name, ID: hex.EncodeToString(b.Key[:]), Why: control.Show(b.Why), When: b.When})
	}
	refused := []control.RefusedInfo{}
	for _, r := range n.refused {
		refused = append(refused, r)
	}
	slices.SortFunc(refused, func(a, b control.RefusedInfo) int { return a.When.Compare(b.When) })
	return banned, refused
}

// amend forgives or forgets a device.
func (n *network) amend(req control.PeersRequest) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if req.Forgive != "" {
		found := map[home.Hex]string{}
		for _, b := range n.known.Banned {
			found[b.Key] = b.Name
		}
		key, err := oneOf(req.Forgive, found, "`hearth peers` lists them", "no device %s is banned")
		if err != nil {
			return err
		}
		n.known.Forgive(key)
		if err := n.home.SaveNetwork(n.known); err != nil {
			return err
		}
		n.node.Forgive(key)
	}
	if req.Forget != "" {
		found := map[home.Hex]string{}
		for _, key := range n.known.Pins {
			found[key] = ""
		}
		for _, a := range n.known.Devices {
			found[a.Key] = a.Name
		}
		key, err := oneOf(req.Forget, found, "give its name or the beginning of its key", "no device %s is known")
		if err != nil {
			return err
		}
		gone := n.known.Forget(key)
		if err := n.home.SaveNetwork(n.known); err != nil {
			return err
		}
		n.node.Forget(key)
		for _, addr := range gone {
			n.node.Disconnect(addr)
			delete(n.refused, addr)
		}
		n.lan.SetKnown(n.secrets())
	}
	return nil
}

// oneOf finds the device that is meant by its name or the beginning of its key.
func oneOf(word string, devices map[home.Hex]string, hint, none string) (home.Hex, error) {
	const least = 6 // digits
	var found []home.Hex
	for key, name := range devices {
		begins := len(word) >= least && strings.HasPrefix(hex.EncodeToString(key[:]), strings.ToLower(word))
		if begins || name != "" && strings.EqualFold(name, word) {
			found = append(found, key)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return home.Hex{}, control.Failed(hint, none, control.Show(word))
	}
	return home.Hex{}, control.Failed("give more of its key", "%s may be any of %d devices", control.Show(word), len(found))
}

// expected is the device that is known at an address; nil: none.
func (n *network) expected(addr string) *[32]byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	if key, ok := n.known.At(addr); ok {
		return (*[32]byte)(&key)
	}
	return nil
}

// knows reports whether a device was met: it shares a drive, or a person has
// compared words or taken something from it.
func (n *network) knows(key [32]byte) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.known.Knows(key)
}

// otherNamed is the device that is known by a name, if it is another one.
func (n *network) otherNamed(name string, key [32]byte) (other [32]byte, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	is, ok := n.known.Named(clean(name))
	return is, ok && is != key
}

// named is nameOf for who holds mu.
func (n *network) named(key [32]byte) string {
	for _, a := range n.known.Devices {
		if a.Key == key {
			return a.Name
		}
	}
	return ""
}

// nameOr is the name by which a device is known, else the one it gave itself.
func (n *network) nameOr(key [32]byte, name string) string {
	if known := n.nameOf(key); known != "" {
		return known
	}
	return clean(name)
}

// connectedTo finds a device that is connected, by its name or the beginning of
// its key.
func (n *network) connectedTo(word string) (target, bool) {
	if word == "" {
		return target{}, false
	}
	found := map[home.Hex]string{}
	at := map[home.Hex]string{}
	for _, p := range n.node.Peers() {
		found[p.Key] = n.nameOf(p.Key)
		at[p.Key] = p.Addr
	}
	key, err := oneOf(word, found, "", "%s")
	if err != nil {
		return target{}, false // the LAN may know more
	}
	name := found[key]
	if name == "" {
		name = word
	}
	return target{name: name, key: (*[32]byte)(&key), addrs: []string{at[key]}}, true
}

// sentTo remembers a device that something was sent to, as a person asked: by
// the name it was found by, or at the address that the person gave.
func (n *network) sentTo(t target, to string, key [32]byte) {
	a := home.Acquaintance{Key: key, Seen: time.Now()}
	if t.name == to && len(t.addrs) == 1 && t.addrs[0] == to {
		n.mu.Lock()
		n.known.Pin(to, key)
		n.save("who is at an address")
		n.mu.Unlock()
	} else if n.nameOf(key) == "" {
		a.Name = clean(t.name)
	}
	n.remember(a)
}

// unreachable explains why a device could not be reached.
func (n *network) unreachable(what, hint string, err error) error {
	var wrong *peer.WrongKeyError
	switch {
	case errors.As(err, &wrong):
		return anotherKey("the device at "+control.Show(what), wrong.Want, wrong.Got)
	case errors.Is(err, replicate.ErrBanned):
		return control.Failed("`hearth peers` lists who is banned, `hearth peers --forgive ID` ends it", "%s: %w", control.Show(what), err)
	}
	return control.Failed(hint, "%s cannot be reached: %w", control.Show(what), err)
}

// anotherKey says loudly that somebody is not who was known.
func anotherKey(who string, known, got [32]byte) error {
	return control.Failed("if it was set up anew, `hearth peers --forget "+hex.EncodeToString(known[:6])+"` forgets the old one, and the next contact is a first one; else somebody uses its place",
		"%s is not the one that is known: its key is %x, not %x", who, got, known)
}
