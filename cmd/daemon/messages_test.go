package daemon

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestMessages runs in a process of its own: its stdout and stderr are taken
// over.
func TestMessages(t *testing.T) {
	const variable = "HEARTH_TEST_MESSAGES"
	if path := os.Getenv(variable); path != "" {
		m, err := OpenMessages(path)
		if err != nil {
			os.Exit(3)
		}
		line := bytes.Repeat([]byte("x"), 1<<20-1)
		for range 9 {
			if _, err := m.Write(append(line, '\n')); err != nil {
				os.Exit(4)
			}
		}
		panic("the end")
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "daemon.log")
	if err := os.WriteFile(path, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestMessages$")
	cmd.Env = append(os.Environ(), variable+"="+path)
	if out, err := cmd.CombinedOutput(); err == nil || bytes.Contains(out, []byte("the end")) {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{path, path + ".1"} {
		st, err := os.Stat(name)
		if err != nil || st.Size() > messagesLimit+64<<10 || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Contains(b, []byte("panic: the end")) {
		t.Errorf("the trace of a panic is not in the messages: %v", err)
	}
}
