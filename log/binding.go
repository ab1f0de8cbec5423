package log

import (
	"errors"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"hearth/log/disk"
)

// binding ties a store to its machine. A store that was copied, or brought
// back from a backup, does not have the binding of where it is found: two
// devices may then be writing the same log, or one writes what it has
// forgotten to have written.
type binding struct {
	Machine string `json:"machine"`
	// Inode is that of the directory of the own log's segments, which no
	// operation of the store replaces. Device is for people: its number may
	// change when the machine starts.
	Inode  uint64 `json:"inode"`
	Device uint64 `json:"device"`
}

// machineID returns what names this machine.
func machineID() string {
	for _, name := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if b, err := os.ReadFile(name); err == nil && len(strings.TrimSpace(string(b))) > 0 {
			return strings.TrimSpace(string(b))
		}
	}
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// bindingOf returns the binding that the log in dir has here.
func bindingOf(d disk.FS, dir, machine string) (binding, error) {
	info, err := d.Stat(filepath.Join(dir, "seg"))
	if err != nil {
		return binding{}, err
	}
	b := binding{Machine: machine}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		b.Inode, b.Device = stat.Ino, uint64(stat.Dev)
	}
	return b, nil
}

// checkBinding reports whether the store was copied or moved to another
// machine. A binding that is missing or rotten tells the same: it cannot be
// ruled out.
func (s *Store) checkBinding() (copied bool, err error) {
	var was binding
	err = readChecked(s.disk, s.path("binding"), &was)
	if err != nil {
		if !errors.Is(err, iofs.ErrNotExist) && !errors.Is(err, ErrDamaged) {
			return false, err
		}
		s.note(s.path("binding"), err)
		return true, nil
	}
	now, err := bindingOf(s.disk, s.logDir(s.keysFile.Writer), s.machine)
	if err != nil {
		return false, err
	}
	return was.Machine != now.Machine || was.Inode != now.Inode, nil
}

// Copied reports whether the store was copied, or moved to another machine,
// since it was bound: see [Store.Bind].
func (s *Store) Copied() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.copied
}

// Bind binds the store to where it is. A store that was copied must be bound
// again only when it is certain that the other copy is not used any more and
// that nothing newer of its log exists.
func (s *Store) Bind() error {
	b, err := bindingOf(s.disk, s.logDir(s.keysFile.Writer), s.machine)
	if err != nil {
		return err
	}
	if err := writeChecked(s.disk, s.path("binding"), b); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.copied = false
	return nil
}
