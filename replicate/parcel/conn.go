package parcel

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"hearth/log/wire"
)

const (
	// idleTimeout is how long the other side may be silent. A live one sends
	// something every third of it.
	idleTimeout = 30 * time.Second
	// grace is how long the last message of a side, and the other's end of
	// the stream after it, may take.
	grace = 2 * time.Second
	// buffers is how many frames one side holds between stream and disk.
	buffers = 8
)

// frame is one message; body is the frame's own until release.
type frame struct {
	typ  uint8
	body []byte
	buf  []byte
}

// conn is one side of a transfer: frames over the stream, heartbeats, and the
// end of everything. Its context ends with the caller's, with the stream, and
// with a Cancel of the other side; the cause says which.
//
// Two goroutines belong to it, reader and heart; both end in end.
type conn struct {
	s     Stream
	br    *bufio.Reader
	outer context.Context // the caller's
	ctx   context.Context
	stop  context.CancelCauseFunc
	idle  time.Duration
	in    chan frame // unbuffered: what came before the stream's end was taken before the context ends
	pool  pool
	wg    sync.WaitGroup

	theirs atomic.Bool // the other side ended it, or cannot hear us

	rmu   sync.Mutex
	ended bool // deadlines are no longer renewed
	heard time.Time

	wmu   sync.Mutex
	wrote time.Time
	torn  error // a frame was left half written
}

func newConn(ctx context.Context, s Stream, idle time.Duration) *conn {
	if idle == 0 {
		idle = idleTimeout
	}
	c := &conn{s: s, outer: ctx, idle: idle, in: make(chan frame), pool: newPool(buffers)}
	c.ctx, c.stop = context.WithCancelCause(ctx)
	c.br = bufio.NewReaderSize(renewing{c}, 64<<10)
	context.AfterFunc(c.ctx, c.interrupt)
	c.wg.Go(c.reader)
	c.wg.Go(c.heart)
	return c
}

// interrupt makes blocked reads fail now and blocked writes soon: a frame on
// its way may still be finished, so that a Cancel can follow it.
func (c *conn) interrupt() {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	if !c.ended {
		c.ended = true
		c.s.SetReadDeadline(time.Unix(1, 0))
		c.s.SetWriteDeadline(time.Now().Add(grace))
	}
}

// renewing reads from the stream and gives each read the idle time, less at
// most a sixteenth, so that a slow stream is not taken for a dead one. Writes have no deadline: if
// the other side lives, its heartbeats come, and if not, reading finds out.
type renewing struct{ c *conn }

func (r renewing) Read(p []byte) (int, error) {
	r.c.rmu.Lock()
	if r.c.ended {
		r.c.rmu.Unlock()
		return 0, os.ErrDeadlineExceeded
	}
	if now := time.Now(); now.Sub(r.c.heard) > r.c.idle/16 {
		r.c.heard = now
		r.c.s.SetReadDeadline(now.Add(r.c.idle))
	}
	r.c.rmu.Unlock()
	return r.c.s.Read(p)
}

// fail ends the transfer from any goroutine; the first cause counts.
func (c *conn) fail(err error) { c.stop(err) }

// err is why the context ended.
func (c *conn) err() error { return context.Cause(c.ctx) }

func (c *conn) reader() {
	if err := c.read(); err != nil {
		c.fail(err)
	}
}

func (c *conn) read() error {
	var head [len(magic) + 1]byte
	if _, err := io.ReadFull(c.br, head[:]); err != nil {
		return c.broke(err)
	}
	if string(head[:len(magic)]) != magic {
		return bad("the other side speaks something else")
	}
	if v := head[len(magic)]; v != version {
		return bad("the other side speaks version %d, this side version %d", v, version)
	}
	for {
		buf, err := c.pool.take(c.ctx)
		if err != nil {
			return err
		}
		if _, err := io.ReadFull(c.br, buf[:headerLen]); err != nil {
			return c.broke(err)
		}
		f := frame{typ: buf[0], buf: buf}
		n := binary.BigEndian.Uint32(buf[1:])
		if n > maxPayload {
			return bad("frame of %d bytes", n)
		}
		f.body = buf[headerLen : headerLen+n]
		if _, err := io.ReadFull(c.br, f.body); err != nil {
			return c.broke(err)
		}
		switch f.typ {
		case msgPing:
			c.pool.give(buf)
		case msgCancel:
			c.theirs.Store(true)
			r, err := decodeRefusal(f.body)
			if err != nil {
				return err
			}
			return r.err()
		default:
			select {
			case c.in <- f:
			case <-c.ctx.Done():
				return c.err()
			}
		}
	}
}

// broke says how the stream ended.
func (c *conn) broke(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: silence for %v", ErrBroken, c.idle)
	}
	c.theirs.Store(true)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %w", ErrBroken, err)
}

// heart keeps the other side from thinking this one is gone. A write that is
// under way is a sign of life, or will not be helped by another.
func (c *conn) heart() {
	t := time.NewTicker(c.idle / 3)
	defer t.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case now := <-t.C:
			if !c.wmu.TryLock() {
				continue
			}
			if now.Sub(c.wrote) > c.idle/4 {
				c.put([]byte{msgPing, 0, 0, 0, 0})
			}
			c.wmu.Unlock()
		}
	}
}

// put writes under wmu.
func (c *conn) put(p []byte) error {
	if c.torn != nil {
		return c.torn
	}
	if _, err := c.s.Write(p); err != nil {
		c.torn = fmt.Errorf("%w: %w", ErrBroken, err)
		return c.torn
	}
	c.wrote = time.Now()
	return nil
}

// await gives the reader a moment to find the cause of a failed write: the
// other side may have said why it closed the stream.
func (c *conn) await(torn error) {
	t := time.AfterFunc(grace, func() { c.fail(torn) })
	defer t.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case f := <-c.in: // a side does not receive while it sends
			c.pool.give(f.buf)
		}
	}
}

// preface starts this side's direction.
func (c *conn) preface() error {
	return c.out(append([]byte(magic), version))
}

// out writes, and if that fails prefers the cause to the failed write.
func (c *conn) out(p []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	err := c.put(p)
	if err == nil {
		return nil
	}
	c.await(err)
	return c.err()
}

// write sends a frame that lies behind headerLen bytes of room.
func (c *conn) write(typ uint8, p []byte) error {
	p[0] = typ
	binary.BigEndian.PutUint32(p[1:], uint32(len(p)-headerLen))
	return c.out(p)
}

// send builds a small frame and sends it.
func (c *conn) send(typ uint8, fill func(*wire.Writer)) error {
	w := wire.Writer{B: make([]byte, headerLen, 256)}
	if fill != nil {
		fill(&w)
	}
	return c.write(typ, w.B)
}

// recv waits for the next frame. The caller releases it.
func (c *conn) recv() (frame, error) {
	select {
	case f := <-c.in:
		return f, nil
	case <-c.ctx.Done():
		return frame{}, c.err()
	}
}

func (c *conn) release(f frame) { c.pool.give(f.buf) }

// end finishes the stream with the outcome of this side. A failure that began
// here is told to the other side. Whoever spoke last waits for the other to
// close: with TCP, closing first could take back what was not read yet.
func (c *conn) end(err error, spokeLast bool) {
	c.stop(err)
	c.interrupt()
	c.wg.Wait()
	if err != nil && !spokeLast && !c.theirs.Load() {
		w := wire.Writer{B: make([]byte, headerLen, 256)}
		encodeRefusal(&w, c.refusal(err))
		w.B[0] = msgCancel
		binary.BigEndian.PutUint32(w.B[1:], uint32(len(w.B)-headerLen))
		c.wmu.Lock()
		if c.torn == nil {
			c.s.SetWriteDeadline(time.Now().Add(grace))
			_, failed := c.s.Write(w.B)
			spokeLast = failed == nil
		}
		c.wmu.Unlock()
	}
	if spokeLast {
		c.s.SetReadDeadline(time.Now().Add(grace))
		io.Copy(io.Discard, c.s)
	}
	c.s.Close()
}

// refusal says to the other side why this one ends, without local paths.
func (c *conn) refusal(err error) refusal {
	switch {
	case c.outer.Err() != nil:
		return refusal{why: whyCanceled}
	case errors.Is(err, ErrProtocol):
		return refusal{why: whyProtocol, text: err.Error()}
	case errors.Is(err, ErrNoSpace):
		return refusal{why: whySpace}
	}
	var no syscall.Errno
	if errors.As(err, &no) {
		return refusal{why: whyFailed, text: no.Error()}
	}
	return refusal{why: whyFailed}
}

// pool is a bounded set of frame buffers, made as they are first needed.
type pool chan []byte

func newPool(n int) pool {
	p := make(pool, n)
	for range n {
		p <- nil
	}
	return p
}

func (p pool) take(ctx context.Context) ([]byte, error) {
	select {
	case b := <-p:
		if b == nil {
			b = make([]byte, headerLen+maxPayload)
		}
		return b[:cap(b)], nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (p pool) give(b []byte) { p <- b }
