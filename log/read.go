package log

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"hearth/log/seal"
)

const (
	// readGap is how many bytes between two ranges are read along rather
	// than asked for apart.
	readGap = 16 << 10
	// readMost bounds one read of several frames.
	readMost = 1 << 20
)

// buffers are for reading frames. They grow to what is needed.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func getBuffer(n int) *[]byte {
	b := buffers.Get().(*[]byte)
	*b = slices.Grow((*b)[:0], n)[:n]
	return b
}

func putBuffer(b *[]byte) { buffers.Put(b) }

// locate returns where an entry is, and the segment if it is in a file; the
// caller gives it back. With mu held.
func (l *Log) locate(index uint64) (location, *segment, error) {
	switch {
	case l.closed:
		return 0, nil, fmt.Errorf("%s: %w", l.dir, ErrClosed)
	case index >= l.next:
		return 0, nil, fmt.Errorf("block %v: %w: the log has %d", Ref{l.writer, index}, ErrAbsent, l.next)
	}
	loc := l.locs.get(index)
	if loc.kind() == locAbsent {
		return 0, nil, l.missing(index)
	}
	if l.pending(loc) {
		return loc, nil, nil
	}
	seg, err := l.segs.get(loc.segment())
	if err != nil {
		return 0, nil, l.damage(index, loc, err.Error())
	}
	return loc, seg, nil
}

// pending reports whether a frame is in memory.
func (l *Log) pending(loc location) bool {
	return loc.segment() == l.tailNum && loc.offset() >= l.pendOff
}

// damage returns an error about an entry's frame.
func (l *Log) damage(index uint64, loc location, detail string) *DamageError {
	return &DamageError{Damage{
		Writer: l.writer, Index: index, Segment: loc.segment(), Offset: loc.offset(),
		File: l.segs.path(loc.segment()), Detail: detail,
	}}
}

func (l *Log) droppedError(index uint64) error {
	return fmt.Errorf("block %v: %w", Ref{l.writer, index}, ErrDropped)
}

// readFrame appends the frame of a block or control entry to dst, and checks
// its header. The body may not be what the header says.
func (l *Log) readFrame(dst []byte, index uint64) (frame, []byte, location, error) {
	l.mu.RLock()
	if l.dropped.Contains(index) && index < l.next {
		l.mu.RUnlock()
		return frame{}, dst, 0, l.droppedError(index)
	}
	loc, seg, err := l.locate(index)
	if err != nil {
		l.mu.RUnlock()
		return frame{}, dst, 0, err
	}
	n := frameHeader + int(loc.length())
	if seg == nil {
		at := loc.offset() - l.pendOff
		if at+int64(n) > int64(len(l.pend)) {
			l.mu.RUnlock()
			return frame{}, dst, loc, l.damage(index, loc, "its place lies beyond the end of the log")
		}
		dst = append(dst, l.pend[at:][:n]...)
		l.mu.RUnlock()
	} else {
		l.mu.RUnlock()
		defer l.segs.put(seg)
		switch loc.kind() {
		case locLost:
			return frame{}, dst, loc, l.damage(index, loc, "the frame's header is damaged")
		case locDropped:
			return frame{}, dst, loc, l.droppedError(index)
		}
		start := len(dst)
		dst = slices.Grow(dst, n)[:start+n]
		if _, err := seg.file.ReadAt(dst[start:], loc.offset()); err != nil {
			return frame{}, dst[:start], loc, l.vanished(index, loc, l.damage(index, loc, readDetail(err)))
		}
	}
	f, err := l.checkFrame(dst[len(dst)-n:], index, loc)
	return f, dst, loc, l.vanished(index, loc, err)
}

func readDetail(err error) string {
	if errors.Is(err, io.EOF) {
		return "the segment ends before the block does"
	}
	return err.Error()
}

// checkFrame checks that b begins with the header of the entry's frame.
func (l *Log) checkFrame(b []byte, index uint64, loc location) (frame, error) {
	f, ok := parseFrame(b)
	switch {
	case !ok:
		return f, l.damage(index, loc, "the frame's header is damaged")
	case f.index != index || f.length != loc.length() || (f.typ == frameControl) != (loc.kind() == locControl) || f.typ > frameControl:
		return f, l.damage(index, loc, "another frame is in its place")
	}
	return f, nil
}

// ReadStored appends a stored block, or the encoded control entry, to dst.
// Its digest was checked. Of a replica it reads only what is here.
func (l *Log) ReadStored(dst []byte, index uint64) ([]byte, error) {
	b := getBuffer(0)
	defer putBuffer(b)
	body, err := l.readBody(b, index, false)
	if err != nil {
		return dst, err
	}
	return append(dst, body...), nil
}

// readTries is how often an entry of a replica is fetched for one read: what is
// here may be evicted before it was read.
const readTries = 8

// readBody returns the body of an entry's frame in b; with fetch it is got from
// elsewhere if it is not here.
func (l *Log) readBody(b *[]byte, index uint64, fetch bool) ([]byte, error) {
	for tries := 0; ; tries++ {
		body, err := l.readHere(b, index)
		if !fetch || tries == readTries || !errors.Is(err, ErrMissing) {
			return body, err
		}
		if err := l.fetch([]uint64{index}); err != nil {
			return nil, err
		}
	}
}

func (l *Log) readHere(b *[]byte, index uint64) ([]byte, error) {
	f, buf, loc, err := l.readFrame((*b)[:0], index)
	*b = buf
	if err != nil {
		return nil, err
	}
	body := buf[frameHeader:]
	if !f.intact(body) {
		return nil, l.vanished(index, loc, l.damage(index, loc, "its contents do not match its digest"))
	}
	return body, nil
}

// ReadBlock appends the plaintext of a block to dst. The error of a block
// that is of another kind matches ErrDamaged.
func (l *Log) ReadBlock(dst []byte, index uint64, kind seal.Kind) ([]byte, error) {
	return l.readBlock(dst, index, kind, true)
}

func (l *Log) readBlock(dst []byte, index uint64, kind seal.Kind, fetch bool) ([]byte, error) {
	if l.keys == nil {
		return dst, fmt.Errorf("block %v: %w", Ref{l.writer, index}, seal.ErrNoKey)
	}
	b := getBuffer(0)
	defer putBuffer(b)
	body, err := l.readBody(b, index, fetch)
	if err != nil {
		return dst, err
	}
	dst, err = l.keys.Open(dst, kind, body)
	return dst, l.sealError(index, err)
}

// sealError makes an error of package seal one of this package.
func (l *Log) sealError(index uint64, err error) error {
	if err == nil || errors.Is(err, seal.ErrNoKey) || errors.Is(err, ErrDamaged) {
		return err
	}
	l.mu.RLock()
	loc := l.locs.get(index)
	l.mu.RUnlock()
	return l.damage(index, loc, err.Error())
}

// Descriptor returns the descriptor of a block, which is there even if the
// block was dropped. A control entry has none: the error matches ErrAbsent.
func (l *Log) Descriptor(index uint64) (Descriptor, error) {
	f, loc, err := l.readHeader(index)
	if err != nil {
		return Descriptor{}, err
	}
	if f.typ == frameControl {
		return Descriptor{}, fmt.Errorf("block %v: %w: it is a control entry", Ref{l.writer, index}, ErrAbsent)
	}
	if f.typ == frameDropped {
		return l.droppedDescriptor(index, f, loc)
	}
	return Descriptor{Length: f.length, Digest: f.digest}, nil
}

// readHeader reads the header of the frame that stands for an entry: its own,
// or the frameDropped that has its descriptor.
func (l *Log) readHeader(index uint64) (frame, location, error) {
	var b [frameHeader]byte
	l.mu.RLock()
	loc, seg, err := l.locate(index)
	if err == nil && seg == nil {
		copy(b[:], l.pend[loc.offset()-l.pendOff:])
	}
	l.mu.RUnlock()
	if err != nil {
		return frame{}, loc, err
	}
	if seg != nil {
		defer l.segs.put(seg)
		if _, err := seg.file.ReadAt(b[:], loc.offset()); err != nil {
			return frame{}, loc, l.damage(index, loc, readDetail(err))
		}
	}
	f, ok := parseFrame(b[:])
	if !ok || loc.kind() == locLost {
		return f, loc, l.damage(index, loc, "the frame's header is damaged")
	}
	var fits bool
	switch loc.kind() {
	case locBlock, locUniform:
		fits = f.typ == frameBlock && f.index == index && f.length == loc.length()
	case locControl:
		fits = f.typ == frameControl && f.index == index && f.length == loc.length()
	case locDropped:
		fits = f.typ == frameDropped && f.index <= index && index-f.index < uint64(f.length/recapSize)
	}
	if !fits {
		return f, loc, l.damage(index, loc, "another frame is in its place")
	}
	return f, loc, nil
}

// droppedFrame is the body of the frameDropped that was read last: those who
// ask for the descriptor of one dropped block ask for the next one.
type droppedFrame struct {
	seg  *segment
	off  int64
	body []byte
}

// droppedDescriptor reads a descriptor from the frameDropped f.
func (l *Log) droppedDescriptor(index uint64, f frame, loc location) (Descriptor, error) {
	l.mu.RLock()
	seg, err := l.segs.get(loc.segment())
	l.mu.RUnlock()
	if err != nil {
		return Descriptor{}, l.damage(index, loc, err.Error())
	}
	defer l.segs.put(seg)
	last := l.lastDropped.Load()
	if last == nil || last.seg != seg || last.off != loc.offset() {
		last = &droppedFrame{seg: seg, off: loc.offset(), body: make([]byte, f.length)}
		if _, err := seg.file.ReadAt(last.body, loc.offset()+frameHeader); err != nil {
			return Descriptor{}, l.damage(index, loc, readDetail(err))
		}
		if !f.intact(last.body) {
			return Descriptor{}, l.damage(index, loc, "descriptors of dropped blocks do not match their digest")
		}
		l.lastDropped.Store(last)
	}
	at := (index - f.index) * recapSize
	if at+recapSize > uint64(len(last.body)) {
		return Descriptor{}, l.damage(index, loc, "another frame is in its place")
	}
	r := parseRecap(last.body[at:][:recapSize])
	return Descriptor{Length: r.length, Digest: r.digest}, nil
}

// IsControl reports whether an entry is a control entry.
func (l *Log) IsControl(index uint64) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.locs.get(index).kind() == locControl
}

// Entry returns an entry as the tree has it as a leaf.
func (l *Log) Entry(index uint64) ([]byte, error) {
	if l.IsControl(index) {
		return l.ReadStored(nil, index)
	}
	d, err := l.Descriptor(index)
	if err != nil {
		return nil, err
	}
	return d.Entry(), nil
}

// ReadControl returns a control entry.
func (l *Log) ReadControl(index uint64) (Control, error) {
	if !l.IsControl(index) {
		return nil, fmt.Errorf("control entry %v: %w", Ref{l.writer, index}, ErrAbsent)
	}
	body, err := l.ReadStored(nil, index)
	if err != nil {
		return nil, err
	}
	_, c, err := ParseEntry(body)
	if err == nil && c == nil {
		err = fmt.Errorf("%w: not a control entry", ErrEntry)
	}
	if err != nil {
		return nil, fmt.Errorf("control entry %v: %w", Ref{l.writer, index}, err)
	}
	return c, nil
}

// Slice asks for the plaintext of a Data block from Off on.
type Slice struct {
	Index uint64
	Off   int
	Dst   []byte // filled to its length
}

// want is one slice that is to be read from a file: the bytes [from, to) of
// its segment.
type want struct {
	*Slice
	loc      location
	seg      *segment
	from, to int64
	span     bool // only the pieces needed, not the frame
}

// ReadData fills the slices. Ranges that lie close together are read at once,
// and of a large block only the pieces that are needed, whose seal is then
// their only check; an error names the block. After an error the contents of
// all Dst are undefined.
func (l *Log) ReadData(slices []Slice) error {
	if l.keys == nil {
		return fmt.Errorf("reading %s: %w", l.dir, seal.ErrNoKey)
	}
	if !l.replica {
		return l.readData(slices)
	}
	for tries := 0; ; tries++ {
		if err := l.fetchFor(slices); err != nil {
			return err
		}
		if err := l.readData(slices); err == nil || tries == readTries || !l.again(err) {
			return err
		}
	}
}

func (l *Log) readData(slices []Slice) error {
	var room [16]want
	wants, err := l.wants(room[:0], slices)
	defer func() {
		for i := range wants {
			l.segs.put(wants[i].seg)
		}
	}()
	if err != nil {
		return err
	}
	sortWants(wants)
	for first := 0; first < len(wants); {
		last, end := first+1, wants[first].to
		for last < len(wants) && wants[last].seg == wants[first].seg && wants[last].from-end <= readGap &&
			max(end, wants[last].to)-wants[first].from <= readMost {
			end = max(end, wants[last].to)
			last++
		}
		if err := l.readRun(wants[first:last], end); err != nil {
			return err
		}
		first = last
	}
	return nil
}

// fetchFor gets the blocks for slices that are not here.
func (l *Log) fetchFor(slices []Slice) error {
	var missing []uint64
	for i := range slices {
		index := slices[i].Index
		l.mu.RLock()
		absent := index < l.next && l.locs.get(index).kind() == locAbsent && !l.dropped.Contains(index)
		l.mu.RUnlock()
		if absent && (len(missing) == 0 || missing[len(missing)-1] != index) {
			missing = append(missing, index)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return l.fetch(missing)
}

func sortWants(wants []want) {
	slices.SortFunc(wants, func(a, b want) int {
		if a.seg != b.seg {
			return cmp.Compare(a.loc.segment(), b.loc.segment())
		}
		return cmp.Compare(a.from, b.from)
	})
}

// wants says what to read from files for the slices; those of blocks that
// are still in memory are filled.
func (l *Log) wants(wants []want, slices []Slice) ([]want, error) {
	for i := range slices {
		s := &slices[i]
		if len(s.Dst) == 0 {
			continue
		}
		w, ok, err := l.want(s)
		if err != nil {
			return wants, err
		}
		if ok {
			wants = append(wants, w)
		}
	}
	return wants, nil
}

// want says what to read for a slice; false if it was filled from memory.
func (l *Log) want(s *Slice) (want, bool, error) {
	l.mu.RLock()
	if l.dropped.Contains(s.Index) && s.Index < l.next {
		l.mu.RUnlock()
		return want{}, false, l.droppedError(s.Index)
	}
	loc, seg, err := l.locate(s.Index)
	if err != nil {
		l.mu.RUnlock()
		return want{}, false, err
	}
	if seg == nil {
		b := getBuffer(0)
		defer putBuffer(b)
		*b = append(*b, l.pend[loc.offset()-l.pendOff+frameHeader:][:loc.length()]...)
		l.mu.RUnlock()
		if loc.kind() == locControl {
			return want{}, false, l.damage(s.Index, loc, "a control entry, not data")
		}
		return want{}, false, l.sealError(s.Index, l.keys.OpenRange(s.Dst, seal.Data, *b, s.Off))
	}
	l.mu.RUnlock()
	w := want{Slice: s, loc: loc, seg: seg, from: loc.offset()}
	if !loc.isBlock() {
		l.segs.put(seg)
		if loc.kind() == locDropped {
			return want{}, false, l.droppedError(s.Index)
		}
		return want{}, false, l.damage(s.Index, loc, "its frame is damaged or holds no data")
	}
	length := int(loc.length())
	w.to = w.from + frameHeader + int64(length)
	if loc.kind() == locUniform {
		span, ok := seal.UniformSpan(length, s.Off, len(s.Dst))
		if ok && span.Len < length*3/4 {
			w.from += frameHeader + int64(span.Off)
			w.to = w.from + int64(span.Len)
			w.span = true
		}
	}
	return w, true, nil
}

// readRun reads neighbouring wants, up to end, and opens them.
func (l *Log) readRun(wants []want, end int64) error {
	start := wants[0].from
	b := getBuffer(int(end - start))
	defer putBuffer(b)
	if _, err := wants[0].seg.file.ReadAt(*b, start); err != nil {
		// One of them may be readable, and the error must name the other.
		if len(wants) == 1 {
			return l.damage(wants[0].Index, wants[0].loc, readDetail(err))
		}
		for i := range wants {
			if err := l.readRun(wants[i:i+1], wants[i].to); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range wants {
		w := &wants[i]
		if err := l.open(w, (*b)[w.from-start:w.to-start]); err != nil {
			return err
		}
	}
	return nil
}

// open fills a slice from what was read for it.
func (l *Log) open(w *want, b []byte) error {
	if w.span {
		if l.keys.OpenUniform(w.Dst, seal.Data, int(w.loc.length()), w.Off, b) == nil {
			return nil
		}
		// The whole block tells what is wrong.
		return l.openWhole(w)
	}
	if _, err := l.checkFrame(b, w.Index, w.loc); err != nil {
		return err
	}
	return l.sealError(w.Index, l.keys.OpenRange(w.Dst, seal.Data, b[frameHeader:], w.Off))
}

func (l *Log) openWhole(w *want) error {
	b := getBuffer(0)
	defer putBuffer(b)
	body, err := l.readBody(b, w.Index, false)
	if err != nil {
		return err
	}
	return l.sealError(w.Index, l.keys.OpenRange(w.Dst, seal.Data, body, w.Off))
}
