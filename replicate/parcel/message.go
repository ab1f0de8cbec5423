package parcel

import (
	"fmt"
	"math"

	"hearth/log/wire"
)

// The preface of both directions. version changes with the wire format: a
// peer that reads another number ends the stream and names both.
const (
	magic   = "HRTHPRCL"
	version = 1
)

// Frames.
const (
	headerLen  = 5       // type, 32-bit length
	maxPayload = 1 << 20 // of one frame
	smallFile  = 64 << 10
	dataLen    = maxPayload
	// step is how often the verified length of a file is written down: a kill
	// loses less than this, and one frame, of the file in progress.
	step = 4 << 20
)

// Types of frames. Those of the sender are below 16, the receiver's from 16
// on, those of both from 32 on.
const (
	msgOffer       = 1
	msgManifest    = 2
	msgManifestEnd = 3
	msgBatch       = 4
	msgFile        = 5
	msgData        = 6
	msgFileEnd     = 7
	msgChanged     = 8
	msgEnd         = 9
	msgBye         = 10

	msgWant    = 16
	msgHave    = 17
	msgAccept  = 18
	msgDecline = 19
	msgAgain   = 20
	msgPlaced  = 21
	msgDone    = 22

	msgPing   = 32
	msgCancel = 33
)

// Reasons of Decline and Cancel on the wire.
const (
	whyDeclined = 1
	whySpace    = 2
	whyBusy     = 3
	whyCanceled = 4
	whyProtocol = 5
	whyFailed   = 6
	whyStranger = 7
)

const maxText = 1024 // of a Cancel or Decline, for people

// most says how many times a file that changed is sent.
const most = 3

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// done turns a decoding error into a protocol error.
func done(r *wire.Reader, what string) error {
	if err := r.Done(); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrProtocol, what, err)
	}
	return nil
}

func encodeOffer(w *wire.Writer, o Offer) {
	w.Raw(o.ID[:])
	w.String(o.Name)
	for _, n := range []int{o.Files, o.Dirs, o.Links} {
		w.Uvarint(uint64(n))
	}
	w.Uvarint(uint64(o.Bytes))
	w.Uvarint(uint64(o.Skipped))
	w.Uvarint(uint64(o.TopCount))
	w.Uvarint(uint64(len(o.Tops)))
	for _, t := range o.Tops {
		w.String(t.Name)
		k := kindFile
		if t.Dir {
			k = kindDir
		}
		w.U8(uint8(k))
		w.Uvarint(uint64(t.Files))
		w.Uvarint(uint64(t.Bytes))
	}
}

func decodeOffer(b []byte) (Offer, error) {
	var o Offer
	r := wire.NewReader(b)
	copy(o.ID[:], r.Raw(len(o.ID)))
	o.Name = r.String(MaxName)
	count := func(limit int) int {
		n := r.Uvarint()
		if n > uint64(limit) {
			r.Fail("%d, limit %d", n, limit)
			return 0
		}
		return int(n)
	}
	size := func() int64 {
		n := r.Uvarint()
		if n > math.MaxInt64/2 {
			r.Fail("size %d", n)
		}
		return int64(n)
	}
	o.Files, o.Dirs, o.Links = count(MaxEntries), count(MaxEntries), count(MaxEntries)
	o.Bytes = size()
	o.Skipped = count(math.MaxInt32)
	o.TopCount = count(MaxEntries)
	n := count(MaxTops)
	if n != min(o.TopCount, MaxTops) || o.TopCount > o.Files+o.Dirs || o.Files+o.Dirs+o.Links > MaxEntries {
		r.Fail("counts of an offer")
	}
	for range n {
		t := Top{Name: r.String(MaxName)}
		k := kind(r.U8())
		t.Dir = k == kindDir
		t.Files, t.Bytes = count(MaxEntries), size()
		if r.Err() != nil {
			break
		}
		if err := checkName(t.Name); err != nil || k > kindDir {
			r.Fail("top-level name %q of kind %d", t.Name, k)
			break
		}
		o.Tops = append(o.Tops, t)
	}
	if err := done(r, "offer"); err != nil {
		return Offer{}, err
	}
	return o, nil
}

func encodeMeta(w *wire.Writer, m meta) {
	w.Uvarint(uint64(m.size))
	w.U16(m.mode)
	w.Varint(m.sec)
	w.Uvarint(uint64(m.nsec))
}

func decodeMeta(r *wire.Reader) meta {
	size := r.Uvarint()
	m := meta{mode: r.U16(), sec: r.Varint()}
	nsec := r.Uvarint()
	if size > math.MaxInt64/2 || nsec >= 1e9 || m.mode&^0o777 != 0 {
		r.Fail("size, mode or time")
	}
	m.size, m.nsec = int64(size), uint32(nsec)
	return m
}

// index consumes the index of a file of m.
func index(r *wire.Reader, m *manifest) uint32 {
	n := r.Uvarint()
	if r.Err() == nil && (n >= uint64(len(m.entries)) || m.entries[n].kind != kindFile) {
		r.Fail("%d is no file", n)
	}
	if r.Err() != nil {
		return 0
	}
	return uint32(n)
}

// fileStart is a msgFile.
type fileStart struct {
	i      uint32
	offset int64
	meta   meta
}

func decodeFile(b []byte, m *manifest) (fileStart, error) {
	r := wire.NewReader(b)
	f := fileStart{i: index(r, m)}
	offset := r.Uvarint()
	f.meta = decodeMeta(r)
	if offset > uint64(f.meta.size) {
		r.Fail("offset %d in %d bytes", offset, f.meta.size)
	}
	f.offset = int64(offset)
	return f, done(r, "file")
}

// item is one file of a batch. data aliases the frame.
type item struct {
	i    uint32
	hash [32]byte
	data []byte
}

func decodeBatch(b []byte, m *manifest, items []item) ([]item, error) {
	r := wire.NewReader(b)
	for r.Len() > 0 {
		it := item{i: index(r, m)}
		copy(it.hash[:], r.Raw(len(it.hash)))
		it.data = r.Bytes(smallFile)
		if r.Err() == nil && int64(len(it.data)) != m.entries[it.i].size {
			r.Fail("%d bytes for a file of %d", len(it.data), m.entries[it.i].size)
		}
		if r.Err() != nil {
			break
		}
		items = append(items, it)
	}
	return items, done(r, "batch")
}

func decodeChanged(b []byte, m *manifest) (i uint32, reason Reason, err error) {
	r := wire.NewReader(b)
	i = index(r, m)
	reason = Reason(r.U8())
	if reason != 0 && reason != SkippedChanged && reason != SkippedUnreadable {
		r.Fail("reason %d", reason)
	}
	return i, reason, done(r, "changed file")
}

// run is n files in the order of the manifest, starting with entry from;
// entries that are no files between them do not count. part is how much of
// the one file at from is there, if it is not all.
type run struct {
	from, to uint32 // entries from..to, both included
	part     int64
}

func encodeRun(w *wire.Writer, v run) {
	w.Uvarint(uint64(v.from))
	w.Uvarint(uint64(v.to - v.from))
	w.Uvarint(uint64(v.part))
}

// decodeHave checks that runs ascend, so that all of them together are
// bounded by the manifest. next is the first entry that may be named.
func decodeHave(b []byte, m *manifest, next *uint64) ([]run, error) {
	var runs []run
	r := wire.NewReader(b)
	for r.Len() > 0 {
		from, n, part := r.Uvarint(), r.Uvarint(), r.Uvarint()
		limit := uint64(len(m.entries))
		if r.Err() == nil && (from < *next || from >= limit || n >= limit-from || part > 0 && (n > 0 ||
			m.entries[from].kind != kindFile || part >= uint64(m.entries[from].size))) {
			r.Fail("run of %d from %d, part %d", n, from, part)
		}
		if r.Err() != nil {
			break
		}
		*next = from + n + 1
		runs = append(runs, run{uint32(from), uint32(from + n), int64(part)})
	}
	return runs, done(r, "have")
}

// decodeAgain returns the files to send again; they ascend.
func decodeAgain(b []byte, m *manifest) (list []uint32, more bool, err error) {
	r := wire.NewReader(b)
	flag := r.U8()
	if flag > 1 {
		r.Fail("flag %d", flag)
	}
	for r.Len() > 0 && r.Err() == nil {
		i := index(r, m)
		if n := len(list); n > 0 && i <= list[n-1] {
			r.Fail("files out of order")
		}
		list = append(list, i)
	}
	return list, flag == 1, done(r, "again")
}

// refusal is a Decline or a Cancel.
type refusal struct {
	why        uint8
	need, free int64
	text       string
}

func encodeRefusal(w *wire.Writer, f refusal) {
	w.U8(f.why)
	w.Uvarint(uint64(max(f.need, 0)))
	w.Uvarint(uint64(max(f.free, 0)))
	w.String(f.text[:min(len(f.text), maxText)])
}

func decodeRefusal(b []byte) (refusal, error) {
	r := wire.NewReader(b)
	f := refusal{why: r.U8()}
	need, free := r.Uvarint(), r.Uvarint()
	if need > math.MaxInt64 || free > math.MaxInt64 {
		r.Fail("size")
	}
	f.need, f.free = int64(need), int64(free)
	f.text = r.String(maxText)
	return f, done(r, "refusal")
}

// err is the refusal as the other side's error.
func (f refusal) err() error {
	kind := ErrFailed
	switch f.why {
	case whyDeclined:
		kind = ErrDeclined
	case whySpace:
		if f.need > 0 {
			return fmt.Errorf("%w: %d bytes are needed and %d are free", ErrNoSpace, f.need, f.free)
		}
		kind = ErrNoSpace
	case whyBusy:
		kind = ErrBusy
	case whyStranger:
		kind = ErrStranger
	case whyCanceled:
		kind = ErrCanceled
	case whyProtocol:
		kind = ErrProtocol
	}
	if f.text == "" || f.why == whyCanceled {
		return kind
	}
	return fmt.Errorf("%w: it says %q", kind, f.text)
}

// decodePlaced reads where top-level entries went: their indexes ascend from
// *next on, as they are the first entries of the manifest.
func decodePlaced(b []byte, m *manifest, next *int, names []string) ([]string, error) {
	r := wire.NewReader(b)
	for r.Len() > 0 && r.Err() == nil {
		i, name := r.Uvarint(), r.String(MaxName)
		if r.Err() == nil && (i < uint64(*next) || i >= uint64(m.tops) || checkName(name) != nil) {
			r.Fail("placed entry %d", i)
		}
		if r.Err() == nil {
			*next = int(i) + 1
			names = append(names, name)
		}
	}
	return names, done(r, "placed")
}

// decodeDone reads what is at the receiver.
func decodeDone(b []byte, m *manifest) (files int, bytes int64, err error) {
	r := wire.NewReader(b)
	n, size := r.Uvarint(), r.Uvarint()
	if n > uint64(m.files) || size > math.MaxInt64 {
		r.Fail("%d files of %d bytes", n, size)
	}
	return int(n), int64(size), done(r, "done")
}
