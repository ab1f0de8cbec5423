package tree

import (
	"errors"
	"fmt"
	"sync/atomic"

	"hearth/log"
)

// Limits of the format.
const (
	MaxKey = 300 // longest key, in bytes
	// MaxValue is the longest value, in bytes: an inode record with the longest
	// symbolic link's target, and three of them to a page.
	MaxValue  = 4<<10 + 256
	MaxPage   = 16 << 10 // largest page, in bytes
	MaxHeight = 12       // highest tree
)

// Errors of the package, matched with errors.Is.
var (
	// ErrDamaged: a page is not what the format allows. Errors that name a page
	// are of type [*DamageError].
	ErrDamaged = errors.New("damaged tree page")
	// ErrTooLarge: a change has a key or a value beyond the limits.
	ErrTooLarge = errors.New("key or value too large")
	// ErrUnsorted: the changes given to Apply are not in strictly ascending
	// order of their keys.
	ErrUnsorted = errors.New("changes not sorted by key")
)

// DamageError says which page is damaged and how. It matches [ErrDamaged].
type DamageError struct {
	Ref    log.Ref
	Reason string
}

// Error implements error.
func (e *DamageError) Error() string {
	return fmt.Sprintf("%v %s: %s", ErrDamaged, e.Ref, e.Reason)
}

// Is reports whether target is [ErrDamaged].
func (e *DamageError) Is(target error) bool { return target == ErrDamaged }

// Pages is where pages are kept. Both methods may be called from several
// goroutines at once.
type Pages interface {
	// ReadPage returns the plaintext of the page at ref. The tree keeps the
	// slice; nobody may change it afterwards.
	ReadPage(ref log.Ref) ([]byte, error)
	// AppendPage stores a page and returns where. It must not change plain,
	// and must copy what it wants to keep: the tree keeps plain in its cache.
	// A page need not be durable when AppendPage returns, only readable.
	AppendPage(plain []byte) (log.Ref, error)
}

// ErrSkip is what a reader of pages returns for one whose entries an [Iter] is to
// leave out.
var ErrSkip = errors.New("page left out")

// Root names a whole tree. The zero value is the empty tree.
type Root struct {
	Ref    log.Ref // the topmost page; ignored when Height is 0
	Height uint8   // 0: empty; 1: Ref is a leaf
}

// Tree reads one immutable tree, and derives others from it.
type Tree struct {
	pages Pages
	cache *Cache
	root  Root
	// top keeps the topmost page out of the cache's reach: every Get wants it.
	top atomic.Pointer[node]
}

// New returns the tree at root. It reads nothing. Trees over the same pages
// should share a cache; a nil cache keeps nothing but the topmost page.
func New(p Pages, c *Cache, root Root) *Tree {
	if root.Height == 0 {
		root = Root{}
	}
	return &Tree{pages: p, cache: c, root: root}
}

// With returns the same tree with another reader of pages, and the same cache.
func (t *Tree) With(p Pages) *Tree { return New(p, t.cache, t.root) }

// Root returns what names the tree.
func (t *Tree) Root() Root { return t.root }

// Get returns the value of key. The value is never nil when found, and aliases
// the cached page: it may be kept, but not modified.
func (t *Tree) Get(key []byte) (value []byte, found bool, err error) {
	if t.root.Height == 0 {
		return nil, false, nil
	}
	n, err := t.topNode()
	for err == nil && n.height > 1 {
		n, err = t.load(n.child(n.childFor(key)), n.height-1)
	}
	if err != nil {
		return nil, false, err
	}
	i, found := n.find(key)
	if !found {
		return nil, false, nil
	}
	return n.value(i), true, nil
}

// topNode returns the topmost page of a tree that is not empty.
func (t *Tree) topNode() (*node, error) {
	if n := t.top.Load(); n != nil {
		return n, nil
	}
	if t.root.Height > MaxHeight {
		return nil, &DamageError{t.root.Ref, fmt.Sprintf("root height %d", t.root.Height)}
	}
	n, err := t.load(t.root.Ref, t.root.Height)
	if err != nil {
		return nil, err
	}
	t.top.Store(n)
	return n, nil
}

// load returns the page at ref, which must have the given height.
func (t *Tree) load(ref log.Ref, height uint8) (*node, error) {
	n := t.cache.get(ref)
	if n == nil {
		var err error
		if n, err = t.cache.fill(ref, t.pages); err != nil {
			return nil, err
		}
	}
	if n.height != height {
		return nil, &DamageError{ref, fmt.Sprintf("height %d where %d belongs", n.height, height)}
	}
	return n, nil
}

// readNode reads and validates one page.
func readNode(p Pages, ref log.Ref) (*node, error) {
	data, err := p.ReadPage(ref)
	if err != nil {
		return nil, fmt.Errorf("tree page %s: %w", ref, err)
	}
	n, reason := parse(data)
	if n == nil {
		return nil, &DamageError{ref, reason}
	}
	return n, nil
}
