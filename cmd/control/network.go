package control

import "time"

// ShareRequest makes a share link.
type ShareRequest struct {
	Drive string `json:"drive"`
	Hold  bool   `json:"hold,omitempty"`
}

// ShareAnswer is the link: whoever has it can do what it says.
type ShareAnswer struct {
	Link string `json:"link"`
	Hold bool   `json:"hold,omitempty"`
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
