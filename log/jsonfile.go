package log

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"hearth/log/disk"

	"github.com/zeebo/blake3"
)

// checkedFile is the form of the small JSON files of a store: Data, and its
// digest so that a rotten byte in a key is an error and not another key.
type checkedFile struct {
	Digest string          `json:"digest"` // hex BLAKE3-256 of Data
	Data   json.RawMessage `json:"data"`
}

func encodeChecked(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	sum := blake3.Sum256(data)
	b, err := json.Marshal(checkedFile{Digest: hex.EncodeToString(sum[:]), Data: data})
	return append(b, '\n'), err
}

func decodeChecked(b []byte, v any) error {
	var f checkedFile
	if err := json.Unmarshal(b, &f); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	sum := blake3.Sum256(f.Data)
	if f.Digest != hex.EncodeToString(sum[:]) {
		return fmt.Errorf("%w: the digest does not match", ErrDamaged)
	}
	// What encodes differently is not what was written, even if it means the
	// same.
	if again, err := json.Marshal(f); err != nil || !bytes.Equal(append(again, '\n'), b) {
		return fmt.Errorf("%w: not as it was written", ErrDamaged)
	}
	if err := json.Unmarshal(f.Data, v); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

func readChecked(d disk.FS, name string, v any) error {
	b, err := d.ReadFile(name)
	if err != nil {
		return err
	}
	if err := decodeChecked(b, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func writeChecked(d disk.FS, name string, v any) error {
	b, err := encodeChecked(v)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return d.WriteFile(name, b)
}
