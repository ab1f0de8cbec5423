package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hearth/cmd/control"
	"hearth/log"
	"hearth/log/seal"
)

// What is wrong with a log that was written in two places, and with those who
// hold a drive, is said.
func TestForksAndLossesAreSaid(t *testing.T) {
	dir := t.TempDir()
	begin := func(name string, open func(log.StoreOptions) (*log.Store, error)) *log.Store {
		s, err := open(log.StoreOptions{Dir: filepath.Join(dir, name)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	commit := func(s *log.Store, text string) log.Head {
		b, err := s.Keys().Seal(nil, seal.Commit, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		_, head, err := s.Own().Commit(b, true)
		if err != nil {
			t.Fatal(err)
		}
		return head
	}
	s := begin("a", func(o log.StoreOptions) (*log.Store, error) { return log.CreateStore(o, "home") })
	commit(s, "one")
	if err := os.CopyFS(filepath.Join(dir, "b"), os.DirFS(filepath.Join(dir, "a"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "b", "keys"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := begin("b", log.OpenStore)
	commit(s, "two")
	head := commit(other, "another two")
	h := &held{name: "home", store: s}
	if lines := h.health(); len(lines) > 0 {
		t.Fatalf("a healthy store says %q", lines)
	}
	if err := s.Compare(s.Own(), head, nil); err == nil {
		t.Fatal("a fork is none")
	}
	s.NoteOvertaken(head)
	said := strings.Join(h.health(), "\n")
	for _, want := range []string{"has forked", "brought back from a backup"} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q: %s", want, said)
		}
	}
	if list := forks(s); len(list) != 1 || list[0].Other != string(head.Note) {
		t.Errorf("the evidence is %+v", list)
	}

	holders := []control.HolderInfo{
		{Name: "a", ID: "0123456789abcdef", Sampled: 512, Passed: 512},
		{Name: "b", ID: "123456789abcdef0", Sampled: 512, Passed: 500, Gone: 7, Lost: 5},
		{Name: "c", ID: "23456789abcdef01", Problem: "silence"},
	}
	if lines := lost(holders); len(lines) != 1 || !strings.Contains(lines[0], "device b (123456789abc) has LOST 5 of 512") {
		t.Errorf("of lost blocks: %q", lines)
	}
	for i, want := range []string{"has all: proved 512 of 512 sampled blocks",
		"LOST 5 of 512 sampled blocks; has about 97 %: proved 500 of 512 sampled blocks", "no answer: silence"} {
		if got := holders[i].Found(); got != want {
			t.Errorf("it says %q, not %q", got, want)
		}
	}
}
