package control

import (
	"fmt"
	"strings"
	"time"
)

// AuditRequest audits the devices that are connected and hold a drive.
type AuditRequest struct {
	Drive string `json:"drive"`
}

// HolderInfo is what the newest audit of a device that holds a drive has found.
// Of the sampled blocks it proved to have Passed, says that Gone are not there,
// and has lost Lost.
type HolderInfo struct {
	Name    string    `json:"name,omitempty"` // of the device
	ID      string    `json:"id"`             // its public key, in hex
	Drive   string    `json:"drive"`
	Time    time.Time `json:"time"`
	Sampled int       `json:"sampled"`
	Passed  int       `json:"passed"`
	Gone    int       `json:"gone"`
	Lost    int       `json:"lost"`
	Problem string    `json:"problem,omitempty"` // why there is no result
}

// Device names the device for people.
func (h *HolderInfo) Device() string {
	id := h.ID[:min(12, len(h.ID))]
	if h.Name == "" {
		return id
	}
	return Show(h.Name) + " (" + id + ")"
}

// Found says in a few words what the audit has found.
func (h *HolderInfo) Found() string {
	blocks := func(n int) string { return fmt.Sprintf("%d of %d sampled blocks", n, h.Sampled) }
	var said []string
	if h.Lost > 0 {
		said = append(said, "LOST "+blocks(h.Lost))
	}
	switch {
	case h.Sampled == 0 && h.Problem == "":
		said = append(said, "nothing to ask for")
	case h.Sampled > 0 && h.Passed == h.Sampled:
		said = append(said, "has all: proved "+blocks(h.Passed))
	case h.Sampled > 0:
		said = append(said, fmt.Sprintf("has about %d %%: proved %s", h.Passed*100/h.Sampled, blocks(h.Passed)))
	}
	if h.Problem != "" {
		said = append(said, "no answer: "+Show(h.Problem))
	}
	return strings.Join(said, "; ")
}

// ForkInfo is the evidence that a log has forked: two signed heads, and what
// proves that neither continues the other.
type ForkInfo struct {
	Log   string `json:"log"`
	Known string `json:"known"`
	Other string `json:"other"`
	Base  string `json:"base,omitempty"`
	Proof string `json:"proof,omitempty"`
}
