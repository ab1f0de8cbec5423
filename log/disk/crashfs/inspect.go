package crashfs

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"syscall"
)

// FileInfo describes a file of the tree.
type FileInfo struct {
	Path   string
	Size   int64
	Blocks int64 // of 4 KiB, allocated
}

// walk calls fn for every file and directory below the root, parents first,
// in name order.
func (c *FS) walk(fn func(path string, n *inode)) {
	var visit func(prefix string, n *inode)
	visit = func(prefix string, n *inode) {
		for _, name := range sortedNames(n.kids.current) {
			kid := n.kids.current[name]
			fn(prefix+"/"+name, kid)
			if kid.isDir() {
				visit(prefix+"/"+name, kid)
			}
		}
	}
	visit("", c.root)
}

// Files returns every file, in path order within each directory. Like the
// other methods of this kind it is no operation of the program under test: it
// works on a machine that is down and meets no faults.
func (c *FS) Files() []FileInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	var files []FileInfo
	c.walk(func(path string, n *inode) {
		if !n.isDir() {
			files = append(files, FileInfo{Path: path, Size: n.cur.size, Blocks: n.cur.blocks})
		}
	})
	return files
}

// Used returns the bytes allocated.
func (c *FS) Used() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used * BlockSize
}

// FlipByte inverts one byte of a file, on the disk and in the cache: rot.
func (c *FS) FlipByte(path string, off int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.findFile(path)
	if err != nil {
		return fmt.Errorf("crashfs: flip a byte of %s: %w", path, err)
	}
	if off < 0 || off >= n.cur.size {
		return fmt.Errorf("crashfs: flip byte %d of %s, which has %d: %w", off, path, n.cur.size, syscall.EINVAL)
	}
	flip := func(f *content) {
		var b [1]byte
		f.read(b[:], off)
		b[0] = ^b[0]
		f.put(b[:], off)
	}
	c.change(n, flip)
	if off < n.dur.size {
		flip(n.dur)
	}
	return nil
}

// Dump returns a line for each file and directory: path, size, and a digest of
// the contents. Two dumps are equal when the trees read the same.
func (c *FS) Dump() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var s strings.Builder
	buf := make([]byte, 64<<10)
	c.walk(func(path string, n *inode) {
		if n.isDir() {
			fmt.Fprintf(&s, "%s/\n", path)
			return
		}
		h := sha256.New()
		for off := int64(0); off < n.cur.size; {
			p := buf[:min(int64(len(buf)), n.cur.size-off)]
			n.cur.read(p, off)
			h.Write(p)
			off += int64(len(p))
		}
		fmt.Fprintf(&s, "%s %d %x\n", path, n.cur.size, h.Sum(nil)[:8])
	})
	return s.String()
}

// Unsynced returns the paths of files with unsynced contents and of
// directories (with a trailing slash) with entries that are not durable.
func (c *FS) Unsynced() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var paths []string
	unsettled := func(n *inode) bool {
		return slices.ContainsFunc(c.pending, func(op *dirOp) bool {
			return slices.ContainsFunc(op.entries, func(e entry) bool { return e.dir == n })
		})
	}
	if unsettled(c.root) {
		paths = append(paths, "/")
	}
	c.walk(func(path string, n *inode) {
		switch {
		case n.isDir() && unsettled(n):
			paths = append(paths, path+"/")
		case !n.isDir() && (len(n.ops) > 0 || n.stale):
			paths = append(paths, path)
		}
	})
	return paths
}

// SyncAll makes everything durable, as sync(1) does.
func (c *FS) SyncAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.walk(func(_ string, n *inode) {
		if !n.isDir() {
			n.sync()
		}
	})
	for len(c.pending) > 0 {
		c.settle(c.pending[0])
	}
}
