package home

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLocate(t *testing.T) {
	t.Parallel()
	env := func(m map[string]string) func(string) string { return func(k string) string { return m[k] } }
	tests := []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"HEARTH_HOME": "/nowhere/h", "HOME": "/u"}, "/nowhere/h"},
		{map[string]string{"XDG_DATA_HOME": "/nowhere/data", "HOME": "/u"}, "/nowhere/data/hearth"},
		{map[string]string{"XDG_DATA_HOME": "relative", "HOME": "/nowhere"}, "/nowhere/.local/share/hearth"},
		{map[string]string{"HOME": "/nowhere"}, "/nowhere/.local/share/hearth"},
	}
	for _, tt := range tests {
		got, err := Locate(env(tt.env))
		if err != nil || got != tt.want {
			t.Errorf("Locate(%v) = %q, %v; want %q", tt.env, got, err, tt.want)
		}
	}
	if _, err := Locate(env(nil)); err == nil {
		t.Error("Locate with nothing set succeeded")
	}
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "deep", "home")
	if _, err := Open(dir); !errors.Is(err, iofs.ErrNotExist) {
		t.Fatalf("Open of a missing home: %v", err)
	}
	if _, err := Ensure(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "something"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o755, 0o710, 0o701, 0o777, 0o600, 0o500} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		var perm *PermissionError
		if _, err := Ensure(dir); !errors.As(err, &perm) || !errors.Is(err, ErrPermission) || perm.Mend == "" {
			t.Errorf("mode %o: %v", mode, err)
		}
		if st, _ := os.Stat(dir); st.Mode().Perm() != mode {
			t.Errorf("mode %o was changed to %o", mode, st.Mode().Perm())
		}
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	h, err := Ensure(filepath.Join(t.TempDir(), "h"))
	if err != nil {
		t.Fatal(err)
	}
	if h.Locked() {
		t.Fatal("a fresh home is locked")
	}
	l, err := h.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if !h.Locked() || h.LockedBy() != os.Getpid() {
		t.Fatalf("locked %v by %d", h.Locked(), h.LockedBy())
	}
	if _, err := h.Lock(); !errors.Is(err, ErrLocked) {
		t.Fatalf("second lock: %v", err)
	}
	if err := l.Release(); err != nil || h.Locked() {
		t.Fatalf("after release: %v, locked %v", err, h.Locked())
	}
}

func TestSocket(t *testing.T) {
	for _, long := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "h")
		if long {
			dir = filepath.Join(t.TempDir(), strings.Repeat("x", 120))
		}
		t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
		h, err := Ensure(dir)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second replaces what the first, if killed, had left
			l, err := h.Listen()
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv("XDG_RUNTIME_DIR", "/elsewhere") // a client's environment
			if len(h.SocketPath()) > maxSocketPath {
				t.Fatalf("path %s is too long", h.SocketPath())
			}
			st, err := os.Stat(h.SocketPath())
			if err != nil || st.Mode().Perm() != 0o600 {
				t.Fatalf("socket: %v, %v", st, err)
			}
			c, err := net.Dial("unix", h.SocketPath())
			if err != nil {
				t.Fatal(err)
			}
			_ = c.Close()
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			_ = l.Close()
			t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
		}
	}
}

func TestRecords(t *testing.T) {
	t.Parallel()
	h, err := Ensure(filepath.Join(t.TempDir(), "h"))
	if err != nil {
		t.Fatal(err)
	}
	if m, err := h.Mounts(); err != nil || len(m) != 0 {
		t.Fatalf("mounts of a fresh home: %v, %v", m, err)
	}
	want := []Mount{{Drive: "a", Dir: []byte("/x\xff"), Shown: "/x?", When: "@3", ReadOnly: true}, {Drive: "b", Dir: []byte("/y"), Shown: "/y", AllowOther: true}}
	if err := h.SaveMounts(want); err != nil {
		t.Fatal(err)
	}
	got, err := h.Mounts()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v, %v", got, err)
	}
	first, err := h.Device()
	if err != nil || first.Name == "" {
		t.Fatalf("device %v, %v", first, err)
	}
	if again, err := h.Device(); err != nil || again != first {
		t.Fatalf("device %v, then %v, %v", first, again, err)
	}
	names, err := os.ReadDir(h.Dir())
	if err != nil || len(names) != 2 {
		t.Fatalf("files left: %v, %v", names, err)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	h, err := Ensure(filepath.Join(t.TempDir(), "h"))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := h.Config(); err != nil || c.Memory != DefaultMemory {
		t.Fatalf("defaults: %v, %v", c, err)
	}
	for text, ok := range map[string]bool{
		`{"memory": "1GiB"}`: true, `{}`: true, `{"memory": "1KiB"}`: false, `{"memory": 5}`: false, `nonsense`: false, ``: false,
		`{"memory": "1GiB", "memroy": "2GiB"}`: false,
	} {
		if err := os.WriteFile(filepath.Join(h.Dir(), "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Config(); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Size{
		"0": 0, "17": 17, "1k": 1 << 10, "512MiB": 512 << 20, "2 GB": 2 << 30, "1.5K": 1536, " 3T ": 3 << 40, "9B": 9,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "1X", "MiB", "1e99", "NaN", "99999999T"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d", text, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := Size(rapid.Int64Range(0, 1<<50).Draw(t, "size"))
		back, err := ParseSize(s.String())
		if err != nil {
			t.Fatal(err)
		}
		if diff := back - s; diff < -s/10 || diff > s/10 {
			t.Fatalf("%d shows as %s, which is %d", s, s, back)
		}
	})
}

func TestCheckName(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"a", "home", "Fotos-2026", "写真", "a.b_c-d", "9", strings.Repeat("x", 64)} {
		if err := CheckName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "..", ".x", "-x", "a/b", "a:b", "a@b", "a b", "a\nb", "a\x00", "\xff", "e\u0301", strings.Repeat("x", 65)} {
		if err := CheckName(bad); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSimilar(t *testing.T) {
	t.Parallel()
	names := []string{"home", "work", "photos", "photos-old"}
	tests := []struct {
		word string
		want []string
	}{
		{"hom", []string{"home"}}, {"Home", []string{"home"}}, {"hoem", []string{"home"}}, {"wrok", []string{"work"}},
		{"photo", []string{"photos", "photos-old"}}, {"zzz", []string{}}, {"ph", []string{"photos", "photos-old"}},
	}
	for _, tt := range tests {
		if got := Similar(tt.word, names); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("Similar(%q) = %q; want %q", tt.word, got, tt.want)
		}
	}
	if err := Known("home", names); err != nil {
		t.Error(err)
	}
	if err := Known("x", nil); !errors.Is(err, ErrNoDrives) {
		t.Error(err)
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Rate{
		"0": 0, "none": 0, "None": 0, "0/s": 0, "64K": 64 << 10, "2MB/s": 2 << 20, " 1.5 MiB/s ": 3 << 19, "1G": 1 << 30,
	} {
		if got, err := ParseRate(text); err != nil || got != want {
			t.Errorf("ParseRate(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "fast", "-1", "1", "63K", "/s", "1MB/h", "none/s"} {
		if got, err := ParseRate(text); err == nil {
			t.Errorf("ParseRate(%q) = %d", text, got)
		}
	}
	for rate, want := range map[Rate]string{0: "none", 2 << 20: "2MiB/s"} {
		if got := rate.String(); got != want {
			t.Errorf("%d shows as %s", rate, got)
		}
	}
}

// What is in config.json beside what is set stays, and what is wrong in it is
// not hidden.
func TestSet(t *testing.T) {
	t.Parallel()
	h, err := Ensure(filepath.Join(t.TempDir(), "h"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.Dir(), "config.json")
	if err := os.WriteFile(path, []byte(`{"interfaces": ["lo"], "memory": "1234567890"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.Set([]string{"up=1234567/s", "listen=:4711", "name=a b"}); err != nil {
		t.Fatal(err)
	}
	want := Config{Memory: 1234567890, Listen: ":4711", Interfaces: []string{"lo"}, Up: 1234567}
	if c, err := h.Config(); err != nil || !reflect.DeepEqual(c, want) {
		t.Fatalf("%+v, %v", c, err)
	}
	if d, err := h.Device(); err != nil || d.Name != "a b" {
		t.Fatalf("%+v, %v", d, err)
	}
	if err := h.Set([]string{"up=", "memory=", "interfaces=all", "name="}); err != nil {
		t.Fatal(err)
	}
	if c, err := h.Config(); err != nil || c.Up != 0 || c.Memory != DefaultMemory || len(c.Interfaces) != 0 || c.Listen != ":4711" {
		t.Fatalf("%+v, %v", c, err)
	}
	if d, err := h.Device(); err != nil || d.Name == "" || d.Name == "a b" {
		t.Fatalf("%+v, %v", d, err)
	}
	for _, text := range []string{`{"memroy": "1GiB"}`, `{"up": "1B"}`, `nonsense`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := h.Set([]string{"down=1MB/s"}); err == nil {
			t.Errorf("%s was taken", text)
		}
		if b, _ := os.ReadFile(path); string(b) != text {
			t.Errorf("%s became %s", text, b)
		}
	}
}

func TestKnownDevices(t *testing.T) {
	t.Parallel()
	var n Network
	a, b := Hex{1}, Hex{2}
	n.Meet(Acquaintance{Key: a, Name: "laptop", Addresses: []string{"h:1"}, Seen: time.Unix(1, 0)})
	n.Meet(Acquaintance{Key: b, Name: "laptop", Addresses: []string{"h:1"}, Seen: time.Unix(2, 0)})
	if key, ok := n.Named("laptop"); !ok || key != a {
		t.Errorf("laptop is %v, %v: another device took the name", key, ok)
	}
	if key, ok := n.Named("laptop (020000000000)"); !ok || key != b {
		t.Errorf("%+v", n.Devices)
	}
	n.Meet(Acquaintance{Key: a, Name: "desk"})
	if _, ok := n.Named("desk"); !ok {
		t.Error("a device cannot change its name")
	}
	if key, ok := n.At("h:1"); !ok || key != b {
		t.Errorf("the last one at h:1 is %v", key)
	}
	n.Addresses = []string{"h:1", "h:2"}
	n.Pin("h:1", a)
	if key, ok := n.At("h:1"); !ok || key != a {
		t.Errorf("at h:1 is %v, not the one that is pinned", key)
	}
	for i := range 3 * maxDevices {
		n.Pin(fmt.Sprint("x:", i), b)
	}
	if len(n.Pins) > maxDevices || n.Pins["h:1"] != a {
		t.Errorf("%d pins", len(n.Pins))
	}
	gone := n.Forget(a)
	if n.Knows(a) || !n.Knows(b) || len(gone) != 2 || !reflect.DeepEqual(n.Addresses, []string{"h:2"}) {
		t.Errorf("forgotten: %v; %v is left", gone, n.Addresses)
	}

	for i := range 5 {
		n.Ban(Ban{Key: Hex{byte(i)}}, 3)
	}
	n.Ban(Ban{Key: Hex{2}, Why: "again"}, 3)
	if len(n.Banned) != 3 || n.Banned[2].Why != "again" || n.Banned[0].Key != (Hex{3}) {
		t.Errorf("banned: %+v", n.Banned)
	}
	if !n.Forgive(Hex{2}) || n.Forgive(Hex{2}) {
		t.Error("forgiven not once")
	}
}

func TestReceiving(t *testing.T) {
	t.Parallel()
	h, err := Ensure(filepath.Join(t.TempDir(), "h"))
	if err != nil {
		t.Fatal(err)
	}
	want := &Receiving{Dir: []byte("/x\xff"), Shown: "/x?", Yes: true}
	for _, r := range []*Receiving{nil, want, nil} {
		if err := h.SaveReceiving(r); err != nil {
			t.Fatal(err)
		}
		if got, err := h.Receiving(); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if err := os.WriteFile(filepath.Join(h.Dir(), "receive.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := h.Receiving(); err == nil {
		t.Errorf("a record without a folder is %+v", got)
	}
}
