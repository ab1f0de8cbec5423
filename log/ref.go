package log

import "fmt"

// Writer is the number of a writer within a drive, assigned by the owner's
// control entry. The drive's first writer is 0.
type Writer uint16

// Ref names a block of a drive: the entry Index of the log of Writer.
type Ref struct {
	Writer Writer
	Index  uint64
}

// String formats a reference as it appears in messages: "0:1234".
func (r Ref) String() string { return fmt.Sprintf("%d:%d", r.Writer, r.Index) }

// Less orders references by writer, then by position.
func (r Ref) Less(o Ref) bool {
	return r.Writer < o.Writer || r.Writer == o.Writer && r.Index < o.Index
}
