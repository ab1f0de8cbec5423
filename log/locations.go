package log

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"hearth/log/disk"
)

// location says where an entry's frame is, in 8 bytes:
//
//	kind 3 bits | segment 20 bits | stored length less 1, 18 bits | offset / 8, 23 bits
//
// It must be enough to read a block with one pread. The zero location is that
// of no entry.
type location uint64

const (
	offsetBits  = 23
	lengthBits  = 18
	segmentBits = 20
)

// locKind is the kind of frame an entry has.
type locKind uint8

const (
	locAbsent  locKind = 0
	locBlock   locKind = 1
	locUniform locKind = 2 // a block that seal.Uniform
	locControl locKind = 3
	locDropped locKind = 4 // the offset is that of a frameDropped; no length
	locLost    locKind = 5 // the header is damaged; no length
)

func makeLocation(kind locKind, segment uint32, off int64, length uint32) location {
	if length == 0 {
		length = 1
	}
	return location(kind)<<61 | location(segment)<<(offsetBits+lengthBits) |
		location(length-1)<<offsetBits | location(off/frameAlign)
}

func (l location) kind() locKind   { return locKind(l >> 61) }
func (l location) segment() uint32 { return uint32(l>>(offsetBits+lengthBits)) & (1<<segmentBits - 1) }
func (l location) length() uint32  { return uint32(l>>offsetBits)&(1<<lengthBits-1) + 1 }
func (l location) offset() int64   { return int64(l&(1<<offsetBits-1)) * frameAlign }
func (l location) isBlock() bool   { return l.kind() == locBlock || l.kind() == locUniform }

// The file of locations is an array of pages: locsPerPage locations, the
// number of the page u32, and the CRC-32C of what is before.
const (
	locsPage    = 4096
	locsPerPage = locsPage/8 - 1
)

// locations is the array of all entries' locations. It is held in memory, 8
// bytes for each entry: 13 MB for a drive of 100 GB. It has no lock of its
// own.
type locations struct {
	pages [][]location // of locsPerPage each, the last one perhaps shorter
	n     uint64
	// sparse: entries may have no location, and a page without any is nil;
	// others are whole.
	sparse bool
	dirty  map[uint64]struct{} // pages that differ from the file
}

func newLocations() *locations { return &locations{dirty: make(map[uint64]struct{})} }

func (l *locations) get(i uint64) location {
	if i >= l.n || l.pages[i/locsPerPage] == nil {
		return 0
	}
	return l.pages[i/locsPerPage][i%locsPerPage]
}

func (l *locations) set(i uint64, v location) {
	page := i / locsPerPage
	if l.pages[page] == nil {
		l.pages[page] = make([]location, locsPerPage)
	}
	l.pages[page][i%locsPerPage] = v
	l.dirty[page] = struct{}{}
}

// grow makes room for n entries of a sparse array.
func (l *locations) grow(n uint64) {
	if n <= l.n {
		return
	}
	count := (n + locsPerPage - 1) / locsPerPage
	l.pages = append(l.pages, make([][]location, count-uint64(len(l.pages)))...)
	l.n = n
}

func (l *locations) add(v location) {
	page := l.n / locsPerPage
	if l.n%locsPerPage == 0 {
		l.pages = append(l.pages, make([]location, 0, locsPerPage))
	}
	l.pages[page] = append(l.pages[page], v)
	l.dirty[page] = struct{}{}
	l.n++
}

func (l *locations) truncate(n uint64) {
	if n >= l.n {
		return
	}
	count := (n + locsPerPage - 1) / locsPerPage
	l.pages = l.pages[:count]
	if rest := n % locsPerPage; rest != 0 {
		l.pages[count-1] = l.pages[count-1][:rest]
		l.dirty[count-1] = struct{}{}
	}
	for page := range l.dirty {
		if page >= count {
			delete(l.dirty, page)
		}
	}
	l.n = n
}

// locsUpdate is pages to write, encoded while nobody changed them.
type locsUpdate struct {
	pages map[uint64][]byte
}

// takeDirty encodes the pages that the file lacks. If they do not get there,
// putBack makes them dirty again.
func (l *locations) takeDirty() locsUpdate {
	u := locsUpdate{pages: make(map[uint64][]byte, len(l.dirty))}
	for page := range l.dirty {
		b := make([]byte, 0, locsPage)
		for _, v := range l.pages[page] {
			b = binary.BigEndian.AppendUint64(b, uint64(v))
		}
		b = append(b, make([]byte, locsPage-8-len(b))...)
		b = binary.BigEndian.AppendUint32(b, uint32(page))
		b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
		u.pages[page] = b
	}
	clear(l.dirty)
	return u
}

func (l *locations) putBack(u locsUpdate) {
	for page := range u.pages {
		if page < uint64(len(l.pages)) {
			l.dirty[page] = struct{}{}
		}
	}
}

func (u locsUpdate) writeTo(f disk.File) error {
	for page, b := range u.pages {
		if _, err := f.WriteAt(b, int64(page)*locsPage); err != nil {
			return err
		}
	}
	return nil
}

// loadLocations reads the first n locations from a file. Every page is
// checked: a rotten one must not make a block unreachable, or another.
func loadLocations(f disk.File, n uint64, sparse bool) (*locations, error) {
	l := newLocations()
	l.sparse = sparse
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	count := (n + locsPerPage - 1) / locsPerPage
	if sparse {
		count = min(count, uint64(size)/locsPage) // what was never written is a hole, at the end too
	}
	if uint64(size)/locsPage < count {
		return nil, fmt.Errorf("%w: %d bytes for %d locations", ErrDamaged, size, n)
	}
	l.pages = make([][]location, 0, count)
	buf := make([]byte, min(count, 64)*locsPage)
	for page := uint64(0); page < count; {
		part := buf[:min(count-page, 64)*locsPage]
		if _, err := f.ReadAt(part, int64(page)*locsPage); err != nil && err != io.EOF {
			return nil, err
		}
		for ; len(part) > 0; part = part[locsPage:] {
			here := min(n-l.n, locsPerPage)
			locs, err := l.decodePage(part[:locsPage], page, here)
			if err != nil {
				return nil, err
			}
			l.pages = append(l.pages, locs)
			l.n += here
			page++
		}
	}
	if sparse {
		l.grow(n)
	}
	return l, nil
}

func (l *locations) decodePage(b []byte, page, n uint64) ([]location, error) {
	if l.sparse {
		if allZero(b) {
			return nil, nil
		}
		n = locsPerPage
	}
	if crc32.Checksum(b[:locsPage-4], castagnoli) != binary.BigEndian.Uint32(b[locsPage-4:]) ||
		binary.BigEndian.Uint32(b[locsPage-8:]) != uint32(page) {
		return nil, fmt.Errorf("%w: page %d of the locations", ErrDamaged, page)
	}
	locs := make([]location, n, locsPerPage)
	for i := range locs {
		v := location(binary.BigEndian.Uint64(b[i*8:]))
		if v.kind() == locAbsent && (!l.sparse || v != 0) || v.kind() > locLost {
			return nil, fmt.Errorf("%w: location %d of page %d", ErrDamaged, i, page)
		}
		locs[i] = v
	}
	return locs, nil
}
