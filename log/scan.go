package log

import (
	"bytes"
	"errors"
	"io"

	"hearth/log/disk"
	"hearth/log/seal"
)

const (
	scanWindow   = 256 << 10 // read at once when bodies are read
	headerWindow = 8 << 10   // when only headers are
)

// scanner looks for frames in a segment file. It believes nothing it reads
// and holds no more than a window and a frame in memory.
type scanner struct {
	file   disk.File
	num    uint32
	size   int64
	rehash bool                  // read and hash the bodies of blocks, not only their headers
	strict bool                  // report padding that is not zero as damage
	each   func(off int64) error // called now and then; an error ends the scan

	buf     []byte // what was read
	bufOff  int64  // from where
	room    []byte
	scratch []byte // see uniform
	err     error  // the first read error; what could not be read looks damaged
	errOff  int64  // the last place that could not be read
}

func newScanner(file disk.File, num uint32, rehash bool) (*scanner, error) {
	size, err := file.Size()
	return &scanner{file: file, num: num, size: size, rehash: rehash}, err
}

// view returns n bytes at off, or fewer at the end of the file. They are valid
// until the next call.
func (s *scanner) view(off, n int64) []byte {
	n = min(n, s.size-off)
	if n <= 0 {
		return nil
	}
	if off < s.bufOff || off+n > s.bufOff+int64(len(s.buf)) {
		window := int64(headerWindow)
		if s.rehash {
			window = scanWindow
		}
		s.load(off, min(max(n, window), s.size-off))
	}
	return s.buf[off-s.bufOff:][:n]
}

// load reads n bytes at off. What cannot be read is damage, not the end of the
// log, so it must not look like zeros.
func (s *scanner) load(off, n int64) {
	if int64(cap(s.room)) < n {
		s.room = make([]byte, n)
	}
	s.buf, s.bufOff = s.room[:n], off
	if _, err := s.file.ReadAt(s.buf, off); err == nil {
		return
	}
	for part := s.buf; len(part) > 0; {
		m := min(len(part), 4096)
		if _, err := s.file.ReadAt(part[:m], off); err != nil && !errors.Is(err, io.EOF) {
			if s.err == nil {
				s.err = err
			}
			s.errOff = max(s.errOff, off)
			copy(part[:m], bytes.Repeat([]byte{0xff}, m))
		}
		part, off = part[m:], off+int64(m)
	}
}

// foundEntry is what a scan learned of an entry.
type foundEntry struct {
	leaf  [hashSize]byte
	loc   location
	state entryState
}

type entryState uint8

const (
	entryGood entryState = iota
	entryBad             // the body does not match; the leaf is known
	entryLost            // the header is damaged; the leaf is not known
	entryTold            // the header is damaged, but a recap told the leaf
)

// foundCheckpoint is a checkpoint frame whose body matches its digest. Its
// signature was not verified.
type foundCheckpoint struct {
	size    uint64
	noteOff int64 // where the note is
	noteLen int
	pos     position // behind the frame
}

// recapRef says where recaps are.
type recapRef struct {
	first uint64
	count uint64
	off   int64
}

// found is the result of scanning a segment.
type found struct {
	first       uint64 // index of entries[0]
	entries     []foundEntry
	checkpoints []foundCheckpoint
	recaps      []recapRef
	evidence    uint64  // a tree size that is durable, says a frame
	broken      []int64 // where frames that are no entries' were damaged
	end         int64   // behind the last frame
}

func (f *found) next() uint64 { return f.first + uint64(len(f.entries)) }

// scan reads frames from off on, of which the first entry is number next.
func (s *scanner) scan(off int64, next uint64) *found {
	res := &found{first: next, end: off}
	told := off
	for gap := int64(-1); ; {
		if s.each != nil && off-told >= scanWindow {
			told = off
			if s.each(off) != nil {
				return res
			}
		}
		f, ok := s.frameAt(off)
		if ok && gap >= 0 {
			// After a gap only a whole frame counts.
			ok = f.intact(s.body(&f, off))
		}
		if ok && res.accept(s, &f, off, gap) {
			end := off + frameHeader + f.bodySize()
			off += f.size()
			if s.strict && !allZero(s.view(end, off-end)) {
				res.broken = append(res.broken, end)
			}
			res.end, gap = min(off, s.size), -1
			continue
		}
		if gap < 0 {
			if s.zeroFrom(off) {
				return res
			}
			gap = off
		}
		if off = s.search(off + frameAlign); off < 0 {
			return res
		}
	}
}

// frameAt returns the frame at off, if there is a header and the file holds
// the body.
func (s *scanner) frameAt(off int64) (frame, bool) {
	f, ok := parseFrame(s.view(off, frameHeader))
	return f, ok && off+frameHeader+f.bodySize() <= s.size
}

func (s *scanner) body(f *frame, off int64) []byte { return s.view(off+frameHeader, f.bodySize()) }

// search returns the next place from off on where a frame might begin; -1 if
// there is none.
func (s *scanner) search(off int64) int64 {
	for ; off+frameHeader <= s.size; off += frameAlign {
		if b := s.view(off, 2); b[0] == 'H' && b[1] == 'F' {
			return off
		}
	}
	return -1
}

// zeroFrom reports whether the file holds nothing but zeros from off on.
func (s *scanner) zeroFrom(off int64) bool {
	for off < s.size {
		b := s.view(off, scanWindow)
		if !allZero(b) {
			return false
		}
		off += int64(len(b))
	}
	return true
}

// accept takes in a frame, if it is one that may come next. gap is where the
// damage before it begins, or negative.
func (res *found) accept(s *scanner, f *frame, off, gap int64) bool {
	first, count := f.index, uint64(0)
	switch f.typ {
	case frameBlock, frameControl:
		count = 1
	case frameDropped:
		count = uint64(f.length / recapSize)
	case frameRecap:
		first += uint64(f.length / recapSize)
	}
	next := res.next()
	if first < next || first > next && gap < 0 {
		return false
	}
	if gap >= 0 {
		// Entries that are not there had frames in the gap, in which the
		// smallest is a recap of recapSize bytes.
		if first-next > uint64(off-gap)/recapSize {
			return false
		}
		if first == next {
			res.broken = append(res.broken, gap)
		}
		res.lose(s.num, gap, first-next)
	}
	res.evidence = max(res.evidence, f.durable())
	if count > 0 {
		res.addEntries(s, f, off)
		return true
	}
	body := s.body(f, off)
	if !f.intact(body) {
		res.broken = append(res.broken, off)
		return true
	}
	if f.typ == frameRecap {
		res.recaps = append(res.recaps, recapRef{f.index, uint64(f.length / recapSize), off + frameHeader})
		return true
	}
	recaps, text, err := parseCheckpointBody(body)
	if err != nil {
		res.broken = append(res.broken, off)
		return true
	}
	if n := uint64(len(recaps) / recapSize); n > 0 && n <= f.index {
		res.recaps = append(res.recaps, recapRef{f.index - n, n, off + frameHeader + 2})
	}
	res.checkpoints = append(res.checkpoints, foundCheckpoint{
		size: f.index, noteLen: len(text), noteOff: off + frameHeader + f.bodySize() - int64(len(text)),
		// The padding belongs to it even where the file ends inside: what
		// follows begins at an aligned place.
		pos: position{s.num, off + f.size()},
	})
	return true
}

// lose adds n entries whose frames are in the gap at off.
func (res *found) lose(num uint32, off int64, n uint64) {
	for range n {
		res.entries = append(res.entries, foundEntry{loc: makeLocation(locLost, num, off, 0), state: entryLost})
	}
}

// addEntries adds the entries of a frame that has any.
func (res *found) addEntries(s *scanner, f *frame, off int64) {
	e := foundEntry{loc: makeLocation(locBlock, s.num, off, f.length)}
	switch f.typ {
	case frameBlock:
		e.leaf = recapBlock(Descriptor{f.length, f.digest}).leaf
		if s.rehash && !f.intact(s.body(f, off)) {
			e.state = entryBad
		} else if s.uniform(f, off) {
			e.loc = makeLocation(locUniform, s.num, off, f.length)
		}
	case frameControl:
		e.loc = makeLocation(locControl, s.num, off, f.length)
		body := s.body(f, off)
		e.leaf = LeafHash(body)
		if !f.intact(body) {
			e.state = entryLost
		}
	case frameDropped:
		body := s.body(f, off)
		if !f.intact(body) {
			res.lose(s.num, off, uint64(f.length/recapSize))
			return
		}
		e.loc = makeLocation(locDropped, s.num, off, 0)
		for ; len(body) > 0; body = body[recapSize:] {
			r := parseRecap(body[:recapSize])
			e.leaf = r.leaf
			res.entries = append(res.entries, e)
		}
		return
	}
	res.entries = append(res.entries, e)
}

// uniform reports whether a block is uniform. Only its first bytes are read.
func (s *scanner) uniform(f *frame, off int64) bool {
	if s.scratch == nil {
		s.scratch = make([]byte, seal.MaxStored)
	}
	const enough = 64
	clear(s.scratch[:enough])
	copy(s.scratch, s.view(off+frameHeader, min(f.bodySize(), enough)))
	return seal.Uniform(s.scratch[:f.length])
}

// resolve finds the leaves of lost entries in recaps, and in hint.
func (res *found) resolve(s *scanner, hint func(index uint64) ([hashSize]byte, bool)) {
	for i := range res.entries {
		e := &res.entries[i]
		if e.state != entryLost {
			continue
		}
		index := res.first + uint64(i)
		for _, r := range res.recaps {
			if index < r.first || index-r.first >= r.count {
				continue
			}
			b := s.view(r.off+int64(index-r.first)*recapSize, recapSize)
			if len(b) == recapSize {
				told := parseRecap(b)
				e.leaf, e.state = told.leaf, entryTold
			}
		}
		if e.state == entryLost && hint != nil {
			if leaf, ok := hint(index); ok {
				e.leaf, e.state = leaf, entryTold
			}
		}
	}
}
