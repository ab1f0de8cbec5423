package log

import (
	"fmt"
	"math"
	"path/filepath"
)

// NoEntry is the Index of damage that is not about one entry.
const NoEntry = math.MaxUint64

// Damage describes stored bytes that are not what was written.
type Damage struct {
	Writer  Writer
	Index   uint64 // the entry, or NoEntry
	Segment uint32 // where, if File is a segment
	Offset  int64
	File    string // path of the file
	Detail  string // what is wrong, for people
}

// String describes the damage in one line.
func (d Damage) String() string {
	what := "file " + filepath.Base(d.File)
	if d.Index != NoEntry {
		what = "block " + Ref{d.Writer, d.Index}.String()
	}
	return fmt.Sprintf("%s: %s (%s at %d)", what, d.Detail, d.File, d.Offset)
}

// DamageError is returned when what is asked for is damaged. It matches
// [ErrDamaged].
type DamageError struct{ Damage }

// Error describes the damage.
func (e *DamageError) Error() string { return "damaged " + e.Damage.String() }

// Is reports whether target is ErrDamaged.
func (e *DamageError) Is(target error) bool { return target == ErrDamaged }
