package log

import (
	"errors"
	"fmt"

	"hearth/log/wire"
)

// EncodeControl returns the entry of a control: the byte 2, the type, the
// body and, in statements, the signature. It refuses what ParseEntry would.
func EncodeControl(c Control) ([]byte, error) {
	if c == nil {
		return nil, fmt.Errorf("%w: no control entry", ErrEntry)
	}
	w := wire.Writer{B: []byte{entryControl, byte(c.Type())}}
	c.appendBody(&w)
	if s, ok := c.(statement); ok {
		w.Raw(s.signature()[:])
	}
	if _, _, err := ParseEntry(w.B); err != nil {
		return nil, fmt.Errorf("encoding a control entry of type %d: %w", c.Type(), err)
	}
	return w.B, nil
}

// All fields have a fixed width, or one canonical form (see Dropped), so that
// an entry decodes and encodes to the same bytes.

func (g *Genesis) appendBody(w *wire.Writer) {
	w.U16(g.Format)
	w.Raw(g.Nonce[:])
	w.Raw(g.Owner[:])
	w.Raw(g.Recovery[:])
	w.Raw(g.Log[:])
	w.U64(g.Created)
}

func (c *WriterAdded) appendBody(w *wire.Writer) {
	w.U16(uint16(c.Writer))
	w.U32(c.Issue)
	w.Raw(c.Log[:])
	w.Raw(c.Device[:])
	w.U32(uint32(c.Capabilities))
}

func (c *WriterRemoved) appendBody(w *wire.Writer) {
	w.U16(uint16(c.Writer))
	w.U32(c.Issue)
	w.U64(c.Size)
	w.Raw(c.Root[:])
}

func (c *KeyBox) appendBody(w *wire.Writer) {
	w.U32(c.Epoch)
	w.U8(uint8(c.Kind))
	w.Raw(c.Recipient[:])
	w.U8(boxSuite)
	w.Raw(c.Sealed[:])
}

func (c *EpochBegun) appendBody(w *wire.Writer) { w.U32(c.Epoch) }

func (c *Succession) appendBody(w *wire.Writer) {
	w.U16(uint16(c.Writer))
	w.Raw(c.Log[:])
	w.Raw(c.Old[:])
	w.U64(c.OldSize)
	w.Raw(c.OldRoot[:])
}

func (c *Recipient) appendBody(w *wire.Writer) {
	w.U8(uint8(c.Kind))
	w.U8(boxSuite)
	w.Raw(c.Key[:])
}

// decodeControl decodes a control entry, of which the first byte was checked.
func decodeControl(entry []byte) (Control, error) {
	if len(entry) > MaxEntry {
		return nil, fmt.Errorf("control entry of %d bytes, limit %d", len(entry), MaxEntry)
	}
	r := wire.NewReader(entry[1:])
	var c Control
	switch t := ControlType(r.U8()); t {
	case TypeGenesis:
		g := &Genesis{Format: r.U16()}
		if g.Format > FormatVersion {
			return nil, fmt.Errorf("drive format %d, this is %d: %w", g.Format, FormatVersion, ErrNewer)
		}
		if g.Format == 0 {
			r.Fail("drive format 0")
		}
		take(r, &g.Nonce, &g.Owner, &g.Recovery, &g.Log)
		g.Created = r.U64()
		c = g
	case TypeWriterAdded:
		a := &WriterAdded{Writer: Writer(r.U16()), Issue: takeIssue(r)}
		take(r, &a.Log, &a.Device)
		a.Capabilities = Capability(r.U32())
		c = a
	case TypeWriterRemoved:
		m := &WriterRemoved{Writer: Writer(r.U16()), Issue: takeIssue(r), Size: takeSize(r)}
		take(r, &m.Root)
		c = m
	case TypeKeyBox:
		b := &KeyBox{Epoch: r.U32(), Kind: takeKind(r)}
		take(r, &b.Recipient)
		takeSuite(r)
		copy(b.Sealed[:], r.Raw(len(b.Sealed)))
		c = b
	case TypeEpochBegun:
		e := &EpochBegun{Epoch: r.U32()}
		if e.Epoch == 0 {
			r.Fail("epoch 0 begins with the genesis")
		}
		c = e
	case TypeSuccession:
		s := &Succession{Writer: Writer(r.U16())}
		take(r, &s.Log, &s.Old)
		s.OldSize = takeSize(r)
		take(r, &s.OldRoot)
		c = s
	case TypeDropped:
		c = decodeDropped(r)
	case TypeRecipient:
		p := &Recipient{Kind: takeKind(r)}
		takeSuite(r)
		copy(p.Key[:], r.Raw(len(p.Key)))
		c = p
	default:
		if r.Err() == nil {
			return nil, fmt.Errorf("control entry of unknown type %d", t)
		}
		return nil, errors.New("control entry without a type")
	}
	if s, ok := c.(statement); ok {
		copy(s.signature()[:], r.Raw(len(s.signature())))
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("control entry of type %d: %w", c.Type(), err)
	}
	return c, nil
}

func take(r *wire.Reader, fields ...*[32]byte) {
	for _, f := range fields {
		copy(f[:], r.Raw(len(f)))
	}
}

func takeSize(r *wire.Reader) uint64 {
	size := r.U64()
	if size > maxTreeSize {
		r.Fail("log size %d", size)
	}
	return size
}

func takeIssue(r *wire.Reader) uint32 {
	n := r.U32()
	if n == 0 {
		r.Fail("issue 0")
	}
	return n
}

func takeKind(r *wire.Reader) RecipientKind {
	k := RecipientKind(r.U8())
	if !k.valid() {
		r.Fail("recipient kind %d", k)
	}
	return k
}

func takeSuite(r *wire.Reader) {
	if s := r.U8(); s != boxSuite {
		r.Fail("key box suite %d", s)
	}
}
