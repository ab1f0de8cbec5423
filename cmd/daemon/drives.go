package daemon

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"hearth/cmd/control"
	"hearth/cmd/home"
	"hearth/fs"
	"hearth/log"
	"hearth/log/disk"
)

// drives are the drives that were used since the start.
type drives struct {
	mu   sync.Mutex
	open map[string]*held
}

// held is one drive. Its lock is held while it is opened or closed, so that
// two requests open it once and others do not wait.
type held struct {
	name string
	mu   sync.Mutex
	// drive and store are nil while the drive is not open; problem says why it
	// could not be opened when that was last tried. A drive that is only held
	// for others has a store and no drive.
	drive   *fs.Drive
	store   *log.Store
	problem error
	closed  bool
	swept   sweepState
	links   sync.Mutex // held while who belongs to the drive changes
	left    bool       // closed for good: see Daemon.setAside
}

// Prefixes of a drive that is being made, and of one that is being removed. They
// begin no drive's name: those start with a letter or a digit.
const (
	unfinished = ".new-"
	discarded  = ".left-"
)

// openDrive returns an open drive.
func (d *Daemon) openDrive(ctx context.Context, name string) (*held, error) {
	names, err := d.home.Drives()
	if err != nil {
		return nil, err
	}
	if err := home.Known(name, names); err != nil {
		return nil, err
	}
	h := d.lockDrive(name)
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return nil, control.NoDaemon("", "the daemon ends")
	case h.drive != nil:
		return h, nil
	case h.store != nil:
		return nil, h.problem
	}
	if _, err := os.Lstat(d.home.DriveDir(name)); errors.Is(err, iofs.ErrNotExist) {
		return nil, home.Known(name, slices.DeleteFunc(names, func(n string) bool { return n == name })) // it was left a moment ago
	}
	h.store, h.drive, h.problem = d.load(ctx, name, len(names))
	if h.problem != nil {
		return nil, h.problem
	}
	return h, nil
}

func (d *Daemon) heldDrive(name string) *held {
	d.drives.mu.Lock()
	defer d.drives.mu.Unlock()
	h := d.drives.open[name]
	if h == nil {
		h = &held{name: name}
		d.drives.open[name] = h
	}
	return h
}

// lockDrive returns a drive with its lock held.
func (d *Daemon) lockDrive(name string) *held {
	for {
		h := d.heldDrive(name)
		h.mu.Lock()
		if !h.left {
			return h
		}
		h.mu.Unlock()
		d.forget(h)
	}
}

// forget makes the name of a drive that was left free.
func (d *Daemon) forget(h *held) {
	d.drives.mu.Lock()
	defer d.drives.mu.Unlock()
	if d.drives.open[h.name] == h {
		delete(d.drives.open, h.name)
	}
}

// load opens the store and the drive in it. The opening is not canceled with
// the request: others may wait for it.
func (d *Daemon) load(ctx context.Context, name string, drives int) (*log.Store, *fs.Drive, error) {
	begun := time.Now()
	store, err := log.OpenStore(log.StoreOptions{Dir: d.home.DriveDir(name), Logger: d.logger})
	if err != nil {
		return nil, nil, err // names the drive's directory
	}
	d.network.add(store, nil)
	if !store.CanRead() {
		d.logger.Info("drive is held for others", "drive", name)
		return store, nil, control.Failed("ask for a link that was made without --hold", "drive %s is held for others: this device cannot read it", name)
	}
	drive, err := fs.Open(context.WithoutCancel(ctx), d.driveOptions(store, drives))
	if err != nil {
		d.network.remove(store)
		return nil, nil, errors.Join(fmt.Errorf("open drive %s: %w", name, err), store.Close())
	}
	d.network.add(store, drive)
	d.logger.Info("drive is open", "drive", name, "version", drive.Newest().String(), "took", time.Since(begun))
	return store, drive, nil
}

// driveOptions gives each drive its share of the memory: the rest is for the
// runtime, the kernel's requests in flight and the store's own buffers.
func (d *Daemon) driveOptions(store *log.Store, drives int) fs.Options {
	return fs.Options{Store: store, Memory: d.memory * 3 / 8 / int64(max(1, drives)), Logger: d.logger}
}

// create makes a drive. It is made beside its place and renamed into it, so
// that there is never half a drive.
func (d *Daemon) create(ctx context.Context, req control.CreateRequest) (control.Created, error) {
	if err := home.CheckName(req.Name); err != nil {
		return control.Created{}, control.Usage(home.NameRule, "%w", err)
	}
	h := d.lockDrive(req.Name)
	defer h.mu.Unlock()
	if h.closed {
		return control.Created{}, control.NoDaemon("", "the daemon ends")
	}
	final := d.home.DriveDir(req.Name)
	if _, err := os.Lstat(final); err == nil {
		return control.Created{}, control.Failed("choose another name; `hearth list` shows the drives", "there is a drive %s already", req.Name)
	}
	dir := filepath.Join(d.home.DrivesDir(), unfinished+req.Name)
	if err := os.RemoveAll(dir); err != nil {
		return control.Created{}, err
	}
	made, err := d.make(ctx, req, dir)
	if err == nil {
		err = context.Cause(ctx) // whoever asked may be gone, and the recovery key with them
	}
	if err == nil {
		err = publish(dir, final)
	}
	if err != nil {
		return control.Created{}, errors.Join(fmt.Errorf("create drive %s: %w", req.Name, err), os.RemoveAll(dir))
	}
	d.logger.Info("drive was made", "drive", made.Name, "id", made.ID)
	return made, nil
}

// make creates a store and the first version of a drive in dir.
func (d *Daemon) make(ctx context.Context, req control.CreateRequest, dir string) (made control.Created, err error) {
	store, err := log.CreateStore(log.StoreOptions{Dir: dir, Logger: d.logger}, req.Name)
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	made = control.Created{Name: req.Name, ID: store.ID()}
	if seed, ok := store.RecoverySeed(); ok && req.Recovery {
		made.RecoveryKey = seed[:]
	}
	owner := fs.Caller{Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())}
	drive, err := fs.Create(ctx, d.driveOptions(store, 1), owner)
	if err != nil {
		return made, err
	}
	return made, drive.Close(ctx)
}

// publish renames a finished drive into its place, durably.
func publish(dir, final string) error {
	if err := os.Rename(dir, final); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(final))
	if err != nil {
		return err
	}
	defer parent.Close()
	return parent.Sync()
}

// removeUnfinished removes drives whose making was cut short, as nobody was told
// that they exist, and what is left of those that were being removed.
func (d *Daemon) removeUnfinished() error {
	entries, err := os.ReadDir(d.home.DrivesDir())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), unfinished) || strings.HasPrefix(e.Name(), discarded) {
			if err := log.Discard(disk.OS{}, filepath.Join(d.home.DrivesDir(), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// openAll opens every drive, so that background work and status know them.
func (d *Daemon) openAll(ctx context.Context) {
	names, err := d.home.Drives()
	if err != nil {
		d.logger.Error("drives cannot be listed", "err", err)
		return
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return
		}
		if _, err := d.openDrive(ctx, name); err != nil && d.onlyHeld(name) == nil {
			d.logger.Error("a drive cannot be opened", "drive", name, "err", err)
		}
	}
}

// onlyHeld returns a drive that is here for others alone; nil if it is not.
func (d *Daemon) onlyHeld(name string) *held {
	h := d.lockDrive(name)
	defer h.mu.Unlock()
	if h.store == nil || h.drive != nil {
		return nil
	}
	return h
}

// eachDrive calls fn for the drives that are open.
func (d *Daemon) eachDrive(fn func(*held)) {
	d.drives.mu.Lock()
	var all []*held
	for _, h := range d.drives.open {
		all = append(all, h)
	}
	d.drives.mu.Unlock()
	for _, h := range all {
		h.mu.Lock()
		open := h.drive != nil && !h.left
		h.mu.Unlock()
		if open {
			fn(h)
		}
	}
}

// closeDrives commits and closes every drive, whatever happens to the others.
func (d *Daemon) closeDrives(ctx context.Context) error {
	d.drives.mu.Lock()
	defer d.drives.mu.Unlock()
	var errs []error
	for _, h := range d.drives.open {
		h.mu.Lock()
		h.closed = true
		if h.drive != nil {
			if err := h.drive.Close(ctx); err != nil {
				errs = append(errs, fmt.Errorf("close drive %s: %w", h.name, err))
			}
		}
		if h.store != nil {
			if err := h.store.Close(); err != nil {
				errs = append(errs, fmt.Errorf("close the store of drive %s: %w", h.name, err))
			}
		}
		h.mu.Unlock()
	}
	return errors.Join(errs...)
}

// diskUse is the space that a drive's directory takes.
func diskUse(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, e iofs.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile, or unreadable: not counted
		}
		if info, err := e.Info(); err == nil {
			sum += allocated(info)
		}
		return nil
	})
	return sum
}
