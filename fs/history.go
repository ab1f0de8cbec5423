package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
)

// HistoryNode is one file, directory or symbolic link inside a .history. It is
// used by many goroutines at once. What a name means may change from one lookup
// to the next, but a node that says it is fixed (method Fixed) is part of an
// old version, and never changes but for its permissions.
type HistoryNode interface {
	// Attr returns the attributes; a directory's link count is 1.
	Attr(ctx context.Context) (Attr, error)
	// Lookup finds a name in a directory.
	Lookup(ctx context.Context, name string) (HistoryNode, error)
	// ReadDir lists a directory in an order that does not change, from behind
	// the name after on, until fn returns false.
	ReadDir(ctx context.Context, after string, fn func(DirEntry) bool) error
	// Readlink returns the target of a symbolic link.
	Readlink(ctx context.Context) (string, error)
	// ReadAt reads a file; it reads less than asked only at the end.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	// Getxattr returns an extended attribute.
	Getxattr(ctx context.Context, name string) ([]byte, error)
	// Listxattr returns the names of the extended attributes.
	Listxattr(ctx context.Context) ([]string, error)
	// Mkdir makes a tag in .history/tags, and is ErrReadOnly elsewhere.
	Mkdir(ctx context.Context, c Caller, name string) error
	// Rmdir drops a tag in .history/tags, and is ErrReadOnly elsewhere.
	Rmdir(ctx context.Context, c Caller, name string) error
}

// History returns the .history of a directory. It is nowhere listed, and there
// is none inside it:
//
//	README  log  latest  1h-ago  yesterday  2026-11-22T10.04.05Z
//	@1234/  tags/NAME/  by-file/NAME/  deleted/
//
// Any WHEN is a name in it: versions are directories, all else are symbolic
// links to them.
func (d *Drive) History(ctx context.Context, dir Ino) (HistoryNode, error) {
	a, err := d.Getattr(ctx, dir)
	if err != nil {
		return nil, err
	}
	if !a.IsDir() {
		return nil, ErrNotDir
	}
	if a.Nlink == 0 {
		return nil, fmt.Errorf("directory %d was removed: %w", dir, ErrNotExist)
	}
	return &historyRoot{historyBase{d: d, dir: dir}}, nil
}

// historyBase is what nodes have in common: the drive and the live directory
// whose .history they are in. Its methods are those of a node that has nothing.
type historyBase struct {
	d   *Drive
	dir Ino
}

// attr returns the attributes of a node that is made up: the live directory's
// owner and permissions, and the time of the newest version.
func (b historyBase) attr(mode uint32) (Attr, error) {
	b.d.mu.RLock()
	defer b.d.mu.RUnlock()
	v := b.d.live()
	n, err := v.inode(b.dir)
	if err != nil {
		return Attr{}, err
	}
	perm, err := v.accessOf(b.dir, n)
	if err != nil {
		return Attr{}, err
	}
	at := TimeOf(unixNano(b.d.head.time))
	a := Attr{
		Ino: b.dir, Mode: mode&ModeType | mode&perm.mode&0o777, Nlink: 1, Uid: n.uid, Gid: n.gid,
		Atime: at, Mtime: at, Ctime: at, Btime: n.btime, Version: b.d.head.seq,
	}
	if mode&ModeType == ModeSymlink {
		a.Mode = ModeSymlink | 0o777
	}
	return a, nil
}

func (historyBase) Lookup(context.Context, string) (HistoryNode, error) { return nil, ErrNotDir }

func (historyBase) ReadDir(context.Context, string, func(DirEntry) bool) error { return ErrNotDir }

func (historyBase) Readlink(context.Context) (string, error) { return "", ErrInvalid }

func (historyBase) ReadAt(context.Context, []byte, int64) (int, error) { return 0, ErrIsDir }

func (historyBase) Getxattr(context.Context, string) ([]byte, error) { return nil, ErrNoAttr }

func (historyBase) Listxattr(context.Context) ([]string, error) { return nil, nil }

func (historyBase) Mkdir(context.Context, Caller, string) error { return ErrReadOnly }

func (historyBase) Rmdir(context.Context, Caller, string) error { return ErrReadOnly }

// absent makes errors of resolving a name those of a lookup.
func absent(name string, err error) error {
	if errors.Is(err, ErrNoVersion) || errors.Is(err, ErrInvalid) || errors.Is(err, ErrNotExist) {
		return fmt.Errorf("%s: %w", showPath(name), ErrNotExist)
	}
	return err
}

// historyLink is a symbolic link to a version.
type historyLink struct {
	historyBase
	target string
}

func (n *historyLink) Attr(context.Context) (Attr, error) {
	a, err := n.attr(ModeSymlink)
	a.Size = uint64(len(n.target))
	return a, err
}

func (n *historyLink) Readlink(context.Context) (string, error) { return n.target, nil }

// historyText is a file whose text is made up.
type historyText struct {
	historyBase
	text func(ctx context.Context) (string, error)
	once sync.Once
	body string
	err  error
}

func (n *historyText) load(ctx context.Context) (string, error) {
	n.once.Do(func() { n.body, n.err = n.text(ctx) })
	return n.body, n.err
}

func (n *historyText) Attr(ctx context.Context) (Attr, error) {
	a, err := n.attr(ModeRegular | 0o444)
	if err != nil {
		return a, err
	}
	body, err := n.load(ctx)
	a.Size = uint64(len(body))
	a.Blocks = (a.Size + 511) / 512
	return a, err
}

func (n *historyText) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	body, err := n.load(ctx)
	if err != nil {
		return 0, err
	}
	if off < 0 || off >= int64(len(body)) {
		return 0, io.EOF
	}
	return copy(p, body[off:]), nil
}

// listNames gives names in their order, from behind one on.
func listNames(list []DirEntry, after string, fn func(DirEntry) bool) {
	i, found := slices.BinarySearchFunc(list, after, func(e DirEntry, name string) int {
		switch {
		case e.Name < name:
			return -1
		case e.Name > name:
			return 1
		}
		return 0
	})
	if found {
		i++
	}
	for ; i < len(list); i++ {
		if !fn(list[i]) {
			return
		}
	}
}

// historyCaches remembers what is costly to find out and asked for again and
// again while somebody looks around in .history.
type historyCaches struct {
	mu sync.Mutex
	m  map[historyKey]historyCached

	lastEnd atomic.Uint64 // see lastState

	doorStamp uint64
	doors     map[Ino][]door
}

type historyKey struct {
	kind historyKind
	ino  Ino
}

type historyKind uint8

const (
	cachedLog historyKind = iota
	cachedDocument
	cachedDeleted
)

type historyCached struct {
	stamp uint64
	value any
}

// Bounds of what historyCaches holds.
const (
	historyCacheSize = 32
	doorCacheSize    = 4096
)

// remembered returns what make made for the same stamp, or makes it.
func remembered[T any](c *historyCaches, key historyKey, stamp uint64, make func() (T, error)) (T, error) {
	c.mu.Lock()
	got, ok := c.m[key]
	c.mu.Unlock()
	if ok && got.stamp == stamp {
		return got.value.(T), nil
	}
	v, err := make()
	if err != nil {
		return v, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil || len(c.m) >= historyCacheSize {
		c.m = map[historyKey]historyCached{}
	}
	c.m[key] = historyCached{stamp, v}
	return v, nil
}

func (c *historyCaches) doorsOf(dir Ino, stamp uint64) ([]door, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.doorStamp != stamp {
		return nil, false
	}
	list, ok := c.doors[dir]
	return list, ok
}

func (c *historyCaches) keepDoors(dir Ino, stamp uint64, list []door) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.doors == nil || c.doorStamp != stamp || len(c.doors) >= doorCacheSize {
		c.doors, c.doorStamp = map[Ino][]door{}, stamp
	}
	c.doors[dir] = list
}
