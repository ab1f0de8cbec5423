package home

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Mount is one line of the record of what to mount when the daemon starts.
type Mount struct {
	Drive string `json:"drive"`
	// Dir is the folder's bytes; a path need not be UTF-8.
	Dir        []byte `json:"dir_bytes"`
	Shown      string `json:"dir"` // for people who read the file
	When       string `json:"when,omitempty"`
	AllowOther bool   `json:"allow_other,omitempty"`
	ReadOnly   bool   `json:"read_only,omitempty"`
}

// Mounts reads the record, oldest mount first.
func (h *Home) Mounts() ([]Mount, error) {
	var m []Mount
	if err := h.read("mounts.json", &m); err != nil {
		return nil, err
	}
	return m, nil
}

// SaveMounts replaces the record.
func (h *Home) SaveMounts(m []Mount) error { return h.write("mounts.json", m) }

// Device says which device this is.
type Device struct {
	Name string `json:"name"`
}

// Device reads who this device is; the first time it is named after the host.
func (h *Home) Device() (Device, error) {
	var d Device
	if err := h.read("device.json", &d); err != nil {
		return Device{}, err
	}
	if d.Name != "" {
		return d, nil
	}
	name, err := os.Hostname()
	if err != nil || name == "" {
		name = "device"
	}
	d.Name = name
	return d, h.write("device.json", d)
}

// Config is what the user may set in config.json; missing values have
// defaults.
type Config struct {
	// Memory bounds what the daemon uses, as "512MiB".
	Memory Size `json:"memory"`
	// Listen is the UDP address for other devices, as ":29443". If it is taken,
	// any port will do.
	Listen string `json:"listen"`
	// Interfaces are those on which devices are looked for; none: all that are
	// up.
	Interfaces []string `json:"interfaces"`
	// Up and Down limit what is exchanged with all other devices together, as
	// "2MiB/s".
	Up   Rate `json:"up"`
	Down Rate `json:"down"`
	// Introduce has devices that share a drive told of each other.
	Introduce Switch `json:"introduce"`
}

const configFile = "config.json"

func defaultConfig() Config { return Config{Memory: DefaultMemory, Listen: DefaultListen} }

// DefaultListen is where devices listen when nothing else is said.
const DefaultListen = ":29443"

// DefaultMemory bounds the daemon when nothing else is said.
const DefaultMemory Size = 512 << 20

// minMemory is what the daemon needs to be of use.
const minMemory Size = 64 << 20

// UnmarshalJSON refuses what is no setting, unlike the decoding of what Hearth
// writes itself: a misspelt one would do nothing.
func (c *Config) UnmarshalJSON(b []byte) error {
	type plain Config
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode((*plain)(c))
}

// Config reads the settings.
func (h *Home) Config() (Config, error) {
	c := defaultConfig()
	if err := h.read(configFile, &c); err != nil {
		return Config{}, err
	}
	return c, c.Check()
}

// Check refuses settings the daemon cannot work with.
func (c Config) Check() error {
	if c.Memory < minMemory {
		return fmt.Errorf("memory is %s; the least is %s", c.Memory, minMemory)
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("listen is %q, not HOST:PORT or :PORT: %w", c.Listen, err)
	}
	return nil
}

// read decodes a file of the home into v; a missing one leaves v as it is.
func (h *Home) read(name string, v any) error {
	path := filepath.Join(h.dir, name)
	b, err := os.ReadFile(path)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// write replaces a file of the home atomically and durably.
func (h *Home) write(name string, v any) (err error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	path := filepath.Join(h.dir, name)
	f, err := os.CreateTemp(h.dir, name+".*.tmp") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(append(b, '\n')); err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	d, err := os.Open(h.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Size is a number of bytes, written as people do: "512MiB", "2G", "1048576".
type Size int64

// units are binary, whichever way they are spelled.
const units = "KMGT"

// ParseSize reads a size.
func ParseSize(s string) (Size, error) {
	num := strings.TrimSpace(s)
	low := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(num), "B"), "I")
	shift := 0
	if low != "" {
		if i := strings.IndexByte(units, low[len(low)-1]); i >= 0 {
			shift = 10 * (i + 1)
			low = low[:len(low)-1]
		}
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(low), 64)
	if err != nil || v < 0 || math.IsNaN(v) || v*float64(int64(1)<<shift) >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is not a size; write one as 512MiB", s)
	}
	return Size(v * float64(int64(1)<<shift)), nil
}

// String formats the size with the largest unit that keeps it readable.
func (s Size) String() string {
	v, unit := float64(s), "B"
	for i := 0; i < len(units) && math.Abs(v) >= 1024; i++ {
		v, unit = v/1024, units[i:i+1]+"iB"
	}
	if unit == "B" || v == math.Trunc(v) {
		return fmt.Sprintf("%.0f%s", v, unit)
	}
	return fmt.Sprintf("%.1f%s", v, unit)
}

// UnmarshalText reads a size from a settings file.
func (s *Size) UnmarshalText(b []byte) error {
	v, err := ParseSize(string(b))
	*s = v
	return err
}

// MarshalText writes a size to a settings file.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
