package daemon

import (
	"context"
	"errors"
	iofs "io/fs"
	"os"
	"path/filepath"
	"syscall"

	"hearth/cmd/control"
	"hearth/fs"
	"hearth/log"
)

// verify reads a whole drive and reports every damage.
func (d *Daemon) verify(ctx context.Context, req control.VerifyRequest, out *sink) (control.Verified, error) {
	var done control.Verified
	var failed error
	if _, err := d.openDrive(ctx, req.Drive); errors.Is(err, log.ErrDamaged) || errors.Is(err, fs.ErrDamaged) {
		return d.verifyLog(ctx, req.Drive, err, out)
	} else if err != nil {
		if h := d.onlyHeld(req.Drive); h != nil {
			return d.verifyHeld(ctx, h, out)
		}
		return done, err
	}
	p, err := d.findDrive(ctx, req.Drive)
	if err != nil {
		return done, err
	}
	r, err := p.drive.Verify(ctx, func(v fs.Damage) {
		done.Damaged++
		if failed == nil {
			failed = out.item(control.DamageInfo{Path: control.PathOf(v.Path), Version: version(v.Version), Block: v.Block, Problem: v.Problem})
		}
	}, func(blocks, total int64) { out.progress("verify", blocks, total) })
	done.Versions, done.Blocks, done.Bytes, done.Dropped = r.Versions, r.Blocks, r.Bytes, r.Dropped
	done.Forks = forks(p.store)
	return done, errors.Join(err, failed)
}

// verifyLog checks what can be checked of a drive that is too damaged to be
// opened: why it cannot, and each block by itself.
func (d *Daemon) verifyLog(ctx context.Context, name string, why error, out *sink) (done control.Verified, err error) {
	h := d.lockDrive(name) // nobody else opens it meanwhile
	defer h.mu.Unlock()
	done.Damaged = 1
	if err := out.item(control.DamageInfo{Problem: why.Error()}); err != nil {
		return done, err
	}
	store, err := log.OpenStore(log.StoreOptions{Dir: d.home.DriveDir(name), Logger: d.logger})
	if errors.Is(err, log.ErrDamaged) {
		return done, nil // that is why
	}
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	l := store.Own()
	if l == nil {
		if l, err = store.Replica(0); err != nil {
			return done, err
		}
	}
	var failed error
	err = l.Verify(ctx, func(v log.Damage) {
		done.Damaged++
		if failed == nil {
			failed = out.item(logDamage(v))
		}
	}, func(bytes, total int64) {
		done.Bytes = bytes
		out.progress("verify", bytes, total)
	})
	done.Blocks = int64(l.Size())
	return done, errors.Join(err, failed)
}

// export writes the log as static files into a new or empty folder. They are
// written beside it and renamed into place when they are complete.
func (d *Daemon) export(ctx context.Context, req control.ExportRequest, out *sink) (struct{}, error) {
	p, err := d.findDrive(ctx, req.Drive)
	if err != nil {
		return struct{}{}, err
	}
	own := p.store.Own()
	if own == nil {
		return struct{}{}, control.Failed("run it on the device that made the drive", "drive %s is not written by this device", req.Drive)
	}
	dir := req.Raw()
	shown := control.Show(dir)
	if !filepath.IsAbs(dir) {
		return struct{}{}, control.Usage("", "%s is not an absolute path", shown)
	}
	switch names, err := os.ReadDir(dir); {
	case err == nil && len(names) > 0:
		return struct{}{}, control.Failed("give a new or empty folder", "%s is not empty", shown)
	case errors.Is(err, syscall.ENOTDIR):
		return struct{}{}, control.Failed("give a new or empty folder", "%s is not a folder", shown)
	case err != nil && !errors.Is(err, iofs.ErrNotExist):
		return struct{}{}, err
	}
	if err := p.drive.Sync(ctx); err != nil {
		return struct{}{}, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".hearth-export-")
	if errors.Is(err, iofs.ErrNotExist) {
		return struct{}{}, control.Failed("make the folder first", "the folder %s does not exist", control.Show(filepath.Dir(dir)))
	}
	if err != nil {
		return struct{}{}, err
	}
	err = own.Export(ctx, tmp)
	if err == nil {
		err = os.Chmod(tmp, 0o755) // it is made to be published
	}
	if err == nil {
		// Onto an empty folder, which os.Rename refuses and rename(2) replaces.
		err = syscall.Rename(tmp, dir)
	}
	if err != nil {
		err = errors.Join(err, os.RemoveAll(tmp))
	}
	return struct{}{}, err
}
