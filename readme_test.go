//go:build linux

package hearth_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// stranger is somebody who has just cloned this: a home of their own with
// nothing in it, and hearth on the PATH.
type stranger struct {
	home string
	env  []string
}

func newStranger(t *testing.T) *stranger {
	t.Helper()
	if testing.Short() {
		t.Skip("short")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("this machine has no FUSE")
	}
	if _, err := exec.LookPath("fusermount3"); err != nil && os.Getuid() != 0 {
		t.Skip("fusermount3 is not installed")
	}
	s := &stranger{home: t.TempDir()}
	bin := t.TempDir()
	hearth := filepath.Join(bin, "hearth")
	if out, err := exec.Command("go", "build", "-o", hearth, "./cmd/hearth").CombinedOutput(); err != nil {
		t.Fatalf("build hearth: %v\n%s", err, out)
	}
	for _, v := range os.Environ() {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "HOME", "HEARTH_HOME", "XDG_DATA_HOME", "PATH", "MAKEFLAGS", "MAKELEVEL":
		default:
			s.env = append(s.env, v)
		}
	}
	// The Go tool finds its caches by HOME.
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH", "GOENV"} {
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		s.env = append(s.env, name+"="+strings.TrimSpace(string(out)))
	}
	s.env = append(s.env, "HOME="+s.home, "PATH="+bin+":"+os.Getenv("PATH"))
	t.Cleanup(func() {
		if out, err := s.command(context.Background(), hearth, "stop").CombinedOutput(); err != nil && !strings.Contains(string(out), "no daemon") {
			t.Errorf("hearth stop: %v\n%s", err, out)
			_ = s.command(context.Background(), hearth, "stop", "--force").Run()
		}
	})
	return s
}

func (s *stranger) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = s.env
	return cmd
}

// separator is between the outputs of two commands.
const separator = "\x1e"

// types runs commands in one shell, as somebody who types them, and returns
// what each printed. All must succeed.
func (s *stranger) types(t *testing.T, commands []string) []string {
	t.Helper()
	var script strings.Builder
	for _, c := range commands {
		fmt.Fprintf(&script, "%s || exit 1\nprintf '%s'\n", c, separator)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := s.command(ctx, "bash", "-c", script.String())
	cmd.Dir = s.home
	out, err := cmd.CombinedOutput()
	printed := strings.Split(string(out), separator)
	if err != nil {
		failed := min(len(printed), len(commands)) - 1
		t.Fatalf("$ %s\n%s%v", commands[failed], printed[failed], err)
	}
	return printed
}

// TestQuickStart types what the README says one can type, and compares what
// is printed. In the README, ... stands for anything, and alone in a line for
// any lines.
func TestQuickStart(t *testing.T) {
	s := newStranger(t)
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var commands, want []string
	for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		for _, line := range strings.SplitAfter(block[1], "\n") {
			if c, ok := strings.CutPrefix(line, "$ "); ok {
				commands, want = append(commands, strings.TrimSpace(c)), append(want, "")
			} else if len(want) > 0 {
				want[len(want)-1] += line
			}
		}
	}
	if len(commands) == 0 {
		t.Fatal("README.md has no commands")
	}
	printed := s.types(t, commands)
	for i, c := range commands {
		if !matches(want[i], printed[i]) {
			t.Errorf("$ %s\nprints\n%swhere README.md says\n%s", c, printed[i], want[i])
		}
	}
}

// matches compares an output with what a document shows of it.
func matches(shown, printed string) bool {
	p := regexp.QuoteMeta(strings.TrimSpace(shown))
	p = regexp.MustCompile(`(?m)^\\\.\\\.\\\.$`).ReplaceAllString(p, `(?s:.*)`)
	p = strings.ReplaceAll(p, `\.\.\.`, `.*`)
	ok, err := regexp.MatchString("^"+p+"$", strings.TrimSpace(printed))
	return err == nil && ok
}

// TestMakeMount runs `make mount` twice, as somebody who forgot, and then what
// it says one can try.
func TestMakeMount(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("make is not installed")
	}
	s := newStranger(t)
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for range 2 {
		out, err = s.command(t.Context(), "make", "-C", root, "--no-print-directory", "mount").CombinedOutput()
		if err != nil {
			t.Fatalf("make mount: %v\n%s", err, out)
		}
	}
	var commands []string
	for _, line := range strings.Split(string(out), "\n") {
		if c, ok := strings.CutPrefix(line, "    "); ok {
			commands = append(commands, c)
		}
	}
	if len(commands) < 5 {
		t.Fatalf("make mount tells little to try:\n%s", out)
	}
	printed := s.types(t, commands)
	for i, c := range commands {
		if strings.HasPrefix(c, "cat ") && strings.TrimSpace(printed[i]) != "Dear Ada," {
			t.Errorf("$ %s\nprints %q", c, printed[i])
		}
	}
	if left, err := os.ReadFile(filepath.Join(s.home, "Hearth", "letter.txt")); err != nil || string(left) != "Dear Ada,\n" {
		t.Errorf("after all that the letter is %q, %v", left, err)
	}
}
