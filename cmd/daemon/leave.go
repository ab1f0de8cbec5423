package daemon

import (
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"

	"hearth/cmd/control"
	"hearth/log"
	"hearth/log/disk"
)

// leave forgets a drive that was joined. What this device may be the only one to
// have goes only when that was said to be wanted.
func (d *Daemon) leave(ctx context.Context, req control.LeaveRequest, out *sink) (control.Left, error) {
	h, err := d.openDrive(ctx, req.Drive)
	if err != nil {
		if h = d.onlyHeld(req.Drive); h == nil {
			return control.Left{}, err
		}
	}
	done := control.Left{Name: h.name, ID: h.store.ID(), Hold: h.drive == nil}
	if h.store.OwnWriter() != log.NoWriter || h.store.IsOwner() {
		return done, control.Failed("`hearth unmount DIR` puts it away; `hearth leave` is for drives that were joined",
			"drive %s was made on this device, and may be nowhere else", h.name)
	}
	if err := d.checkUnmounted(h.name); err != nil {
		return done, err
	}
	if !req.Yes {
		if err := d.network.start(d); err != nil {
			return done, err
		}
		l, stay, err := d.network.node.Leave(ctx, h.store, func(n, total uint64) { out.progress("leave", int64(n), int64(total)) })
		if err != nil {
			return done, err
		}
		defer stay()
		done.Blocks, done.Unproved, done.Asked = l.Here, l.Only, l.Asked
		if l.Only > 0 {
			return done, nil
		}
	}
	done.Freed, err = d.discard(ctx, h)
	done.Left = err == nil
	return done, err
}

// checkUnmounted refuses a drive that is mounted, or is to be when the daemon
// starts again.
func (d *Daemon) checkUnmounted(drive string) error {
	for _, m := range d.mounted() {
		if m.Drive == drive {
			dir := control.Show(m.Raw())
			return control.Failed("`hearth unmount "+dir+"` first", "drive %s is mounted at %s", drive, dir)
		}
	}
	return nil
}

// discard removes a drive from this device, and returns the bytes of disk that
// it took. When it returns the drive is gone, unless there is an error.
func (d *Daemon) discard(ctx context.Context, h *held) (freed int64, err error) {
	freed = diskUse(d.home.DriveDir(h.name))
	aside, err := d.setAside(context.WithoutCancel(ctx), h)
	if err != nil {
		return 0, fmt.Errorf("leaving drive %s: %w", h.name, err)
	}
	if err := log.Discard(disk.OS{}, aside); err != nil {
		d.logger.Error("the files of a drive that was left go when the daemon starts again", "drive", h.name, "err", err)
	}
	d.logger.Info("left a drive", "drive", h.name, "id", h.store.ID())
	return freed, nil
}

// setAside closes a drive, and takes it from its place: the name is free. Who is
// still at work with it gets errors. When it fails the drive is opened again by
// whoever uses it next.
func (d *Daemon) setAside(ctx context.Context, h *held) (aside string, err error) {
	// Nobody mounts it meanwhile.
	d.mounts.change.Lock()
	defer d.mounts.change.Unlock()
	if err := d.checkUnmounted(h.name); err != nil {
		return "", err
	}
	defer d.forget(h) // after its lock is given back: closeDrives takes both in the other order
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return "", control.NoDaemon("", "the daemon ends")
	case h.left:
		return "", control.Failed("`hearth list` shows the drives", "it was left already")
	}
	h.left = true
	d.network.remove(h.store)
	// What cannot be saved of it is not wanted.
	if h.drive != nil {
		if err := h.drive.Close(ctx); err != nil {
			d.logger.Warn("a drive that is left did not close in good order", "drive", h.name, "err", err)
		}
	}
	if err := h.store.Close(); err != nil {
		d.logger.Warn("a drive that is left did not close in good order", "drive", h.name, "err", err)
	}
	aside = filepath.Join(d.home.DrivesDir(), discarded+rand.Text())
	return aside, log.SetAside(disk.OS{}, d.home.DriveDir(h.name), aside)
}
