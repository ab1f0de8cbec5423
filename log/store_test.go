package log

import (
	"bytes"
	"errors"
	iofs "io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hearth/log/disk/crashfs"
	"hearth/log/seal"
)

func storeOptions(d *crashfs.FS) StoreOptions {
	return StoreOptions{FS: d, Dir: "/drive", Machine: "m", Inline: true, Tiny: true, Logger: slog.New(slog.DiscardHandler)}
}

func mustCloseStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

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

// TestTwoWriters has a log of a second writer, a second key epoch, and reads
// blocks of both.
func TestTwoWriters(t *testing.T) {
	d := crashfs.New(1)
	o := storeOptions(d)
	s := mustCreateStore(t, o)
	second := NewSigner(testSeed(2))
	added := &WriterAdded{Writer: 1, Issue: 1, Log: [32]byte(second.Public()), Capabilities: CapAll}
	if _, err := s.AppendControl(added); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AppendControl(&EpochBegun{Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	first := mustAppend(t, s.Own(), "of epoch 0")
	if err := s.AddReadKey(1, testSeed(3)); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s.Own(), "of epoch 1")
	mustCommit(t, s.Own(), "c")
	lo := Options{FS: d, Dir: "/drive/log-0001", Writer: 1, Signer: second, Keys: s.Keys(), Inline: true, Tiny: true}
	l := mustCreate(t, lo)
	mustAppend(t, l, "of writer 1")
	mustCommit(t, l, "d")
	mustClose(t, l)
	mustCloseStore(t, s)

	s = mustOpenStore(t, o)
	for _, want := range []struct {
		ref   Ref
		plain string
	}{{Ref{0, first}, "of epoch 0"}, {Ref{0, first + 1}, "of epoch 1"}, {Ref{1, 0}, "of writer 1"}} {
		got, err := s.ReadBlock(nil, want.ref, seal.Data)
		if err != nil || string(got) != want.plain {
			t.Fatalf("%v: %q, %v", want.ref, got, err)
		}
	}
	if len(s.Members()) != 2 || len(s.Logs()) != 2 {
		t.Fatal(s.Members())
	}
	if _, err := s.ReadBlock(nil, Ref{2, 0}, seal.Data); !errors.Is(err, ErrAbsent) {
		t.Fatal(err)
	}
	other, err := s.Log(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Append([]byte("x")); !errors.Is(err, ErrReadOnly) {
		t.Fatal(err)
	}
	mustCloseStore(t, s)
}

// TestHeads refuses heads that go back, and keeps the evidence.
func TestHeads(t *testing.T) {
	d := crashfs.New(1)
	s := mustCreateStore(t, storeOptions(d))
	v := s.Own().Verifier()
	signer := NewSigner(s.keysFile.LogSeed)
	mustCommit(t, s.Own(), "a")
	mustCommit(t, s.Own(), "b")
	if err := s.Settle(); err != nil {
		t.Fatal(err)
	}
	known, ok := s.Remembered(v)
	if !ok || known.Size != 3 {
		t.Fatal(known, ok)
	}
	older, err := signer.Sign(2, [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remember(v, older, s.Own().Root); err != nil {
		t.Fatal(err) // it may be on the same branch
	}
	for _, size := range []uint64{3, 7} {
		other, err := signer.Sign(size, [32]byte{byte(size)})
		if err != nil {
			t.Fatal(err)
		}
		err = s.Remember(v, other, func(uint64) ([32]byte, error) { return [32]byte{2}, nil })
		if !errors.Is(err, ErrFork) {
			t.Fatalf("size %d: %v", size, err)
		}
	}
	if forks := s.Forks(); len(forks) != 2 || forks[0].Known != string(known.Note) {
		t.Fatal(forks)
	}
	mustCloseStore(t, s)
	s = mustOpenStore(t, storeOptions(d))
	if len(s.Forks()) != 2 {
		t.Fatal("the evidence was lost")
	}
	mustCloseStore(t, s)
}

// TestRolledBack puts an older copy of the log into a store.
func TestRolledBack(t *testing.T) {
	d := crashfs.New(1)
	o := storeOptions(d)
	s := mustCreateStore(t, o)
	mustCommit(t, s.Own(), "a")
	mustCloseStore(t, s)
	old, err := d.ReadFile("/drive/log-0000/seg/00000000")
	if err != nil {
		t.Fatal(err)
	}
	s = mustOpenStore(t, o)
	mustCommit(t, s.Own(), "b")
	mustCloseStore(t, s)
	if err := d.WriteFile("/drive/log-0000/seg/00000000", old); err != nil {
		t.Fatal(err)
	}
	before := d.Dump()
	if _, err := OpenStore(o); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "truncated") {
		t.Fatal(err)
	}
	if d.Dump() != before {
		t.Fatal("files were changed")
	}
	if err := d.RemoveAll("/drive/log-0000/index"); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(o); !errors.Is(err, ErrRolledBack) {
		t.Fatal(err)
	}
}

func TestStoreRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(d *crashfs.FS) error
		want   error
	}{
		{"not there", func(d *crashfs.FS) error { return d.RemoveAll("/drive") }, ErrForeign},
		{"no keys", func(d *crashfs.FS) error { return d.Remove("/drive/keys") }, ErrForeign},
		{"no log", func(d *crashfs.FS) error { return d.RemoveAll("/drive/log-0000") }, ErrForeign},
		{"another file", func(d *crashfs.FS) error { return d.WriteFile("/drive/drive.json", []byte("{}")) }, ErrDamaged},
		{"newer", func(d *crashfs.FS) error {
			return writeChecked(d, "/drive/drive.json", map[string]any{"format": FormatVersion + 1, "genesis": 7})
		}, ErrNewer},
		{"newer keys", func(d *crashfs.FS) error {
			return writeChecked(d, "/drive/keys", map[string]any{"format": FormatVersion + 1, "writer": "x"})
		}, ErrNewer},
		{"keys of another drive", func(d *crashfs.FS) error {
			other, _, err := newSecrets(bytes.NewReader(make([]byte, 200)))
			if err != nil {
				return err
			}
			return writeChecked(d, "/drive/keys", other)
		}, ErrForeign},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := crashfs.New(1)
			s := mustCreateStore(t, storeOptions(d))
			mustCommit(t, s.Own(), "a")
			mustCloseStore(t, s)
			if err := tt.change(d); err != nil {
				t.Fatal(err)
			}
			before := d.Dump()
			if _, err := OpenStore(storeOptions(d)); !errors.Is(err, tt.want) {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			if d.Dump() != before {
				t.Fatal("files were changed")
			}
		})
	}
}

// TestCreateStoreCrash crashes at every step of creating a drive: either
// there is none, or it can be opened.
func TestCreateStoreCrash(t *testing.T) {
	for step := 0; ; step++ {
		d := crashfs.New(uint64(step))
		d.CrashAfter(step)
		s, err := CreateStore(storeOptions(d), "home")
		done := err == nil
		if done {
			_, _, err = s.Own().Commit([]byte("first"), true)
			done = err == nil
		}
		if d.Down() == nil {
			if err := s.Close(); err == nil {
				return // nothing is left to crash in
			}
		}
		d = d.Crash(uint64(step))
		s, err = OpenStore(storeOptions(d))
		if err != nil {
			if done || !errors.Is(err, ErrForeign) {
				t.Fatalf("step %d: %v", step, err)
			}
			continue
		}
		if s.Own().Size() == 0 {
			t.Fatalf("step %d: no genesis", step)
		}
		mustCloseStore(t, s)
	}
}

func TestCreateStoreNotEmpty(t *testing.T) {
	d := crashfs.New(1)
	if err := d.MkdirAll("/drive"); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteFile("/drive/precious", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateStore(storeOptions(d), "home"); !errors.Is(err, iofs.ErrExist) {
		t.Fatal(err)
	}
	if b, err := d.ReadFile("/drive/precious"); err != nil || string(b) != "x" {
		t.Fatal(err)
	}
}
