package log

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"hearth/log/disk/crashfs"
	"hearth/log/seal"
)

func mustCreateStore(t testing.TB, o StoreOptions) *Store {
	t.Helper()
	s, err := CreateStore(o, "home")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustOpenStore(t testing.TB, o StoreOptions) *Store {
	t.Helper()
	s, err := OpenStore(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	o := StoreOptions{FS: crashfs.New(1), Dir: "/drive", Machine: "m"}
	s := mustCreateStore(t, o)
	id := s.ID()
	data := mustAppend(t, s.Own(), "hello")
	mustCommit(t, s.Own(), "c1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpenStore(t, o)
	if s.ID() != id || s.Name() != "home" || s.Copied() {
		t.Fatalf("id %s name %q copied %v", s.ID(), s.Name(), s.Copied())
	}
	got, err := s.ReadBlock(nil, Ref{0, data}, seal.Data)
	if err != nil || string(got) != "hello" {
		t.Fatal(string(got), err)
	}
	if h := s.Health(); len(h.Damage) > 0 {
		t.Fatal(h.Damage)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.Machine = "other"
	s = mustOpenStore(t, o)
	if !s.Copied() {
		t.Fatal("moving to another machine went unnoticed")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSecretsOthersCanRead(t *testing.T) {
	o := StoreOptions{Dir: filepath.Join(t.TempDir(), "drive")}
	s := mustCreateStore(t, o)
	mustCommit(t, s.Own(), "c1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(o.Dir, "keys"), 0o644); err != nil {
		t.Fatal(err)
	}
	var perm *PermissionError
	if _, err := OpenStore(o); !errors.As(err, &perm) || perm.Hint() == "" {
		t.Fatal(err)
	}
}
