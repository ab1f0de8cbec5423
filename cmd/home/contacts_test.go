package home

import (
	"fmt"
	"slices"
	"testing"
)

// Contacts are bounded, the newest stay, and those of a forgotten device go.
func TestContacts(t *testing.T) {
	t.Parallel()
	var n Network
	a, b := Hex{1}, Hex{2}
	at := func(key Hex, addr string) bool {
		return slices.ContainsFunc(n.Contacts, func(c Contact) bool { return c.Key == key && c.Address == addr })
	}
	for i := range 5 {
		n.Introduce(Contact{Key: a, Address: fmt.Sprint("h:", i), By: b})
	}
	if len(n.Contacts) != maxContactsOf || !at(a, "h:4") || !at(a, "h:3") {
		t.Fatalf("%+v", n.Contacts)
	}
	n.Introduce(Contact{Key: a, Address: "h:3"})
	if len(n.Contacts) != maxContactsOf || n.Contacts[1].Address != "h:3" {
		t.Fatalf("%+v", n.Contacts)
	}
	for i := range 2 * maxContacts {
		n.Introduce(Contact{Key: Hex{3, byte(i), byte(i >> 8)}, Address: "h:9"})
	}
	if len(n.Contacts) != maxContacts || at(a, "h:3") {
		t.Fatalf("%d contacts", len(n.Contacts))
	}
	n.Introduce(Contact{Key: b, Address: "h:1"})
	n.Forget(b)
	if at(b, "h:1") || !slices.Contains(n.Forgotten, b) {
		t.Fatalf("%+v, forgotten %v", n.Contacts, n.Forgotten)
	}
	for i := range 2 * maxForgotten {
		n.Forget(Hex{4, byte(i), byte(i >> 8)})
	}
	n.Forget(b)
	n.Forget(b)
	if len(n.Forgotten) != maxForgotten || n.Forgotten[maxForgotten-1] != b {
		t.Fatalf("%d are forgotten", len(n.Forgotten))
	}
	if !n.Meet(Acquaintance{Key: b}) || slices.Contains(n.Forgotten, b) {
		t.Fatal("who was met is forgotten")
	}
}
