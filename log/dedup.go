package log

import (
	"fmt"

	"hearth/log/seal"
)

// AppendDescribed is [Log.Append] of a block whose descriptor the caller has
// computed already, with [Describe], to look for an equal one first.
func (l *Log) AppendDescribed(stored []byte, d Descriptor) (uint64, error) {
	if len(stored) == 0 || len(stored) > seal.MaxStored || int(d.Length) != len(stored) {
		return 0, fmt.Errorf("appending to %s: a block of %d bytes, described as %d", l.dir, len(stored), d.Length)
	}
	return l.appendEntry(describedEntry(stored, d), false)
}

// Present reports whether the log holds the bytes of a block: it has an entry
// there which is one, and it was not dropped.
func (l *Log) Present(index uint64) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return index < l.next && !l.dropped.Contains(index)
}
