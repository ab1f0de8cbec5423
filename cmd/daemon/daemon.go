package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"hearth/cmd/control"
	"hearth/cmd/home"
)

// Options configures a daemon. Home and Logger are required.
type Options struct {
	Home   *home.Home
	Logger *slog.Logger
	// Memory bounds what the daemon uses, in bytes; 0 means what the home's
	// config.json says, or its default.
	Memory  int64
	Verbose bool
	// Background is set for a daemon that a client started.
	Background bool
	// Ready is called once, when the daemon answers and what was recorded is
	// mounted.
	Ready func()
	// Mount is mounted before the daemon is ready; Run fails if it cannot be.
	Mount *control.MountRequest
}

// Daemon is a running daemon.
type Daemon struct {
	home    *home.Home
	logger  *slog.Logger
	memory  int64
	started time.Time

	settings settings
	setMu    sync.Mutex // one change of them at a time

	drives  drives
	mounts  mounts
	network network
	inbox   inbox
	showing sync.Mutex // held while it is decided whether strangers see this device

	ready    chan struct{} // closed when requests may be answered
	stopping chan struct{} // closed when the daemon is to end
	stopOnce sync.Once
}

// farewell is how long requests in flight may take to notice that they were
// canceled.
const farewell = 10 * time.Second

// Run is the daemon, until ctx ends or a client asks it to stop. It returns
// nil after a clean end.
func Run(ctx context.Context, o Options) (err error) {
	lock, err := o.Home.Lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	// Modes of created files are what programs ask for, less their own umask,
	// which the kernel applies or tells.
	syscall.Umask(0)
	moreProcs()
	d, err := newDaemon(o)
	if err != nil {
		return err
	}
	listener, err := o.Home.Listen()
	if err != nil {
		return err
	}
	// Requests live shorter than drives: work in the background and streams
	// end before anything is closed.
	work, endWork := context.WithCancel(ctx)
	defer endWork()
	server := &http.Server{
		Handler:           d.routes(),
		BaseContext:       func(net.Listener) context.Context { return work },
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	err = d.begin(work, o)
	var background sync.WaitGroup
	if err == nil {
		background.Go(func() { d.openAll(work) })
		background.Go(func() { d.upkeep(work) })
		select {
		case <-ctx.Done():
			d.logger.Info("ending: asked by a signal")
		case <-d.stopping:
			d.logger.Info("ending: asked by a client")
		case err = <-served:
			err = fmt.Errorf("control socket: %w", err)
		}
		notifySystemd("STOPPING=1")
	}
	d.letGo() // requests that wait for the start must not wait for ever
	endWork()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	if shutErr := server.Shutdown(end); shutErr != nil {
		_ = server.Close()
	}
	background.Wait()
	return errors.Join(err, d.end(context.WithoutCancel(ctx)))
}

func newDaemon(o Options) (*Daemon, error) {
	config, err := o.Home.Config()
	if err != nil {
		return nil, control.Failed("mend or remove the file config.json in "+o.Home.Dir(), "settings: %w", err)
	}
	device, err := o.Home.Device()
	if err != nil {
		return nil, control.Failed("remove the file device.json in "+o.Home.Dir(), "%w", err)
	}
	memory := o.Memory
	if memory == 0 {
		memory = int64(config.Memory)
	}
	// The runtime's limit is soft, and counts what Go allocates. An eighth is
	// for what it does not count: the program itself, and pages that the
	// kernel takes back only when it has to.
	debug.SetMemoryLimit(memory - memory/8)
	d := &Daemon{
		home: o.Home, logger: o.Logger, memory: memory, started: time.Now(),
		settings: settings{device: device, config: config, began: config},
		ready:    make(chan struct{}), stopping: make(chan struct{}),
	}
	d.drives.open = map[string]*held{}
	return d, nil
}

// begin brings back what was mounted and declares the daemon ready.
func (d *Daemon) begin(ctx context.Context, o Options) error {
	if err := os.MkdirAll(d.home.DrivesDir(), 0o700); err != nil {
		return err
	}
	if err := d.removeUnfinished(); err != nil {
		return err
	}
	receiving, err := d.home.Receiving()
	if err != nil {
		d.logger.Error("nothing is received", "err", err)
	}
	d.inbox.standing = receiving
	if d.home.HasIdentity() || receiving != nil {
		// A device that never spoke to another has no socket open.
		if err := d.network.start(d); err != nil {
			d.logger.Error("other devices cannot be reached", "err", err)
		}
	}
	if err := d.remount(ctx); err != nil {
		return err
	}
	if o.Mount != nil {
		if _, err := d.mount(ctx, *o.Mount); err != nil {
			return err
		}
	}
	d.logger.Info("ready", "version", control.BuildVersion(), "pid", os.Getpid(), "home", d.home.Dir(), "memory", d.memory)
	close(d.ready)
	if o.Ready != nil {
		o.Ready()
	}
	notifySystemd("READY=1")
	return nil
}

// lasting returns a context for work that is to go on when its client goes
// away. It ends with the daemon, or when cancel is called.
func (d *Daemon) lasting(ctx context.Context) (lasting context.Context, cancel context.CancelFunc) {
	lasting, cancel = context.WithCancel(context.WithoutCancel(ctx))
	go func() { // ends with lasting
		select {
		case <-d.stopping:
			cancel()
		case <-lasting.Done():
		}
	}()
	return lasting, cancel
}

// letGo makes the daemon end, and tells requests that it does.
func (d *Daemon) letGo() { d.stopOnce.Do(func() { close(d.stopping) }) }

// end unmounts and closes everything. Whoever still uses a mount gets errors:
// a daemon that was told to end ends.
func (d *Daemon) end(ctx context.Context) error {
	err := d.unmountAll(ctx, true)
	err = errors.Join(err, d.network.end(), d.closeDrives(ctx))
	if err != nil {
		d.logger.Error("the end was not clean", "err", err)
		return err
	}
	d.logger.Info("ended")
	return nil
}

// notifySystemd tells the service manager how the daemon is, if one started
// it: one datagram to the socket that it named (sd_notify(3)).
func notifySystemd(state string) {
	addr := os.Getenv("NOTIFY_SOCKET")
	if addr == "" {
		return
	}
	if addr[0] == '@' { // the abstract namespace
		addr = "\x00" + addr[1:]
	}
	conn, err := net.Dial("unixgram", addr)
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state))
}
