package discovery

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// Key is the Ed25519 public key of a device: its name among devices.
type Key = [32]byte

// pseudonym is what a device is called for one hour:
// the first 16 bytes of HMAC-SHA256(secret, "hearth pseudonym" || hour),
// where hour is the number of the hour since 1970 in UTC, 8 bytes big endian.
type pseudonym [16]byte

const pseudonymLabel = "hearth pseudonym"

func pseudonymOf(secret *[32]byte, hour int64) pseudonym {
	mac := hmac.New(sha256.New, secret[:])
	mac.Write([]byte(pseudonymLabel))
	var h [8]byte
	binary.BigEndian.PutUint64(h[:], uint64(hour))
	mac.Write(h[:])
	return pseudonym(mac.Sum(nil)[:16])
}

// hourOf numbers the hour of t. All devices change at the same moment, so that
// the change of one says nothing about it.
func hourOf(t time.Time) int64 {
	sec := t.Unix()
	if sec < 0 { // a clock before 1970: round down, as above it
		return (sec - 3599) / 3600
	}
	return sec / 3600
}

// String is the whole pseudonym, as mDNS carries it.
func (p pseudonym) String() string { return hex.EncodeToString(p[:]) }

// id is short enough to be typed and long enough for one network.
func (p pseudonym) id() string { return hex.EncodeToString(p[:4]) }

// around calls fn with the pseudonyms of the hour before, this and the next:
// the clocks of two devices differ, and nearly always by less than an hour.
func around(secret *[32]byte, hour int64, fn func(pseudonym)) {
	for h := hour - 1; h <= hour+1; h++ {
		fn(pseudonymOf(secret, h))
	}
}
