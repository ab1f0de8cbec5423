package fs

import (
	"errors"
	"fmt"
	"time"

	"hearth/log"
)

// Ino is an inode number: the writer that made the inode in the top 16 bits,
// a counter that is never reused below. The root directory is RootIno.
type Ino uint64

// RootIno is the root directory of every drive, as FUSE wants it.
const RootIno Ino = 1

// firstIno is the first number a writer hands out. Below it are the root and
// room for inodes the format may want to name.
const firstIno = 16

// Limits of names and attributes, in bytes; Linux's own.
const (
	MaxName    = 255
	MaxSymlink = 4095
	MaxXattr   = 64 << 10
	MaxSize    = 1<<63 - 1
	maxLinks   = 1 << 31
)

// File type bits of a mode, as in Linux's stat.
const (
	ModeType    = 0o170000
	ModeDir     = 0o040000
	ModeRegular = 0o100000
	ModeSymlink = 0o120000
	ModeChar    = 0o020000
	ModeBlock   = 0o060000
	ModeFifo    = 0o010000
	ModeSocket  = 0o140000

	modeSetuid = 0o4000
	modeSetgid = 0o2000
	modeSticky = 0o1000
	modePerm   = 0o7777
)

// Caller is the process that asks. Uid and Gid own what it creates; Pid (0:
// none) decides to which change its work belongs; Umask applies to created
// files that have no default ACL above them.
type Caller struct {
	Uid, Gid, Pid, Umask uint32
}

// Time is a point in time as inodes keep it.
type Time struct {
	Sec  int64
	Nsec uint32
}

// TimeOf converts a time.Time.
func TimeOf(t time.Time) Time { return Time{t.Unix(), uint32(t.Nanosecond())} }

// Std converts to a time.Time in UTC.
func (t Time) Std() time.Time { return time.Unix(t.Sec, int64(t.Nsec)).UTC() }

// Before reports whether t is earlier than o.
func (t Time) Before(o Time) bool {
	return t.Sec < o.Sec || t.Sec == o.Sec && t.Nsec < o.Nsec
}

// Attr is what stat shows.
type Attr struct {
	Ino      Ino
	Mode     uint32 // type and permission bits
	Nlink    uint32
	Uid, Gid uint32
	Rdev     uint32
	Size     uint64
	Blocks   uint64 // units of 512 bytes
	Atime    Time
	Mtime    Time
	Ctime    Time
	Btime    Time
	Version  uint64 // the version that last changed this inode
	Data     uint64 // changes whenever the contents may have: kernel caches are kept while it is equal
}

// IsDir reports whether the inode is a directory.
func (a Attr) IsDir() bool { return a.Mode&ModeType == ModeDir }

// IsRegular reports whether the inode is a regular file.
func (a Attr) IsRegular() bool { return a.Mode&ModeType == ModeRegular }

// SetAttr names the attributes to change; nil ones stay.
type SetAttr struct {
	Mode         *uint32 // permission bits only
	Uid, Gid     *uint32
	Size         *uint64
	Atime, Mtime *Time
	// KillPriv clears setuid and (with group execute) setgid as a write by an
	// unprivileged process does; the kernel says when (FUSE_HANDLE_KILLPRIV_V2).
	KillPriv bool
}

// DirEntry is one name of a directory.
type DirEntry struct {
	Name string
	Ino  Ino
	Type uint32 // file type bits of the mode
}

// Statfs describes the space of a drive.
type Statfs struct {
	BlockSize   uint32
	Blocks      uint64 // total, in BlockSize units, of the file system below
	Free        uint64 // free for the drive, likewise, less the reserve
	Files       uint64 // inodes in use
	FilesFree   uint64
	NameLen     uint32
	LogicalSize uint64 // bytes of file contents
}

// Notifier is told what changed behind the kernel's back (undo, restore,
// purge, tag), after the change and outside all locks.
type Notifier interface {
	// InvalInode drops cached attributes and contents of an inode.
	InvalInode(ino Ino)
	// InvalEntry drops the cached lookup, or non-existence, of a name.
	InvalEntry(parent Ino, name string)
}

// Version names a state of the drive: the Seq-th commit of a writer, from 1.
type Version struct {
	Writer log.Writer
	Seq    uint64
}

// String formats a version as WHEN notation: "@1234", "@2.1234" of writer 2.
func (v Version) String() string {
	if v.Writer == 0 {
		return fmt.Sprintf("@%d", v.Seq)
	}
	return fmt.Sprintf("@%d.%d", v.Writer, v.Seq)
}

// Errors of this package. The kernel adapter maps each to one errno.
var (
	ErrNotExist     = errors.New("no such file or directory")
	ErrExist        = errors.New("file exists")
	ErrNotDir       = errors.New("not a directory")
	ErrIsDir        = errors.New("is a directory")
	ErrNotEmpty     = errors.New("directory not empty")
	ErrInvalid      = errors.New("invalid argument")
	ErrNameTooLong  = errors.New("name too long")
	ErrNoSpace      = errors.New("no space left on device")
	ErrNoAttr       = errors.New("no such attribute")
	ErrTooBig       = errors.New("file too large")
	ErrAttrTooBig   = errors.New("attribute too large")
	ErrReadOnly     = errors.New("read-only")
	ErrPerm         = errors.New("operation not permitted")
	ErrTooManyLinks = errors.New("too many links")
	ErrNotSupported = errors.New("operation not supported")
	ErrNoData       = errors.New("no data at or after this offset") // SEEK_DATA, SEEK_HOLE past the end
	ErrStale        = errors.New("stale inode")
	ErrBadHandle    = errors.New("bad file handle")
	ErrDamaged      = errors.New("stored data is damaged")
	ErrNoVersion    = errors.New("no such version")
	ErrConflict     = errors.New("later changes overlap")
	ErrBusy         = errors.New("busy")
	ErrNothing      = errors.New("nothing to do")
)
