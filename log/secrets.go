package log

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math"

	"hearth/log/disk"
)

// secret is 32 bytes that are written in hex.
type secret [32]byte

// MarshalText implements encoding.TextMarshaler.
func (s secret) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(s[:])), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *secret) UnmarshalText(b []byte) error {
	if hex.DecodedLen(len(b)) != len(s) {
		return errors.New("a secret of the wrong length")
	}
	_, err := hex.Decode(s[:], b)
	return err
}

// NoWriter in place of a writer's number: the device writes no log.
const NoWriter Writer = math.MaxUint16

// secrets is the file keys: what nobody but the drive's owner, and those it is
// shared with, may see.
type secrets struct {
	Format    uint16            `json:"format"`
	Writer    Writer            `json:"writer"`                 // which log this device writes, or NoWriter
	LogSeed   secret            `json:"log_seed"`               // Ed25519, signs that log
	OwnerSeed *secret           `json:"owner_seed,omitempty"`   // Ed25519, signs the owner's statements
	Hold      secret            `json:"hold_secret"`            // proves to peers that this device may hold the drive
	Recovery  secret            `json:"recovery_public"`        // Ed25519 public key that signs successions
	HoldEpoch uint32            `json:"hold_epoch,omitempty"`   // of Hold
	ReadKeys  map[uint32]secret `json:"read_keys"`              // by epoch
	Link      *secret           `json:"link_seed,omitempty"`    // opens the boxes of the share link it was joined by
	Holder    *secret           `json:"holder_seed,omitempty"`  // likewise, of a link that lets nobody read
	HoldKeys  map[uint32]secret `json:"hold_secrets,omitempty"` // by epoch, from boxes
	// Made are the read keys of epochs that were begun here. One counts when
	// the log says that its epoch has begun: it is saved before.
	Made map[uint32]secret `json:"made_keys,omitempty"`
	// Ended is the newest epoch of which somebody said that it has no box for
	// this device.
	Ended uint32 `json:"ended_epoch,omitempty"`
}

// PermissionError says that others than its owner can read a file of secrets.
type PermissionError struct {
	Path string
	Mode iofs.FileMode
}

// Error describes the error.
func (e *PermissionError) Error() string {
	return fmt.Sprintf("%s can be read by others (mode %04o)", e.Path, e.Mode.Perm())
}

// Hint says what to do about it.
func (e *PermissionError) Hint() string {
	return fmt.Sprintf("run chmod 600 %s; if others may have read it, the drive is no longer secret from them", e.Path)
}

func newSecrets(random io.Reader) (k *secrets, recovery [32]byte, err error) {
	var owner, read secret
	k = &secrets{Format: FormatVersion, OwnerSeed: &owner}
	for _, s := range []*secret{&owner, &k.LogSeed, &k.Hold, &read, (*secret)(&recovery)} {
		if _, err := io.ReadFull(random, s[:]); err != nil {
			return nil, recovery, fmt.Errorf("making keys: %w", err)
		}
	}
	k.ReadKeys = map[uint32]secret{0: read}
	k.Recovery = publicOf(recovery)
	return k, recovery, nil
}

// publicOf returns the Ed25519 public key of a seed.
func publicOf(seed [32]byte) [32]byte {
	return [32]byte(ed25519Key(seed).Public().(ed25519.PublicKey))
}

func ed25519Key(seed [32]byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(seed[:]) }

// readSecrets reads a file of secrets that nobody else can read.
func readSecrets(d disk.FS, name string) (*secrets, error) {
	info, err := d.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, &PermissionError{Path: name, Mode: info.Mode()}
	}
	var raw json.RawMessage
	if err := readChecked(d, name, &raw); err != nil {
		return nil, err
	}
	if err := checkFormat(raw); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var k secrets
	if err := json.Unmarshal(raw, &k); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, ErrDamaged, err)
	}
	if len(k.ReadKeys) == 0 && k.Writer != NoWriter {
		return nil, fmt.Errorf("%s: %w: no read key", name, ErrDamaged)
	}
	return &k, nil
}

// checkFormat refuses what a newer version has written before anything else
// of it is looked at.
func checkFormat(raw json.RawMessage) error {
	var f struct {
		Format uint64 `json:"format"`
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if f.Format > FormatVersion {
		return fmt.Errorf("%w: it has format %d, this program knows %d", ErrNewer, f.Format, FormatVersion)
	}
	if f.Format == 0 {
		return fmt.Errorf("%w: no format", ErrForeign)
	}
	return nil
}
