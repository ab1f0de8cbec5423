package replicate

import (
	"errors"
	"testing"

	"hearth/log"
)

// A PROBE that would have a peer read too much is refused, whatever it says.
func TestProbeLimits(t *testing.T) {
	many := func(n int, c slice) (all []slice) {
		for i := range n {
			all = append(all, slice{uint64(i), c.off, c.n})
		}
		return all
	}
	for name, c := range map[string]struct {
		slices []slice
		ok     bool
	}{
		"an audit":            {many(auditSamples, slice{off: 99, n: auditSlice}), true},
		"whole blocks":        {many(probeEntries, slice{n: 256 << 10}), true},
		"one block more":      {many(probeEntries+1, slice{n: 256 << 10}), false},
		"too many":            {many(maxSlices+1, slice{n: 1}), false},
		"nothing of an entry": {many(1, slice{}), false},
		"beyond any entry":    {many(1, slice{off: maxMessage + 1, n: 1}), false},
		"more than an entry":  {many(1, slice{n: maxMessage + 1}), false},
	} {
		q := &request{typ: msgProbe, log: logName{drive: log.DriveID{1}}, slices: c.slices}
		got, err := decodeRequest(message{msgProbe, q.encode()[5:]})
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
		if c.ok && len(got.slices) != len(c.slices) {
			t.Errorf("%s: %d slices", name, len(got.slices))
		}
	}
}
