package parcel

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	childAddr = "HEARTH_PARCEL_TEST_ADDR"
	childDir  = "HEARTH_PARCEL_TEST_DIR"
)

// TestMain is also the receiver that is killed.
func TestMain(m *testing.M) {
	addr := os.Getenv(childAddr)
	if addr == "" {
		os.Exit(m.Run())
	}
	c, err := net.Dial("tcp", addr)
	if err == nil {
		_, err = Receive(context.Background(), c, ReceiveOptions{Dir: os.Getenv(childDir), Decide: yes})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// hooked is a stream that calls after each write with the bytes written so far.
type hooked struct {
	net.Conn
	n    atomic.Int64
	call func(total int64)
}

func (h *hooked) Write(p []byte) (int, error) {
	n, err := h.Conn.Write(p)
	h.call(h.n.Add(int64(n)))
	return n, err
}

// mixed makes a folder of large and small files and returns its bytes.
func mixed(t testing.TB, dir string) int64 {
	total := int64(0)
	for i, n := range []int{23 << 20, 9<<20 + 1, 4 << 20, 70 << 10} {
		write(t, fmt.Sprintf("%s/large%d", dir, i), random(uint64(i), n))
		total += int64(n)
	}
	for i := range 600 {
		write(t, fmt.Sprintf("%s/sub%d/%d", dir, i%7, i), random(uint64(i), 10000))
		total += 10000
	}
	for name, mode := range map[string]os.FileMode{"sub0": 0o500, "sub1/1": 0o400, "large0": 0o400} {
		if err := os.Chmod(dir+"/"+name, mode); err != nil {
			t.Fatal(err)
		}
	}
	return total
}

// What is moved after a break is what was missing, and little more.
func TestResume(t *testing.T) {
	src := tempDir(t)
	total := mixed(t, src+"/tree")
	r := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	cuts := 6
	if testing.Short() {
		cuts = 2
	}
	for range cuts {
		at := r.Int64N(total + total/50)
		t.Run(fmt.Sprint("cut at ", at), func(t *testing.T) {
			dst := tempDir(t)
			id := NewID()
			so, ro := SendOptions{Paths: []string{src + "/tree"}, ID: id}, ReceiveOptions{Dir: dst}
			a, b := loopback(t)
			cut := &hooked{Conn: a}
			cut.call = func(n int64) {
				if n >= at {
					a.Close()
				}
			}
			first := transfer(context.Background(), cut, b, so, ro)
			if first.sendErr == nil && first.getErr == nil {
				same(t, src+"/tree", dst+"/tree")
				return // the cut was behind the end
			}
			if !errors.Is(first.sendErr, ErrBroken) || !errors.Is(first.getErr, ErrBroken) {
				t.Fatalf("send: %v; receive: %v", first.sendErr, first.getErr)
			}
			if n := names(t, dst); len(n) > 1 || len(n) == 1 && n[0] != partialName(id) {
				t.Fatalf("placed %q", n)
			}
			second := mustTransfer(t, so, ro)
			same(t, src+"/tree", dst+"/tree")
			missing := total - first.got.Moved
			if limit := missing + total/20 + step; second.got.Moved > limit {
				t.Errorf("%d bytes moved, %d were missing", second.got.Moved, missing)
			}
			if n := names(t, dst); len(n) != 1 {
				t.Errorf("left %q", n)
			}
		})
	}
}

func TestResumeAfterKill(t *testing.T) {
	src, dst := tempDir(t), tempDir(t)
	total := mixed(t, src+"/tree")
	so := SendOptions{Paths: []string{src + "/tree"}, ID: NewID()}
	// attempt sends to a child, which is killed when so many bytes went out.
	attempt := func(kill int64) (Report, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childAddr+"="+l.Addr().String(), childDir+"="+dst)
		child.Stderr = os.Stderr
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		defer child.Wait()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		h := &hooked{Conn: c, call: func(n int64) {
			if n >= kill {
				child.Process.Kill()
			}
		}}
		return Send(context.Background(), h, so)
	}
	last := int64(0)
	for i := range int64(3) {
		r, err := attempt(10 << 20)
		if !errors.Is(err, ErrBroken) && !errors.Is(err, ErrFailed) {
			t.Fatalf("kill %d: %v", i, err)
		}
		last += r.Moved
	}
	r, err := attempt(1 << 40)
	if err != nil {
		t.Fatal(err)
	}
	same(t, src+"/tree", dst+"/tree")
	// Bytes that the sender handed over may have been in the killed process,
	// or not have reached it: the frames and the buffers of the stream.
	const inFlight = buffers*maxPayload + 8<<20
	if limit := total - last + 3*(step+inFlight) + total/20; r.Moved > limit {
		t.Errorf("%d bytes moved, limit %d", r.Moved, limit)
	}
	if n := names(t, dst); !slices.Equal(n, []string{"tree"}) {
		t.Errorf("left %q", n)
	}
}

// The last acknowledgement is lost: the sender asks again and learns that all
// is there, and nothing comes twice.
func TestLostAcknowledgement(t *testing.T) {
	src, dst := tempDir(t), tempDir(t)
	write(t, src+"/a.txt", []byte("a"))
	write(t, dst+"/a.txt", []byte("other"))
	so := SendOptions{Paths: []string{src + "/a.txt"}, ID: NewID()}
	a, b := loopback(t)
	cut := &hooked{Conn: b} // the receiver's writes: the last is Done
	written := false
	cut.call = func(int64) {
		if _, err := os.Stat(dst + "/a (2).txt"); err == nil && !written {
			written = true
			a.Close()
		}
	}
	o := transfer(context.Background(), a, cut, so, ReceiveOptions{Dir: dst})
	if !errors.Is(o.sendErr, ErrBroken) || o.getErr != nil {
		t.Fatalf("send: %v; receive: %v", o.sendErr, o.getErr)
	}
	list, err := Partials(dst)
	if err != nil || len(list) != 1 || !list[0].Placed || list[0].ID != so.ID {
		t.Fatalf("%+v, %v", list, err)
	}
	o = mustTransfer(t, so, ReceiveOptions{Dir: dst})
	if !slices.Equal(o.sent.Names, []string{"a (2).txt"}) || o.sent.Moved != 0 || o.sent.Files != 1 {
		t.Fatalf("%+v", o.sent)
	}
	if n := names(t, dst); !slices.Equal(n, []string{"a (2).txt", "a.txt"}) {
		t.Fatalf("%q", n)
	}
}

// A crash between the record of the end and the renames.
func TestResumePlacing(t *testing.T) {
	src, dst := tempDir(t), tempDir(t)
	write(t, src+"/one", []byte("1"))
	write(t, src+"/two/x", []byte("2"))
	so := SendOptions{Paths: []string{src + "/one", src + "/two"}, ID: NewID()}
	ctx, stop := context.WithCancelCause(context.Background())
	a, b := loopback(t)
	var got, sent error
	var wg sync.WaitGroup
	wg.Go(func() { _, sent = Send(context.Background(), a, so) })
	wg.Go(func() {
		_, got = Receive(ctx, &hooked{Conn: b, call: func(n int64) {
			// Again, the answer to End, is the last message before finish.
			if _, err := os.Stat(dst + "/" + partialName(so.ID) + "/tree/two/x"); err == nil {
				stop(errors.New("shut down"))
			}
		}}, ReceiveOptions{Dir: dst, Decide: yes})
	})
	wg.Wait()
	if got == nil || !errors.Is(sent, ErrCanceled) {
		t.Fatal(got, sent)
	}
	s, err := openDest(dst, so.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.adopt(); err != nil {
		t.Fatal(err)
	}
	tr, err := walk(context.Background(), so.Paths)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.j.load()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.recall(tr.m, p.header.digest); err != nil || s.past == nil {
		t.Fatal(err)
	}
	if err := s.complete(nil); err != nil {
		t.Fatal(err)
	}
	if name, err := s.placeOne(0); err != nil || name != "one" {
		t.Fatal(name, err)
	}
	s.close() // as if killed here
	o := mustTransfer(t, so, ReceiveOptions{Dir: dst})
	if o.sent.Moved != 0 || !slices.Equal(o.got.Names, []string{"one", "two"}) {
		t.Fatalf("%+v", o.got)
	}
	same(t, src+"/one", dst+"/one")
	same(t, src+"/two", dst+"/two")
}

// A manifest that is another one begins anew.
func TestResumeOfAnotherTree(t *testing.T) {
	src, dst := tempDir(t), tempDir(t)
	mixed(t, src+"/tree")
	so := SendOptions{Paths: []string{src + "/tree"}, ID: NewID()}
	a, b := loopback(t)
	transfer(context.Background(), &hooked{Conn: a, call: func(n int64) {
		if n > 20<<20 {
			a.Close()
		}
	}}, b, so, ReceiveOptions{Dir: dst})
	os.Remove(src + "/tree/large1")
	write(t, src+"/tree/new", []byte("new"))
	mustTransfer(t, so, ReceiveOptions{Dir: dst})
	same(t, src+"/tree", dst+"/tree")
}

// What is on disk is not believed: a flipped byte in a finished file and one
// in a part are found and sent again.
func TestResumeChecksDisk(t *testing.T) {
	src, dst := tempDir(t), tempDir(t)
	mixed(t, src+"/tree")
	so := SendOptions{Paths: []string{src + "/tree"}, ID: NewID()}
	a, b := loopback(t)
	transfer(context.Background(), &hooked{Conn: a, call: func(n int64) {
		if n > 30<<20 {
			a.Close()
		}
	}}, b, so, ReceiveOptions{Dir: dst})
	for name, at := range map[string]int64{"large0": 5 << 20, "large1": 1000} {
		path := dst + "/" + partialName(so.ID) + "/tree/tree/" + name
		os.Chmod(path, 0o600)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteAt([]byte{1, 2, 3, 4}, at)
		f.Close()
	}
	mustTransfer(t, so, ReceiveOptions{Dir: dst})
	same(t, src+"/tree", dst+"/tree")
}

func TestChangedWhileSent(t *testing.T) {
	for _, c := range []struct {
		what   string
		times  int
		change func(path string, k int)
		gone   bool
	}{
		{"once", 1, func(p string, k int) { os.WriteFile(p, random(99, 11<<20), 0o600) }, false},
		{"shorter", 1, func(p string, k int) { os.Truncate(p, 100) }, false},
		{"always", 1 << 30, func(p string, k int) { os.Chtimes(p, time.Time{}, time.Unix(int64(k), 0)) }, true},
		{"vanishes", 1 << 30, func(p string, k int) { os.Remove(p) }, true},
		{"grows too much", 1, func(p string, k int) { os.Truncate(p, 1<<30) }, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			src, dst := tempDir(t), tempDir(t)
			path := src + "/d/file"
			write(t, path, random(1, 20<<20))
			write(t, src+"/d/other", random(2, 1<<20))
			a, b := net.Pipe()
			k := 0
			o := transfer(context.Background(), &hooked{Conn: a, call: func(n int64) {
				if n > 3<<20 && k < c.times {
					k++
					c.change(path, k)
				}
			}}, b, SendOptions{Paths: []string{src + "/d"}}, ReceiveOptions{Dir: dst})
			if !c.gone {
				if o.sendErr != nil || o.getErr != nil {
					t.Fatal(o.sendErr, o.getErr)
				}
				want, _ := os.ReadFile(path)
				if got, err := os.ReadFile(dst + "/d/file"); err != nil || string(got) != string(want) {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
				return
			}
			if !errors.Is(o.sendErr, ErrChanged) || !errors.Is(o.getErr, ErrChanged) {
				t.Fatalf("send: %v; receive: %v", o.sendErr, o.getErr)
			}
			if s := o.got.Skipped; len(s) != 1 || s[0] != (Skipped{"d/file", SkippedChanged}) || len(o.sent.Skipped) != 1 {
				t.Fatalf("%+v, %+v", s, o.sent.Skipped)
			}
			if n := names(t, dst+"/d"); !slices.Equal(n, []string{"other"}) || o.got.Files != 1 {
				t.Fatalf("%q, %+v", n, o.got)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	src := tempDir(t)
	write(t, src+"/f", random(1, 64<<20))
	for _, c := range []struct {
		what   string
		sender bool
		cause  error
		kept   int
	}{
		{"sender", true, nil, 1},
		{"receiver shuts down", false, nil, 1},
		{"receiver discards", false, ErrDiscard, 0},
	} {
		t.Run(c.what, func(t *testing.T) {
			dst := tempDir(t)
			ctx, stop := context.WithCancelCause(context.Background())
			sctx, rctx := ctx, context.Background()
			if !c.sender {
				sctx, rctx = rctx, sctx
			}
			a, b := loopback(t)
			h := &hooked{Conn: a, call: func(n int64) {
				if n > 10<<20 {
					stop(c.cause)
				}
			}}
			var sendErr, getErr error
			var wg sync.WaitGroup
			start := time.Now()
			so := SendOptions{Paths: []string{src + "/f"}, ID: NewID(), Name: "Ann"}
			wg.Go(func() { _, sendErr = Send(sctx, h, so) })
			wg.Go(func() { _, getErr = Receive(rctx, b, ReceiveOptions{Dir: dst, Decide: yes}) })
			wg.Wait()
			mine, other := sendErr, getErr
			if !c.sender {
				mine, other = other, mine
			}
			if !errors.Is(mine, context.Cause(ctx)) || !errors.Is(other, ErrCanceled) {
				t.Fatalf("mine: %v; other: %v", mine, other)
			}
			if d := time.Since(start); d > time.Minute {
				t.Errorf("took %v", d)
			}
			list, err := Partials(dst)
			if err != nil || len(list) != c.kept || len(names(t, dst)) != c.kept {
				t.Fatalf("%+v, %v", list, err)
			}
			if c.kept > 0 {
				if p := list[0]; p.ID != so.ID || p.From != "Ann" || p.Bytes != 64<<20 || p.Files != 1 || p.Busy || p.Placed {
					t.Errorf("%+v", p)
				}
				if err := Discard(dst, so.ID); err != nil || len(names(t, dst)) > 0 {
					t.Error(err)
				}
			}
			if err := Discard(dst, so.ID); !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		})
	}
}

// While the receiver's user thinks, the sender gives up: the question is
// taken back.
func TestCancelWhileAsked(t *testing.T) {
	src, dst := tempDir(t), tempDir(t)
	write(t, src+"/f", nil)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	a, b := loopback(t)
	var sendErr, getErr error
	var wg sync.WaitGroup
	wg.Go(func() { _, sendErr = Send(ctx, a, SendOptions{Paths: []string{src + "/f"}}) })
	wg.Go(func() {
		_, getErr = Receive(context.Background(), b, ReceiveOptions{Dir: dst, Decide: func(ctx context.Context, _ Offer) (Decision, error) {
			stop()
			<-ctx.Done()
			return Accept, nil
		}})
	})
	wg.Wait()
	if !errors.Is(sendErr, context.Canceled) || !errors.Is(getErr, ErrCanceled) || len(names(t, dst)) > 0 {
		t.Fatal(sendErr, getErr)
	}
}

// Thinking longer than the idle time is not silence; silence is.
func TestIdle(t *testing.T) {
	src, dst := tempDir(t), tempDir(t)
	write(t, src+"/f", []byte("x"))
	const idle = time.Second
	a, b := loopback(t)
	o := transfer(context.Background(), a, b, SendOptions{Paths: []string{src + "/f"}, idle: idle},
		ReceiveOptions{Dir: dst, idle: idle, Decide: func(ctx context.Context, _ Offer) (Decision, error) {
			select {
			case <-time.After(4 * idle):
			case <-ctx.Done():
			}
			return Accept, nil
		}})
	if o.sendErr != nil || o.getErr != nil {
		t.Fatal(o.sendErr, o.getErr)
	}
	a, _ = loopback(t)
	if _, err := Send(context.Background(), a, SendOptions{Paths: []string{src + "/f"}, idle: idle}); !errors.Is(err, ErrBroken) {
		t.Fatal(err)
	}
}

func TestBusyPartial(t *testing.T) {
	src, dst := tempDir(t), tempDir(t)
	write(t, src+"/f", random(1, 8<<20))
	so := SendOptions{Paths: []string{src + "/f"}, ID: NewID()}
	a, b := loopback(t)
	var once sync.Once
	second := outcome{}
	h := &hooked{Conn: a, call: func(n int64) {
		if n > 5<<20 {
			once.Do(func() {
				c, d := loopback(t)
				second = transfer(context.Background(), c, d, so, ReceiveOptions{Dir: dst})
				if err := Discard(dst, so.ID); !errors.Is(err, ErrBusy) {
					t.Error(err)
				}
			})
		}
	}}
	o := transfer(context.Background(), h, b, so, ReceiveOptions{Dir: dst})
	if o.sendErr != nil || o.getErr != nil || !errors.Is(second.sendErr, ErrBusy) || !errors.Is(second.getErr, ErrBusy) {
		t.Fatal(o, second)
	}
}
