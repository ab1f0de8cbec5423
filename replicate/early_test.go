package replicate

import (
	"testing"
	"time"

	"hearth/log"
)

// Whoever is known to share a drive is asked before its offer has come; nobody
// else is, and nobody whose offer says that it does not share it.
func TestExpectedAreAskedBeforeTheirOffer(t *testing.T) {
	s := speaker(t, 1)
	s.since = time.Now()
	id, other := log.DriveID{1}, log.DriveID{2}
	for _, d := range []log.DriveID{id, other} {
		s.node.Want(d, [32]byte{9})
	}
	if s.mayAsk(id) {
		t.Fatal("a stranger would be told of a drive")
	}
	s.node.Expect(s.conn.Peer(), Mark([32]byte{9}, id))
	if !s.mayAsk(id) || s.mayAsk(other) {
		t.Fatal("not the drive that the device is expected to share")
	}
	s.node.Want(other, [32]byte{9})
	s.node.Expect(s.conn.Peer(), Mark([32]byte{8}, other)) // of an epoch before
	if s.mayAsk(other) {
		t.Fatal("it is expected to know a hold secret that is another by now")
	}
	since := s.since
	s.since = since.Add(-shareTime)
	if s.mayAsk(id) {
		t.Fatal("it has said nothing for long")
	}
	s.since = since
	s.offered = [][32]byte{}
	if s.mayAsk(id) {
		t.Fatal("its offer has come, and the drive is not in it")
	}
	for i := range 2 * maxExpected {
		s.node.Expect(s.conn.Peer(), [32]byte{3, byte(i)})
	}
	if n := len(s.node.expected[s.conn.Peer()]); n != maxExpected {
		t.Fatalf("%d drives of one device are remembered", n)
	}
}

// A holder says that it does no walks, and a reader that it does; so nobody loses
// a round trip by asking.
func TestHoldersSayThatTheyDoNoWalks(t *testing.T) {
	a, b, c := newDevice(t, "a"), newDevice(t, "b"), newDevice(t, "c")
	store, drive := a.author()
	link := a.share(store, drive)
	held := *link
	held.Seed = nil
	b.join(&held, true)
	c.node.Want(link.Drive, link.Hold)
	if err := c.node.Connect(testContext(t), b.addr(), nil); err != nil {
		t.Fatal(err)
	}
	c.join(link, false)
	said := func(s *session, want bool) bool {
		yes, said := s.walksSaid[link.Drive]
		return said && yes == want
	}
	told := func() (holder, author bool) {
		for _, s := range c.node.sharing(link.Drive) {
			s.mu.Lock()
			holder = holder || s.conn.Peer() == b.node.Key() && said(s, false)
			author = author || s.conn.Peer() == a.node.Key() && said(s, true)
			s.mu.Unlock()
		}
		return holder, author
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		holder, author := told()
		if holder && author {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the holder says that it does none: %v; the author that it does: %v", holder, author)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestSignsOfLifeHaveTheirTimesInCommon(t *testing.T) {
	at := time.Date(2026, 2, 20, 13, 0, 0, 123, time.UTC)
	for range 3 {
		wait := untilBeat(at)
		if wait <= 0 || wait > aliveEvery || at.Add(wait).UnixNano()%int64(aliveEvery) != 0 {
			t.Fatalf("%v after %v", wait, at)
		}
		at = at.Add(wait)
	}
}
