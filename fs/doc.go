// Package fs is the drive: a POSIX file system whose every version is a root
// of a copy-on-write tree inside a signed log.
//
// It owns inodes, directory entries, extents, extended attributes, tags, the
// dirty state over the newest root, commits, and everything that is a read of
// old roots: snapshots, history, undo, restore, diff and the change feed. It
// imports log (blocks, the signed history) and fs/tree (pages), and knows
// nothing of kernels, sockets or command lines: package fs/mount translates
// kernel requests into the methods of [Drive], and decides nothing.
//
// # State
//
// A drive's state is an ordered map from keys to records (keys.go, record.go).
// It is read through layers, newest first:
//
//	open      changes not yet in a commit, in memory
//	frozen    changes being sealed and appended by the commit in flight
//	buffer    the newest commit's root buffer: changes not yet folded into pages
//	pages     the page tree
//
// A commit turns open into frozen, appends data, then pages if the root buffer
// has outgrown its bound, then the commit block, and signs and syncs if
// somebody waits for durability. At most one commit is in flight. File
// contents that are not sealed yet live beside the map, per inode, in dirty
// runs (dirty.go); sealing them puts extent records into the open layer.
//
// # Concurrency
//
// All methods of [Drive], [File] and [Snapshot] may be called from any
// goroutine. One lock guards the layers and dirty runs; no sealing, hashing
// or syncing happens under it.
//
// # What it is not
//
// No permission is checked here: the kernel checks modes and ACLs (the mount
// uses default_permissions), and a program that uses Drive directly is the
// owner.
package fs
