package parcel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"

	"hearth/log/wire"
)

// Receive waits for an offer on the stream, asks o.Decide, and receives. It
// returns when all is durable and in its place, or with the error; the stream
// is closed either way. The report is also returned with an error, as far as
// it goes. It blocks; several may run at once, also into one folder.
//
// When ctx ends, the sender is told. What came so far stays in a partial
// folder for a later attempt with the same ID, unless the cause of the end
// matches ErrDiscard. Once everything came and the first name was placed, the
// end of ctx no longer matters: it is finished, as half of a transfer in its
// place is what nobody wants.
//
// Errors: ErrDeclined (this side said no), ErrStranger, ErrBusy, ErrNoSpace, ErrCanceled,
// ErrFailed, ErrBroken, ErrProtocol, ErrChanged, and those of the file system.
func Receive(ctx context.Context, stream Stream, o ReceiveOptions) (Report, error) {
	if o.space == nil {
		o.space = statSpace
	}
	if o.Decide == nil {
		stream.Close()
		return Report{}, errors.New("receive: nobody decides")
	}
	r := &receiver{o: o, c: newConn(ctx, stream, o.idle), meter: meter{report: o.Progress}}
	refused, err := r.run()
	if r.finished {
		// The sender's Bye says that it knows. Without it the empty partial
		// folder stays, to tell it when it asks again.
		r.c.end(nil, false)
		if err == nil {
			r.s.remove() // if that fails, it is what a lost Bye leaves
		}
		err = nil
	} else {
		r.c.end(err, refused)
	}
	r.wait()
	if err != nil && errors.Is(context.Cause(ctx), ErrDiscard) && r.s != nil && r.s.j != nil {
		if e := r.s.remove(); e != nil {
			err = fmt.Errorf("%w; %w", err, e)
		}
	}
	if r.s != nil {
		r.s.close()
	}
	if err == nil && r.changed {
		err = ErrChanged
	}
	if err != nil {
		return r.report, fmt.Errorf("receive: %w", err)
	}
	return r.report, nil
}

// receiver is the state of one Receive. The goroutine of Receive reads the
// messages and checks that each is allowed; small files are written by the
// workers, large ones by one writer, which end in wait.
type receiver struct {
	o        ReceiveOptions
	c        *conn
	s        *store
	m        *manifest
	offer    Offer
	meter    meter
	report   Report
	changed  bool
	finished bool // everything is in its place

	state  []uint8 // of each entry; only the goroutine of Receive uses it
	there  map[uint32]int64
	open   int   // files neither done nor given up nor on their way
	budget int64 // see growth
	given  map[uint32]Reason

	batches chan batch
	ops     chan op
	pending sync.WaitGroup // of batches and ops
	writers sync.WaitGroup

	mu    sync.Mutex
	again []uint32 // did not match their hash
	bytes int64    // of finished files
}

// States of a file.
const (
	fileMissing = iota
	fileTaken   // on its way, or done
	fileGiven   // given up by the sender
)

// batch is a message with small files.
type batch struct {
	f     frame
	items []item
}

// op is one step of a large file.
type op struct {
	typ   uint8 // msgFile, msgData, msgFileEnd, msgChanged
	start fileStart
	f     frame // of msgData
	hash  [32]byte
}

// run receives; refused is whether this side's last message was a refusal.
func (r *receiver) run() (refused bool, err error) {
	if err := r.c.preface(); err != nil {
		return false, err
	}
	if r.s, err = r.decide(); err != nil {
		return r.refuse(err)
	}
	digest, err := r.manifest()
	if err != nil {
		return false, err
	}
	if err := r.prepare(digest); err != nil {
		return r.refuse(err)
	}
	if err := r.accept(); err != nil {
		return false, err
	}
	if err := r.data(); err != nil {
		return false, err
	}
	if err := r.finish(); err != nil {
		return false, err
	}
	r.finished = true
	return false, r.tell()
}

// refusalError carries what a Decline says.
type refusalError struct {
	refusal refusal
	err     error
}

func (e *refusalError) Error() string { return e.err.Error() }
func (e *refusalError) Unwrap() error { return e.err }

// refuse sends a Decline for an error that is one.
func (r *receiver) refuse(err error) (bool, error) {
	var e *refusalError
	if !errors.As(err, &e) || r.c.ctx.Err() != nil {
		return false, err
	}
	if r.c.send(msgDecline, func(w *wire.Writer) { encodeRefusal(w, e.refusal) }) != nil {
		return false, err
	}
	return true, err
}

// decide reads the offer and has it answered. Nothing is written.
func (r *receiver) decide() (*store, error) {
	f, err := r.expect(msgOffer)
	if err != nil {
		return nil, err
	}
	r.offer, err = decodeOffer(f.body)
	r.c.release(f)
	if err != nil {
		return nil, err
	}
	r.report.ID = r.offer.ID
	s, err := openDest(r.o.Dir, r.offer.ID)
	if err != nil {
		return nil, err
	}
	r.offer.Resume = s.exists()
	d, err := r.o.Decide(r.c.ctx, r.offer)
	switch {
	case r.c.ctx.Err() != nil:
		err = r.c.err()
	case err != nil:
		err = &refusalError{refusal{why: whyDeclined}, err}
	case d == Busy:
		err = &refusalError{refusal{why: whyBusy}, ErrBusy}
	case d == Stranger:
		err = &refusalError{refusal{why: whyStranger}, ErrStranger}
	case d != Accept:
		err = &refusalError{refusal{why: whyDeclined}, ErrDeclined}
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// expect receives a message of one type.
func (r *receiver) expect(typ uint8) (frame, error) {
	f, err := r.c.recv()
	if err == nil && f.typ != typ {
		r.c.release(f)
		err = bad("message %d instead of %d", f.typ, typ)
	}
	return f, err
}

// manifest asks for the manifest, which must be what the offer promised.
func (r *receiver) manifest() (digest [32]byte, err error) {
	if err := r.c.send(msgWant, nil); err != nil {
		return digest, err
	}
	m := &manifest{}
	h := blake3.New()
	o := &r.offer
	for {
		f, err := r.c.recv()
		if err != nil {
			return digest, err
		}
		if f.typ == msgManifestEnd {
			copy(digest[:], h.Sum(nil))
			same := string(f.body) == string(digest[:])
			r.c.release(f)
			if !same {
				return digest, bad("the manifest does not match its hash")
			}
			break
		}
		if f.typ != msgManifest || len(f.body) == 0 {
			err = bad("message %d of %d bytes in a manifest", f.typ, len(f.body))
		} else {
			h.Write(f.body)
			err = m.decode(f.body, o.Files+o.Dirs+o.Links)
		}
		r.c.release(f)
		if err != nil {
			return digest, err
		}
	}
	got := m.offer()
	if got.Files != o.Files || got.Dirs != o.Dirs || got.Links != o.Links || got.Bytes != o.Bytes ||
		got.TopCount != o.TopCount || !slices.Equal(got.Tops, o.Tops) {
		return digest, bad("the manifest is not what was offered")
	}
	r.m = m
	return digest, nil
}

// prepare finds out what is there, checks the space for the rest, and makes
// the partial folder.
func (r *receiver) prepare(digest [32]byte) error {
	err := r.s.adopt()
	if errors.Is(err, ErrBusy) {
		return &refusalError{refusal{why: whyBusy}, err}
	}
	if err != nil {
		return err
	}
	if err := r.s.recall(r.m, digest); err != nil {
		return err
	}
	r.there = map[uint32]int64{}
	if p := r.s.past; p != nil && !p.complete {
		if err := r.s.skeleton(r.c.ctx); err != nil {
			return err
		}
		if r.there, err = r.s.verify(r.c.ctx); err != nil {
			return err
		}
	}
	if r.s.past == nil || !r.s.past.complete {
		sp, err := r.o.space(r.s.dest)
		if err != nil {
			return fmt.Errorf("free space of %s: %w", r.o.Dir, err)
		}
		if need := r.s.need(r.there, sp.block); need > sp.free {
			f := refusal{why: whySpace, need: need, free: sp.free}
			return &refusalError{f, f.err()}
		}
	}
	if r.s.past == nil {
		h := header{id: r.offer.ID, digest: digest, started: time.Now(), from: r.offer.Name,
			files: r.m.files, bytes: r.m.bytes}
		if err := r.s.create(h); err != nil {
			return err
		}
		return r.s.skeleton(r.c.ctx)
	}
	return nil
}

// accept tells the sender what is there.
func (r *receiver) accept() error {
	m := r.m
	r.state = make([]uint8, len(m.entries))
	r.given = map[uint32]Reason{}
	r.budget = growth(m.bytes)
	past := r.s.past
	complete := past != nil && past.complete
	w := wire.Writer{B: make([]byte, headerLen, maxPayload)}
	flush := func(limit int) error {
		if len(w.B) <= limit {
			return nil
		}
		err := r.c.write(msgHave, w.B)
		w.B = w.B[:headerLen]
		return err
	}
	var last run
	running := false // last is a run of whole files that is not written yet
	for i := range m.entries {
		e := &m.entries[i]
		if e.kind != kindFile {
			continue
		}
		n := r.there[uint32(i)]
		if complete {
			n = -1
		}
		if n < 0 {
			r.state[i] = fileTaken
			if why, given := Reason(0), false; complete {
				if why, given = past.given[uint32(i)]; given {
					r.give(uint32(i), why)
				}
			}
			if r.state[i] == fileTaken {
				r.bytes += e.size
				r.meter.files.Add(1)
				r.meter.done.Add(e.size)
			}
			if !running {
				last.from = uint32(i)
			}
			last.to, running = uint32(i), true
			continue
		}
		r.open++
		if running {
			encodeRun(&w, last)
			running = false
		}
		if n > 0 {
			encodeRun(&w, run{from: uint32(i), to: uint32(i), part: n})
		}
		if err := flush(maxPayload / 2); err != nil {
			return err
		}
	}
	if running {
		encodeRun(&w, last)
	}
	if err := flush(headerLen); err != nil {
		return err
	}
	return r.c.send(msgAccept, nil)
}

// give leaves a file out.
func (r *receiver) give(i uint32, why Reason) {
	r.state[i] = fileGiven
	r.given[i] = why
	r.changed = r.changed || why == SkippedChanged
	r.report.Skipped = append(r.report.Skipped, Skipped{r.m.path(i), why})
}

// data receives files until all are verified or given up.
func (r *receiver) data() error {
	r.batches, r.ops = make(chan batch, workers), make(chan op, 4)
	for range workers {
		r.writers.Go(r.worker)
	}
	r.writers.Go(r.writer)
	r.meter.start(r.c.ctx, r.m)
	var cur *fileStart // the large file under way
	var at int64
	for rounds := 0; ; {
		f, err := r.c.recv()
		if err != nil {
			return err
		}
		keep := false // f goes on to a worker
		switch {
		case f.typ == msgBatch:
			keep, err = true, r.batch(f)
		case f.typ == msgFile && cur == nil:
			var s fileStart
			if s, err = r.start(f.body); err == nil {
				cur, at = &s, s.offset
				err = r.do(op{typ: msgFile, start: s})
			}
		case f.typ == msgData && cur != nil && len(f.body) > 0 && int64(len(f.body)) <= cur.meta.size-at:
			at += int64(len(f.body))
			keep, err = true, r.do(op{typ: msgData, f: f})
		case f.typ == msgFileEnd && cur != nil && at == cur.meta.size && len(f.body) == 32:
			err = r.do(op{typ: msgFileEnd, hash: [32]byte(f.body)})
			cur = nil
		case f.typ == msgChanged:
			err = r.dropped(f.body, cur)
			cur = nil
		case f.typ == msgEnd && cur == nil && len(f.body) == 0:
			var more bool
			if more, err = r.round(); err == nil && !more {
				r.c.release(f)
				return nil
			}
			if rounds++; rounds > most {
				err = bad("round %d", rounds)
			}
		default:
			err = bad("message %d of %d bytes between files", f.typ, len(f.body))
		}
		if !keep {
			r.c.release(f)
		}
		if err != nil {
			return err
		}
	}
}

// batch checks a message with small files and hands it to a worker.
func (r *receiver) batch(f frame) error {
	items, err := decodeBatch(f.body, r.m, nil)
	for _, it := range items {
		if err == nil && r.state[it.i] != fileMissing {
			err = bad("file %d comes twice", it.i)
		}
		r.state[it.i] = fileTaken
	}
	if err != nil || len(items) == 0 {
		r.c.release(f)
		return err
	}
	r.open -= len(items)
	r.meter.now.Store(int64(items[0].i) + 1)
	r.pending.Add(1)
	select {
	case r.batches <- batch{f, items}:
		return nil
	case <-r.c.ctx.Done():
		r.pending.Done()
		r.c.release(f)
		return r.c.err()
	}
}

// start checks the beginning of a large file.
func (r *receiver) start(body []byte) (fileStart, error) {
	s, err := decodeFile(body, r.m)
	if err != nil {
		return s, err
	}
	e := &r.m.entries[s.i]
	if r.state[s.i] != fileMissing {
		return s, bad("file %d comes twice", s.i)
	}
	if s.offset != 0 && (s.offset != r.there[s.i] || s.meta != e.meta()) {
		return s, bad("file %d begins at %d", s.i, s.offset)
	}
	if grown := s.meta.size - e.size; grown > 0 {
		if r.budget -= grown; r.budget < 0 {
			return s, bad("file %d is larger than was offered", s.i)
		}
	}
	delete(r.there, s.i) // from now on, it starts at 0 again
	r.state[s.i] = fileTaken
	r.open--
	r.meter.now.Store(int64(s.i) + 1)
	return s, nil
}

// dropped is a file that changed: it comes again, or not.
func (r *receiver) dropped(body []byte, cur *fileStart) error {
	i, why, err := decodeChanged(body, r.m)
	switch {
	case err != nil:
		return err
	case cur != nil && i != cur.i, cur == nil && (why == 0 || r.state[i] != fileMissing):
		return bad("file %d is not the one under way", i)
	case cur != nil:
		if err := r.do(op{typ: msgChanged, start: fileStart{i: i}}); err != nil {
			return err
		}
		r.state[i] = fileMissing
		r.open++
	}
	if why != 0 {
		r.open--
		r.give(i, why)
	}
	return nil
}

// do hands a step to the writer.
func (r *receiver) do(o op) error {
	r.pending.Add(1)
	select {
	case r.ops <- o:
		return nil
	case <-r.c.ctx.Done():
		r.pending.Done()
		if o.f.buf != nil {
			r.c.release(o.f)
		}
		return r.c.err()
	}
}

// round ends one pass over the files; more is whether some come again.
func (r *receiver) round() (more bool, err error) {
	r.pending.Wait()
	if r.c.ctx.Err() != nil {
		return false, r.c.err()
	}
	if r.open != 0 {
		return false, bad("%d files did not come", r.open)
	}
	again := r.again
	r.again = nil
	slices.Sort(again)
	more = len(again) > 0
	for _, i := range again {
		r.state[i] = fileMissing
		r.open++
	}
	const most = maxPayload / 8
	for {
		n := min(len(again), most)
		err := r.c.send(msgAgain, func(w *wire.Writer) {
			w.U8(uint8(min(len(again)-n, 1)))
			for _, i := range again[:n] {
				w.Uvarint(uint64(i))
			}
		})
		if again = again[n:]; err != nil || len(again) == 0 {
			return more, err
		}
	}
}

// wait joins the goroutines of data.
func (r *receiver) wait() {
	if r.batches != nil {
		close(r.batches)
		close(r.ops)
		r.writers.Wait()
	}
	r.meter.stop()
	r.report.Moved = r.meter.moved.Load()
}

// failed ends the transfer for a file that could not be written.
func (r *receiver) failed(i uint32, err error) {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	r.c.fail(fmt.Errorf("%q: %w", r.m.path(i), err))
}

// finishedFile counts a file that is verified and written.
func (r *receiver) finishedFile(size int64) {
	r.mu.Lock()
	r.bytes += size
	r.mu.Unlock()
	r.meter.files.Add(1)
}

// mismatch has a file sent again.
func (r *receiver) mismatch(i uint32, counted int64) {
	r.mu.Lock()
	r.again = append(r.again, i)
	r.mu.Unlock()
	r.meter.done.Add(-counted)
}

// worker writes small files until batches is closed.
func (r *receiver) worker() {
	d := r.s.dirs()
	defer d.close()
	var rec []byte
	for b := range r.batches {
		rec = rec[:0]
		for _, it := range b.items {
			if r.c.ctx.Err() != nil {
				break
			}
			r.meter.moved.Add(int64(len(it.data)))
			r.meter.done.Add(int64(len(it.data)))
			if blake3.Sum256(it.data) != it.hash {
				r.mismatch(it.i, int64(len(it.data)))
				continue
			}
			if err := r.s.writeSmall(d, it.i, it.data); err != nil {
				r.failed(it.i, err)
				break
			}
			rec = finishedRecord(rec, it.i, it.hash)
			r.finishedFile(int64(len(it.data)))
		}
		if err := r.s.j.put(rec); err != nil {
			r.c.fail(err)
		}
		r.c.release(b.f)
		r.pending.Done()
	}
}

// writer writes large files, one after the other, until ops is closed.
func (r *receiver) writer() {
	w := largeFile{r: r, d: r.s.dirs(), fd: -1}
	defer w.d.close()
	defer w.close()
	for o := range r.ops {
		if r.c.ctx.Err() == nil {
			if err := w.do(o); err != nil {
				r.failed(w.start.i, err)
			}
		}
		if o.f.buf != nil {
			r.c.release(o.f)
		}
		r.pending.Done()
	}
}

// largeFile is the file that writer writes.
type largeFile struct {
	r     *receiver
	d     *dirs
	start fileStart
	dir   int
	name  string
	fd    int
	h     *blake3.Hasher
	at    int64
	step  int64 // the length that was written down last
}

func (w *largeFile) close() {
	if w.fd >= 0 {
		unix.Close(w.fd)
		w.fd = -1
	}
}

func (w *largeFile) do(o op) error {
	switch o.typ {
	case msgFile:
		return w.begin(o.start)
	case msgData:
		return w.write(o.f.body)
	case msgFileEnd:
		return w.end(o.hash)
	}
	return w.drop(w.at)
}

func (w *largeFile) begin(s fileStart) (err error) {
	w.start, w.at, w.step = s, 0, s.offset
	w.h = blake3.New()
	if w.dir, w.name, err = w.d.in(s.i); err != nil {
		return err
	}
	if s.offset == 0 {
		if w.fd, err = w.r.s.makeFile(w.dir, w.name); err != nil {
			return err
		}
		return w.r.s.j.put(prefixRecord(s.i, 0, [32]byte{}))
	}
	if w.fd, err = openAt(w.dir, w.name, unix.O_RDWR, 0); err != nil {
		return err
	}
	if err := unix.Ftruncate(w.fd, s.offset); err != nil {
		return err
	}
	// The hash of the whole begins with what is there. That is also checked by
	// it: the sender hashes the file from its beginning.
	buf := make([]byte, 1<<20)
	for w.at < s.offset {
		n, err := readFull(w.fd, buf[:min(int64(len(buf)), s.offset-w.at)], w.at)
		if err == nil && n == 0 {
			err = unix.EIO
		}
		if err != nil {
			return err
		}
		w.h.Write(buf[:n])
		w.at += int64(n)
	}
	w.r.meter.done.Add(s.offset)
	_, err = unix.Seek(w.fd, s.offset, 0)
	return err
}

func (w *largeFile) write(p []byte) error {
	if err := writeFull(w.fd, p); err != nil {
		return err
	}
	w.h.Write(p)
	w.at += int64(len(p))
	w.r.meter.moved.Add(int64(len(p)))
	w.r.meter.done.Add(int64(len(p)))
	if w.at-w.step < step || w.at == w.start.meta.size {
		return nil
	}
	writeBack(w.fd, w.step, w.at-w.step)
	w.step = w.at
	return w.r.s.j.put(prefixRecord(w.start.i, w.at, [32]byte(w.h.Sum(nil))))
}

func (w *largeFile) end(hash [32]byte) error {
	if [32]byte(w.h.Sum(nil)) != hash {
		err := w.drop(w.at)
		w.r.mismatch(w.start.i, 0)
		return err
	}
	if err := w.r.s.seal(w.dir, w.name, w.fd, w.start.meta); err != nil {
		return err
	}
	fd := w.fd
	w.fd = -1
	if err := unix.Close(fd); err != nil {
		return err
	}
	if err := w.r.s.j.put(finishedRecord(nil, w.start.i, hash)); err != nil {
		return err
	}
	w.r.finishedFile(w.start.meta.size)
	return nil
}

// drop forgets the file.
func (w *largeFile) drop(counted int64) error {
	w.close()
	w.r.meter.done.Add(-counted)
	err := unix.Unlinkat(w.dir, w.name, 0)
	if err == nil {
		err = w.r.s.j.put(prefixRecord(w.start.i, 0, [32]byte{}))
	}
	return err
}
