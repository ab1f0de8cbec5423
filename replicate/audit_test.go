package replicate

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"hearth/log"
)

// holdWhole has a device hold a drive until all of it is there.
func holdWhole(t *testing.T, a, h *device, store *log.Store, link *Link) *log.Store {
	t.Helper()
	hold := *link
	hold.Seed = nil
	held := h.join(&hold, true)
	awaitWhole(t, held, store)
	return held
}

func awaitWhole(t *testing.T, held, store *log.Store) {
	t.Helper()
	await(t, "the holder has everything", func() bool {
		l := held.Logs()[0]
		_, n := l.NextMissing(0, 1)
		return l.Head().Size == store.Own().Head().Size && n == 0
	})
}

func auditOne(t *testing.T, a *device, store *log.Store) Audit {
	t.Helper()
	all, err := a.node.Audit(testContext(t), store.DriveID())
	if err != nil || len(all) != 1 {
		t.Fatalf("%d audits, %v", len(all), err)
	}
	return all[0]
}

// many makes a drive of many blocks.
func many(t *testing.T, a *device, blocks int) (*log.Store, *Link) {
	t.Helper()
	store, drive := a.author()
	write(t, drive, "big", noise(1, blocks*64<<10))
	link := a.share(store, drive)
	if size := store.Own().Head().Size; size < uint64(blocks)/2 {
		t.Fatalf("%d blocks", size)
	}
	return store, link
}

// A holder that has everything passes, and one that has lost a hundredth of it,
// on its disk and while it runs, is found out.
func TestAudit(t *testing.T) {
	a := newDevice(t, "a")
	h := newDevice(t, "h")
	store, link := many(t, a, 1000)
	held := holdWhole(t, a, h, store, link)
	sent := h.node.Peers()[0].Sent
	begun := time.Now()
	got := auditOne(t, a, store)
	t.Logf("an audit took %v, and %d bytes of answers", time.Since(begun), h.node.Peers()[0].Sent-sent)
	if got.Problem != "" || got.Sampled < auditSamples*9/10 || got.Passed != got.Sampled {
		t.Fatalf("of an honest holder: %+v", got)
	}
	if got.Peer != h.node.Key() || a.node.Audits(store.DriveID())[h.node.Key()] != got {
		t.Fatalf("not remembered: %+v", got)
	}
	// A range of its bytes is overwritten: one in a hundred, in one place.
	if err := held.Settle(); err != nil {
		t.Fatal(err)
	}
	spoil(t, held, 100)
	got = auditOne(t, a, store)
	if got.Lost == 0 || got.Passed < got.Sampled*9/10 || got.Passed+got.Lost != got.Sampled {
		t.Fatalf("of a holder that has lost a hundredth: %+v", got)
	}
	t.Logf("%+v", got)
	// It finds that out by itself, too, and makes it good.
	bad := 0
	if err := held.Logs()[0].Verify(testContext(t), func(log.Damage) { bad++ }, nil); err != nil || bad == 0 {
		t.Fatalf("%d damages: %v", bad, err)
	}
	awaitWhole(t, held, store)
	if got = auditOne(t, a, store); got.Lost+got.Gone > 0 {
		t.Fatalf("after it was made good: %+v", got)
	}
}

// spoil overwrites a part of a store's segments: one of n bytes.
func spoil(t *testing.T, held *log.Store, n int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(held.Dir(), "log-0000", "seg", "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(make([]byte, info.Size()/n), info.Size()/3); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A hundredth that is lost is found with the probability that is promised,
// wherever it is and however many are here.
func TestSample(t *testing.T) {
	a := newDevice(t, "a")
	store, _ := many(t, a, 1000)
	l := store.Own()
	r := rand.New(rand.NewPCG(1, 2))
	const rounds = 400
	missed := 0
	for range rounds {
		lost := map[uint64]bool{}
		for len(lost) < int(l.Head().Size/100) {
			lost[r.Uint64N(l.Head().Size)] = true
		}
		found := false
		seen := map[uint64]bool{}
		for _, c := range sample(l, r, auditSamples) {
			if seen[c.index] {
				t.Fatalf("entry %d is sampled twice", c.index)
			}
			seen[c.index] = true
			found = found || lost[c.index]
		}
		if len(seen) != auditSamples {
			t.Fatalf("%d samples", len(seen))
		}
		if !found {
			missed++
		}
	}
	if missed > rounds/100+6 {
		t.Fatalf("%d of %d audits would have missed it", missed, rounds)
	}
}

// Whoever is still copying is not blamed, who answers nonsense or nothing is.
func TestAuditAnswers(t *testing.T) {
	garbage := func(a *answering, q *request) (uint8, error) {
		for _, c := range q.slices {
			a.begin(msgHeld)
			a.w.Uvarint(c.index)
			a.w.Raw(make([]byte, 32))
			if err := a.send(false); err != nil {
				return 0, err
			}
		}
		return endOK, nil
	}
	for name, c := range map[string]struct {
		respond func(*answering, *request) (uint8, error)
		ok      func(Audit) bool
	}{
		"sparse":   {nil, func(a Audit) bool { return a.Lost == 0 && a.Gone > 0 && a.Problem == "" }},
		"garbage":  {garbage, func(a Audit) bool { return a.Lost == a.Sampled && a.Lost > 0 }},
		"silently": {func(*answering, *request) (uint8, error) { return endOK, nil }, func(a Audit) bool { return a.Lost == a.Sampled && a.Lost > 0 }},
		"refuses":  {func(*answering, *request) (uint8, error) { return endCannot, nil }, func(a Audit) bool { return a.Problem != "" }},
		"another's": {func(a *answering, q *request) (uint8, error) {
			q.nonce[0] ^= 1
			return a.one(q)
		}, func(a Audit) bool { return a.Lost > 0 }},
		"unasked": {func(a *answering, q *request) (uint8, error) {
			a.begin(msgHeld)
			a.w.Uvarint(1 << 40)
			a.w.Raw(make([]byte, 32))
			return endOK, a.send(true)
		}, func(a Audit) bool { return a.Problem != "" }},
		"twice": {func(a *answering, q *request) (uint8, error) {
			q.slices[1] = q.slices[0]
			return a.one(q)
		}, func(a Audit) bool { return a.Problem != "" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newDevice(t, "a")
			h := newLiar(t, "h", func(a *answering, q *request) (uint8, error) {
				if q.typ == msgProbe && c.respond != nil {
					return c.respond(a, q)
				}
				return a.one(q)
			})
			store, drive := a.author()
			write(t, drive, "big", noise(1, 2<<20))
			link := a.share(store, drive)
			if c.respond == nil || name == "another's" {
				h.join(link, name == "another's")
			} else {
				h.join(link, false)
			}
			got := auditOne(t, a, store)
			if !c.ok(got) {
				t.Fatalf("%+v", got)
			}
			if a.node.Audits(store.DriveID())[h.node.Key()] != got {
				t.Fatal("not remembered")
			}
		})
	}
}

// clock is a clock that a test moves.
type clock struct {
	mu      sync.Mutex
	now     time.Time
	waiting []chan time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) After(time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan time.Time, 1)
	c.waiting = append(c.waiting, ch)
	return ch
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for _, ch := range c.waiting {
		ch <- c.now
	}
	c.waiting = nil
}

// Holders are audited by themselves: a little after they have connected, soon
// again while they copy, and every hour.
func TestAuditSchedule(t *testing.T) {
	c := &clock{now: time.Unix(1e9, 0)}
	found := make(chan Audit, 100)
	a := newNodeDevice(t, "a", Options{now: c.Now, after: c.After, Audited: func(a Audit) { found <- a }})
	h := newDevice(t, "h")
	store, drive := a.author()
	write(t, drive, "big", noise(1, 2<<20))
	link := a.share(store, drive)
	held := h.join(link, false) // it reads and does not copy
	whole := false
	quiet := func(d time.Duration) {
		t.Helper()
		c.move(d)
		// The node is woken, and has looked at its clock when it has answered
		// for this.
		write(t, drive, fmt.Sprint("f", c.Now().Unix()), []byte("x"))
		await(t, "the newest head came", func() bool { return held.Logs()[0].Head().Size == store.Own().Head().Size })
		if whole {
			awaitWhole(t, held, store)
		}
		select {
		case got := <-found:
			t.Fatalf("audited %v after the start: %+v", c.Now().Sub(time.Unix(1e9, 0)), got)
		default:
		}
	}
	next := func(d time.Duration) (got Audit) {
		t.Helper()
		c.move(d)
		await(t, "an audit comes", func() bool {
			c.move(0) // whoever has looked at the clock just before it was moved
			select {
			case got = <-found:
				return true
			default:
				return false
			}
		})
		return got
	}
	quiet(auditFirst / 2)
	if got := next(auditFirst); got.Gone == 0 || got.Lost > 0 {
		t.Fatalf("of a reader: %+v", got)
	}
	h.node.Add(held, nil, true)
	awaitWhole(t, held, store)
	whole = true
	quiet(auditSoon / 2)
	if got := next(auditSoon); got.Gone+got.Lost > 0 {
		t.Fatalf("of a holder: %+v", got)
	}
	// It has more than the time before, but nothing is lacking.
	quiet(auditSoon * 2)
	if got := next(auditAgain * 5 / 4); got.Gone+got.Lost > 0 {
		t.Fatalf("of a holder: %+v", got)
	}
}
