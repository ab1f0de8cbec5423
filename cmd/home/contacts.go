package home

import (
	"slices"
	"time"
)

// Contact is where a device was met that another one had introduced.
type Contact struct {
	Key     Hex       `json:"key"`
	Address string    `json:"address"`
	By      Hex       `json:"by"` // who introduced it
	Seen    time.Time `json:"seen"`
}

const (
	maxContacts   = 128
	maxContactsOf = 2 // one device
	maxForgotten  = 256
)

// Introduce adds a contact to the record, as the newest, or brings it up to
// date. The oldest make room, of the same device first.
func (n *Network) Introduce(c Contact) {
	n.Contacts = slices.DeleteFunc(n.Contacts, func(o Contact) bool { return o.Key == c.Key && o.Address == c.Address })
	same := 0
	for i := len(n.Contacts) - 1; i >= 0; i-- {
		if n.Contacts[i].Key == c.Key {
			if same++; same >= maxContactsOf {
				n.Contacts = slices.Delete(n.Contacts, i, i+1)
			}
		}
	}
	n.Contacts = append(n.Contacts, c)
	n.Contacts = n.Contacts[max(0, len(n.Contacts)-maxContacts):]
}

// forgetContacts has a device that is forgotten not be met again by being
// introduced.
func (n *Network) forgetContacts(key Hex) {
	n.Contacts = slices.DeleteFunc(n.Contacts, func(c Contact) bool { return c.Key == key })
	n.recall(key)
	n.Forgotten = append(n.Forgotten, key)
	n.Forgotten = n.Forgotten[max(0, len(n.Forgotten)-maxForgotten):]
}

// recall ends that: the device was met in another way.
func (n *Network) recall(key Hex) bool {
	before := len(n.Forgotten)
	n.Forgotten = slices.DeleteFunc(n.Forgotten, func(k Hex) bool { return k == key })
	return len(n.Forgotten) < before
}
