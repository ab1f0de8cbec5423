package control

import "time"

// ShareRequest makes a share link; with When a strong one, to that version.
type ShareRequest struct {
	Drive string    `json:"drive"`
	Hold  bool      `json:"hold,omitempty"`
	When  string    `json:"when,omitempty"`
	Now   time.Time `json:"now,omitzero"`
}

// ShareAnswer is the link: whoever has it can do what it says.
type ShareAnswer struct {
	Link    string `json:"link"`
	ID      string `json:"id"` // by which it can be revoked
	Hold    bool   `json:"hold,omitempty"`
	Version string `json:"version,omitempty"` // that it names
}

// JoinRequest joins a drive by a link.
type JoinRequest struct {
	Link string `json:"link"`
	As   string `json:"as,omitempty"`
}

// Joined answers it.
type Joined struct {
	Name    string `json:"name"`
	ID      string `json:"id"`
	Hold    bool   `json:"hold,omitempty"`
	Version uint64 `json:"version,omitempty"`
}

// ConnectRequest names a peer by its address.
type ConnectRequest struct {
	Address string `json:"address"`
}

// PeerInfo is a connected device.
type PeerInfo struct {
	Name     string    `json:"name,omitempty"`
	ID       string    `json:"id"` // its public key, in hex
	Address  string    `json:"address"`
	Dialed   bool      `json:"dialed"` // by this device
	RTT      float64   `json:"rtt_ms"`
	Sent     uint64    `json:"sent"`     // bytes
	Received uint64    `json:"received"` // bytes
	Since    time.Time `json:"since"`
	Drives   []string  `json:"drives"` // by their names here
}

// NearbyInfo is a device on the LAN.
type NearbyInfo struct {
	Name      string    `json:"name,omitempty"`
	ID        string    `json:"id"`
	Known     bool      `json:"known"`
	Addresses []string  `json:"addresses"`
	Via       []string  `json:"via"`
	First     time.Time `json:"first"`
	Last      time.Time `json:"last"`
}

// Attempt is one way in which devices are looked for.
type Attempt struct {
	Method    string    `json:"method,omitempty"`
	Interface string    `json:"interface,omitempty"`
	Found     int       `json:"found"`
	Error     string    `json:"error,omitempty"`
	When      time.Time `json:"when"`
}

// NearbyAnswer is who is on the LAN, and how that is known.
type NearbyAnswer struct {
	Devices []NearbyInfo `json:"devices"`
	Tried   []Attempt    `json:"tried"`
	Port    int          `json:"port"` // UDP, of this device
}

// SendRequest sends files and folders, by their absolute paths, to a device.
type SendRequest struct {
	Paths []Path `json:"files"`
	To    string `json:"to,omitempty"` // a name, an id or HOST:PORT; empty: the one that waits
}

// SendEvent is what a sender hears before anything is sent.
type SendEvent struct {
	Device string   `json:"device"`
	Known  bool     `json:"known"`
	Words  []string `json:"words"` // the same four on both sides, if nobody is in between
}

// ReceiveRequest waits for offers.
type ReceiveRequest struct {
	Path      // where received files go
	Yes  bool `json:"yes,omitempty"`  // take everything
	Once bool `json:"once,omitempty"` // end after one transfer
}

// OfferInfo is what somebody wants to send.
type OfferInfo struct {
	ID     string   `json:"id"`
	Device string   `json:"device"` // as it calls itself
	Known  bool     `json:"known"`
	Words  []string `json:"words"`
	Files  int      `json:"files"`
	Dirs   int      `json:"dirs"`
	Bytes  int64    `json:"bytes"`
	Resume bool     `json:"resume,omitempty"`
	Names  Paths    `json:"names"` // some of what is at the top
	More   int      `json:"more,omitempty"`
}

// Transfer is what came of a transfer, on either side.
type Transfer struct {
	Device  string        `json:"device"`
	Names   Paths         `json:"names"` // as they were placed
	Files   int           `json:"files"`
	Dirs    int           `json:"dirs"`
	Bytes   int64         `json:"bytes"`
	Moved   int64         `json:"moved"` // bytes that crossed the network
	Skipped []SkippedFile `json:"skipped"`
}

// SkippedFile was found and not sent.
type SkippedFile struct {
	Path
	Reason string `json:"reason"`
}

// ReceiveEvent is an offer that is to be answered, or what came of one.
type ReceiveEvent struct {
	Offer *OfferInfo `json:"offer,omitempty"`
	Done  *Transfer  `json:"done,omitempty"`
	Error *Error     `json:"error,omitempty"`
}

// AnswerRequest answers an offer.
type AnswerRequest struct {
	ID     string `json:"id"`
	Accept bool   `json:"accept"`
}
