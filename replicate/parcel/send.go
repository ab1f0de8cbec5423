package parcel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"

	"hearth/log/wire"
)

// Send offers the paths over the stream and sends them if the receiver says
// yes. It returns when all is durable at the receiver, or with the error; the
// stream is closed either way. The report is also returned with an error, as
// far as it goes. It blocks and may be called for several streams at once.
//
// When ctx ends, the receiver is told, and the error matches the context's
// cause. Errors: ErrDeclined, ErrStranger, ErrBusy, ErrNoSpace, ErrCanceled, ErrFailed,
// ErrBroken, ErrProtocol, ErrChanged, ErrTooLarge, and those of the file
// system for a path that is not there.
func Send(ctx context.Context, stream Stream, o SendOptions) (Report, error) {
	if o.ID == (ID{}) {
		o.ID = NewID()
	}
	c := newConn(ctx, stream, o.idle)
	s := &sender{c: c, o: o, meter: meter{report: o.Progress}, pool: newPool(buffers),
		out: make(chan []byte, buffers), tries: map[uint32]int{}}
	s.report.ID = o.ID
	err := s.run()
	c.end(err, err == nil)
	s.wait()
	if err == nil && s.changed {
		err = ErrChanged
	}
	if s.t != nil {
		s.report.Skipped = append(s.report.Skipped, s.t.skipped...)
	}
	if err != nil {
		return s.report, fmt.Errorf("send: %w", err)
	}
	return s.report, nil
}

// sender is the state of one Send. The goroutine of Send walks, reads and
// hashes; another one, writer, hands what is ready to the stream, so that
// disk and stream work at the same time.
type sender struct {
	c       *conn
	o       SendOptions
	t       *tree
	m       *manifest
	dirs    *dirs
	meter   meter
	report  Report
	changed bool // some files were given up

	pool    pool // of the buffers on their way to out
	out     chan []byte
	written chan struct{} // closed when writer ended
	batch   []byte

	have   []bool           // by entry
	part   map[uint32]int64 // verified length at the receiver
	tries  map[uint32]int   // times a file was sent
	budget int64            // by how much files may still outgrow the manifest
}

func (s *sender) run() error {
	if err := s.c.preface(); err != nil {
		return err
	}
	t, err := walk(s.c.ctx, s.o.Paths)
	if err != nil {
		return err
	}
	s.t, s.m, s.dirs = t, t.m, t.dirs()
	if err := s.offer(); err != nil {
		return err
	}
	s.budget = growth(s.m.bytes)
	s.written = make(chan struct{})
	s.meter.start(s.c.ctx, s.m)
	go s.writer()
	for i := range s.m.entries {
		if s.m.entries[i].kind != kindFile || s.have[i] {
			continue
		}
		if err := s.file(uint32(i)); err != nil {
			return err
		}
	}
	for {
		again, err := s.finish()
		if err != nil {
			return err
		}
		if len(again) == 0 {
			return s.placed()
		}
		for _, i := range again {
			if s.have[i] {
				return bad("asked again for a file that was not sent")
			}
			e := &s.m.entries[i]
			s.meter.done.Add(-e.size)
			s.meter.files.Add(-1)
			if err := s.big(i, 0); err != nil {
				return err
			}
		}
	}
}

// wait joins the goroutines; the stream's end has made their calls fail.
func (s *sender) wait() {
	if s.written != nil {
		close(s.out)
		<-s.written
	}
	if s.dirs != nil {
		s.dirs.close()
	}
	s.meter.stop()
	s.report.Moved = s.meter.moved.Load()
}

// writer sends what is in out until out is closed, or drops it once the
// transfer ended.
func (s *sender) writer() {
	defer close(s.written)
	for b := range s.out {
		if s.c.ctx.Err() == nil {
			if err := s.c.write(b[0], b); err != nil {
				s.c.fail(err)
			} else {
				s.count(b)
			}
		}
		s.pool.give(b)
	}
}

// count adds what was sent to the progress.
func (s *sender) count(b []byte) {
	switch b[0] {
	case msgData:
		n := int64(len(b) - headerLen)
		s.meter.moved.Add(n)
		s.meter.done.Add(n)
	case msgFileEnd:
		s.meter.files.Add(1)
	case msgBatch:
		items, _ := decodeBatch(b[headerLen:], s.m, nil) // this side's own encoding
		for _, it := range items {
			s.meter.moved.Add(int64(len(it.data)))
			s.meter.done.Add(int64(len(it.data)))
		}
		s.meter.files.Add(int64(len(items)))
	}
}

// offer asks, sends the manifest if it is wanted, and learns what is there.
func (s *sender) offer() error {
	o := s.m.offer()
	o.ID, o.Name, o.Skipped = s.o.ID, s.o.Name, len(s.t.skipped)
	if len(o.Name) > MaxName {
		o.Name = o.Name[:MaxName]
	}
	if err := s.c.send(msgOffer, func(w *wire.Writer) { encodeOffer(w, o) }); err != nil {
		return err
	}
	f, err := s.c.recv()
	if err != nil {
		return err
	}
	err = s.answer(f, msgWant)
	s.c.release(f)
	if err != nil {
		return err
	}
	if err := s.manifest(); err != nil {
		return err
	}
	return s.accepted()
}

// answer checks that f is of the type that is due, or a refusal.
func (s *sender) answer(f frame, due uint8) error {
	switch f.typ {
	case due:
		return nil
	case msgDecline:
		r, err := decodeRefusal(f.body)
		if err != nil {
			return err
		}
		s.c.theirs.Store(true)
		return r.err()
	}
	return bad("message %d instead of %d", f.typ, due)
}

func (s *sender) manifest() error {
	h := blake3.New()
	flush := func(w *wire.Writer) error {
		h.Write(w.B[headerLen:])
		err := s.c.write(msgManifest, w.B)
		w.B = w.B[:headerLen]
		return err
	}
	w := &wire.Writer{B: make([]byte, headerLen, headerLen+maxPayload)}
	s.m.lastParent = 0
	total := 0
	for i := range s.m.entries {
		before := len(w.B)
		s.m.encode(w, i)
		if total += len(w.B) - before; total > MaxManifest {
			return ErrTooLarge
		}
		if len(w.B) > maxPayload-2*(MaxTarget+MaxName) {
			if err := flush(w); err != nil {
				return err
			}
		}
	}
	if len(w.B) > headerLen {
		if err := flush(w); err != nil {
			return err
		}
	}
	return s.c.send(msgManifestEnd, func(w *wire.Writer) { w.Raw(h.Sum(nil)) })
}

// accepted reads what the receiver has, up to its Accept.
func (s *sender) accepted() error {
	s.have = make([]bool, len(s.m.entries))
	s.part = map[uint32]int64{}
	next := uint64(0)
	for {
		f, err := s.c.recv()
		if err != nil {
			return err
		}
		if f.typ != msgHave {
			err := s.answer(f, msgAccept)
			s.c.release(f)
			return err
		}
		runs, err := decodeHave(f.body, s.m, &next)
		s.c.release(f)
		if err != nil {
			return err
		}
		for _, v := range runs {
			if v.part > 0 {
				s.part[v.from] = v.part
				continue
			}
			for i := v.from; i <= v.to; i++ {
				if e := &s.m.entries[i]; e.kind == kindFile {
					s.have[i] = true
					s.meter.done.Add(e.size)
					s.meter.files.Add(1)
				}
			}
		}
	}
}

// emit hands a frame to the writer.
func (s *sender) emit(typ uint8, b []byte) error {
	b[0] = typ
	select {
	case s.out <- b:
		return nil
	case <-s.c.ctx.Done():
		s.pool.give(b)
		return s.c.err()
	}
}

// small hands a frame that fill makes to the writer.
func (s *sender) small(typ uint8, fill func(*wire.Writer)) error {
	b, err := s.pool.take(s.c.ctx)
	if err != nil {
		return err
	}
	w := wire.Writer{B: b[:headerLen]}
	if fill != nil {
		fill(&w)
	}
	return s.emit(typ, w.B)
}

// file sends one file, alone or in a batch.
func (s *sender) file(i uint32) error {
	s.meter.now.Store(int64(i) + 1)
	if s.m.entries[i].size <= smallFile {
		ok, err := s.pack(i)
		if ok || err != nil {
			return err
		}
	}
	return s.big(i, s.part[i])
}

// pack puts a small file into the batch if it is still what the manifest says.
func (s *sender) pack(i uint32) (bool, error) {
	e := &s.m.entries[i]
	most := headerLen + maxPayload - 64 - int(e.size)
	if s.batch != nil && len(s.batch) > most {
		if err := s.flush(); err != nil {
			return false, err
		}
	}
	if s.batch == nil {
		b, err := s.pool.take(s.c.ctx)
		if err != nil {
			return false, err
		}
		s.batch = b[:headerLen]
	}
	fd, st, err := s.open(i)
	if err != nil {
		return false, nil // big finds out again, and reports
	}
	defer unix.Close(fd)
	if metaOf(&st) != e.meta() {
		return false, nil
	}
	b := binary.AppendUvarint(s.batch, uint64(i))
	hashAt := len(b)
	b = append(b, make([]byte, 32)...)
	b = binary.AppendUvarint(b, uint64(e.size))
	data := b[len(b) : len(b)+int(e.size)]
	n, err := readFull(fd, data, 0)
	if err != nil || n != len(data) || s.touched(fd, &st) {
		return false, nil
	}
	sum := blake3.Sum256(data)
	copy(b[hashAt:], sum[:])
	s.batch = b[:len(b)+len(data)]
	s.tries[i]++
	return true, nil
}

// flush sends the batch.
func (s *sender) flush() error {
	b := s.batch
	s.batch = nil
	switch {
	case b == nil:
		return nil
	case len(b) == headerLen:
		s.pool.give(b)
		return nil
	}
	return s.emit(msgBatch, b)
}

// open opens a file to read. What is no file any more is unix.ESTALE.
func (s *sender) open(i uint32) (int, unix.Stat_t, error) {
	dir, name, err := s.dirs.in(i)
	if err != nil {
		return -1, unix.Stat_t{}, err
	}
	// Without O_NONBLOCK, a fifo that took the file's place would block.
	fd, err := openAt(dir, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, unix.Stat_t{}, err
	}
	st, err := statFD(fd)
	if err == nil && !isKind(&st, unix.S_IFREG) {
		err = unix.ESTALE
	}
	if err != nil {
		unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

// touched reports whether an open file changed since it was looked at.
func (s *sender) touched(fd int, was *unix.Stat_t) bool {
	st, err := statFD(fd)
	return err != nil || metaOf(&st) != metaOf(was) || st.Ctim != was.Ctim
}

// errChanged ends one attempt to send a file.
var errChanged = errors.New("changed")

// big sends a file in a stream of frames, again if it changed meanwhile.
func (s *sender) big(i uint32, offset int64) error {
	for {
		if s.tries[i] >= most {
			return s.giveUp(i, SkippedChanged)
		}
		s.tries[i]++
		fd, st, err := s.open(i)
		if err != nil {
			why := SkippedChanged
			if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESTALE) && !errors.Is(err, unix.ELOOP) &&
				!errors.Is(err, unix.ENOTDIR) {
				why = SkippedUnreadable
			}
			return s.giveUp(i, why)
		}
		e := &s.m.entries[i]
		v := metaOf(&st)
		if v != e.meta() {
			offset = 0
			if grown := v.size - e.size; grown > s.budget {
				unix.Close(fd)
				return s.giveUp(i, SkippedChanged)
			} else if grown > 0 {
				s.budget -= grown
			}
		}
		started, sent, err := s.attempt(fd, i, offset, v, &st)
		unix.Close(fd)
		switch {
		case err == nil:
			if offset > 0 {
				s.meter.done.Add(offset)
			}
			s.meter.total.Add(v.size - e.size)
			return nil
		case s.c.ctx.Err() != nil:
			return s.c.err()
		}
		s.meter.done.Add(-sent)
		if !errors.Is(err, errChanged) {
			if !started {
				return err
			}
			return s.giveUp(i, SkippedUnreadable)
		}
		if err := s.say(i, 0); err != nil {
			return err
		}
		offset = 0
	}
}

// attempt sends one file once. sent is how many bytes were handed over.
func (s *sender) attempt(fd int, i uint32, offset int64, v meta, st *unix.Stat_t) (started bool, sent int64, err error) {
	willRead(fd)
	err = s.small(msgFile, func(w *wire.Writer) {
		w.Uvarint(uint64(i))
		w.Uvarint(uint64(offset))
		encodeMeta(w, v)
	})
	if err != nil {
		return false, 0, err
	}
	h := blake3.New()
	for at := int64(0); at < v.size; {
		b, err := s.pool.take(s.c.ctx)
		if err != nil {
			return true, sent, err
		}
		want := min(dataLen, v.size-at)
		if at < offset { // the receiver has it: only for the hash of the whole
			want = min(want, offset-at)
		}
		p := b[headerLen : headerLen+want]
		n, err := readFull(fd, p, at)
		if err != nil || n < len(p) {
			s.pool.give(b)
			if err == nil {
				err = errChanged
			}
			return true, sent, err
		}
		h.Write(p)
		if at += want; at <= offset {
			s.pool.give(b)
			continue
		}
		if err := s.emit(msgData, b[:headerLen+want]); err != nil {
			return true, sent, err
		}
		sent += want
	}
	if s.touched(fd, st) {
		return true, sent, errChanged
	}
	return true, sent, s.small(msgFileEnd, func(w *wire.Writer) { w.Raw(h.Sum(nil)) })
}

// giveUp leaves a file out for good.
func (s *sender) giveUp(i uint32, why Reason) error {
	s.t.skip(s.t.source(i), why)
	s.changed = s.changed || why == SkippedChanged
	s.meter.total.Add(-s.m.entries[i].size)
	return s.say(i, why)
}

// say tells the receiver to forget what came of a file: it comes again, or,
// with a reason, not.
func (s *sender) say(i uint32, why Reason) error {
	return s.small(msgChanged, func(w *wire.Writer) {
		w.Uvarint(uint64(i))
		w.U8(uint8(why))
	})
}

// finish ends a round and returns what the receiver could not verify.
func (s *sender) finish() ([]uint32, error) {
	if err := s.flush(); err != nil {
		return nil, err
	}
	if err := s.small(msgEnd, nil); err != nil {
		return nil, err
	}
	var again []uint32
	for {
		f, err := s.c.recv()
		if err != nil {
			return nil, err
		}
		if err := s.answer(f, msgAgain); err != nil {
			s.c.release(f)
			return nil, err
		}
		list, more, err := decodeAgain(f.body, s.m)
		s.c.release(f)
		if err != nil {
			return nil, err
		}
		if len(again) > 0 && len(list) > 0 && list[0] <= again[len(again)-1] {
			return nil, bad("files out of order")
		}
		again = append(again, list...)
		if !more {
			return again, nil
		}
	}
}

// placed waits until all is durable, and says that it heard.
func (s *sender) placed() error {
	next := 0
	for {
		f, err := s.c.recv()
		if err != nil {
			return err
		}
		if f.typ == msgPlaced {
			s.report.Names, err = decodePlaced(f.body, s.m, &next, s.report.Names)
			s.c.release(f)
			if err != nil {
				return err
			}
			continue
		}
		err = s.answer(f, msgDone)
		if err == nil {
			s.report.Files, s.report.Bytes, err = decodeDone(f.body, s.m)
		}
		s.c.release(f)
		if err != nil {
			return err
		}
		s.report.Dirs, s.report.Links = s.m.dirs, s.m.links
		s.report.Names = slices.Clip(s.report.Names)
		return s.c.send(msgBye, nil)
	}
}

// growth is how many bytes files may outgrow the manifest by, in all, when
// they changed and are sent again.
func growth(total int64) int64 { return 64<<20 + total/16 }
