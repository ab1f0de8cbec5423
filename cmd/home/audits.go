package home

import "time"

// Audited is what an audit of a device that holds a drive has found: of so many
// sampled blocks how many were proved to be there, how many were said not to be,
// and how many are lost.
type Audited struct {
	Device  Hex       `json:"device"`
	Drive   Hex       `json:"drive"`
	Time    time.Time `json:"time"`
	Sampled int       `json:"sampled"`
	Passed  int       `json:"passed"`
	Gone    int       `json:"gone"`
	Lost    int       `json:"lost"`
	Problem string    `json:"problem,omitempty"`
}

// maxAudits bounds the record.
const maxAudits = 1024

// Audit puts the result of an audit in the place of the one before it, of the
// same device and drive.
func (n *Network) Audit(a Audited) {
	oldest := 0
	for i := range n.Audits {
		if n.Audits[i].Device == a.Device && n.Audits[i].Drive == a.Drive {
			n.Audits[i] = a
			return
		}
		if n.Audits[i].Time.Before(n.Audits[oldest].Time) {
			oldest = i
		}
	}
	if len(n.Audits) >= maxAudits {
		n.Audits[oldest] = a
		return
	}
	n.Audits = append(n.Audits, a)
}
