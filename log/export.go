package log

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"path/filepath"
)

// Export writes the log as static files as C2SP tlog-tiles has them, into a
// directory of its own: the hash tiles and entry bundles of the newest durable
// checkpoint, and then the checkpoint. What a former export of this log has
// written is completed; full tiles that are there are left alone. A directory
// with another log's checkpoint is refused, and one with a checkpoint that
// contradicts this log is an error that matches ErrFork.
func (l *Log) Export(ctx context.Context, dir string) error {
	if err := l.usable(); err != nil {
		return err
	}
	e := &exporter{Log: l, ctx: ctx, dir: dir, made: make(map[string]bool), head: l.Head()}
	if err := e.run(); err != nil {
		return fmt.Errorf("exporting %s to %s: %w", l.dir, dir, err)
	}
	return nil
}

type exporter struct {
	*Log
	ctx  context.Context
	dir  string
	made map[string]bool // directories that exist
	head Head
}

func (e *exporter) run() error {
	if e.head.Size == 0 {
		return fmt.Errorf("%w: the log has no checkpoint yet", ErrAbsent)
	}
	if err := e.checkFormer(); err != nil {
		return err
	}
	for level := 0; e.head.Size>>(tileHeight*level) > 0; level++ {
		count := e.head.Size >> (tileHeight * level)
		for n := uint64(0); n*tileWidth < count; n++ {
			width := int(min(count-n*tileWidth, tileWidth))
			err := e.file(TilePath(level, n, width), width, func() ([]byte, error) { return e.tree.tile(level, n, width) })
			if err != nil {
				return err
			}
		}
	}
	for n := uint64(0); n*tileWidth < e.head.Size; n++ {
		width := int(min(e.head.Size-n*tileWidth, tileWidth))
		err := e.file(EntriesPath(n, width), width, func() ([]byte, error) { return e.bundle(n, width) })
		if err != nil {
			return err
		}
	}
	return e.disk.WriteFile(filepath.Join(e.dir, "checkpoint"), e.head.Note)
}

// checkFormer makes sure that the directory is empty or has an earlier export
// of this log.
func (e *exporter) checkFormer() error {
	text, err := e.disk.ReadFile(filepath.Join(e.dir, "checkpoint"))
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	former, err := e.verifier.Verify(text)
	if err != nil {
		return fmt.Errorf("%w: the checkpoint there is not of this log: %w", ErrForeign, err)
	}
	if former.Size > e.head.Size {
		return fmt.Errorf("%w: the checkpoint there has %d entries, the log %d", ErrFork, former.Size, e.head.Size)
	}
	root, err := e.Root(former.Size)
	if err != nil {
		return err
	}
	if root != former.Root {
		return fmt.Errorf("%w: the checkpoint of %d entries there is on another branch", ErrFork, former.Size)
	}
	return nil
}

// file writes one tile or bundle, unless it is there. It appears under its
// name only when it is whole; what it replaces partially goes.
func (e *exporter) file(path string, width int, content func() ([]byte, error)) error {
	if err := e.ctx.Err(); err != nil {
		return err
	}
	name := filepath.Join(e.dir, filepath.FromSlash(path))
	if _, err := e.disk.Stat(name); err == nil {
		return nil
	}
	data, err := content()
	if err != nil {
		return err
	}
	parent := filepath.Dir(name)
	if !e.made[parent] {
		if err := e.disk.MkdirAll(parent); err != nil {
			return err
		}
		e.made[parent] = true
	}
	temp := name + ".tmp"
	if err := removeIfThere(e.disk, temp); err != nil {
		return err
	}
	f, err := e.disk.Create(temp)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: %w", temp, err)
	}
	if err := e.disk.Rename(temp, name); err != nil {
		return err
	}
	if width == tileWidth {
		return e.disk.RemoveAll(name + ".p")
	}
	return nil
}

// bundle returns the entry bundle number n.
func (e *exporter) bundle(n uint64, width int) ([]byte, error) {
	b := make([]byte, 0, width*(2+DescriptorSize))
	for i := range uint64(width) {
		index := n*tileWidth + i
		entry, err := e.Entry(index)
		if err == nil {
			err = e.checkLeaf(index, entry)
		}
		if err == nil {
			b, err = AppendBundle(b, entry)
		}
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}

// checkLeaf makes sure that nothing is exported that was not signed.
func (e *exporter) checkLeaf(index uint64, entry []byte) error {
	data, err := e.tree.verifiedTile(0, index/tileWidth)
	if err != nil {
		return err
	}
	if LeafHash(entry) != [hashSize]byte(data[index%tileWidth*hashSize:]) {
		e.mu.RLock()
		loc := e.locs.get(index)
		e.mu.RUnlock()
		return e.damage(index, loc, "it is not the entry that was signed")
	}
	return nil
}
