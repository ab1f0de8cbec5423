package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/hanwen/go-fuse/v2/fuse"

	"hearth/fs"
)

// Errors of mounting and unmounting.
var (
	// ErrNotEmpty: the mount point has files in it.
	ErrNotEmpty = errors.New("directory is not empty")
	// ErrMounted: something is mounted there.
	ErrMounted = errors.New("already a mount point")
	// ErrNotDir: the mount point is no directory.
	ErrNotDir = errors.New("not a directory")
	// ErrBusy: files are open, or a process works there.
	ErrBusy = errors.New("files are in use")
	// ErrNoFuse: this system cannot mount: FUSE or its helper is missing.
	ErrNoFuse = errors.New("FUSE is not available")
)

// fsType is the type of the file system: mounts say fuse.hearth.
const fsType = "hearth"

const (
	maxWrite             = 1 << 20 // the most Linux moves in one request
	defaultMaxBackground = 64
)

// Options configures a mount.
type Options struct {
	// AllowOther lets other users in; permissions are checked as always.
	// Without root it needs user_allow_other in /etc/fuse.conf.
	AllowOther bool
	// ReadOnly refuses changes.
	ReadOnly bool
	// Snapshot shows an old version, read-only, instead of the live drive.
	Snapshot *fs.Snapshot
	// FSName is the first column of df and of the mount table; "" is "hearth".
	FSName string
	// MaxBackground bounds requests that nobody waits for, such as readahead;
	// 0 is 64.
	MaxBackground int
	// History opens the .history of a live directory; nil is the drive's own.
	History func(ctx context.Context, dir fs.Ino) (HistoryNode, error)
	Logger  *slog.Logger
}

// Mount is a drive in a folder. It serves until it is unmounted, by Unmount or
// by anyone else.
type Mount struct {
	dir    string
	server *server
	done   chan struct{}
}

// New mounts a drive, and returns when the folder is usable. A dead mount left
// there by a killed daemon is replaced. ctx bounds the mounting only.
//
// A drive has one live mount at a time: what is changed through one would not
// reach the kernel's cache of another.
func New(ctx context.Context, drive *fs.Drive, dir string, o Options) (*Mount, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	path, err := prepare(dir)
	if err != nil {
		return nil, fmt.Errorf("mount at %s: %w", dir, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("mount at %s: %w", dir, err)
	}
	s := newServer(drive, o)
	m := &Mount{dir: path, server: s, done: make(chan struct{})}
	kernel, err := fuse.NewServer(s, path, fuseOptions(o, o.ReadOnly || s.drive == nil))
	if err != nil {
		withdraw(path)
		return nil, fmt.Errorf("mount at %s: %w", dir, mountError(err))
	}
	if s.drive != nil || s.followed != nil {
		drive.SetNotifier(s.notes)
	}
	notesCtx, stopNotes := context.WithCancel(context.Background())
	notesDone := make(chan struct{})
	go func() { // ends with the connection to the kernel
		defer close(notesDone)
		s.notes.run(notesCtx, kernel)
	}()
	go func() { // ends when the folder is unmounted; owned by m
		defer close(m.done)
		kernel.Serve()
		// The drive keeps our notifier, which ignores it from now on: after a
		// lazy unmount another mount may have set its own.
		stopNotes()
		<-notesDone
		s.shutdown()
		o.Logger.Info("unmounted", "dir", path)
	}()
	if err := awaitMount(kernel); err != nil {
		return nil, errors.Join(fmt.Errorf("mount at %s: %w", dir, err), m.Unmount(Force))
	}
	tune(path)
	o.Logger.Info("mounted", "dir", path)
	return m, nil
}

func newServer(drive *fs.Drive, o Options) *server {
	s := &server{logger: o.Logger, statfs: drive.Statfs}
	s.notes = newNotifier(s.refs.has)
	if o.Snapshot != nil {
		s.src, s.snapshot = o.Snapshot, o.Snapshot
		return s
	}
	s.src, s.drive, s.history = drive, drive, o.History
	if drive.Followed() {
		s.src, s.drive, s.followed = followed{drive}, nil, drive
	}
	if s.history == nil {
		s.history = drive.History
	}
	return s
}

// fuseOptions are what we ask of go-fuse and the kernel.
func fuseOptions(o Options, readOnly bool) *fuse.MountOptions {
	name := o.FSName
	if name == "" {
		name = fsType
	}
	background := o.MaxBackground
	if background == 0 {
		background = defaultMaxBackground
	}
	f := &fuse.MountOptions{
		Name:          fsType,
		FsName:        name,
		AllowOther:    o.AllowOther,
		Options:       []string{"default_permissions"},
		MaxBackground: background,
		MaxWrite:      maxWrite,
		MaxReadAhead:  maxWrite,
		// All changes are announced: neither a new mtime nor a new size needs
		// to cost the page cache.
		ExplicitDataCacheControl: true,
		EnableSymlinkCaching:     true,
		// Data comes out of seals, into memory: there is no file to splice.
		DisableSplice: true,
		Logger:        slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		PanicHandler: func(p any) fuse.Status {
			o.Logger.Error("request panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			return fuse.EIO
		},
	}
	platformOptions(f, readOnly)
	return f
}

// Dir returns the folder, absolute and without symbolic links.
func (m *Mount) Dir() string { return m.dir }

// Wait returns a channel that is closed when the folder is unmounted and
// everything opened through it is closed.
func (m *Mount) Wait() <-chan struct{} { return m.done }

// Settle returns once the kernel was told of every change made behind its back
// so far, such as an undo, or the mount is gone.
func (m *Mount) Settle(ctx context.Context) error { return m.server.notes.settle(ctx) }

// Notifier tells this mount's kernel what changed; New has set it on the drive.
func (m *Mount) Notifier() fs.Notifier { return m.server.notes }

// How says what Unmount does about files in use.
type How int

const (
	// Clean refuses with [ErrBusy].
	Clean How = iota
	// Lazy takes the folder away at once and serves what is open until it is
	// closed.
	Lazy
	// Force cuts the connection: what is open fails.
	Force
)

// Unmount takes the drive out of its folder. After Clean and Force it returns
// when nothing is served any more. A second call does nothing.
func (m *Mount) Unmount(how How) error {
	select {
	case <-m.done:
		return nil
	default:
	}
	if err := unmount(m.dir, how); err != nil {
		select {
		case <-m.done: // somebody was faster
			return nil
		default:
		}
		return fmt.Errorf("unmount %s: %w", m.dir, err)
	}
	if how != Lazy {
		<-m.done
	}
	return nil
}

// checkEmpty reports why a directory cannot be mounted on, if so: files that a
// mount would hide are a mistake more often than not.
func checkEmpty(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return ErrNotDir
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	switch _, err := f.Readdirnames(1); {
	case err == nil:
		return ErrNotEmpty
	case err != io.EOF:
		return err
	}
	return nil
}

// trimmed is the last line a helper program printed.
func trimmed(out []byte) string {
	out = bytes.TrimSpace(out)
	if i := bytes.LastIndexByte(out, '\n'); i >= 0 {
		out = out[i+1:]
	}
	return string(out)
}
