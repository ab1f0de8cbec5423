package control

// Fetched says what of a path is on this device after a fetch. Bytes and the
// like count contents, without holes.
type Fetched struct {
	Path
	Version
	Files   uint64 `json:"files"`
	Bytes   uint64 `json:"bytes"`
	Local   uint64 `json:"local_bytes"`
	Fetched uint64 `json:"fetched_bytes"` // by this request
}

// Evicted says what an eviction did.
type Evicted struct {
	Path
	Version
	Bytes   uint64 `json:"bytes"`
	Local   uint64 `json:"local_bytes"`   // what is still here
	Evicted uint64 `json:"evicted_bytes"` // by this request
	Freed   int64  `json:"freed_bytes"`   // of disk, with what was waste before
	Asked   int    `json:"asked"`         // how many devices were asked for their copies
	// Reason says why something stays; empty if nothing does.
	Reason string `json:"reason,omitempty"`
}

// PathStatus says what of a path is where.
type PathStatus struct {
	Drive string `json:"drive"`
	Path
	Version
	Files uint64      `json:"files"`
	Size  uint64      `json:"size"`  // with holes
	Bytes uint64      `json:"bytes"` // without
	Local uint64      `json:"local_bytes"`
	Peers []PeerShare `json:"peers"`
}

// PeerShare is how much of a path a connected device says it has.
type PeerShare struct {
	Name    string `json:"name,omitempty"`
	ID      string `json:"id"` // its public key, in hex
	Bytes   uint64 `json:"bytes"`
	Problem string `json:"problem,omitempty"` // why that is not known, or not all
}
