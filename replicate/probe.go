package replicate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"hearth/log"
	"hearth/log/wire"
	"hearth/replicate/peer"

	"github.com/zeebo/blake3"
)

// Proofs of what a device has: of slices of blocks when it is audited, of whole
// ones before somebody evicts them.

// Limits of PROBE, see the package comment.
const (
	maxSlices = 512
	maxProbe  = 16 << 20 // bytes of all slices
)

// probeFlush is after how many proofs they are sent: blocks are read for each,
// and a peer that is silent for long is dropped.
const probeFlush = 16

// slice is the stored bytes [off, off+n) of an entry.
type slice struct {
	index  uint64
	off, n uint32
}

// wholly is all of an entry; false if it is not on this device.
func wholly(l *log.Log, index uint64) (slice, bool) {
	n, ok := l.StoredLength(index)
	return slice{index, 0, uint32(n)}, ok && n > 0
}

// read appends the bytes of a slice of an entry that is here. A whole entry is
// verified: who proves to have one says that others can rely on it.
func (c slice) read(dst []byte, l *log.Log) ([]byte, error) {
	if all, ok := wholly(l, c.index); ok && all == c {
		return l.ReadStored(dst, c.index)
	}
	return l.ReadStoredRange(dst, c.index, int(c.off), int(c.n))
}

func (q *request) appendSlices(w *wire.Writer) {
	w.Raw(q.nonce[:])
	w.Uvarint(uint64(len(q.slices)))
	for _, c := range q.slices {
		w.Uvarint(c.index)
		w.Uvarint(uint64(c.off))
		w.Uvarint(uint64(c.n))
	}
}

func (q *request) readSlices(r *wire.Reader) {
	q.nonce = read32(r)
	n := r.Count(3)
	if n > maxSlices {
		r.Fail("%d slices", n)
		return
	}
	var total uint64
	for range n {
		index, off, length := r.Uvarint(), r.Uvarint(), r.Uvarint()
		if off > maxMessage || length == 0 || length > maxMessage || total+length > maxProbe {
			r.Fail("a slice of %d bytes at %d, after %d", length, off, total)
			return
		}
		total += length
		q.slices = append(q.slices, slice{index, uint32(off), uint32(length)})
	}
}

// proof is what proves to asks that answers has a slice: it is worth nothing from
// another device, to another one, under another nonce or of other bytes.
func (q *request) proof(answers, asks peer.Key, c slice, b []byte) (out [32]byte) {
	h, err := blake3.NewKeyed(q.nonce[:])
	if err != nil {
		panic(err) // of keys that are not 32 bytes
	}
	w := wire.Writer{}
	w.Raw(answers[:])
	w.Raw(asks[:])
	q.log.append(&w)
	w.U64(c.index)
	w.U32(c.off)
	_, _ = h.Write(w.B) // a hash does not fail
	_, _ = h.Write(b)
	h.Sum(out[:0])
	return out
}

// probe answers a PROBE. What should be here and cannot be read is left out,
// which says that it is lost.
//
// A replica is made durable first: whoever asks may rely on this device, and give
// up what it has itself.
func (a *answering) probe(d *shared, l *log.Log, q *request) error {
	if l.IsReplica() {
		if err := l.Settle(); err != nil {
			a.s.node.logger.Warn("a replica cannot be settled, and others cannot rely on it", "drive", q.log.drive, "err", err)
			for _, c := range q.slices {
				if err := a.gone(c.index, 1); err != nil {
					return err
				}
			}
			return nil
		}
	}
	for i, c := range q.slices {
		b, err := a.block[:0], log.ErrAbsent
		if d.has(l, c.index) {
			b, err = c.read(b, l)
		}
		switch {
		case errors.Is(err, log.ErrAbsent) || errors.Is(err, log.ErrDropped):
			if err := a.gone(c.index, 1); err != nil {
				return err
			}
			continue
		case err != nil:
			a.s.node.logger.Warn("a block cannot be read that a peer asks for", "drive", q.log.drive, "err", err)
			continue
		}
		a.block = b
		proof := q.proof(a.s.node.ep.Self(), a.s.other, c, b)
		a.begin(msgHeld)
		a.w.Uvarint(c.index)
		a.w.Raw(proof[:])
		if err := a.send(i%probeFlush == probeFlush-1); err != nil {
			return err
		}
	}
	return nil
}

// proved is what a peer answers of a slice.
type proved uint8

const (
	provedNot  proved = iota // nothing: it is lost there
	provedGone               // that it is not there
	provedElse               // with another proof than the slice that is here has
	provedHeld
)

// probe asks a peer to prove slices of a log's entries, each entry once, and calls
// each with what it answers, in their order. What cannot be compared, as it is not
// here, is passed over. An error of each ends the connection.
func (s *session) probe(ctx context.Context, over *lane, drive log.DriveID, l *log.Log, asked []slice, each func(slice, proved) error) error {
	q := &request{typ: msgProbe, log: logName{drive, l.Writer()}, slices: asked}
	if _, err := rand.Read(q.nonce[:]); err != nil {
		return err
	}
	left, block := asked, []byte(nil)
	return over.do(ctx, q, func(p part) error {
		k := slices.IndexFunc(left, func(c slice) bool { return c.index == p.span.first })
		if k < 0 || p.typ != msgHeld && (p.typ != msgGone || p.span.n != 1) {
			return fmt.Errorf("%w: a proof of what was not asked for", ErrProtocol)
		}
		c := left[k]
		left = left[k+1:]
		if p.typ == msgGone {
			return each(c, provedGone)
		}
		var err error
		if block, err = c.read(block[:0], l); err != nil {
			return nil
		}
		if q.proof(s.other, s.node.ep.Self(), c, block) != p.mac {
			return each(c, provedElse)
		}
		return each(c, provedHeld)
	})
}
