package home

import (
	"testing"
	"time"
)

// The newest audit of each device and drive is kept, and not without bound.
func TestAudits(t *testing.T) {
	var n Network
	when := time.Unix(1e9, 0)
	for i := range 3 * maxAudits {
		when = when.Add(time.Second)
		n.Audit(Audited{Device: Hex{byte(i), byte(i >> 8)}, Drive: Hex{1}, Time: when, Passed: i})
	}
	if len(n.Audits) != maxAudits {
		t.Fatalf("%d audits", len(n.Audits))
	}
	for _, a := range n.Audits {
		if a.Passed < 2*maxAudits {
			t.Fatalf("an old one is kept: %+v", a)
		}
	}
	last := n.Audits[0]
	last.Lost = 7
	n.Audit(last)
	if n.Audits[0] != last || len(n.Audits) != maxAudits {
		t.Fatalf("it was not replaced: %+v", n.Audits[0])
	}
}
