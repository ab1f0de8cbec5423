package fs

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"

	"hearth/log"
	"hearth/log/seal"
)

// Sealing turns dirty runs into blocks. Long runs are cut by content, so that
// what is written again is found again; short ones share blocks.

const (
	bulkRun   = 32 << 10 // runs from here on are chunked by content
	packBlock = 64 << 10 // short runs share blocks up to this
	sealStep  = 4 << 20  // how much is sealed in one go behind the writers
)

// detached is a run taken out of its file's dirty runs.
type detached struct {
	f      *dirtyFile
	run    run
	orphan *orphan // its inode has no name: the data stays out of the log
}

// detach moves dirty runs, oldest files first, to their files' sealing lists
// until there are limit bytes. Without all, files whose only run is short and
// young stay: more may be written to them. Under mu and sealMu.
func (d *Drive) detach(limit int64, all bool) []detached {
	var out []detached
	var n int64
	for e := d.dirtyOrder.Front(); e != nil && n < limit; {
		f := e.Value.(*dirtyFile)
		e = e.Next()
		o := d.orphans[f.ino]
		if all && o != nil {
			continue // no commit needs it
		}
		for _, r := range f.runs {
			out = append(out, detached{f, r, o})
			n += int64(len(r.data))
		}
		f.sealing, f.runs = f.runs, nil
		d.dirtyOrder.Remove(f.elem)
		f.elem = nil
	}
	return out
}

// place says where a stretch of a file went.
type place struct {
	f      *dirtyFile
	orphan *orphan
	ext    extent
}

// block is plaintext on its way to the log, with what it holds.
type block struct {
	plain  []byte
	places []place
	bulk   bool // worth looking up in the deduplication index
}

// plan cuts detached runs into blocks. Of a run that will go on, the part
// after the last content boundary is left as tail.
func (d *Drive) plan(batch []detached, final bool) (blocks []*block, tails []detached) {
	left := 0 // bytes that are not in a block yet
	for _, it := range batch {
		left += len(it.run.data)
	}
	var pack *block
	flush := func() {
		if pack != nil {
			blocks = append(blocks, pack)
			pack = nil
		}
	}
	share := func(it detached, off uint64, data []byte) {
		if pack != nil && (len(pack.plain)+len(data) > packBlock || pack.places[0].orphan != it.orphan) {
			flush()
		}
		if pack == nil {
			pack = &block{plain: make([]byte, 0, max(len(data), min(packBlock, left)))}
		}
		ext := extent{off: off, skip: uint32(len(pack.plain)), length: uint64(len(data))}
		pack.plain = append(pack.plain, data...)
		pack.places = append(pack.places, place{it.f, it.orphan, ext})
		left -= len(data)
	}
	chunker := d.store.Keys().Chunker()
	for len(batch) > 0 {
		n := contiguous(batch)
		stream := batch[:n]
		batch = batch[n:]
		first, size := stream[0], 0
		for _, it := range stream {
			size += len(it.run.data)
		}
		if size < bulkRun {
			for _, it := range stream {
				share(it, it.run.off, it.run.data)
			}
			continue
		}
		chunker.Reset()
		cuts := cutter{chunker: chunker, runs: stream, final: final}
		off := first.run.off
		for data := cuts.next(); data != nil; data = cuts.next() {
			ext := extent{off: off, length: uint64(len(data))}
			blocks = append(blocks, &block{plain: data, places: []place{{first.f, first.orphan, ext}}, bulk: true})
			off += uint64(len(data))
		}
		for _, rest := range cuts.rest() {
			tails = append(tails, detached{first.f, run{off, rest}, first.orphan})
			off += uint64(len(rest))
		}
	}
	flush()
	return blocks, tails
}

// contiguous returns how many of the first runs of a batch are one stretch of
// one file.
func contiguous(batch []detached) int {
	n := 1
	for n < len(batch) && batch[n].f == batch[0].f && batch[n].run.off == batch[n-1].run.end() {
		n++
	}
	return n
}

// cutter cuts a stretch of a file that stands in several runs by content, as
// if it stood in one.
type cutter struct {
	chunker *seal.Chunker
	runs    []detached
	pos     int // in the first run
	final   bool
}

// next returns the next chunk, nil at the end or when the rest has no boundary
// yet.
func (c *cutter) next() []byte {
	if len(c.runs) == 0 {
		return nil
	}
	data := c.runs[0].run.data[c.pos:]
	c.chunker.Reset()
	n := c.chunker.Next(data, c.final && len(c.runs) == 1)
	if n == 0 && len(c.runs) > 1 {
		// The chunk reaches into the runs that follow: look at them as one.
		data = append(make([]byte, 0, seal.MaxChunk), data...)
		for _, r := range c.runs[1:] {
			data = append(data, r.run.data[:min(len(r.run.data), seal.MaxChunk-len(data))]...)
		}
		c.chunker.Reset()
		n = c.chunker.Next(data, c.final && c.left() == len(data))
	}
	if n == 0 {
		return nil
	}
	for c.pos += n; len(c.runs) > 0 && c.pos >= len(c.runs[0].run.data); c.runs = c.runs[1:] {
		c.pos -= len(c.runs[0].run.data)
	}
	return data[:n:n]
}

// left returns how many bytes are not cut yet.
func (c *cutter) left() int {
	n := -c.pos
	for _, r := range c.runs {
		n += len(r.run.data)
	}
	return n
}

// rest returns what is not cut.
func (c *cutter) rest() [][]byte {
	var out [][]byte
	for i, r := range c.runs {
		if i == 0 {
			out = append(out, r.run.data[c.pos:])
		} else {
			out = append(out, r.run.data)
		}
	}
	return out
}

// sealRuns seals detached runs, appends the blocks and places their extents in
// target, whose state is base. What could not be stored goes back to its file,
// and unless final, the ends of runs that may go on. It returns how many bytes
// are sealed now. Under sealMu.
func (d *Drive) sealRuns(batch []detached, base *view, target *layer, final bool) (sealed int64, err error) {
	if len(batch) == 0 {
		return 0, nil
	}
	blocks, tails := d.plan(batch, final)
	err = d.storeBlocks(blocks)

	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		for _, b := range blocks {
			for _, p := range b.places {
				v, t := base, target
				if p.orphan != nil {
					v, t = p.orphan.view(), p.orphan.layer
				}
				if err = setExtent(v, t, p.f.ino, p.ext); err != nil {
					break
				}
			}
		}
	}
	if err != nil {
		tails = batch
	}
	for _, it := range batch {
		sealed += int64(len(it.run.data))
	}
	for _, it := range batch {
		it.f.sealing = nil
	}
	for _, it := range tails {
		n := it.f.under(it.run.off, it.run.data)
		it.f.join(it.run.off)
		sealed -= int64(n)
		d.enlist(it.f)
	}
	for _, it := range batch {
		recycle(it.run.data)
		if len(it.f.runs) == 0 && it.f.elem == nil {
			delete(d.dirty, it.f.ino)
		}
	}
	d.dirtyBytes -= sealed
	d.changed.Broadcast()
	return sealed, noSpace(err)
}

// enlist puts a file among those with unsealed contents. Under mu.
func (d *Drive) enlist(f *dirtyFile) {
	if f.elem == nil && len(f.runs) > 0 {
		f.elem = d.dirtyOrder.PushBack(f)
		d.dirty[f.ino] = f
	}
}

// storeBlocks seals and appends blocks, several at once, and fills in the
// references of their places.
func (d *Drive) storeBlocks(blocks []*block) error {
	if len(blocks) == 1 {
		return d.storeBlock(blocks[0])
	}
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for _, b := range blocks {
		g.Go(func() error { return d.storeBlock(b) })
	}
	return g.Wait()
}

func (d *Drive) storeBlock(b *block) error {
	buf := blockBuffers.Get().(*[]byte)
	defer blockBuffers.Put(buf)
	stored, err := d.store.Keys().Seal((*buf)[:0], seal.Data, b.plain)
	if err != nil {
		return err
	}
	*buf = stored
	ref := log.Ref{Writer: d.writer}
	if o := b.places[0].orphan; o != nil {
		ref.Writer = spillWriter
		ref.Index, err = d.spill.append(stored)
	} else {
		ref.Index, err = d.appendDeduplicated(stored, b.bulk)
	}
	if err != nil {
		return err
	}
	for i := range b.places {
		b.places[i].ext.ref = ref
	}
	return nil
}

// appendDeduplicated appends a block unless the log has the same one. Sealing
// is deterministic, so equal contents are equal blocks, and a hit is checked
// against the descriptor in the log, not believed.
func (d *Drive) appendDeduplicated(stored []byte, lookup bool) (uint64, error) {
	if !lookup || d.index == nil {
		return d.own.Append(stored)
	}
	desc := log.Describe(stored)
	if index, ok := d.index.find(desc); ok {
		if have, err := d.own.Descriptor(index); err == nil && have == desc && d.own.Present(index) && !d.upkeep.isCondemned(index) {
			return index, nil
		}
	}
	index, err := d.own.AppendDescribed(stored, desc)
	if err == nil {
		d.index.add(desc, index)
	}
	return index, err
}

// setExtent makes an extent part of a file in target, over what base has
// there; base includes target.
func setExtent(base *view, target *layer, ino Ino, e extent) error {
	if err := clearExtents(base, target, ino, e.off, e.end()); err != nil {
		return err
	}
	target.put(extentKey(ino, e.off), e.encode())
	return nil
}

// clearExtents makes [lo, hi) of a file a hole in target.
func clearExtents(base *view, target *layer, ino Ino, lo, hi uint64) error {
	from := uint64(0)
	if lo > maxBlock {
		from = lo - maxBlock
	}
	_, end := kindRange(ino, kindExtent)
	if hi <= MaxSize {
		end = extentKey(ino, hi)
	}
	type edit struct {
		off  uint64
		keep *extent
	}
	var edits []edit
	it := base.scan(extentKey(ino, from), end)
	for it.next() {
		old, err := decodeExtent(uint64(keyOffset(it.key)), it.value)
		if err != nil {
			return fmt.Errorf("inode %d at %d: %w", ino, keyOffset(it.key), err)
		}
		if old.end() <= lo {
			continue
		}
		if old.off < lo {
			left := old.slice(old.off, lo)
			edits = append(edits, edit{old.off, &left})
		} else {
			edits = append(edits, edit{old.off, nil})
		}
		if old.end() > hi {
			right := old.slice(hi, old.end())
			edits = append(edits, edit{hi, &right})
		}
	}
	if it.err != nil {
		return it.err
	}
	for _, e := range edits {
		if e.keep != nil {
			target.put(extentKey(ino, e.off), e.keep.encode())
		} else {
			target.del(extentKey(ino, e.off))
		}
	}
	return nil
}

// sealer seals behind the writers once much is unsealed. It ends with the
// drive.
func (d *Drive) sealer() {
	defer d.wg.Done()
	for {
		select {
		case <-d.stopped.Done():
			return
		case <-d.sealKick:
		}
		// When a step leaves nothing but ends of runs, many of them perhaps, the
		// next one takes them as they are: writers may wait for room, and no
		// commit seals what is written to files without a name.
		progress := true
		for d.stopped.Err() == nil {
			var more bool
			var err error
			progress, more, err = d.sealSome(!progress)
			if err != nil {
				if !errors.Is(err, ErrNoSpace) {
					d.logger.Error("sealing contents", "drive", d.store.ID(), "error", err)
				}
				d.mu.Lock()
				d.changed.Broadcast()
				d.mu.Unlock()
				break
			}
			if !more {
				break
			}
			d.own.CatchUp()
		}
	}
}

// sealSome seals one step; more says that there is still more than lowDirty. With
// whole, the ends of runs are not left for what may be written behind them.
func (d *Drive) sealSome(whole bool) (progress, more bool, err error) {
	d.sealMu.Lock()
	defer d.sealMu.Unlock()
	d.mu.Lock()
	if d.dirtyBytes <= d.lowDirty() {
		d.changed.Broadcast() // the bounds may be wider than when somebody began to wait
		d.mu.Unlock()
		return false, false, nil
	}
	batch := d.detach(sealStep, false)
	// Only a freeze or a thaw replaces the open layer, and both hold sealMu. A
	// commit that ends meanwhile moves records between layers of this view's
	// state without changing it.
	base, target := d.live(), d.open
	d.mu.Unlock()
	sealed, err := d.sealRuns(batch, base, target, whole)
	d.mu.RLock()
	defer d.mu.RUnlock()
	return sealed > 0, len(batch) > 0 && d.dirtyBytes > d.lowDirty(), err
}
