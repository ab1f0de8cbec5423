package daemon

import (
	"time"

	"hearth/cmd/home"
	"hearth/replicate"
)

// Devices that others introduced are remembered where they were met, so that
// they are found again when whoever introduced them is gone.

func contacts(known *home.Network) []replicate.Contact {
	var all []replicate.Contact
	for _, c := range known.Contacts {
		all = append(all, replicate.Contact{Key: c.Key, Addr: c.Address, By: c.By})
	}
	return all
}

func forgotten(known *home.Network) [][32]byte {
	var all [][32]byte
	for _, key := range known.Forgotten {
		all = append(all, key)
	}
	return all
}

// introduced remembers where a device was met.
func (n *network) introduced(c replicate.Contact) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known.Introduce(home.Contact{Key: c.Key, Address: c.Addr, By: c.By, Seen: time.Now()})
	if err := n.home.SaveNetwork(n.known); err != nil { // it is introduced again
		n.logger.Warn("a device that was met may be forgotten", "err", err)
	}
}
