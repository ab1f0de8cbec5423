package replicate

import (
	"context"
	"errors"
	"io"
	"time"

	"hearth/log"
	"hearth/log/wire"
	"hearth/replicate/peer"
)

// stuckTime is how long a peer may leave an answer unread.
const stuckTime = time.Minute

// answering is the answers on one stream. What is gathered is sent by a
// goroutine of its own, while the next is read and checked.
type answering struct {
	s     *session
	st    *peer.Stream
	w     wire.Writer // messages not sent yet
	block []byte
	sent  map[log.TileRef]bool // in this answer
	bytes int

	out    chan []byte
	spare  chan []byte
	failed chan error
}

// sendAhead is how many pieces may wait to be sent.
const sendAhead = 2

// writer sends what is gathered, until out is closed or the stream fails.
func (a *answering) writer() {
	for b := range a.out {
		_ = a.st.SetWriteDeadline(time.Now().Add(stuckTime))
		if _, err := a.st.Write(b); err != nil {
			a.failed <- err
			return
		}
		a.spare <- b[:0]
	}
}

// flushAt is how much is gathered before it is sent.
const flushAt = 128 << 10

// answer answers requests until the other side ends the stream.
func (s *session) answer(st *peer.Stream) error {
	a := &answering{
		s: s, st: st, out: make(chan []byte), spare: make(chan []byte, sendAhead+1), failed: make(chan error, 1),
	}
	for range sendAhead {
		a.spare <- nil
	}
	sent := make(chan struct{})
	s.wg.Go(func() {
		defer close(sent)
		a.writer()
	})
	defer func() {
		close(a.out)
		<-sent // a stream must not be closed while it is written to
	}()
	var buf []byte
	for {
		m, err := readMessage(st, &buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		q, err := decodeRequest(m)
		if err != nil {
			return err
		}
		a.sent, a.bytes = map[log.TileRef]bool{}, 0
		code, err := s.node.options.respond(a, q)
		if err != nil {
			return err
		}
		a.begin(msgEnd)
		a.w.U8(code)
		if err := a.send(true); err != nil {
			return err
		}
	}
}

// begin begins a message behind those that are gathered.
func (a *answering) begin(typ messageType) {
	a.bytes = len(a.w.B)
	a.w.B = append(a.w.B, 0, 0, 0, 0, byte(typ))
}

// send completes the message that was begun last, and sends if it is due.
func (a *answering) send(now bool) error {
	last := wire.Writer{B: a.w.B[a.bytes:]}
	seal(&last)
	if !now && len(a.w.B) < flushAt {
		return nil
	}
	select {
	case a.out <- a.w.B:
	case err := <-a.failed:
		a.failed <- err
		return err
	}
	select {
	case a.w.B = <-a.spare:
		return nil
	case err := <-a.failed:
		a.failed <- err
		return err
	}
}

// one answers a request, but for the END. The error is that of the stream.
func (a *answering) one(q *request) (code uint8, err error) {
	shares := a.s.served
	if q.typ == msgInfo || q.typ == msgBoxes {
		shares = a.s.mayCatchUp
	}
	if !a.s.awaitShared(q.log.drive, shares) {
		return endUnknown, nil
	}
	d := a.s.node.shared(q.log.drive)
	if d == nil {
		return endUnknown, nil
	}
	store, tracer, _ := d.state()
	if store == nil {
		return endUnknown, nil
	}
	if q.typ == msgInfo {
		g := store.Genesis()
		entry, err := log.EncodeControl(&g)
		if err != nil {
			return endCannot, nil
		}
		a.begin(msgGenesis)
		a.w.Raw(entry)
		return endOK, a.send(false)
	}
	if q.typ == msgBoxes {
		return endOK, a.boxes(store, q.recipient)
	}
	l, err := store.Log(q.log.writer)
	if err != nil || l.Head().Size == 0 {
		return endUnknown, nil
	}
	switch q.typ {
	case msgProve:
		return a.prove(l, q.known)
	case msgGet:
		return endOK, a.get(l, q)
	case msgProbe:
		return endOK, a.probe(d, l, q)
	case msgHave:
		return endOK, a.have(d, l, q)
	default:
		if tracer == nil {
			return endCannot, nil
		}
		return a.walk(l, tracer, q)
	}
}

// shareTime is how long a request for a drive that is not shared waits: the
// offer that makes it so comes on another stream.
const shareTime = 2 * time.Second

func (s *session) awaitShared(id log.DriveID, shares func(log.DriveID) bool) bool {
	timer := time.NewTimer(shareTime)
	defer timer.Stop()
	for {
		changed := s.node.waitChange()
		if shares(id) {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		case <-s.ctx.Done():
			return false
		}
	}
}

func (a *answering) prove(l *log.Log, known uint64) (uint8, error) {
	p, err := l.ProveHead(known)
	if err == nil {
		err = l.AddBase(&p)
	}
	if err != nil {
		return endCannot, nil
	}
	a.begin(msgProof)
	appendProof(&a.w, &p)
	if err := a.send(false); err != nil {
		return 0, err
	}
	head := l.Head()
	for _, index := range append(l.Controls(known, maxControls), head.Size-1) {
		if err := a.entry(l, index); err != nil {
			return 0, err
		}
	}
	return endOK, nil
}

func (a *answering) get(l *log.Log, q *request) error {
	for _, t := range q.tiles {
		if err := a.tile(l, t); err != nil {
			return err
		}
	}
	size := l.Head().Size
	for _, r := range q.ranges {
		for i := r.first; i < r.first+r.n; i++ {
			if i >= size {
				if err := a.gone(i, r.first+r.n-i); err != nil {
					return err
				}
				break
			}
			if err := a.stored(l, i); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *answering) walk(l *log.Log, tracer Tracer, q *request) (uint8, error) {
	if q.walk.Commit.Index >= l.Head().Size {
		return endCannot, nil
	}
	ctx, cancel := context.WithTimeout(a.s.ctx, helloTime)
	defer cancel()
	var refs []log.Ref
	total := 0
	err := tracer.Trace(ctx, q.walk, func(r log.Ref) bool {
		if r.Writer == q.log.writer {
			refs = append(refs, r)
		}
		total += 64 << 10 // about
		return total < maxWalk
	})
	if err != nil && len(refs) == 0 {
		return endCannot, nil
	}
	for _, r := range refs {
		if err := a.entry(l, r.Index); err != nil {
			return 0, err
		}
	}
	if total >= maxWalk {
		return endTooMuch, nil
	}
	return endOK, nil
}

// entry sends an entry after the tiles that verify it.
func (a *answering) entry(l *log.Log, index uint64) error {
	size := l.Head().Size
	var tiles []log.TileRef
	for level := 0; ; level++ {
		t := log.TileRef{Level: level, N: index >> (8 * (level + 1))}
		if (t.N+1)*tileEntries > size>>(8*level) {
			break // it is at the edge, which the head's proof has
		}
		tiles = append(tiles, t)
	}
	for i := len(tiles) - 1; i >= 0; i-- {
		if err := a.tile(l, tiles[i]); err != nil {
			return err
		}
	}
	return a.stored(l, index)
}

// tile sends a tile, once in an answer. One that is not here is left out.
func (a *answering) tile(l *log.Log, t log.TileRef) error {
	if a.sent[t] {
		return nil
	}
	a.sent[t] = true
	data, err := l.Tile(t, tileEntries)
	if err != nil {
		return nil
	}
	a.begin(msgTile)
	a.w.U8(uint8(t.Level))
	a.w.Uvarint(t.N)
	a.w.Raw(data)
	return a.send(false)
}

// stored sends an entry, or that it is not here.
func (a *answering) stored(l *log.Log, index uint64) error {
	b, err := l.ReadStored(a.block[:0], index)
	if err != nil {
		return a.gone(index, 1)
	}
	a.block = b
	typ := msgBlock
	if l.IsControl(index) {
		typ = msgControl
	}
	a.begin(typ)
	a.w.Uvarint(index)
	a.w.Raw(b)
	return a.send(false)
}

func (a *answering) gone(index, n uint64) error {
	a.begin(msgGone)
	a.w.Uvarint(index)
	a.w.Uvarint(n)
	return a.send(false)
}
