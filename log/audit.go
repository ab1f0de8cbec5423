package log

import (
	"fmt"
	"slices"
)

// StoredLength returns how many stored bytes an entry has; false if they are
// not on this device.
func (l *Log) StoredLength(index uint64) (int, bool) {
	if !l.Holds(index) {
		return 0, false
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	return int(l.locs.get(index).length()), true
}

// ReadStoredRange appends the stored bytes [off, off+n) of an entry to dst, as
// they are on disk: unlike [Log.ReadStored] it reads no more than these, so
// that nothing is verified. Of a replica it reads only what is here. A range
// that the entry does not have is an error, as is a place where it cannot be
// read, which matches ErrDamaged.
func (l *Log) ReadStoredRange(dst []byte, index uint64, off, n int) ([]byte, error) {
	if !l.Holds(index) {
		_, _, _, err := l.readFrame(nil, index) // says why
		if err == nil {
			err = l.missing(index)
		}
		return dst, err
	}
	l.mu.RLock()
	loc, seg, err := l.locate(index)
	if err == nil && (off < 0 || n < 0 || off > int(loc.length())-n) {
		err = fmt.Errorf("block %v: no bytes %d to %d among %d", Ref{l.writer, index}, off, off+n, loc.length())
	}
	if err != nil || seg == nil {
		if err == nil {
			dst = append(dst, l.pend[loc.offset()-l.pendOff+frameHeader:][off:off+n]...)
		}
		l.mu.RUnlock()
		if seg != nil {
			l.segs.put(seg)
		}
		return dst, err
	}
	l.mu.RUnlock()
	defer l.segs.put(seg)
	start := len(dst)
	dst = slices.Grow(dst, n)[:start+n]
	if _, err := seg.file.ReadAt(dst[start:], loc.offset()+frameHeader+int64(off)); err != nil {
		return dst[:start], l.damage(index, loc, readDetail(err))
	}
	return dst, nil
}
