package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hearth/cmd/home"
)

// TestLeaveKilled kills the daemon, with signal 9, while it leaves a drive: it is
// there as it was, or it is not and nothing of it is; either way the same link can
// be used.
func TestLeaveKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("it kills daemons again and again; make test does")
	}
	root := t.TempDir()
	homes := map[string]*home.Home{}
	for _, name := range []string{"a", "b"} {
		dir := filepath.Join(root, name)
		h, err := home.Ensure(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"listen": "127.0.0.1:0", "interfaces": ["lo"]}`), 0o600); err != nil {
			t.Fatal(err)
		}
		homes[name] = h
		t.Cleanup(func() { endDaemon(dir) })
	}
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command("hearth", args...)
		cmd.Env = append(os.Environ(), home.Variable+"="+homes[name].Dir())
		return cmd
	}
	hearth := func(name string, args ...string) string {
		t.Helper()
		var problem bytes.Buffer
		cmd := command(name, args...)
		cmd.Stderr = &problem
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("hearth %v: %v\n%s", args, err, problem.Bytes())
		}
		return strings.TrimSpace(string(out))
	}
	hearth("a", "create", "films")
	link := hearth("a", "share", "films")
	id := func() string { return strings.Fields(hearth("b", "list"))[1] }
	hearth("b", "join", link)
	want := id()

	left := 0
	const rounds = 8
	for range rounds {
		leaving := command("b", "leave", "films", "--yes")
		if err := leaving.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rand.N(60 * time.Millisecond)) // the kill comes at any moment
		if pid := homes["b"].LockedBy(); pid > 0 && homes["b"].Locked() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_ = leaving.Wait() // it was answered or not

		if hearth("b", "list") == "" {
			left++
			files, err := os.ReadDir(homes["b"].DrivesDir())
			if err != nil {
				t.Fatal(err)
			}
			// The list starts no daemon where there is no drive; who joins does.
			hearth("b", "join", link)
			for _, f := range files {
				if _, err := os.Lstat(filepath.Join(homes["b"].DrivesDir(), f.Name())); f.Name() != "films" && err == nil {
					t.Fatalf("%s stays", f.Name())
				}
			}
		}
		if got := id(); got != want {
			t.Fatalf("the drive is %s, not %s", got, want)
		}
		if out := hearth("b", "verify", "films"); !strings.Contains(out, "checked") {
			t.Fatal(out)
		}
	}
	t.Logf("left %d times of %d", left, rounds)
}
