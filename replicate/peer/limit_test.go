package peer

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const testRate = 1 << 20 // bytes a second

// passing lets pieces pass a limit, one after the other, until ctx ends.
func passing(ctx context.Context, wg *sync.WaitGroup, l *limit, urgent bool, total *atomic.Int64) {
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := l.admit(ctx, &gate{}, urgent, l.piece()); err != nil || ctx.Err() != nil {
				return
			}
			total.Add(int64(l.piece()))
		}
	})
}

func TestLimit(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		bulk, urgent       int     // how many of them want all that they can get
		leastBulk, mostAll float64 // of the rate
		leastUrgent        float64 // of the rate
	}{
		"one":               {bulk: 1, leastBulk: 0.95, mostAll: 1.05},
		"many":              {bulk: 50, leastBulk: 0.95, mostAll: 1.05},
		"urgent ones":       {urgent: 3, leastUrgent: 0.95, mostAll: 1.10},
		"urgent ones first": {bulk: 20, urgent: 2, leastBulk: 0.2, leastUrgent: 0.7, mostAll: 1.10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const seconds = 5
				l := newLimit()
				l.set(testRate)
				ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
				defer cancel()
				var wg sync.WaitGroup
				var bulk, urgent atomic.Int64
				for range tt.bulk {
					passing(ctx, &wg, l, false, &bulk)
				}
				for range tt.urgent {
					passing(ctx, &wg, l, true, &urgent)
				}
				wg.Wait()
				b, u := float64(bulk.Load())/seconds/testRate, float64(urgent.Load())/seconds/testRate
				if b < tt.leastBulk || u < tt.leastUrgent || b+u > tt.mostAll {
					t.Errorf("in parts of the rate: %.3f and %.3f of urgent ones", b, u)
				}
			})
		})
	}
}

// What is urgent does not wait for what is not.
func TestUrgentPasses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimit()
		l.set(testRate)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var bulk atomic.Int64
		for range 100 {
			passing(ctx, &wg, l, false, &bulk)
		}
		time.Sleep(3 * time.Second) // of the bubble: all of them wait
		begun := time.Now()
		for range 128 << 10 / l.piece() {
			if err := l.admit(ctx, &gate{}, true, l.piece()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begun); took > 10*time.Millisecond {
			t.Errorf("128 KiB took %v beside others", took)
		}
		cancel()
		wg.Wait()
	})
}

func TestLimitEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimit()
		l.set(testRate)
		l.pay(false, 1000*testRate) // for the next quarter of an hour nothing urgent passes
		var g gate
		begun := time.Now()
		wait := func(g *gate) <-chan error {
			done := make(chan error, 1)
			go func() { done <- l.admit(t.Context(), g, true, 1) }()
			synctest.Wait()
			return done
		}

		g.setDeadline(begun.Add(time.Minute))
		if err := <-wait(&g); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != time.Minute {
			t.Errorf("the deadline: %v after %v", err, time.Since(begun))
		}
		g.setDeadline(time.Time{})
		first, second := wait(&g), wait(&g) // second waits in line
		g.setDeadline(time.Unix(1, 0))
		for _, done := range []<-chan error{first, second} {
			if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a deadline that is set while it waits: %v", err)
			}
		}
		g.setDeadline(time.Time{})
		first = wait(&g)
		g.close()
		if err := <-first; err != nil {
			t.Errorf("the end of a stream: %v", err)
		}
		first, second = wait(new(gate)), wait(new(gate))
		l.set(0)
		if err := errors.Join(<-first, <-second); err != nil {
			t.Errorf("a limit that is lifted: %v", err)
		}
		if time.Since(begun) != time.Minute {
			t.Errorf("it took %v longer", time.Since(begun)-time.Minute)
		}
	})
}

// flood writes to a stream until it fails.
func flood(wg *sync.WaitGroup, s *Stream) {
	wg.Go(func() {
		for chunk := make([]byte, 256<<10); ; {
			if _, err := s.Write(chunk); err != nil {
				return
			}
		}
	})
}

// What two connections carry together stays below the limit of either side.
func TestRatesAreKept(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(from, to *Endpoint){
		"up":   func(from, _ *Endpoint) { from.SetRates(testRate, 0) },
		"down": func(_, to *Endpoint) { to.SetRates(0, testRate) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := listen(t, "a"), listen(t, "b")
			set(a, b)
			begun := time.Now()
			var senders, readers sync.WaitGroup
			var carried []*Conn
			var read atomic.Int64
			for i := range 2 {
				ca, cb := connect(t, a, b)
				if i == 1 { // a limit is for both directions of connections
					ca, cb = connect(t, b, a)
					ca, cb = cb, ca
				}
				carried = append(carried, cb)
				for range 2 {
					s, r := streamPair(t, ca, cb)
					flood(&senders, s)
					readers.Go(func() {
						buf := make([]byte, 100_000)
						for {
							n, err := r.Read(buf)
							read.Add(int64(n))
							if err != nil {
								return
							}
						}
					})
				}
			}
			for read.Load() < 3*testRate {
				time.Sleep(time.Millisecond)
			}
			var all uint64
			for _, c := range carried {
				all += c.Stats().Received
			}
			// Beside the tokens that came there are those that may be borrowed or
			// saved, and what waits to be read.
			took := time.Since(begun).Seconds()
			if most := 1.1*testRate*took + testRate*(savedPart+borrowedPart) + 2*testRate/2; float64(all) > most {
				t.Errorf("%d bytes in %.2f s", all, took)
			}
			t.Logf("%d bytes in %.2f s", all, took)
			for _, c := range carried {
				c.Close(CodeDone, "")
			}
			senders.Wait()
			readers.Wait()
		})
	}
}

// A limit that is lifted holds nobody any more, and what was read under it is
// what was written.
func TestRateIsLifted(t *testing.T) {
	t.Parallel()
	a, b := listen(t, "a", func(o *Options) { o.Up = 64 << 10 }), listen(t, "b", func(o *Options) { o.Down = 64 << 10 })
	ca, cb := connect(t, a, b)
	s, r := streamPair(t, ca, cb)
	const size = 64 << 20 // a quarter of an hour's worth
	done := make(chan error, 1)
	go func() {
		chunk := make([]byte, size)
		for i := range chunk {
			chunk[i] = byte(i % 251)
		}
		_, err := s.Write(chunk)
		done <- errors.Join(err, s.CloseWrite())
	}()
	buf := make([]byte, 256<<10)
	n := 0
	for n < 32<<10 {
		k, err := r.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		n += k
	}
	n = n % 251
	a.SetRates(0, 0)
	b.SetRates(0, 0)
	total := 0
	for {
		k, err := r.Read(buf)
		for _, c := range buf[:k] {
			if c != byte(n%251) {
				t.Fatal("other bytes than were written")
			}
			n++
		}
		total += k
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil || total < size-1<<20 {
		t.Fatalf("%d bytes, %v", total, err)
	}
}

func TestRates(t *testing.T) {
	t.Parallel()
	var m meter
	begun := time.Unix(1000, 0)
	m.begin(begun)
	if up, down := m.rates(begun.Add(time.Second), 500, 100); up != 500 || down != 100 {
		t.Errorf("at first: %v, %v", up, down)
	}
	for i := range uint64(10) {
		m.tick(begun.Add(time.Duration(i+1)*time.Second), 1000*(i+1), 10*(i+1))
	}
	if up, down := m.rates(begun.Add(10*time.Second), 10_000, 100); up != 1000 || down != 10 {
		t.Errorf("later: %v, %v", up, down)
	}
	if up, down := m.rates(begun.Add(16*time.Second), 10_000, 100); up >= 1000 || down >= 10 {
		t.Errorf("when nothing comes: %v, %v", up, down)
	}
}

// What is carried beside the bytes of streams counts, at most half of the rate.
func TestOverheadCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimit()
		var paid int64
		if left := settle(l, 5000, 1000, &paid, 100); left != 100 || paid != 4000 {
			t.Errorf("without a limit: %v left, %d paid", left, paid)
		}
		l.set(testRate)
		if left := settle(l, 7000, 1000, &paid, 1500); left != 0 || paid != 5500 || l.tokens != -1500 {
			t.Errorf("%v left, %d paid, %v tokens", left, paid, l.tokens)
		}
		if left := settle(l, 7000, 1000, &paid, 1500); left != 1000 || paid != 6000 || l.tokens != -2000 {
			t.Errorf("%v left, %d paid, %v tokens", left, paid, l.tokens)
		}
		if left := settle(l, 7000, 7000, &paid, 1500); left != 1500 || paid != 6000 {
			t.Errorf("what was read: %v left, %d paid", left, paid)
		}
	})
}
