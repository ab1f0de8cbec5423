package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/zeebo/blake3"

	"hearth/cmd/client"
	"hearth/cmd/control"
	"hearth/cmd/home"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"hearth": main, "liar": liar})
}

// TestScript runs the scripts: each has a home of its own, and real daemons
// and mounts.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   filepath.Join("testdata", "script"),
		Setup: setup,
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "fuse":
				return canMount(), nil
			case "root":
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"daemon":  cmdDaemon,
			"mounted": cmdMounted,
			"mode":    cmdMode,
			"eq":      cmdEq,
			"mangle":  cmdMangle,
			"await":   cmdAwait,
		},
	})
}

func canMount() bool {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	_ = f.Close()
	return true
}

// setup gives a script its home and ends its daemon when it is over.
func setup(env *testscript.Env) error {
	dir := filepath.Join(env.WorkDir, "home")
	env.Setenv(home.Variable, dir)
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("TZ", "UTC")
	env.Defer(func() { endDaemon(dir) })
	// More devices, for scripts that want them.
	for _, name := range []string{"other", "third", "fourth", "fifth"} {
		dir := filepath.Join(env.WorkDir, name)
		env.Setenv(strings.ToUpper(name), dir)
		env.Defer(func() { endDaemon(dir) })
	}
	return nil
}

// endDaemon ends the daemon of a home, if one runs, as kindly as it lets us.
func endDaemon(dir string) {
	h, err := home.Open(dir)
	if err != nil || !h.Locked() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := client.Connect(ctx, h, false)
	if err == nil {
		_, err = client.Call[struct{}](ctx, c, control.Stop, control.StopRequest{Force: true})
	}
	if err == nil {
		err = c.Ended(ctx)
	}
	if err != nil {
		_ = syscall.Kill(h.LockedBy(), syscall.SIGKILL)
	}
}

// cmdDaemon sends the daemon of the script's home a signal and waits until it
// is gone: daemon SIGNAL. "! daemon" asserts that none runs.
func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	h, err := home.Open(ts.Getenv(home.Variable))
	if neg {
		if err == nil && h.Locked() {
			ts.Fatalf("a daemon runs")
		}
		return
	}
	ts.Check(err)
	if !h.Locked() {
		ts.Fatalf("no daemon runs")
	}
	if len(args) == 0 {
		return
	}
	sig, ok := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL, "HUP": syscall.SIGHUP}[args[0]]
	if !ok {
		ts.Fatalf("unknown signal %s", args[0])
	}
	ts.Check(syscall.Kill(h.LockedBy(), sig))
	for deadline := time.Now().Add(20 * time.Second); h.Locked(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("the daemon does not end")
		}
	}
}

// cmdAwait runs a shell command until it succeeds: await COMMAND.
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await COMMAND")
	}
	for deadline := time.Now().Add(60 * time.Second); ts.Exec("sh", "-c", args[0]) != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("it does not succeed: %s", args[0])
		}
	}
}

// cmdMounted asserts that a Hearth mount is, or is not, at a directory:
// mounted DIR.
func cmdMounted(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] mounted DIR")
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	ts.Check(err)
	escaped := strings.NewReplacer(`\040`, " ", `\011`, "\t")
	found := false
	for _, line := range strings.Split(string(table), "\n") {
		f := strings.Fields(line)
		found = found || len(f) > 4 && escaped.Replace(f[4]) == ts.MkAbs(args[0]) && strings.Contains(line, "fuse.hearth")
	}
	if found == neg {
		ts.Fatalf("mounted at %s: %v", args[0], found)
	}
}

// cmdMode asserts the permission bits of a file: mode 0600 FILE.
func cmdMode(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: mode MODE FILE")
	}
	want, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	st, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := st.Mode().Perm(); uint64(got) != want {
		ts.Fatalf("mode of %s is %o", args[1], got)
	}
}

// cmdEq asserts that a shell command prints exactly a text: eq TEXT COMMAND.
func cmdEq(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] eq TEXT COMMAND")
	}
	cmd := exec.Command("sh", "-c", args[1])
	cmd.Dir = ts.MkAbs(".")
	for _, v := range []string{"PATH", "HOME", "TZ", home.Variable} {
		cmd.Env = append(cmd.Env, v+"="+ts.Getenv(v))
	}
	out, err := cmd.Output()
	ts.Check(err)
	if got := strings.TrimSuffix(string(out), "\n"); (got == args[0]) == neg {
		ts.Fatalf("%s printed %q", args[1], got)
	}
}

// cmdMangle changes a file in place: mangle truncate FILE SIZE cuts it, mangle
// newer FILE makes a drive.json that a later version could have written.
func cmdMangle(ts *testscript.TestScript, _ bool, args []string) {
	switch {
	case len(args) == 3 && args[0] == "truncate":
		n, err := strconv.ParseInt(args[2], 10, 64)
		ts.Check(err)
		ts.Check(os.Truncate(ts.MkAbs(args[1]), n))
	case len(args) == 2 && args[0] == "newer":
		b, err := os.ReadFile(ts.MkAbs(args[1]))
		ts.Check(err)
		var file struct {
			Digest string          `json:"digest"`
			Data   json.RawMessage `json:"data"`
		}
		ts.Check(json.Unmarshal(b, &file))
		file.Data = bytes.Replace(file.Data, []byte(`"format":1`), []byte(`"format":99`), 1)
		sum := blake3.Sum256(file.Data)
		file.Digest = hex.EncodeToString(sum[:])
		b, err = json.Marshal(file)
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), append(b, '\n'), 0o600))
	default:
		ts.Fatalf("usage: mangle truncate FILE SIZE | mangle newer FILE")
	}
}
