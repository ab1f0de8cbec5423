// Package disk is the seam between Hearth and the file system that holds its
// stores. All durable state goes through [FS], so that a crash, a torn write
// or a full disk is a function call in a test (package crashfs) and the
// product runs on [OS].
//
// The contract is the kernel's, stated once: WriteAt, Truncate, Allocate and
// PunchHole change what a reader sees at once and what survives a crash only
// after a Datasync of that file returned nil; Create, Rename and Remove are
// durable only after SyncDir of the directory returned nil. A failed Datasync
// says nothing about which of the writes before it survived, and a later one
// that succeeds does not mend that (fsyncgate): the caller must stop trusting
// the file until it has reopened and re-read it.
package disk

import iofs "io/fs"

// File is an open file. Methods may be called from several goroutines.
// Overlapping concurrent writes have no defined order.
type File interface {
	// ReadAt reads len(p) bytes from off; a short read has a non-nil error,
	// io.EOF at the end of the file.
	ReadAt(p []byte, off int64) (int, error)
	// WriteAt writes len(p) bytes at off, extending the file as needed.
	WriteAt(p []byte, off int64) (int, error)
	// Truncate sets the file's size.
	Truncate(size int64) error
	// Allocate reserves space for [off, off+n) so that writing there cannot
	// fail with ENOSPC. The range reads as before (zeros beyond the end, and
	// the file grows to cover it).
	Allocate(off, n int64) error
	// PunchHole frees [off, off+n); it reads as zeros. The size stays.
	PunchHole(off, n int64) error
	// Datasync makes the contents and the size durable.
	Datasync() error
	// WriteBack has the kernel begin to write the contents out, and does not
	// wait: a Datasync later has less to wait for. It makes nothing durable.
	WriteBack()
	// Size returns the file's size.
	Size() (int64, error)
	Close() error
}

// FS is a directory tree. Paths are the host's. Errors match fs.ErrNotExist,
// fs.ErrExist, syscall.ENOSPC and so on with errors.Is, and name the path.
type FS interface {
	// Create makes a new file for reading and writing, mode 0600; an existing
	// one is fs.ErrExist.
	Create(name string) (File, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// OpenRead opens an existing file for reading.
	OpenRead(name string) (File, error)
	// ReadFile returns a whole small file.
	ReadFile(name string) ([]byte, error)
	// WriteFile replaces a small file atomically and durably: after a crash
	// the file holds the old bytes or the new ones; when it returns nil, the
	// new ones.
	WriteFile(name string, data []byte) error
	Rename(oldname, newname string) error
	Remove(name string) error
	RemoveAll(name string) error
	MkdirAll(name string) error
	// List returns the names in a directory, sorted.
	List(dir string) ([]string, error)
	Stat(name string) (iofs.FileInfo, error)
	// SyncDir makes the entries of a directory durable.
	SyncDir(dir string) error
	// Free returns the bytes free to this process and the total of the file
	// system that holds dir.
	Free(dir string) (free, total int64, err error)
}
