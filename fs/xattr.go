package fs

import (
	"context"
	"errors"
	"fmt"

	"hearth/log"
	"hearth/log/seal"
	"hearth/log/wire"
)

// Flags of setxattr(2).
const (
	XattrCreate  = 1
	XattrReplace = 2
)

// An attribute's record is 0 and the value, or for long values 1, its length
// and the reference of a data block that holds it.
const (
	xattrInline = 0
	xattrBlock  = 1

	inlineXattr = 2 << 10
)

type xattrRecord struct {
	inline []byte
	ref    log.Ref
	size   int
	block  bool
}

func decodeXattr(b []byte) (xattrRecord, error) {
	r := wire.NewReader(b)
	var x xattrRecord
	switch kind := r.U8(); kind {
	case xattrInline:
		x.inline = r.Rest()
		x.size = len(x.inline)
	case xattrBlock:
		x.block = true
		n := r.Uvarint()
		w := r.Uvarint()
		x.ref.Index = r.Uvarint()
		if n > MaxXattr || w > 0xffff {
			r.Fail("attribute of %d bytes by writer %d", n, w)
		}
		x.size, x.ref.Writer = int(n), log.Writer(w)
	default:
		r.Fail("attribute kind %d", kind)
	}
	if err := r.Done(); err != nil {
		return x, fmt.Errorf("attribute: %w: %w", ErrDamaged, err)
	}
	return x, nil
}

func (d *Drive) xattrValue(record []byte) ([]byte, error) {
	x, err := decodeXattr(record)
	if err != nil || !x.block {
		return x.inline, err
	}
	return d.readWhole(x.ref, x.size)
}

func (d *Drive) encodeXattr(value []byte) ([]byte, error) {
	if len(value) <= inlineXattr {
		return append([]byte{xattrInline}, value...), nil
	}
	index, err := d.appendBlock(seal.Data, value)
	if err != nil {
		return nil, noSpace(err)
	}
	w := wire.Writer{}
	w.U8(xattrBlock)
	w.Uvarint(uint64(len(value)))
	w.Uvarint(uint64(d.writer))
	w.Uvarint(index)
	return w.B, nil
}

// Getxattr returns an extended attribute's value.
func (d *Drive) Getxattr(_ context.Context, ino Ino, name string) ([]byte, error) {
	d.mu.RLock()
	v := d.viewOf(ino)
	rec, err := v.xattr(ino, name)
	d.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	return d.xattrValue(rec)
}

// Listxattr returns the names of an inode's extended attributes, sorted.
func (d *Drive) Listxattr(_ context.Context, ino Ino) ([]string, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var out []string
	err := d.viewOf(ino).xattrs(ino, func(name string, _ []byte) error {
		out = append(out, name)
		return nil
	})
	return out, err
}

// Setxattr sets an extended attribute; flags are XattrCreate, XattrReplace or 0.
func (d *Drive) Setxattr(_ context.Context, c Caller, ino Ino, name string, value []byte, flags uint32) error {
	switch {
	case name == "" || len(name) > MaxName:
		return fmt.Errorf("attribute name of %d bytes: %w", len(name), ErrInvalid)
	case len(value) > MaxXattr:
		return ErrAttrTooBig
	}
	d.upkeep.placing.RLock()
	defer d.upkeep.placing.RUnlock()
	rec, err := d.encodeXattr(value)
	if err != nil {
		return err
	}
	s := d.sessions.of(c, d.clock())
	return d.changeXattr(s, ino, func(v *view) error {
		_, err := v.xattr(ino, name)
		switch {
		case err == nil && flags&XattrCreate != 0:
			return ErrExist
		case errors.Is(err, ErrNoAttr) && flags&XattrReplace != 0:
			return ErrNoAttr
		case err != nil && !errors.Is(err, ErrNoAttr):
			return err
		}
		d.target(ino).put(xattrKey(ino, name), rec)
		return nil
	})
}

// Removexattr removes an extended attribute.
func (d *Drive) Removexattr(_ context.Context, c Caller, ino Ino, name string) error {
	s := d.sessions.of(c, d.clock())
	return d.changeXattr(s, ino, func(v *view) error {
		if _, err := v.xattr(ino, name); err != nil {
			return err
		}
		d.target(ino).del(xattrKey(ino, name))
		return nil
	})
}

func (d *Drive) changeXattr(s *session, ino Ino, edit func(*view) error) error {
	if err := d.begin(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	v := d.viewOf(ino)
	n, err := v.inode(ino)
	if err != nil {
		return err
	}
	if err := edit(v); err != nil {
		return err
	}
	n.ctime = d.now()
	d.putInode(ino, n)
	if d.orphans[ino] == nil {
		d.note(s, change{what: didXattr, ino: ino})
		d.mutated()
	}
	return nil
}
