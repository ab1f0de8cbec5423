// Package log keeps signed append-only logs of encrypted blocks: the one
// durable truth of a drive.
//
// It owns the formats of log entries, checkpoints and control entries, the
// Merkle tree and its proofs, and the store on disk: the files of one writer's
// log ([Log]) and of a drive ([Store]). It may import packages seal (what a
// block looks like inside), disk (the file system) and wire (the codec), and
// nothing else of Hearth. It knows nothing of files, directories or versions:
// what is in a block is its user's matter.
//
// # Promises
//
// What [Log.Commit] with sync acknowledged is there after a kill and after
// power loss. What it did not acknowledge may be lost or there, whole commits
// at a time. A block that is returned is the block that was appended: a
// damaged one is an error that matches [ErrDamaged], named by place. Segment
// files are never cut or rewritten because of damage. Everything in a log's
// index directory can be deleted; it is rebuilt from the segments.
//
// # Files of a log
//
//	seg/00000000 ...   segments: frames in log order, at most 64 MiB and a frame
//	index/locs         where each entry's frame is
//	index/hash.0 ...   the Merkle tree, a row of tiles in each
//	index/mark         up to where the index files are durable and trusted
//	dropped            which blocks were dropped here; not an index
//
// Segment files hold a header and frames: a block or control entry, a signed
// checkpoint, descriptors. File frame.go has their layout, recover.go how a
// log is opened after a crash and what tells a torn write from rot, drop.go
// how space comes back and in which order files change.
//
// The log of another device may be here in parts, as a replica: see replica.go.
//
// # Locks of a Log
//
// Taken in this order: commitMu (one commit), spaceMu (one at a time of what
// goes through segments to free space or to verify), dropMu (one change of
// what is dropped), markMu (one writer of index files), appendMu (one appender; held while frames are written but never
// while a file is synced, except at rollover), syncMu (one sync of the tail),
// mu (the state that readers see; never held during disk writes).
package log

import "errors"

// The kinds of errors of this package, matched with errors.Is. [ErrDamaged],
// [ErrNewer], [ErrEntry] and [ErrCheckpoint] belong to them.
var (
	// ErrAbsent: the log has no such entry.
	ErrAbsent = errors.New("no such block")
	// ErrDropped: the block was dropped on purpose; its descriptor is there.
	ErrDropped = errors.New("block was dropped")
	// ErrPoisoned: writing failed in a way that leaves unknown what is on
	// disk. The log can be read, and written again once it was reopened.
	ErrPoisoned = errors.New("log must be reopened after a failed write")
	// ErrForeign: the files are not those of a store, of this store, or not
	// all of them.
	ErrForeign = errors.New("not a Hearth store")
	// ErrFork: two signed heads of one log contradict each other.
	ErrFork = errors.New("log has forked")
	// ErrRolledBack: a log is older than one that was verified before, as
	// after a restore from a backup.
	ErrRolledBack = errors.New("log has lost its newest entries")
	// ErrReadOnly: this device has not the key to write the log.
	ErrReadOnly = errors.New("log of another writer")
	// ErrClosed: the log or store was closed.
	ErrClosed = errors.New("log is closed")
)
