package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"hearth/cmd/control"
	"hearth/cmd/home"
)

// patience is how long a daemon may take to answer or to end. Opening many
// drives after a crash re-reads what was not yet trusted.
const patience = 60 * time.Second

// ReadyFD is the file descriptor on which a spawned daemon says that it is
// ready (one line, "ready") or why it is not (a control.Error as JSON).
const ReadyFD = 3

// Ready is what it says.
const Ready = "ready"

// Connect reaches the daemon of a home, and starts it if spawn is set and
// none runs. Without spawn, no daemon is an error with exit code 4.
func Connect(ctx context.Context, h *home.Home, spawn bool) (*Client, error) {
	c := New(h)
	c.spawn = spawn
	if err := c.connect(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Client) connect(ctx context.Context) error {
	h := c.home
	deadline := time.Now().Add(patience)
	for {
		err := c.ping(ctx)
		if err == nil {
			return nil
		}
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		// A daemon that holds the lock but does not answer is about to be
		// ready, or about to end: either way there will be news.
		if !h.Locked() {
			if !c.spawn {
				return control.NoDaemon("`hearth mount NAME DIR` and most other commands start it",
					"no daemon runs for %s", h.Dir())
			}
			if err := start(ctx, h); err != nil && !errors.Is(err, home.ErrLocked) {
				return err
			}
		}
		if time.Now().After(deadline) {
			return control.NoDaemon(fmt.Sprintf("its messages are in %s; kill %d ends it", h.LogPath(), h.LockedBy()),
				"the daemon (pid %d) does not answer: %w", h.LockedBy(), inner(err))
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// Ended waits until no daemon holds the home any more.
func (c *Client) Ended(ctx context.Context) error {
	deadline := time.Now().Add(patience)
	for c.home.Locked() {
		if time.Now().After(deadline) {
			return control.Failed("its messages are in "+c.home.LogPath(), "the daemon (pid %d) does not end", c.pong.PID)
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// start runs a daemon in the background, in a session of its own so that no
// terminal's signal reaches it, and returns when it is ready or has failed.
func start(ctx context.Context, h *home.Home) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the hearth binary: %w", err)
	}
	messages, err := os.OpenFile(h.LogPath(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("messages of the daemon: %w", err)
	}
	defer messages.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(exe, "daemon", "--ready-fd", strconv.Itoa(ReadyFD))
	cmd.Args[0] = "hearth"
	cmd.Dir = "/" // not a folder that somebody wants to unmount
	cmd.Env = append(os.Environ(), home.Variable+"="+h.Dir())
	cmd.Stdout, cmd.Stderr = messages, messages
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	defer cmd.Process.Release()
	// Ctrl-C ends the waiting, not the daemon: it may serve others already.
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Now()) })
	defer stop()
	_ = r.SetReadDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(r).ReadBytes('\n')
	line = bytes.TrimSpace(line)
	switch {
	case string(line) == Ready:
		return nil
	case len(line) > 0:
		var refusal control.Error
		if json.Unmarshal(line, &refusal) == nil && refusal.Message != "" {
			if h.Locked() { // another client was faster
				return home.ErrLocked
			}
			return &refusal
		}
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return control.NoDaemon("its messages are in "+h.LogPath(),
			"the daemon (pid %d) was not ready within %v", cmd.Process.Pid, patience)
	}
	return control.NoDaemon("its messages are in "+h.LogPath(), "the daemon died while it started%s", lastLine(h.LogPath()))
}

// lastLine is what the daemon said last, for its obituary.
func lastLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > 4096 {
		_, _ = f.Seek(-4096, io.SeekEnd)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	if last := lines[len(lines)-1]; len(last) > 0 {
		return ": " + string(last)
	}
	return ""
}
