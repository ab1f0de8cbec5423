package control

// LeaveRequest forgets a drive that was joined. Without Yes it stays if somebody
// may be in need of what is here.
type LeaveRequest struct {
	Drive string `json:"drive"`
	Yes   bool   `json:"yes,omitempty"`
}

// Left answers it. Blocks are counted only where it was asked who else has them.
type Left struct {
	Name     string `json:"name"`
	ID       string `json:"id"`
	Hold     bool   `json:"hold,omitempty"`
	Left     bool   `json:"left"` // it is not here any more
	Freed    int64  `json:"freed_bytes"`
	Blocks   uint64 `json:"blocks,omitempty"`          // that are here
	Unproved uint64 `json:"unproved_blocks,omitempty"` // of these, those that nobody has proved to have
	Asked    int    `json:"asked,omitempty"`           // devices
}
