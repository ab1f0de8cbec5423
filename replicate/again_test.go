package replicate

import "testing"

// Who joins a drive again over the connection that is there hears of its head.
func TestJoinAgain(t *testing.T) {
	a, b := newDevice(t, "a"), newDevice(t, "b")
	store, drive := a.author()
	write(t, drive, "f", []byte("x"))
	link := a.share(store, drive)
	for range 3 {
		again := b.join(link, false)
		if got := again.Logs()[0].Head(); got.Size != store.Own().Head().Size {
			t.Fatalf("a head of %d entries", got.Size)
		}
		b.node.Remove(link.Drive)
	}
}
