package daemon

import (
	"context"
	iofs "io/fs"
	"os"
	"runtime/metrics"
	"syscall"

	"hearth/cmd/control"
)

func (d *Daemon) ping(context.Context, struct{}) (control.Pong, error) {
	return control.Pong{PID: os.Getpid(), Version: control.BuildVersion(), Mounts: d.mounted()}, nil
}

// stop ends the daemon, if nobody uses its mounts or force is set.
func (d *Daemon) stop(ctx context.Context, req control.StopRequest) (struct{}, error) {
	if err := d.unmountAll(context.WithoutCancel(ctx), req.Force); err != nil {
		return struct{}{}, err
	}
	d.letGo()
	return struct{}{}, nil
}

func (d *Daemon) status(ctx context.Context, _ struct{}) (control.StatusAnswer, error) {
	s := control.StatusAnswer{
		PID: os.Getpid(), Version: control.BuildVersion(), Home: d.home.Dir(), Started: d.started,
		Device: control.Device{Name: d.settings.name()},
		Memory: control.Memory{Limit: d.memory, Used: memoryUsed()},
		Drives: []control.DriveStatus{}, Mounts: d.mounted(),
	}
	if r := d.inbox.receiving(); r != nil {
		s.Receive = &control.Receiving{Path: control.PathOf(string(r.Dir)), Yes: r.Yes}
	}
	names, err := d.home.Drives()
	if err != nil {
		return s, err
	}
	for _, name := range names {
		st, err := d.driveStatus(ctx, name)
		if err != nil {
			return s, err
		}
		for _, m := range s.Mounts {
			if m.Drive == name && m.Problem == "" {
				st.Mounts = append(st.Mounts, m.Raw())
			}
		}
		s.Drives = append(s.Drives, st)
	}
	return s, nil
}

// driveStatus describes one drive. That it cannot be opened is part of the
// description.
func (d *Daemon) driveStatus(ctx context.Context, name string) (control.DriveStatus, error) {
	st := control.DriveStatus{Name: name, Mounts: []string{}, Health: []string{}, Bytes: diskUse(d.home.DriveDir(name))}
	h, err := d.openDrive(ctx, name)
	if err != nil {
		if ctx.Err() != nil {
			return st, context.Cause(ctx)
		}
		if h := d.onlyHeld(name); h != nil {
			st.ID = h.store.ID()
			st.Blocks, st.Missing = h.blocks()
			st.Health = append(st.Health, h.health()...)
			return st, nil
		}
		st.Health = append(st.Health, err.Error())
		return st, nil
	}
	st.ID = h.store.ID()
	st.Blocks, st.Missing = h.blocks()
	st.Version = h.drive.Newest().Seq
	st.Unsaved = h.drive.Unsaved()
	if sf, err := h.drive.Statfs(ctx); err != nil {
		st.Health = append(st.Health, err.Error())
	} else {
		st.Logical, st.Files = int64(sf.LogicalSize), sf.Files
	}
	st.Holders = d.network.holders(h.store.DriveID(), name)
	st.Health = append(append(st.Health, h.health()...), lost(st.Holders)...)
	return st, nil
}

// blocks counts the entries of all logs, and those that are not here.
func (h *held) blocks() (all, missing uint64) {
	for _, l := range h.store.Logs() {
		all += l.Head().Size
		if l.IsReplica() {
			missing += l.Missing()
		}
	}
	return all, missing
}

// memoryUsed is what the runtime counts against its limit.
func memoryUsed() int64 {
	sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64() - sample[1].Value.Uint64())
}

// allocated is the space a file takes.
func allocated(info iofs.FileInfo) int64 {
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		return sys.Blocks * 512
	}
	return info.Size()
}
