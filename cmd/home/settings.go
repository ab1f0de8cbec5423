package home

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"hearth/cmd/control"
)

// Rate is a number of bytes a second, as "2MiB/s"; 0 is no limit.
type Rate int64

// MinRate is the least limit: with less, a block would take so long that the
// other side takes this one for dead.
const MinRate Rate = 64 << 10

// ParseRate reads a rate: a size, with or without "/s"; "none" and "0" are no
// limit.
func ParseRate(s string) (Rate, error) {
	text := strings.TrimSpace(s)
	if strings.EqualFold(text, "none") {
		return 0, nil
	}
	if low := strings.ToLower(text); strings.HasSuffix(low, "/s") {
		text = text[:len(text)-2]
	}
	n, err := ParseSize(text)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is not a rate; write one as 2MiB/s, or none", s)
	case n != 0 && Rate(n) < MinRate:
		return 0, fmt.Errorf("%s is too little; the least is %s", Rate(n), MinRate)
	}
	return Rate(n), nil
}

// String formats the rate.
func (r Rate) String() string {
	if r == 0 {
		return "none"
	}
	return Size(r).String() + "/s"
}

// UnmarshalText reads a rate from a settings file.
func (r *Rate) UnmarshalText(b []byte) error {
	v, err := ParseRate(string(b))
	*r = v
	return err
}

// MarshalText writes a rate to a settings file.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// setting is one thing that can be set.
type setting struct {
	key, meaning string
	// live: a running daemon heeds a change at once.
	live bool
	show func(Config) string
	// parse checks a text and returns what config.json is to have.
	parse func(string) (any, error)
}

// nameKey is the one setting that is not in config.json.
const nameKey = "name"

// maxDeviceName is what others are told of a device's name, in bytes.
const maxDeviceName = 64

// settings are all of them, in the order in which they are listed.
var settings = []setting{
	{key: nameKey, live: true, meaning: "what others call this device"},
	{key: "up", live: true, meaning: "the most that is sent to other devices, a second; none: no limit",
		show: func(c Config) string { return c.Up.String() }, parse: parseRate},
	{key: "down", live: true, meaning: "the most that is received from other devices, a second; none: no limit",
		show: func(c Config) string { return c.Down.String() }, parse: parseRate},
	{key: "listen", meaning: "the UDP address for other devices, [HOST]:PORT",
		show: func(c Config) string { return c.Listen }, parse: parseListen},
	{key: "interfaces", meaning: "the network interfaces on which devices are looked for, with commas; all: all that are up",
		show: showInterfaces, parse: parseInterfaces},
	{key: "introduce", live: true, meaning: "on: devices that share a drive with this one are told of each other, and of this one",
		show: func(c Config) string { return c.Introduce.String() }, parse: parseSwitch},
	{key: "memory", meaning: "the most memory that the daemon uses",
		show: func(c Config) string { return c.Memory.String() }, parse: parseMemory},
}

// parseRate keeps the text: written anew, a rate would be rounded.
func parseRate(s string) (any, error) {
	_, err := ParseRate(s)
	return strings.TrimSpace(s), err
}

// Switch is on or off. The zero value is on.
type Switch struct{ Off bool }

// String formats the switch.
func (s Switch) String() string {
	if s.Off {
		return "off"
	}
	return "on"
}

// UnmarshalText reads a switch from a settings file.
func (s *Switch) UnmarshalText(b []byte) error {
	text := string(b)
	if text != "on" && text != "off" {
		return fmt.Errorf("%q is neither on nor off", text)
	}
	s.Off = text == "off"
	return nil
}

// MarshalText writes a switch to a settings file.
func (s Switch) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func parseSwitch(s string) (any, error) {
	var v Switch
	err := v.UnmarshalText([]byte(s))
	return s, err
}

func parseMemory(s string) (any, error) {
	n, err := ParseSize(s)
	if err == nil {
		err = Config{Memory: n, Listen: DefaultListen}.Check()
	}
	return strings.TrimSpace(s), err
}

func parseListen(s string) (any, error) {
	_, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return nil, fmt.Errorf("%q is not HOST:PORT or :PORT", s)
	}
	return s, nil
}

const allInterfaces = "all"

func showInterfaces(c Config) string {
	if len(c.Interfaces) == 0 {
		return allInterfaces
	}
	return strings.Join(c.Interfaces, ",")
}

func parseInterfaces(s string) (any, error) {
	names := []string{}
	if s == allInterfaces {
		return names, nil
	}
	for _, name := range strings.Split(s, ",") {
		name = strings.TrimSpace(name)
		if name == "" || len(name) > 15 || strings.ContainsAny(name, "/ ") { // IFNAMSIZ
			return nil, fmt.Errorf("%q is not a list of interfaces; write one as eth0,wlan0", s)
		}
		names = append(names, name)
	}
	return names, nil
}

// checkDeviceName refuses a name that others could not be shown as it is.
func checkDeviceName(s string) error {
	switch {
	case len(s) > maxDeviceName:
		return fmt.Errorf("a device's name has at most %d bytes", maxDeviceName)
	case !utf8.ValidString(s), strings.TrimSpace(s) != s, strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("%q has letters that cannot be shown, or blanks around it", s)
	}
	return nil
}

// Settings lists the settings with their values.
func (h *Home) Settings() ([]control.Setting, error) {
	c, err := h.Config()
	if err != nil {
		return nil, settingsProblem(h, err)
	}
	d, err := h.Device()
	if err != nil {
		return nil, err
	}
	var given map[string]json.RawMessage
	if err := h.read(configFile, &given); err != nil {
		return nil, err
	}
	list := make([]control.Setting, 0, len(settings))
	for _, s := range settings {
		one := control.Setting{Key: s.key, Meaning: s.meaning}
		if s.key == nameKey {
			one.Value = d.Name
		} else {
			_, here := given[s.key]
			one.Value, one.Default = s.show(c), !here
		}
		list = append(list, one)
	}
	return list, nil
}

func settingsProblem(h *Home, err error) error {
	return control.Failed("mend or remove the file config.json in "+h.Dir(), "settings: %w", err)
}

// Set changes settings, each given as KEY=VALUE; an empty value is the default.
// If one of them is refused, with a usage error, none is changed.
func (h *Home) Set(pairs []string) error {
	config, name, err := h.changed(pairs)
	if err != nil {
		return err
	}
	if config != nil {
		if err := h.write(configFile, config); err != nil {
			return err
		}
	}
	if name == nil {
		return nil
	}
	return h.write("device.json", Device{Name: *name})
}

// changed returns what the files of the settings are to have; nil: as it is.
func (h *Home) changed(pairs []string) (config map[string]any, name *string, err error) {
	before := map[string]json.RawMessage{}
	if err := h.read(configFile, &before); err != nil {
		return nil, nil, settingsProblem(h, err)
	}
	after := map[string]any{}
	for k, v := range before {
		after[k] = v
	}
	seen := map[string]bool{}
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, nil, control.Usage("write it as KEY=VALUE; `hearth set` lists the keys", "%s has no =", control.Show(pair))
		}
		s, err := find(key)
		if err != nil {
			return nil, nil, err
		}
		if seen[key] {
			return nil, nil, control.Usage("", "%s is set twice", key)
		}
		seen[key] = true
		if key == nameKey {
			if err := checkDeviceName(value); err != nil {
				return nil, nil, control.Usage("choose another name", "name: %w", err)
			}
			name = &value
			continue
		}
		config = after
		if value == "" {
			delete(after, key)
			continue
		}
		if after[key], err = s.parse(value); err != nil {
			return nil, nil, control.Usage(key+" is "+s.meaning, "%s: %w", key, err)
		}
	}
	if config == nil {
		return nil, name, nil
	}
	// What was there already may be wrong, too.
	b, err := json.Marshal(config)
	if err != nil {
		return nil, nil, err
	}
	c := defaultConfig()
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, nil, settingsProblem(h, err)
	}
	if err := c.Check(); err != nil {
		return nil, nil, settingsProblem(h, err)
	}
	return config, name, nil
}

func find(key string) (setting, error) {
	i := slices.IndexFunc(settings, func(s setting) bool { return s.key == key })
	if i >= 0 {
		return settings[i], nil
	}
	var keys []string
	for _, s := range settings {
		keys = append(keys, s.key)
	}
	hint := "`hearth set` lists them"
	if near := Similar(key, keys); len(near) > 0 {
		hint = "did you mean " + near[0] + "?"
	}
	return setting{}, control.Usage(hint, "there is no setting %s", control.Show(key))
}

// Pending are the settings that a daemon which began with one configuration
// would need to be started again for.
func Pending(began, now Config) []string {
	var keys []string
	for _, s := range settings {
		if !s.live && s.show(began) != s.show(now) {
			keys = append(keys, s.key)
		}
	}
	return keys
}

// Receiving says that the daemon takes what others send.
type Receiving struct {
	// Dir is the folder's bytes; a path need not be UTF-8.
	Dir   []byte `json:"dir_bytes"`
	Shown string `json:"dir"`           // for people who read the file
	Yes   bool   `json:"yes,omitempty"` // from strangers, too
}

// Receiving reads the record; nil if the daemon takes nothing.
func (h *Home) Receiving() (*Receiving, error) {
	var r *Receiving
	err := h.read("receive.json", &r)
	if err == nil && r != nil && len(r.Dir) == 0 {
		err = errors.New("receive.json names no folder")
	}
	if err != nil {
		return nil, control.Failed("`hearth receive --off` removes it", "%w", err)
	}
	return r, nil
}

// SaveReceiving replaces the record; nil ends it.
func (h *Home) SaveReceiving(r *Receiving) error { return h.write("receive.json", r) }
