package daemon

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"hearth/cmd/control"
	"hearth/cmd/home"
	"hearth/fs/mount"
)

// mounts are the folders that show drives.
type mounts struct {
	// change is held through a whole mount, unmount or end, so that these
	// happen one after the other.
	change sync.Mutex
	mu     sync.Mutex // guards list and its entries
	list   []*mounted // oldest first
}

// mounted is one mount, or one that is recorded but could not be made: then
// serving is nil and problem says why.
type mounted struct {
	home.Mount
	at      string // version of a checkout
	serving *mount.Mount
	problem error
	// revived is set for what the start of the daemon brought back, until
	// somebody asks for it: to them it is their mount, and no other's.
	revived bool
}

func (m *mounted) dir() string { return string(m.Dir) }

// mounted describes the mounts.
func (d *Daemon) mounted() []control.Mounted {
	d.mounts.mu.Lock()
	defer d.mounts.mu.Unlock()
	out := []control.Mounted{}
	for _, m := range d.mounts.list {
		out = append(out, m.describe())
	}
	return out
}

func (m *mounted) describe() control.Mounted {
	out := control.Mounted{Drive: m.Drive, Path: control.PathOf(m.dir()), At: m.at,
		ReadOnly: m.ReadOnly || m.When != "", AllowOther: m.AllowOther}
	if m.problem != nil {
		out.Problem = m.problem.Error()
	}
	return out
}

// mount shows a drive in a folder and records it.
func (d *Daemon) mount(ctx context.Context, req control.MountRequest) (control.Mounted, error) {
	if req.Link != "" {
		var err error
		if req, err = d.followLink(ctx, req); err != nil {
			return control.Mounted{}, err
		}
	}
	d.mounts.change.Lock()
	defer d.mounts.change.Unlock()
	dir := req.Raw()
	h, err := d.openDrive(ctx, req.Drive)
	if err != nil {
		return control.Mounted{}, err
	}
	m := &mounted{Mount: home.Mount{Drive: req.Drive, Dir: []byte(dir), Shown: control.Show(dir),
		AllowOther: req.AllowOther, ReadOnly: req.ReadOnly}}
	if req.When != "" {
		v, err := h.resolve(ctx, req.When, req.Now)
		if err != nil {
			return control.Mounted{}, err
		}
		m.When = v.String() // what "5m" means changes; the version does not
	}
	if same := d.claim(m); same != nil {
		return same.describe(), nil
	}
	if err := d.checkMountPoint(req.Drive, dir, req.When == ""); err != nil {
		return control.Mounted{}, err
	}
	if err := d.serve(ctx, h, m); err != nil {
		return control.Mounted{}, explainMount(dir, err)
	}
	// Whoever asked may be gone: then nobody wants the mount.
	if err := context.Cause(ctx); err != nil {
		return control.Mounted{}, errors.Join(err, m.serving.Unmount(mount.Force))
	}
	d.mounts.mu.Lock()
	d.drop(dir) // a recorded mount that could not be made is replaced
	d.mounts.list = append(d.mounts.list, m)
	err = d.record()
	d.mounts.mu.Unlock()
	if err != nil {
		return control.Mounted{}, errors.Join(err, d.take(m, mount.Force))
	}
	go d.watch(m) // ends when the folder is unmounted
	return m.describe(), nil
}

// claim finds the mount that is asked for among those that the start of the
// daemon brought back and nobody has asked for yet. Often that start was this
// very request's doing: after a restart of the machine, say.
func (d *Daemon) claim(want *mounted) *mounted {
	d.mounts.mu.Lock()
	defer d.mounts.mu.Unlock()
	for _, m := range d.mounts.list {
		if m.revived && m.Drive == want.Drive && m.dir() == want.dir() && m.When == want.When &&
			m.ReadOnly == want.ReadOnly && m.AllowOther == want.AllowOther {
			m.revived = false
			return m
		}
	}
	return nil
}

// checkMountPoint refuses what cannot or should not be mounted. What it lets
// through is looked at again, more closely, by package mount.
func (d *Daemon) checkMountPoint(drive, dir string, live bool) error {
	shown := control.Show(dir)
	if !filepath.IsAbs(dir) {
		return control.Usage("", "the mount point %s is not an absolute path", shown)
	}
	if dir == d.home.Dir() || strings.HasPrefix(dir, d.home.Dir()+"/") || strings.HasPrefix(d.home.Dir(), strings.TrimSuffix(dir, "/")+"/") {
		return control.Failed("choose another folder", "the mount point %s and the state folder %s contain one another", shown, d.home.Dir())
	}
	d.mounts.mu.Lock()
	defer d.mounts.mu.Unlock()
	for _, m := range d.mounts.list {
		switch {
		case m.problem != nil:
		case m.dir() == dir:
			return control.Failed("`hearth unmount "+shown+"` ends that", "drive %s is already mounted at %s", m.Drive, shown)
		case live && m.Drive == drive && m.When == "":
			// Two kernels' caches of one drive would not hear of each other.
			return control.Failed("use that folder, or `hearth unmount "+control.Show(m.dir())+"` first; `hearth checkout` can be used any number of times",
				"drive %s is already mounted at %s", drive, control.Show(m.dir()))
		}
	}
	return nil
}

// serve mounts m.
func (d *Daemon) serve(ctx context.Context, h *held, m *mounted) error {
	o := mount.Options{AllowOther: m.AllowOther, ReadOnly: m.ReadOnly, FSName: "hearth:" + m.Drive, Logger: d.logger}
	if m.When != "" {
		v, err := h.resolve(ctx, m.When, d.started)
		if err != nil {
			return err
		}
		release := h.drive.Pin(v)
		if o.Snapshot, err = h.drive.At(ctx, v); err == nil {
			m.serving, err = mount.New(ctx, h.drive, m.dir(), o)
		}
		if err != nil {
			release()
			return err
		}
		m.at = v.String()
		// Sweeps leave the version alone for as long as it is shown.
		go func(unmounted <-chan struct{}) { // ends when the folder is unmounted
			<-unmounted
			release()
		}(m.serving.Wait())
		return nil
	}
	var err error
	m.serving, err = mount.New(ctx, h.drive, m.dir(), o)
	return err
}

// explainMount gives the errors of mounting their hints.
func explainMount(dir string, err error) error {
	shown := control.Show(dir)
	switch {
	case errors.Is(err, mount.ErrMounted):
		return control.Failed("choose an empty folder, or unmount that first", "something is already mounted at %s", shown)
	case errors.Is(err, mount.ErrNotEmpty):
		return control.Failed("choose an empty folder: a mount would hide what is in this one", "the mount point %s is not empty", shown)
	case errors.Is(err, mount.ErrNotDir):
		return control.Failed("choose an empty folder", "the mount point %s is not a folder", shown)
	case errors.Is(err, mount.ErrNoFuse):
		return control.Failed("install fuse3 (apt-get install fuse3) and see that /dev/fuse is there", "%w", err)
	case errors.Is(err, syscall.ENOTDIR):
		return control.Failed("choose an empty folder", "%w", err)
	case errors.Is(err, iofs.ErrNotExist):
		return control.Failed("run `mkdir "+shown+"` first", "the mount point %s does not exist", shown)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return control.Failed("the folder must be yours and /dev/fuse open to you; --allow-other needs user_allow_other in /etc/fuse.conf", "%w", err)
	}
	return err
}

// unmount ends a mount and forgets its record.
func (d *Daemon) unmount(_ context.Context, req control.UnmountRequest) (struct{}, error) {
	d.mounts.change.Lock()
	defer d.mounts.change.Unlock()
	dir := req.Raw()
	d.mounts.mu.Lock()
	var found *mounted
	var dirs []string
	for _, m := range d.mounts.list {
		if m.dir() == dir {
			found = m
		}
		dirs = append(dirs, control.Show(m.dir()))
	}
	d.mounts.mu.Unlock()
	if found == nil {
		hint := "nothing is mounted"
		if len(dirs) > 0 {
			hint = "mounted: " + strings.Join(dirs, ", ")
		}
		return struct{}{}, control.Failed(hint, "no drive is mounted at %s", control.Show(dir))
	}
	if err := d.take(found, how(req.Force)); err != nil {
		return struct{}{}, busy("unmount", err)
	}
	d.mounts.mu.Lock()
	defer d.mounts.mu.Unlock()
	d.drop(dir)
	return struct{}{}, d.record()
}

func how(force bool) mount.How {
	if force {
		return mount.Force
	}
	return mount.Clean
}

// busy explains a refusal to unmount.
func busy(verb string, err error) error {
	if !errors.Is(err, mount.ErrBusy) {
		return err
	}
	return control.Failed("close them (`lsof` or `fuser -m` names them; a shell may stand in the folder), or use `hearth "+verb+" --force`", "%w", err)
}

// take ends what serves m, cleanly if that is possible at all.
func (d *Daemon) take(m *mounted, how mount.How) error {
	if m.serving == nil {
		return nil
	}
	err := m.serving.Unmount(mount.Clean)
	if err != nil && how != mount.Clean {
		d.logger.Warn("unmounting by force", "dir", m.dir(), "err", err)
		err = m.serving.Unmount(how)
	}
	return err
}

// unmountAll ends all mounts, the newest first, and leaves their records for
// the next start. Without force it is all or nothing: when one is in use, the
// others come back.
func (d *Daemon) unmountAll(ctx context.Context, force bool) error {
	d.mounts.change.Lock()
	defer d.mounts.change.Unlock()
	d.mounts.mu.Lock()
	all := append([]*mounted(nil), d.mounts.list...)
	d.mounts.list = nil // what ends now is no news for watch
	d.mounts.mu.Unlock()
	var errs []error
	for i := len(all) - 1; i >= 0; i-- {
		err := d.take(all[i], how(force))
		if err == nil {
			continue
		}
		if force {
			errs = append(errs, err)
			continue
		}
		for _, m := range all[i+1:] {
			d.revive(ctx, m)
		}
		d.mounts.mu.Lock()
		d.mounts.list = all
		d.mounts.mu.Unlock()
		for _, m := range all[i+1:] {
			go d.watch(m) // ends when the folder is unmounted
		}
		return busy("stop", err)
	}
	return errors.Join(errs...)
}

// remount mounts what is recorded. A mount that cannot be made stays recorded,
// with its problem, and keeps nothing else from working.
func (d *Daemon) remount(ctx context.Context) error {
	records, err := d.home.Mounts()
	if err != nil {
		return control.Failed("remove that file; mounts are made again with `hearth mount`", "record of mounts: %w", err)
	}
	d.mounts.change.Lock()
	defer d.mounts.change.Unlock()
	for _, r := range records {
		m := &mounted{Mount: r, at: r.When}
		d.revive(ctx, m)
		m.revived = m.problem == nil
		d.mounts.mu.Lock()
		d.mounts.list = append(d.mounts.list, m)
		d.mounts.mu.Unlock()
		go d.watch(m) // ends when the folder is unmounted
	}
	return nil
}

// revive mounts what was mounted before.
func (d *Daemon) revive(ctx context.Context, m *mounted) {
	h, err := d.openDrive(ctx, m.Drive)
	if err == nil {
		err = d.serve(ctx, h, m)
	}
	m.problem = err
	if err != nil {
		m.problem = explainMount(m.dir(), err)
		d.logger.Error("a drive cannot be mounted", "drive", m.Drive, "dir", m.dir(), "err", err)
	}
}

// watch notices when somebody else unmounts m (umount, fusermount3 -u), and
// forgets it then: it is not to come back at the next start.
func (d *Daemon) watch(m *mounted) {
	d.mounts.change.Lock()
	serving := m.serving
	d.mounts.change.Unlock()
	if serving == nil {
		return
	}
	<-serving.Wait()
	d.mounts.change.Lock() // an unmount of our own may not be over yet
	defer d.mounts.change.Unlock()
	d.mounts.mu.Lock()
	defer d.mounts.mu.Unlock()
	for _, other := range d.mounts.list {
		if other == m && m.serving == serving { // not one that came back
			d.logger.Info("somebody unmounted a drive", "drive", m.Drive, "dir", m.dir())
			d.drop(m.dir())
			if err := d.record(); err != nil {
				d.logger.Error("the record of mounts is not up to date", "err", err)
			}
			return
		}
	}
}

// drop takes the mount at dir off the list. Under mu.
func (d *Daemon) drop(dir string) {
	kept := d.mounts.list[:0:0]
	for _, m := range d.mounts.list {
		if m.dir() != dir {
			kept = append(kept, m)
		}
	}
	d.mounts.list = kept
}

// record writes the list to mounts.json. Under mu.
func (d *Daemon) record() error {
	records := []home.Mount{}
	for _, m := range d.mounts.list {
		records = append(records, m.Mount)
	}
	if err := d.home.SaveMounts(records); err != nil {
		return fmt.Errorf("record of mounts: %w", err)
	}
	return nil
}

// settler is a mount that can wait until the kernel has heard of all changes
// that were made behind its back.
type settler interface {
	Settle(ctx context.Context) error
}

// settle makes sure that whoever was answered sees in the folder what the
// answer says: the kernel is told in the background. A kernel that does not
// listen is no reason to call the change a failure.
func (d *Daemon) settle(ctx context.Context, drive string) {
	d.mounts.mu.Lock()
	var live settler
	for _, m := range d.mounts.list {
		if m.Drive == drive && m.When == "" && m.serving != nil {
			live, _ = any(m.serving).(settler)
		}
	}
	d.mounts.mu.Unlock()
	if live == nil {
		return
	}
	if err := live.Settle(ctx); err != nil {
		d.logger.Warn("the kernel may show an older state for a while", "drive", drive, "err", err)
	}
}
