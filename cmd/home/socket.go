package home

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	iofs "io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// maxSocketPath is the longest path a unix socket can have: sun_path has 108
// bytes on Linux (104 on BSDs) and ends with a zero byte.
const maxSocketPath = 103

func (h *Home) socketName() string { return filepath.Join(h.dir, "socket") }

// SocketPath is the path to connect to. When the home's own path is too long
// for a socket, HOME/socket is a symlink to a short one, so that a client
// with another environment than the daemon's still finds it.
func (h *Home) SocketPath() string {
	if target, err := os.Readlink(h.socketName()); err == nil {
		return target
	}
	return h.socketName()
}

// Listen makes the daemon's socket, mode 0600, replacing one that a killed
// daemon left. The caller must hold the lock. The socket's file is removed
// when the listener is closed.
func (h *Home) Listen() (net.Listener, error) {
	name := h.socketName()
	if err := os.Remove(name); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return nil, fmt.Errorf("socket: %w", err)
	}
	path := name
	if len(path) > maxSocketPath {
		dir, err := shortDir()
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256([]byte(h.dir))
		path = filepath.Join(dir, hex.EncodeToString(sum[:8]))
		if err := os.Remove(path); err != nil && !errors.Is(err, iofs.ErrNotExist) {
			return nil, fmt.Errorf("socket: %w", err)
		}
		if err := os.Symlink(path, name); err != nil {
			return nil, fmt.Errorf("socket: %w", err)
		}
	}
	// The directory is closed to others (0700), so the moment between bind
	// and chmod shows the socket to nobody.
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("socket: %w", err)
	}
	return l, nil
}

// shortDir is a directory with a short path that only this user may enter:
// under $XDG_RUNTIME_DIR, else under /tmp. In /tmp anybody may have made the
// name first, so what is there is checked and never trusted.
func shortDir() (string, error) {
	dir := fmt.Sprintf("/tmp/hearth-%d", os.Geteuid())
	if run := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(run) && len(run) < 60 {
		if st, err := os.Stat(run); err == nil && st.IsDir() {
			dir = filepath.Join(run, "hearth")
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, iofs.ErrExist) {
		return "", fmt.Errorf("socket folder: %w", err)
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("socket folder: %w", err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !st.IsDir() || st.Mode().Perm()&0o077 != 0 || !ok || int(sys.Uid) != os.Geteuid() {
		return "", &PermissionError{Path: dir, Problem: "is not a folder of yours alone",
			Mend: "set XDG_RUNTIME_DIR, or a shorter " + Variable}
	}
	return dir, nil
}
