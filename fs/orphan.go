package fs

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"path/filepath"
	"sync"

	"hearth/log"
	"hearth/log/disk"
	"hearth/log/seal"
)

// orphan is an inode without a name that somebody still has open: its records
// leave the tree, so that no version ever holds it, and live here until the
// last reference goes.
type orphan struct{ layer *layer }

func (o *orphan) view() *view { return &view{layers: []*layer{o.layer}} }

// orphan moves an inode's records out of the drive's state; n is its record
// as it shall be. Without references the inode is gone at once. Under mu, with
// no run of it being sealed.
func (d *Drive) orphan(ino Ino, n *inode) error {
	keep := d.refs[ino] > 0
	o := &orphan{layer: new(layer)}
	v := d.live()
	lo, hi := inoRange(ino)
	it := v.scan(lo, hi)
	var keys [][]byte
	for it.next() {
		keys = append(keys, it.key)
		if keep && keyKind(it.key) != kindParent {
			o.layer.put(it.key, it.value)
		}
	}
	if it.err != nil {
		return fmt.Errorf("inode %d: %w", ino, it.err)
	}
	for _, k := range keys {
		d.open.del(k)
	}
	d.inodes--
	if n.isRegular() {
		d.bytes -= n.size
	}
	if keep {
		d.orphans[ino] = o
		o.layer.put(inodeKey(ino), n.encode())
	} else {
		d.dropDirty(ino)
	}
	return nil
}

// dropDirty forgets the unsealed contents of an inode that is gone. Under mu.
func (d *Drive) dropDirty(ino Ino) {
	f := d.dirty[ino]
	if f == nil {
		return
	}
	for _, r := range f.runs {
		d.dirtyBytes -= int64(len(r.data))
		recycle(r.data)
	}
	f.runs = nil
	if f.elem != nil {
		d.dirtyOrder.Remove(f.elem)
		f.elem = nil
	}
	if f.sealing == nil {
		delete(d.dirty, ino)
	}
	d.changed.Broadcast()
}

// adopt gives an orphan's records back to the drive's state: it has a name
// again (linkat of an O_TMPFILE). Its data moves into the log first. The
// caller links it. Under mu, which is released and taken again.
func (d *Drive) adopt(ino Ino) error {
	for {
		o := d.orphans[ino]
		if o == nil {
			return nil
		}
		d.settle(ino)
		var spilled []extent
		err := o.view().extents(ino, 0, MaxSize, func(e extent) bool {
			if e.ref.Writer == spillWriter {
				spilled = append(spilled, e)
			}
			return len(spilled) < 16
		})
		if err != nil {
			return err
		}
		if len(spilled) == 0 {
			break
		}
		d.mu.Unlock()
		moved, err := d.unspill(spilled)
		d.mu.Lock()
		if err != nil {
			return err
		}
		for _, e := range moved {
			if d.orphans[ino] != o {
				return nil
			}
			// Only what still stands where it was read from.
			b, _ := o.layer.m.Get(string(extentKey(ino, e.old.off)))
			if string(b) == string(e.old.encode()) {
				o.layer.put(extentKey(ino, e.old.off), e.new.encode())
			}
		}
	}
	o := d.orphans[ino]
	delete(d.orphans, ino)
	o.layer.m.Scan(func(k string, v []byte) bool {
		if v != nil {
			d.open.put([]byte(k), v)
		}
		return true
	})
	n, err := d.live().inode(ino)
	if err != nil {
		return err
	}
	d.inodes++
	if n.isRegular() {
		d.bytes += n.size
	}
	return nil
}

type movedExtent struct{ old, new extent }

// unspill copies extents from the spill file into the log.
func (d *Drive) unspill(extents []extent) ([]movedExtent, error) {
	out := make([]movedExtent, 0, len(extents))
	for _, e := range extents {
		p := make([]byte, e.length)
		if err := d.spill.read(p, e.ref.Index, int(e.skip), d.store.Keys()); err != nil {
			return nil, err
		}
		index, err := d.appendBlock(seal.Data, p)
		if err != nil {
			return nil, noSpace(err)
		}
		n := extent{off: e.off, ref: log.Ref{Writer: d.writer, Index: index}, length: e.length}
		out = append(out, movedExtent{e, n})
	}
	return out, nil
}

// Ref notes n more references to an inode: open handles, and lookups the
// kernel remembers. An inode without a name lives while it has any.
func (d *Drive) Ref(ino Ino, n uint64) {
	d.mu.Lock()
	d.refs[ino] += int64(n)
	d.mu.Unlock()
}

// Unref drops n references.
func (d *Drive) Unref(ino Ino, n uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refs[ino] -= int64(n)
	if d.refs[ino] > 0 {
		return
	}
	delete(d.refs, ino)
	if o := d.orphans[ino]; o != nil {
		d.settle(ino)
		delete(d.orphans, ino)
		d.dropDirty(ino)
		if len(d.orphans) == 0 {
			if err := d.spill.reset(); err != nil {
				d.logger.Warn("space of deleted files", "drive", d.store.ID(), "error", err)
			}
		}
	}
}

// settle waits until no run of an inode is being sealed, so that its extents
// are all in place. Under mu, which is released while waiting.
func (d *Drive) settle(ino Ino) {
	for {
		f := d.dirty[ino]
		if f == nil || f.sealing == nil {
			return
		}
		d.changed.Wait()
	}
}

// spill holds the sealed blocks of inodes without a name, in a file beside the
// log that does not outlive the drive's opening.
type spill struct {
	disk disk.FS
	path string

	mu     sync.Mutex
	file   disk.File
	size   int64
	blocks []spillBlock
}

type spillBlock struct {
	off  int64
	size int
}

func newSpill(s *log.Store) *spill {
	return &spill{disk: s.FS(), path: filepath.Join(s.Dir(), "spill")}
}

// clear removes what a killed process left: nobody can use it any more, and
// what was deleted must not stay on the disk.
func (s *spill) clear() error {
	if err := s.disk.Remove(s.path); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return fmt.Errorf("data of files without a name: %w", err)
	}
	return nil
}

func (s *spill) append(stored []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		// That could not be removed when the drive was opened.
		if err := s.clear(); err != nil {
			return 0, err
		}
		var err error
		if s.file, err = s.disk.Create(s.path); err != nil {
			return 0, fmt.Errorf("data of files without a name: %w", err)
		}
		s.size, s.blocks = 0, nil
	}
	if _, err := s.file.WriteAt(stored, s.size); err != nil {
		return 0, fmt.Errorf("data of files without a name: %w", err)
	}
	s.blocks = append(s.blocks, spillBlock{s.size, len(stored)})
	s.size += int64(len(stored))
	return uint64(len(s.blocks) - 1), nil
}

func (s *spill) read(dst []byte, index uint64, skip int, keys *seal.Keyring) error {
	s.mu.Lock()
	f := s.file
	if f == nil || index >= uint64(len(s.blocks)) {
		s.mu.Unlock()
		return fmt.Errorf("spilled block %d: %w", index, ErrDamaged)
	}
	b := s.blocks[index]
	s.mu.Unlock()
	stored := make([]byte, b.size)
	if _, err := f.ReadAt(stored, b.off); err != nil {
		return fmt.Errorf("spilled block %d: %w", index, err)
	}
	return keys.OpenRange(dst, seal.Data, stored, skip)
}

// reset gives the space back once no inode uses it.
func (s *spill) reset() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	err := errors.Join(s.file.Close(), s.disk.Remove(s.path))
	s.file, s.size, s.blocks = nil, 0, nil
	return err
}

// dropOrphans ends every inode without a name: the drive closes.
func (d *Drive) dropOrphans() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ino := range d.orphans {
		d.settle(ino)
		delete(d.orphans, ino)
		d.dropDirty(ino)
	}
	return d.spill.reset()
}
