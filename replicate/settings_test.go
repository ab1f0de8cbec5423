package replicate

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"log/slog"
	"testing"

	"hearth/replicate/peer"
)

// deviceWith returns a device with options of its own.
func deviceWith(t testing.TB, name string, o Options) *device {
	t.Helper()
	seed := sha256.Sum256([]byte(t.Name() + name))
	o.Key, o.Listen, o.Name, o.Logger = ed25519.NewKeyFromSeed(seed[:]), "127.0.0.1:0", name, slog.New(slog.DiscardHandler)
	n, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return &device{t: t, name: name, node: n}
}

// A device that gets another name tells those it shares a drive with.
func TestNameIsToldAgain(t *testing.T) {
	t.Parallel()
	named := make(chan string, 100)
	a := newDevice(t, "a")
	b := deviceWith(t, "b", Options{Met: func(_ [32]byte, name string, _ [32]byte) { named <- name }})
	store, drive := a.author()
	b.join(a.share(store, drive), false)
	ctx := testContext(t)
	for _, want := range []string{"a", "Eva's laptop", "another"} {
		if want != "a" {
			a.node.SetName(want)
		}
		select {
		case got := <-named:
			if got != want {
				t.Fatalf("it is called %q, not %q", got, want)
			}
		case <-ctx.Done():
			t.Fatalf("nobody heard of %q", want)
		}
		if got := b.node.Peers()[0].Name; got != want {
			t.Fatalf("it is listed as %q, not %q", got, want)
		}
	}
	a.node.SetName("another") // that is no news
	a.node.change()
	if got := a.node.Name(); got != "another" || len(named) > 0 {
		t.Fatalf("%q, and %d more names", got, len(named))
	}
}

// Who lied is not spoken to, also by a node that begins anew, until it is
// forgiven.
func TestBanIsRemembered(t *testing.T) {
	t.Parallel()
	a := newLiar(t, "a", func(a *answering, q *request) (uint8, error) {
		if q.typ == msgGet {
			return tamper(a, q, func(w []byte) { w[len(w)/2] ^= 1 })
		}
		if q.typ == msgWalk {
			return endCannot, nil
		}
		return a.one(q)
	})
	store, drive := a.author()
	write(t, drive, "f", noise(3, 1<<20))
	type ban struct {
		key       [32]byte
		name, why string
	}
	bans := make(chan ban, 10)
	b := deviceWith(t, "b", Options{Ban: func(key [32]byte, name, why string) { bans <- ban{key, name, why} }})
	b.join(a.share(store, drive), true) // which asks for everything
	ctx := testContext(t)
	var got ban
	select {
	case got = <-bans:
	case <-ctx.Done():
		t.Fatal("the liar goes on")
	}
	if got.key != a.node.Key() || got.name != "a" || got.why == "" {
		t.Fatalf("banned: %+v", got)
	}

	c := deviceWith(t, "c", Options{Banned: map[[32]byte]string{got.key: got.why}})
	key := a.node.Key()
	for what, err := range map[string]error{
		"an address":        c.node.Connect(ctx, a.addr(), nil),
		"the device":        func() error { _, err := c.node.Reach(ctx, a.addr(), &key); return err }(),
		"a device anywhere": func() error { _, err := c.node.Reach(ctx, a.addr(), nil); return err }(),
	} {
		if !errors.Is(err, ErrBanned) {
			t.Errorf("%s: %v", what, err)
		}
	}
	own := c.node.Key()
	_, _ = a.node.Reach(ctx, c.addr(), &own) // whether it hears of it before or after, it is not let in
	if len(c.node.Peers()) != 0 {
		t.Fatal("somebody who is banned was let in")
	}
	if !c.node.Forgive(key) || c.node.Forgive(key) {
		t.Fatal("it is not forgiven once")
	}
	if _, err := c.node.Reach(ctx, a.addr(), &key); err != nil {
		t.Fatal(err)
	}
}

func TestWrongKeyIsTold(t *testing.T) {
	t.Parallel()
	type wrong struct {
		addr      string
		want, got [32]byte
	}
	told := make(chan wrong, 10)
	a := newDevice(t, "a")
	b := deviceWith(t, "b", Options{WrongKey: func(addr string, want, got [32]byte) { told <- wrong{addr, want, got} }})
	expect := [32]byte{1}
	if err := b.node.Connect(context.Background(), a.addr(), &expect); !errors.Is(err, peer.ErrWrongKey) {
		t.Fatal(err)
	}
	if got := <-told; got != (wrong{a.addr(), expect, a.node.Key()}) {
		t.Fatalf("told %+v", got)
	}
}
