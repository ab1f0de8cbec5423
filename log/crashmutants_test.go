package log_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hearth/log/disk/crashfs"
)

// A sourceMutation breaks the log itself.
type sourceMutation struct {
	name     string
	file     string
	old, new string
}

var sourceMutations = []sourceMutation{
	{"commit without its sync", "append.go",
		"	err = l.syncTail(seg)\n	l.segs.put(seg)\n", "	err = nil\n	l.segs.put(seg)\n"},
	{"index written before the sync", "append.go",
		"	err = l.syncTail(seg)\n	l.segs.put(seg)\n",
		"	l.mu.Lock()\n	l.head, l.headPos = head, pos\n	l.mu.Unlock()\n	_ = l.Settle()\n	err = l.syncTail(seg)\n	l.segs.put(seg)\n"},
	{"tail not hashed again", "recover.go",
		"newScanner(seg.file, num, r.rehash || num == r.last)", "newScanner(seg.file, num, false)"},
	{"recovered tail not synced", "adopt.go",
		"		return nil\n	}\n	return file.Datasync()\n", "		return nil\n	}\n	return nil\n"},
	{"recovered tail not written again", "adopt.go",
		"rewrite(file, from, pos.offset)", "rewrite(file, max(from, pos.offset), pos.offset)"},
	{"segment not synced at rollover", "append.go",
		"if err := l.syncTail(old); err != nil {", "if err := error(nil); err != nil {"},
	{"drop not recorded", "drop.go",
		"if err := l.writeDropped(all); err != nil {", "if err := error(nil); err != nil {"},
	{"full disk leaves half a write", "append.go",
		"if err := l.tail.file.Truncate(l.pendOff); err != nil {", "if err := error(nil); err != nil {"},
}

// TestSourceMutations compiles the package with one line broken at a time and
// runs TestRandomCrashes, which must fail. It takes minutes, and runs when
// HEARTH_MUTATIONS is set.
func TestSourceMutations(t *testing.T) {
	if os.Getenv("HEARTH_MUTATIONS") == "" {
		t.Skip("set HEARTH_MUTATIONS to run it")
	}
	for _, m := range sourceMutations {
		t.Run(m.name, func(t *testing.T) {
			out, err := runMutated(t, m)
			if err == nil {
				t.Fatal("not noticed")
			}
			i := bytes.Index(out, []byte("run "))
			if i < 0 || !bytes.Contains(out, []byte(crashfs.EnvSeed)) {
				t.Fatalf("it failed for another reason: %v\n%s", err, out)
			}
			line, _, _ := strings.Cut(string(out[i:]), "\n")
			t.Logf("noticed: %s", line)
		})
	}
}

func runMutated(t *testing.T, m sourceMutation) ([]byte, error) {
	path, err := filepath.Abs(m.file)
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(source, []byte(m.old)); n != 1 {
		t.Fatalf("%s has the text to mutate %d times", m.file, n)
	}
	mutated := filepath.Join(t.TempDir(), m.file)
	overlay := filepath.Join(t.TempDir(), "overlay.json")
	j, err := json.Marshal(map[string]any{"Replace": map[string]string{path: mutated}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		mutated: bytes.Replace(source, []byte(m.old), []byte(m.new), 1),
		overlay: j,
	} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-failfast", "-vet=off", "-overlay", overlay, "-run", "^TestRandomCrashes$", ".")
	cmd.Env = append(os.Environ(), crashfs.EnvCount+"=500", crashfs.EnvSeed+"=", "HEARTH_MUTATIONS=")
	return cmd.CombinedOutput()
}
