package replicate

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hearth/log"
	"hearth/replicate/peer"
)

const (
	// enoughPeers share a drive: nobody else is looked for.
	enoughPeers = 8
	// meetAtOnce is how many devices are dialed at a time, and meetTime how long
	// one may take to answer: time for two packets that get lost.
	meetAtOnce = 4
	meetTime   = 2 * time.Second

	maxContacts   = 256
	maxContactsBy = 64 // that one device introduced
	contactDrives = 16 // that are remembered of one

	// Whoever gets packets from this device because somebody said that a device
	// is there may be a victim. So these are how many attempts without success
	// there may be in an hour: of all, for one device that tells, to one host or
	// network, and of these for one that tells.
	meetHour       = 128
	meetHourBy     = 32
	meetHourTo     = 16
	meetHourByTo   = 8
	meetHourLength = time.Hour
	// meetHeld is when what a limit held back is looked at again.
	meetHeld = time.Minute
)

// meetAgain are the waits after attempts at a device that never answered; then
// it is not tried any more, unless somebody says again, after remeetRest, that it
// is there.
var meetAgain = []time.Duration{30 * time.Second, 3 * time.Minute, 20 * time.Minute}

// The waits after attempts at one that did grow from the first to the last of
// these, and after remeetOften attempts, some hour, to remeetRest.
const (
	remeetFirst = 2 * time.Second
	remeetLast  = 2 * time.Minute
	remeetOften = 36
	// remeetFreely is how many of these do not count in the limits above: a device
	// that was there once may be gone, and somebody else at its address.
	remeetFreely = 4
	remeetRest   = time.Hour
)

// contact is a device that another one introduced.
type contact struct {
	located
	by     peer.Key                 // who did so first
	drives map[log.DriveID]struct{} // that it shares; none: it is not known which
	late   bool                     // it was connected before
	met    bool                     // it was there, and shared a drive
	noted  bool                     // the same, since this node began
	busy   bool                     // it is dialed, or was and is connected
	tries  int                      // that failed, since it was there
	next   time.Time                // of the next one
}

// spent reports whether a device was not there whenever it was looked for.
func (c *contact) spent() bool { return c.tries > len(meetAgain) }

// attempt is one at a device that never answered.
type attempt struct {
	at time.Time
	by peer.Key
	to netip.Prefix
}

// contacts are the devices that were introduced. Safe for concurrent use.
type contacts struct {
	wake chan struct{} // there may be somebody to dial

	mu        sync.Mutex
	all       map[located]*contact
	attempts  []attempt // of the last hour, oldest first
	forgotten map[peer.Key]struct{}
	dialing   int
}

func newContacts(o *Options) (*contacts, error) {
	k := &contacts{wake: make(chan struct{}, 1), all: map[located]*contact{}, forgotten: map[peer.Key]struct{}{}}
	for _, key := range o.Forgotten {
		k.forget(key)
	}
	for _, c := range o.Contacts[max(0, len(o.Contacts)-maxContacts/2):] {
		at, err := c.located()
		if err != nil {
			return nil, err
		}
		k.all[at] = &contact{located: at, by: c.By, met: true}
	}
	return k, nil
}

func (k *contacts) kick() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// forget drops a device, which is not to be met again by being introduced.
func (k *contacts) forget(key peer.Key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for at, c := range k.all {
		if at.key == key && !c.busy {
			delete(k.all, at)
		}
	}
	for other := range k.forgotten { // any makes room
		if len(k.forgotten) < MaxForgotten {
			break
		}
		delete(k.forgotten, other)
	}
	k.forgotten[key] = struct{}{}
}

// recall ends that: the device was met in another way.
func (k *contacts) recall(key peer.Key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.forgotten, key)
}

// add takes in that a device is said to be somewhere, if there is room.
func (k *contacts) add(at located, by peer.Key, drive log.DriveID, connected bool, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, yes := k.forgotten[at.key]; yes {
		return
	}
	c := k.all[at]
	if c == nil {
		if !k.room(by) {
			return
		}
		c = &contact{located: at, by: by, late: connected, drives: map[log.DriveID]struct{}{}}
		k.all[at] = c
	}
	if c.drives != nil && len(c.drives) < contactDrives {
		c.drives[drive] = struct{}{}
	}
	if c.spent() && !c.met && now.After(c.next) {
		c.tries = 0
	}
}

// replace drops what a device told of a drive before and does not tell any more,
// where nobody was met.
func (k *contacts) replace(by peer.Key, in *introduction) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for at, c := range k.all {
		if c.by != by || c.met || c.busy || slices.Contains(in.devices, at) {
			continue
		}
		if delete(c.drives, in.drive); len(c.drives) == 0 {
			delete(k.all, at)
		}
	}
}

// room makes room for what one device tells, of what it told before, or of what
// was in vain. With mu held.
func (k *contacts) room(by peer.Key) bool {
	mine := 0
	var own, any *contact
	for _, c := range k.all {
		vain := c.spent() && !c.busy
		if vain {
			any = c
		}
		if c.by == by && !c.met {
			mine++
			if vain {
				own = c
			}
		}
	}
	switch {
	case mine >= maxContactsBy && own != nil:
		delete(k.all, own.located)
	case mine >= maxContactsBy:
		return false
	case len(k.all) >= maxContacts && any != nil:
		delete(k.all, any.located)
	case len(k.all) >= maxContacts:
		return false
	}
	return true
}

// network is who may be meant by an address: a host, or an IPv6 network that
// one may have all of.
func network(ip netip.Addr) netip.Prefix {
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // no error: the length fits
	return p
}

// allowed reports whether a device that never answered may be tried. With mu held.
func (k *contacts) allowed(c *contact, now time.Time) bool {
	old := 0
	for old < len(k.attempts) && now.Sub(k.attempts[old].at) >= meetHourLength {
		old++
	}
	k.attempts = slices.Delete(k.attempts, 0, old)
	by, to, byTo := 0, 0, 0
	host := network(c.addr.Addr())
	for _, a := range k.attempts {
		if a.by == c.by {
			by++
		}
		if a.to == host {
			to++
			if a.by == c.by {
				byTo++
			}
		}
	}
	return len(k.attempts) < meetHour && by < meetHourBy && to < meetHourTo && byTo < meetHourByTo
}

// company is who is connected, and what is shared with how many.
type company struct {
	at      map[peer.Key][]netip.AddrPort // where those are that share a drive; none: it shares none
	drives  map[log.DriveID]int
	dialing map[string]bool // these addresses are tried all the time
	banned  map[peer.Key]bool
}

func (n *Node) company() company {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := company{at: map[peer.Key][]netip.AddrPort{}, drives: map[log.DriveID]int{}, dialing: map[string]bool{}, banned: map[peer.Key]bool{}}
	for id := range n.drives {
		c.drives[id] = 0
	}
	for addr := range n.dialing {
		c.dialing[addr] = true
	}
	for key := range n.banned {
		c.banned[key] = true
	}
	for s := range n.sessions {
		key := s.conn.Peer()
		where := c.at[key]
		s.mu.Lock()
		for id := range s.drives {
			if _, here := c.drives[id]; here {
				c.drives[id]++
			}
		}
		if len(s.drives) > 0 {
			where = append(where, s.conn.Remote())
		}
		s.mu.Unlock()
		c.at[key] = where
	}
	return c
}

// wants reports whether a device is missed: there is a drive that it shares and
// too few others do.
func (n *company) wants(c *contact) bool {
	if c.drives == nil {
		for _, peers := range n.drives {
			if peers < enoughPeers {
				return true
			}
		}
	}
	for id := range c.drives {
		if peers, here := n.drives[id]; here && peers < enoughPeers {
			return true
		}
	}
	return false
}

// next returns whom to dial now, who was met where it was said to be, and when
// to look again.
func (k *contacts) next(with company, now time.Time) (dial []*contact, met []Contact, again time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	again = meetHeld
	var due []*contact
	held := false
	for at, c := range k.all {
		where, connected := with.at[at.key]
		if slices.Contains(where, at.addr) {
			c.met, c.tries = true, 0
			if !c.noted {
				c.noted = true
				met = append(met, Contact{Key: at.key, Addr: at.addr.String(), By: c.by})
			}
		}
		switch {
		case with.banned[at.key], with.banned[c.by] && !c.met:
			if !c.busy {
				delete(k.all, at)
			}
		case c.busy, connected, with.dialing[at.addr.String()], !with.wants(c), c.spent() && !c.met:
		case now.Before(c.next):
			held = true
			again = min(again, c.next.Sub(now))
		default:
			due = append(due, c)
		}
	}
	told := map[peer.Key]int{}
	for _, a := range k.attempts {
		told[a.by]++
	}
	// Who was there before first, then those whose introducer was wrong least.
	slices.SortFunc(due, func(a, b *contact) int {
		switch {
		case a.met != b.met && a.met:
			return -1
		case a.met != b.met:
			return 1
		}
		return cmp.Or(cmp.Compare(told[a.by], told[b.by]), cmp.Compare(a.tries, b.tries), a.next.Compare(b.next), a.addr.Compare(b.addr))
	})
	trying := map[peer.Key]bool{}
	for _, c := range due {
		if k.dialing >= meetAtOnce {
			break // who is done wakes
		}
		held = true
		doubted := !c.met || c.tries >= remeetFreely
		if trying[c.key] || doubted && !k.allowed(c, now) {
			continue
		}
		if doubted {
			k.attempts = append(k.attempts, attempt{now, c.by, network(c.addr.Addr())})
		}
		c.busy, trying[c.key] = true, true
		k.dialing++
		dial = append(dial, c)
	}
	if !held {
		again = 0
	}
	return dial, met, max(again, 0)
}

// dialed notes how an attempt ended; without an error a connection began.
func (k *contacts) dialed(c *contact, err error, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dialing--
	if err != nil {
		k.fail(c, now)
		return
	}
	// Whoever answers with the key that was said is no victim of who said it.
	host := network(c.addr.Addr())
	if i := slices.IndexFunc(k.attempts, func(a attempt) bool { return a.by == c.by && a.to == host }); i >= 0 {
		k.attempts = slices.Delete(k.attempts, i, i+1)
	}
}

// ended notes that the connection of an attempt has ended, and whether it was of use.
func (k *contacts) ended(c *contact, kept bool, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if kept {
		c.tries = 0
	}
	k.fail(c, now)
	if !kept && c.drives == nil { // of a drive that is not here any more, perhaps
		delete(k.all, c.located)
	}
}

// fail notes that a device is not there, or not any more. With mu held.
func (k *contacts) fail(c *contact, now time.Time) {
	wait := remeetRest
	switch {
	case !c.met && c.tries < len(meetAgain):
		wait = meetAgain[c.tries]
	case c.met && c.tries < remeetOften:
		wait = min(remeetFirst<<min(c.tries, 16), remeetLast)
	}
	c.busy, c.next = false, now.Add(wait)
	c.tries++
	if _, gone := k.forgotten[c.key]; gone {
		delete(k.all, c.located)
	}
}

// introducer returns who introduced a device that is at an address.
func (k *contacts) introducer(at located) (by [32]byte, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.all[at]
	if c == nil || c.late {
		return by, false
	}
	return c.by, true
}

// meet dials the devices that were introduced and are missed, for as long as
// the node lives.
func (n *Node) meet() {
	for {
		var again time.Duration
		if n.introduces.Load() {
			var dial []*contact
			var met []Contact
			dial, met, again = n.contacts.next(n.company(), time.Now())
			for _, c := range dial {
				n.wg.Go(func() { n.approach(c) })
			}
			if n.options.Introduced != nil {
				for _, c := range met {
					n.options.Introduced(c)
				}
			}
		}
		var due <-chan time.Time
		var timer *time.Timer
		if again > 0 {
			timer = time.NewTimer(again)
			due = timer.C
		}
		select {
		case <-n.contacts.wake:
		case <-due:
		case <-n.life.Done():
			return
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// approach dials a device that was introduced, and serves the connection.
func (n *Node) approach(c *contact) {
	defer n.contacts.kick()
	ctx, cancel := context.WithTimeout(n.life, meetTime)
	conn, err := n.dialOnce(ctx, c.addr.String(), &c.key)
	cancel()
	n.contacts.dialed(c, err, time.Now())
	if err != nil {
		n.logger.Debug("dialing a device that was introduced", "peer", c.key, "addr", c.addr, "by", c.by, "err", err)
		return
	}
	n.contacts.kick() // another one may be dialed
	var kept atomic.Bool
	defer func() { n.contacts.ended(c, kept.Load(), time.Now()) }()
	if n.redundant(conn) {
		conn.Close(peer.CodeDone, "connected already")
		return
	}
	patience := time.AfterFunc(helloTime, func() { kept.Store(n.keeps(conn)) })
	defer patience.Stop()
	n.serve(conn)
}
