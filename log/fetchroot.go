package log

import "errors"

// TileSource is a [Source] that gets hash tiles by themselves.
type TileSource interface {
	// FetchTiles gets the tiles that are needed to verify an entry and are not
	// here. Its errors are those of Fetch.
	FetchTiles(l *Log, index uint64) error
}

// FetchRoot is [Log.Root] of a tree that the head covers, for which a replica
// gets tiles from elsewhere if they are not here: then it may wait for others.
// The error matches ErrMissing if nobody has them.
func (l *Log) FetchRoot(size uint64) ([32]byte, error) {
	root, err := l.Root(size)
	if !l.replica || size == 0 || !errors.Is(err, ErrAbsent) {
		return root, err
	}
	l.mu.RLock()
	source, ok := l.source.(TileSource)
	l.mu.RUnlock()
	if !ok {
		return root, l.missing(size - 1)
	}
	// All complete subtrees of the tree are beside the path of its last entry.
	if err := source.FetchTiles(l, size-1); err != nil {
		return root, err
	}
	return l.Root(size)
}
