// Package home is the state folder of one Hearth device: where its drives,
// its settings and the daemon's socket, lock and records are, and who may see
// them. Both the daemon and the command line read it, so it is a package of
// its own; it knows nothing of drives' contents, and imports only control,
// for errors.
//
//	HOME/                 0700, owned by the user
//	  lock                held (flock) by the one daemon of this home
//	  socket              the daemon's socket, or a symlink to it (socket.go)
//	  daemon.log          messages of a daemon in the background
//	  device.json         the name of this device
//	  config.json         settings, written by `hearth set` or the user
//	  device.key          the key that names this device, and its secret
//	  peers.json          what is known of other devices
//	  receive.json        where the daemon puts what others send
//	  mounts.json         what is to be mounted when the daemon starts
//	  drives/NAME/        one drive
//
// Files are replaced atomically: a reader sees the old contents or the new.
package home

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
)

// Variable names the state folder in the environment.
const Variable = "HEARTH_HOME"

// Errors of a state folder. A *PermissionError says more about ErrPermission.
var (
	ErrPermission = errors.New("wrong permissions")
	ErrLocked     = errors.New("a daemon already runs")
)

// PermissionError says what is wrong with the access to a state folder, and
// the command that mends it, if there is one.
type PermissionError struct {
	Path    string
	Problem string
	Mend    string
}

func (e *PermissionError) Error() string { return fmt.Sprintf("%s %s", e.Path, e.Problem) }

// Unwrap makes errors.Is(err, ErrPermission) true.
func (e *PermissionError) Unwrap() error { return ErrPermission }

// Home is a state folder that passed the check of its permissions.
type Home struct{ dir string }

// Locate says where the state folder is: $HEARTH_HOME, else hearth under
// $XDG_DATA_HOME, else ~/.local/share/hearth. It need not exist.
func Locate(getenv func(string) string) (string, error) {
	dir := getenv(Variable)
	if dir == "" {
		data := getenv("XDG_DATA_HOME")
		if !filepath.IsAbs(data) { // the XDG specification: relative paths are to be ignored
			user := getenv("HOME")
			if user == "" {
				return "", fmt.Errorf("neither %s nor HOME is set", Variable)
			}
			data = filepath.Join(user, ".local", "share")
		}
		dir = filepath.Join(data, "hearth")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("state folder %s: %w", dir, err)
	}
	// One folder must have one name, whichever way it was reached: the lock,
	// the socket and the daemon's messages all derive from it.
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real, nil
	}
	return abs, nil
}

// Open checks an existing state folder: a directory of this user that nobody
// else may enter. It changes nothing; a missing one is fs.ErrNotExist.
func Open(dir string) (*Home, error) {
	st, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("state folder %s: %w", dir, syscall.ENOTDIR)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() {
		return nil, &PermissionError{Path: dir, Problem: fmt.Sprintf("belongs to user %d, not to you", sys.Uid)}
	}
	switch perm := st.Mode().Perm(); {
	case perm&0o077 != 0:
		return nil, &PermissionError{Path: dir,
			Problem: fmt.Sprintf("is open to other users (mode %04o)", perm), Mend: "chmod 700 " + dir}
	case perm&0o700 != 0o700:
		return nil, &PermissionError{Path: dir,
			Problem: fmt.Sprintf("is closed to its owner (mode %04o)", perm), Mend: "chmod 700 " + dir}
	}
	return &Home{dir: dir}, nil
}

// Ensure opens the state folder and makes it first if it is missing. An empty
// directory that is open to others is closed to them: nothing in it was ever
// exposed, and people make the folder before they name it.
func Ensure(dir string) (*Home, error) {
	h, err := Open(dir)
	switch {
	case err == nil:
		return h, nil
	case errors.Is(err, iofs.ErrNotExist):
		if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
			return nil, fmt.Errorf("state folder: %w", err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, iofs.ErrExist) {
			return nil, fmt.Errorf("state folder: %w", err)
		}
		return Open(dir)
	case errors.Is(err, ErrPermission):
		names, readErr := os.ReadDir(dir)
		if readErr != nil || len(names) > 0 || os.Chmod(dir, 0o700) != nil {
			return nil, err
		}
		return Open(dir)
	}
	return nil, err
}

// Dir is the folder's path.
func (h *Home) Dir() string { return h.dir }

// DrivesDir is where the drives are.
func (h *Home) DrivesDir() string { return filepath.Join(h.dir, "drives") }

// DriveDir is where one drive is, or would be.
func (h *Home) DriveDir(name string) string { return filepath.Join(h.DrivesDir(), name) }

// LogPath is the file a background daemon writes its messages to.
func (h *Home) LogPath() string { return filepath.Join(h.dir, "daemon.log") }

// Drives lists the drives by name. A name that starts with a dot is a drive
// being made or removed, and is none.
func (h *Home) Drives() ([]string, error) {
	entries, err := os.ReadDir(h.DrivesDir())
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list drives: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}
