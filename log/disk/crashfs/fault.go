package crashfs

import (
	"fmt"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"syscall"
)

// Kind is the kind of an operation.
type Kind uint8

// The operations, named as the methods of disk.FS and disk.File.
const (
	OpCreate Kind = iota
	OpOpen
	OpOpenRead
	OpReadFile
	OpWriteFile
	OpRename
	OpRemove
	OpRemoveAll
	OpMkdirAll
	OpList
	OpStat
	OpSyncDir
	OpFree
	OpReadAt
	OpWriteAt
	OpTruncate
	OpAllocate
	OpPunchHole
	OpDatasync
	OpSize
	OpClose
)

var kindNames = [...]string{
	"create", "open", "openread", "readfile", "writefile", "rename", "remove",
	"removeall", "mkdirall", "list", "stat", "syncdir", "free", "readat",
	"writeat", "truncate", "allocate", "punchhole", "datasync", "size", "close",
}

// String returns the kind in lower case.
func (k Kind) String() string { return kindNames[k] }

// Mutates reports whether operations of the kind change what is there or make
// it durable; a crash right before any other is no different from one after.
func (k Kind) Mutates() bool {
	switch k {
	case OpCreate, OpWriteFile, OpRename, OpRemove, OpRemoveAll, OpMkdirAll,
		OpSyncDir, OpWriteAt, OpTruncate, OpAllocate, OpPunchHole, OpDatasync:
		return true
	}
	return false
}

// Op describes one operation. Len is the number of bytes to read, write,
// allocate or punch; for Truncate, Off is the new size. To is the new name of
// a Rename. Seq counts operations of one FS from 0, Mutation those that change
// something.
type Op struct {
	Kind     Kind
	Path     string
	To       string
	Off, Len int64
	Seq      int
	Mutation int
}

// String formats the operation for a trace.
func (o Op) String() string {
	s := fmt.Sprintf("%d %s %s", o.Seq, o.Kind, o.Path)
	if o.To != "" {
		s += " -> " + o.To
	}
	if o.Off != 0 || o.Len != 0 {
		s += fmt.Sprintf(" [%d +%d]", o.Off, o.Len)
	}
	return s
}

// wrap names the operation and its path in an error. io.EOF is a result and
// stays bare.
func (o Op) wrap(err error) error {
	if err == io.EOF {
		return err
	}
	return &iofs.PathError{Op: o.Kind.String(), Path: o.Path, Err: err}
}

type half uint8

const (
	halfNone half = iota
	halfLost
	halfDone
	halfPart
)

// Fault is what goes wrong with one operation. The zero Fault is None.
type Fault struct {
	half  half
	crash bool
	n     int64
	err   error
}

// None lets the operation run.
var None = Fault{}

// Faults that end the machine: the operation did not happen or did, and this
// and every later one returns ErrCrashed.
var (
	CrashLost = Fault{half: halfLost, crash: true, err: ErrCrashed}
	CrashDone = Fault{half: halfDone, crash: true, err: ErrCrashed}
)

// CrashPartial is a crash after the first n bytes of a write, allocation or
// punch.
func CrashPartial(n int64) Fault {
	return Fault{half: halfPart, crash: true, n: n, err: ErrCrashed}
}

// FailLost makes the operation fail without having happened. A Datasync that
// fails so loses what was unsynced.
func FailLost(err error) Fault { return Fault{half: halfLost, err: err} }

// FailDone makes the operation fail though it happened. A WriteAt says that
// nothing was written, a Create or Open gives no handle.
func FailDone(err error) Fault { return Fault{half: halfDone, err: err} }

// Partial makes a ReadAt, WriteAt, Allocate or PunchHole fail after its first
// n bytes; any other operation fails though it happened.
func Partial(n int64, err error) Fault { return Fault{half: halfPart, n: n, err: err} }

// SyncFailure is what becomes of the page cache when Datasync fails. Either
// way the disk has an arbitrary part of what was unsynced and no later
// Datasync brings the rest.
type SyncFailure uint8

const (
	// DropCache: readers see at once what the disk has.
	DropCache SyncFailure = iota
	// KeepCache: readers of this and later processes go on seeing what was
	// written, as ext4 leaves it, until a Kill evicts the page or a crash ends
	// the pretence. Only writing the bytes again saves them.
	KeepCache
)

// Policy decides the fault of each operation. It is called in the order of the
// operations and under the file system's lock: it must not call the file
// system.
type Policy func(Op) Fault

// First returns a policy that asks each in turn until one names a fault.
func First(ps ...Policy) Policy {
	return func(op Op) Fault {
		for _, p := range ps {
			if f := p(op); f != None {
				return f
			}
		}
		return None
	}
}

// Nth returns a policy that gives f to the nth (from 0) operation that match
// accepts; a nil match accepts all that change something.
func Nth(n int, match func(Op) bool, f Fault) Policy {
	return func(op Op) Fault {
		if match == nil && !op.Kind.Mutates() || match != nil && !match(op) {
			return None
		}
		n--
		if n == -1 {
			return f
		}
		return None
	}
}

// Kinds returns a match for operations of the given kinds.
func Kinds(kinds ...Kind) func(Op) bool {
	return func(op Op) bool {
		for _, k := range kinds {
			if k == op.Kind {
				return true
			}
		}
		return false
	}
}

// Random returns a policy under which each operation that match accepts fails
// with probability p, in a random half, with EIO or, where the kernel would
// say that, ENOSPC. A nil match accepts all that change something.
func Random(seed uint64, p float64, match func(Op) bool) Policy {
	rng := newRand(seed)
	return func(op Op) Fault {
		if match == nil && !op.Kind.Mutates() || match != nil && !match(op) {
			return None
		}
		if rng.Float64() >= p {
			return None
		}
		return randomFault(rng, op)
	}
}

func randomFault(rng *rand.Rand, op Op) Fault {
	err := syscall.EIO
	switch op.Kind {
	case OpCreate, OpWriteFile, OpRename, OpMkdirAll, OpWriteAt, OpAllocate:
		if rng.IntN(2) == 0 {
			err = syscall.ENOSPC
		}
	}
	switch rng.IntN(3) {
	case 0:
		return FailDone(err)
	case 1:
		if op.Len > 1 {
			return Partial(rng.Int64N(op.Len), err)
		}
	}
	return FailLost(err)
}
