package control

import "time"

// LinksRequest lists the share links of a drive.
type LinksRequest struct {
	Drive string `json:"drive"`
}

// LinkInfo is a share link that was made.
type LinkInfo struct {
	ID      string    `json:"id"`    // of its key boxes, in hex
	Level   string    `json:"level"` // read or hold
	Made    time.Time `json:"made,omitzero"`
	Revoked bool      `json:"revoked"`
}

// UnshareRequest revokes a share link: by its text, its id, or the beginning of
// that.
type UnshareRequest struct {
	Drive string `json:"drive"`
	Link  string `json:"link"`
}

// Unshared answers it.
type Unshared struct {
	ID    string `json:"id"`
	Level string `json:"level"`
	Epoch uint32 `json:"epoch"` // that began
	Left  int    `json:"left"`  // links that are still valid
}
