package fs

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"hearth/fs/tree"
	"hearth/log"
	"hearth/log/seal"
)

// What is here of a drive's contents.
//
// On a followed drive, blocks may be elsewhere. Which ones a file consists of,
// its extents say, in pages that are here as far as somebody has wanted them;
// the pages and commits of a tree are never evicted. What is local of a file is
// what a read would get without asking anybody: a block counts that is here, and
// whose extent is on a page that is.

// Blocks are numbers of blocks, by the log they are in.
type Blocks map[log.Writer]*roaring64.Bitmap

// add adds the blocks [first, first+n) of a log.
func (b Blocks) add(w log.Writer, first, n uint64) {
	if b[w] == nil {
		b[w] = roaring64.New()
	}
	b[w].AddRange(first, first+n)
}

// Count returns how many blocks they are.
func (b Blocks) Count() (n uint64) {
	for _, set := range b {
		n += set.GetCardinality()
	}
	return n
}

// blockRun is consecutive blocks, with as many bytes of contents in each.
type blockRun struct {
	writer   log.Writer
	first, n uint64
	bytes    uint64
}

// blockRuns are the blocks of contents, in the order of these.
type blockRuns []blockRun

// add adds an extent. What stands together in a block, or is cut evenly into
// consecutive ones, makes one run.
func (r blockRuns) add(ref log.Ref, bytes uint64) blockRuns {
	if n := len(r); n > 0 {
		last := &r[n-1]
		switch {
		case last.writer != ref.Writer:
		case ref.Index == last.first+last.n && bytes == last.bytes:
			last.n++
			return r
		case ref.Index == last.first && last.n == 1:
			last.bytes += bytes
			return r
		}
	}
	return append(r, blockRun{ref.Writer, ref.Index, 1, bytes})
}

// local returns how many bytes are in blocks on this device.
func (r blockRuns) local(store *log.Store) (bytes uint64) {
	logs := store.Logs()
	for i := range r {
		if l := logs[r[i].writer]; l != nil {
			bytes += l.Held(r[i].first, r[i].n) * r[i].bytes
		}
	}
	return bytes
}

// Contents are the blocks that the contents of a file, or of all files below a
// folder, consist of at a version.
type Contents struct {
	Files  uint64 // a file with several names counts once
	Size   uint64 // of all files, as st_size has it
	Bytes  uint64 // of these, what is in blocks: all but holes
	d      *Drive
	runs   blockRuns
	beside blockRuns // blocks that are needed, too: long extended attributes
	inodes []Ino
}

// Contents finds the blocks of a file or folder. Tree pages that are needed for
// it and are elsewhere are brought here, contents are not.
func (s *Snapshot) Contents(ctx context.Context, ino Ino) (*Contents, error) {
	c := &Contents{d: s.d}
	err := s.gather(ctx, c, ino, map[Ino]struct{}{})
	if err != nil {
		return nil, fmt.Errorf("contents of inode %d at version %v: %w", ino, s.Version, err)
	}
	return c, nil
}

// gather adds an inode, and what is below it.
func (s *Snapshot) gather(ctx context.Context, c *Contents, ino Ino, seen map[Ino]struct{}) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	n, err := s.v.inode(ino)
	if err != nil {
		return err
	}
	if n.isDir() || n.nlink > 1 {
		if _, ok := seen[ino]; ok {
			return nil
		}
		seen[ino] = struct{}{}
	}
	err = s.v.xattrs(ino, func(_ string, record []byte) error {
		x, err := decodeXattr(record)
		if err == nil && x.block {
			c.beside = c.beside.add(x.ref, uint64(x.size))
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case n.isDir():
		return s.gatherBelow(ctx, c, ino, seen)
	case !n.isRegular():
		return nil
	}
	c.Files++
	c.Size += n.size
	c.inodes = append(c.inodes, ino)
	var stopped error
	err = s.v.extents(ino, 0, n.size, func(e extent) bool {
		if e.ref.Writer != spillWriter {
			c.runs = c.runs.add(e.ref, e.length)
			c.Bytes += e.length
		}
		stopped = ctx.Err()
		return stopped == nil
	})
	return errors.Join(err, stopped)
}

// gatherBelow adds what is in a directory. Its pages come in one request for
// many names.
func (s *Snapshot) gatherBelow(ctx context.Context, c *Contents, dir Ino, seen map[Ino]struct{}) error {
	for after := ""; ; {
		s.Prepare(ctx, Walk{Op: WalkList, Ino: dir, Name: after})
		var names []DirEntry
		if err := s.v.entries(dir, after, func(e DirEntry) bool {
			names = append(names, e)
			return len(names) < listAhead
		}); err != nil {
			return err
		}
		for _, e := range names {
			if err := s.gather(ctx, c, e.Ino, seen); err != nil {
				return err
			}
		}
		if len(names) < listAhead {
			return nil
		}
		after = names[len(names)-1].Name
	}
}

// Local returns how many of Bytes are on this device.
func (c *Contents) Local() uint64 { return c.runs.local(c.d.store) }

// Blocks returns the blocks with the contents; with all, also those that are
// needed beside them.
func (c *Contents) Blocks(all bool) Blocks {
	b := Blocks{}
	for _, r := range c.runs {
		b.add(r.writer, r.first, r.n)
	}
	if all {
		for _, r := range c.beside {
			b.add(r.writer, r.first, r.n)
		}
	}
	return b
}

// In returns how many of Bytes are in some blocks.
func (c *Contents) In(b Blocks) (bytes uint64) {
	for _, r := range c.runs {
		set := b[r.writer]
		switch {
		case set == nil:
		case r.n == 1:
			if set.Contains(r.first) {
				bytes += r.bytes
			}
		default:
			n := set.Rank(r.first + r.n - 1)
			if r.first > 0 {
				n -= set.Rank(r.first - 1)
			}
			bytes += n * r.bytes
		}
	}
	return bytes
}

// Evicted tells the kernel that it has to ask for the files again.
func (c *Contents) Evicted() {
	c.d.mu.RLock()
	notifier := c.d.notifier
	c.d.mu.RUnlock()
	if notifier == nil {
		return
	}
	for _, ino := range c.inodes {
		notifier.InvalInode(ino)
	}
}

// nearPages reads the pages that are on this device, and whole, and leaves out
// the others.
type nearPages struct {
	pages
	store *log.Store
	far   *bool // something was left out
}

// ReadPage implements tree.Pages.
func (p nearPages) ReadPage(ref log.Ref) ([]byte, error) {
	b, err := p.store.ReadLocal(nil, ref, seal.Page)
	if errors.Is(err, log.ErrMissing) || errors.Is(err, log.ErrDamaged) {
		*p.far = true
		return nil, tree.ErrSkip
	}
	return b, err
}

const (
	// keepRuns is from how many runs on they are kept for the next
	// time, and keptRuns how many are kept of a version.
	keepRuns = 64
	keptRuns = 1 << 18
)

// localCache has what is local of the files of a snapshot that were asked about.
type localCache struct {
	mu    sync.Mutex
	files map[Ino]*localFile
	runs  int
}

// localFile is a file whose extents are all on pages that are here.
type localFile struct {
	runs     blockRuns
	presence uint64 // of the logs when bytes was counted
	bytes    uint64
}

// localBytes returns how many bytes of a file are on this device. It asks
// nobody. It takes the time to pass over those extents that are here, and from
// the second time on, of a version, that of looking for their blocks.
func (s *Snapshot) localBytes(ino Ino, size uint64) (uint64, error) {
	var presence uint64 // before anything is counted
	for _, l := range s.d.store.Logs() {
		presence += l.Presence()
	}
	s.locals.mu.Lock()
	f := s.locals.files[ino]
	s.locals.mu.Unlock()
	if f != nil && f.presence == presence {
		return f.bytes, nil
	}
	if f != nil {
		return s.locals.put(ino, f.runs, presence, f.runs.local(s.d.store)), nil
	}
	far := false
	near := &view{s.v.layers, s.v.tree.With(nearPages{s.d.pages, s.d.store, &far})}
	var r blockRuns
	if err := near.extents(ino, 0, size, func(e extent) bool {
		r = r.add(e.ref, e.length)
		return true
	}); err != nil {
		return 0, err
	}
	bytes := r.local(s.d.store)
	if !far && len(r) >= keepRuns {
		s.locals.put(ino, r, presence, bytes)
	}
	return bytes, nil
}

// put keeps a file. It returns bytes.
func (c *localCache) put(ino Ino, r blockRuns, presence, bytes uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.files[ino] == nil {
		if c.files == nil || c.runs+len(r) > keptRuns {
			c.files, c.runs = map[Ino]*localFile{}, 0
		}
		c.runs += len(r)
	}
	c.files[ino] = &localFile{r, presence, bytes}
	return bytes
}
