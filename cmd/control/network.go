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
	Up       float64   `json:"up"`       // bytes a second, over the last seconds
	Down     float64   `json:"down"`     // likewise
	Sent     uint64    `json:"sent"`     // bytes
	Received uint64    `json:"received"` // bytes
	Since    time.Time `json:"since"`
	Drives   []string  `json:"drives"` // by their names here
	// By is who introduced it: the public key, in hex, and the name that it has here.
	By     string `json:"introduced_by,omitempty"`
	ByName string `json:"introduced_by_name,omitempty"`
	// Holds is what it says that it has of these, in their order.
	Holds []PeerHolds `json:"holds"`
	// Audits are those of drives that are written here.
	Audits []HolderInfo `json:"audits,omitempty"`
}

// PeerHolds is how much of a drive a device says that it has: of the entries of all
// versions that are known here. It is not verified.
type PeerHolds struct {
	Drive   string  `json:"drive"`
	Entries uint64  `json:"entries"`
	Of      uint64  `json:"of"`
	Percent float64 `json:"percent"`
}

// PeersAnswer is who is connected, and who would not be let in.
type PeersAnswer struct {
	Peers   []PeerInfo    `json:"peers"`
	Banned  []BanInfo     `json:"banned"`
	Refused []RefusedInfo `json:"refused"`
}

// BanInfo is a device that is not spoken to, as it sent what did not verify.
type BanInfo struct {
	Name string    `json:"name,omitempty"`
	ID   string    `json:"id"`
	Why  string    `json:"why"`
	When time.Time `json:"when"`
}

// RefusedInfo is another device that answered where one was known.
type RefusedInfo struct {
	Address  string    `json:"address"`
	Expected string    `json:"expected"` // its public key, in hex
	Name     string    `json:"name,omitempty"`
	Found    string    `json:"found"`
	When     time.Time `json:"when"`
}

// PeersRequest asks who is connected, or changes what is remembered of devices,
// which are given by their names or the beginning of their keys.
type PeersRequest struct {
	Forgive string `json:"forgive,omitempty"`
	Forget  string `json:"forget,omitempty"`
}

// SetRequest changes settings, each KEY=VALUE; none: they are listed.
type SetRequest struct {
	Set []string `json:"set,omitempty"`
}

// Setting is one of the settings of a device.
type Setting struct {
	Key     string `json:"key"`
	Value   string `json:"value"`
	Default bool   `json:"default,omitempty"`
	Pending bool   `json:"pending,omitempty"` // it takes effect when the daemon starts again
	Meaning string `json:"meaning"`
}

// StandingRequest makes the daemon take what others send, or ends that.
type StandingRequest struct {
	On   bool `json:"on"`
	Yes  bool `json:"yes,omitempty"` // from strangers, too
	Path      // where received files go
}

// Receiving says what the daemon takes without being asked.
type Receiving struct {
	Path
	Yes bool `json:"yes,omitempty"` // from strangers, too
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
	Other  string   `json:"other,omitempty"` // the key of another device that is known by its name
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

// ReceiveEvent is an offer that is to be answered, or what came of one. An
// empty one says that it waits.
type ReceiveEvent struct {
	Offer *OfferInfo `json:"offer,omitempty"`
	Done  *Transfer  `json:"done,omitempty"`
	Error *Error     `json:"error,omitempty"`
	// Refused says who was not asked about; it goes on waiting.
	Refused *Error `json:"refused,omitempty"`
}

// AnswerRequest answers an offer.
type AnswerRequest struct {
	ID     string `json:"id"`
	Accept bool   `json:"accept"`
}
