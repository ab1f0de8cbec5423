package replicate

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"hearth/fs"
	"hearth/log"
)

// lies are what a peer may answer instead of the truth. Each says whether the
// peer is to be disconnected for it.
var lies = map[string]func(a *answering, q *request) (uint8, error){
	"wrong bytes": func(a *answering, q *request) (uint8, error) {
		return tamper(a, q, func(w []byte) { w[len(w)/2] ^= 1 })
	},
	"a false tile": func(a *answering, q *request) (uint8, error) {
		for _, t := range q.tiles {
			a.begin(msgTile)
			a.w.U8(uint8(t.Level))
			a.w.Uvarint(t.N)
			a.w.Raw(make([]byte, tileBytes))
			if err := a.send(true); err != nil {
				return 0, err
			}
		}
		return endOK, nil
	},
	"another block": func(a *answering, q *request) (uint8, error) {
		a.begin(msgBlock)
		a.w.Uvarint(q.ranges[0].first)
		a.w.Raw([]byte("not at all"))
		return endOK, a.send(true)
	},
	"more than was asked for": func(a *answering, q *request) (uint8, error) {
		for range 100_000 {
			if err := a.gone(q.ranges[0].first, 1); err != nil {
				return 0, err
			}
		}
		return endOK, nil
	},
	"an answer without END": func(a *answering, q *request) (uint8, error) {
		for {
			if err := a.gone(q.ranges[0].first, 1); err != nil {
				return 0, err
			}
		}
	},
	"nonsense": func(a *answering, q *request) (uint8, error) {
		_, err := a.st.Write([]byte{0, 0, 0, 2, 99, 0})
		return endOK, err
	},
	"a giant": func(a *answering, q *request) (uint8, error) {
		_, err := a.st.Write([]byte{255, 255, 255, 255, byte(msgBlock)})
		return endOK, err
	},
	"nothing": func(a *answering, q *request) (uint8, error) {
		return endOK, nil
	},
	"that it has nothing": func(a *answering, q *request) (uint8, error) {
		for _, r := range q.ranges {
			if err := a.gone(r.first, r.n); err != nil {
				return 0, err
			}
		}
		return endOK, nil
	},
	"a reset": func(a *answering, q *request) (uint8, error) {
		a.st.Cancel(99)
		return 0, errors.New("reset")
	},
	"silence": func(a *answering, q *request) (uint8, error) {
		<-a.s.ctx.Done()
		return 0, a.s.ctx.Err()
	},
	"a slow drip": func(a *answering, q *request) (uint8, error) {
		for a.s.ctx.Err() == nil {
			if _, err := a.st.Write([]byte{0}); err != nil {
				return 0, err
			}
			select {
			case <-a.s.ctx.Done():
			case <-time.After(time.Second):
			}
		}
		return 0, a.s.ctx.Err()
	},
}

// tamper answers truly, but for the bytes of entries.
func tamper(a *answering, q *request, change func([]byte)) (uint8, error) {
	d := a.s.node.shared(q.log.drive)
	store, _, _ := d.state()
	l, err := store.Log(q.log.writer)
	if err != nil {
		return endUnknown, nil
	}
	for _, t := range q.tiles {
		if err := a.tile(l, t); err != nil {
			return 0, err
		}
	}
	for _, r := range q.ranges {
		b, err := l.ReadStored(nil, r.first)
		if err != nil {
			return endCannot, nil
		}
		change(b)
		a.begin(msgBlock)
		a.w.Uvarint(r.first)
		a.w.Raw(b)
		if err := a.send(true); err != nil {
			return 0, err
		}
	}
	return endOK, nil
}

// A peer that lies is dropped or passed over, the reader never sees a wrong
// byte, and an honest peer makes up for it.
func TestLiars(t *testing.T) {
	for name, lie := range lies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if testing.Short() && (name == "silence" || name == "a slow drip") {
				t.Skip("it takes the time that a peer may be silent for; make test takes it")
			}
			var lying atomic.Bool
			a := newLiar(t, "a", func(a *answering, q *request) (uint8, error) {
				switch {
				case !lying.Load():
					return a.one(q)
				case q.typ == msgGet:
					return lie(a, q)
				}
				return endCannot, nil
			})
			h, b := newDevice(t, "h"), newDevice(t, "b")
			store, drive := a.author()
			data := noise(9, 3<<20)
			write(t, drive, "f", data)
			link := a.share(store, drive)
			held := h.join(link, true)
			await(t, "the holder has everything", func() bool {
				l := held.Logs()[0]
				_, n := l.NextMissing(0, 1)
				return l.Head().Size == store.Own().Head().Size && n == 0
			})
			d := b.open(b.join(link, false))
			// From now on, the author lies about what is asked for one by one.
			lying.Store(true)
			ctx := testContext(t)
			p := make([]byte, 1<<20)
			ino, err := resolved(ctx, d, "f")
			begun := time.Now()
			if err == nil {
				_, err = d.Current().ReadAt(ctx, ino, p, 0)
			}
			if err == nil {
				t.Fatal("read what nobody told the truth about")
			}
			if !errors.Is(err, log.ErrMissing) && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("unexpected error: %v", err)
			}
			if took := time.Since(begun); took > 2*silentTime {
				t.Fatalf("it took %v", took)
			}
			// The honest one.
			if err := b.node.Connect(ctx, h.addr(), nil); err != nil {
				t.Fatal(err)
			}
			if got := read(t, d, "f", 0, len(data)); !bytes.Equal(got, data) {
				t.Fatal("other contents")
			}
		})
	}
}

func resolved(ctx context.Context, d *fs.Drive, path string) (fs.Ino, error) {
	return d.Current().Resolve(ctx, path)
}
