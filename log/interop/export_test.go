package interop

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"hearth/log"
)

// What `hearth export` writes passes, with nothing known beforehand but the
// drive's id: the key that signed is in the genesis entry, whose hash is the id.
func TestFsckPassesAfterHearthExport(t *testing.T) {
	hearth, home := filepath.Join(t.TempDir(), "hearth"), filepath.Join(t.TempDir(), "home")
	build := exec.Command("go", "build", "-o", hearth, "./cmd/hearth")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build hearth: %v\n%s", err, out)
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(hearth, args...)
		cmd.Env = append(os.Environ(), "HEARTH_HOME="+home)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("hearth %v: %v\n%s", args, err, stderr.String())
		}
		return string(bytes.TrimSpace(out))
	}
	id := run("create", "home")
	t.Cleanup(func() { run("stop") })
	dir := filepath.Join(t.TempDir(), "export")
	run("export", "home", dir)

	width := 256
	bundle, err := os.ReadFile(filepath.Join(dir, log.EntriesPath(0, width)))
	for err != nil && width > 1 { // the first bundle of a new drive is partial
		width--
		bundle, err = os.ReadFile(filepath.Join(dir, log.EntriesPath(0, width)))
	}
	if err != nil {
		t.Fatal(err)
	}
	entries, err := log.ParseBundle(bundle, width)
	if err != nil {
		t.Fatal(err)
	}
	_, control, err := log.ParseEntry(entries[0])
	if err != nil {
		t.Fatal(err)
	}
	genesis, ok := control.(*log.Genesis)
	if !ok {
		t.Fatalf("the first entry is a %T", control)
	}
	if got := genesis.DriveID().String(); got != id {
		t.Errorf("the genesis is that of drive %s, not %s", got, id)
	}
	if err := check(t, dir, ed25519.PublicKey(genesis.Log[:])); err != nil {
		t.Error(err)
	}
}
