package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hearth/cmd/client"
	"hearth/cmd/control"
	"hearth/cmd/home"
)

// TestKill kills the daemon, with signal 9 and in the middle of the work of
// programs, and looks at what the next daemon makes of what is left: all that
// was acknowledged, a state there was, and every version as it was.
//
// HEARTH_KILLS is how often, HEARTH_KILL_SEED which operations: they are the
// same up to the first kill, which comes when it comes.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	if !canMount() {
		t.Skip("this machine has no FUSE")
	}
	if _, err := exec.LookPath("fusermount3"); err != nil && os.Getuid() != 0 {
		t.Skip("fusermount3 is not installed")
	}
	kills := number(t, "HEARTH_KILLS", 12)
	seed := number(t, "HEARTH_KILL_SEED", rand.Uint64())
	// A drive that is much larger is verified for longer than it is worked on.
	const perDrive = 12
	for run := uint64(0); kills > 0; run++ {
		n := min(kills, perDrive)
		kills -= n
		t.Run(strconv.FormatUint(seed+run, 10), func(t *testing.T) {
			t.Logf("HEARTH_KILL_SEED=%d HEARTH_KILLS=%d does these operations again", seed+run, n)
			v := newVictim(t, seed+run)
			for range n {
				v.round()
			}
			v.finish()
		})
	}
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// victim is a daemon that is killed again and again, with a drive that workers
// use through its mount.
type victim struct {
	t    *testing.T
	rand *rand.Rand
	home *home.Home
	mnt  string

	child *exec.Cmd // the daemon, unless a client started it
	start time.Duration

	clock   atomic.Int64
	killed  atomic.Bool
	syncing chan struct{}
	workers []*worker

	kept map[uint64][]string // what each version held, for each worker
	last uint64              // the newest version that was looked at
}

const driveName = "home"

func newVictim(t *testing.T, seed uint64) *victim {
	t.Helper()
	root := t.TempDir()
	h, err := home.Ensure(filepath.Join(root, "state"))
	if err != nil {
		t.Fatal(err)
	}
	v := &victim{t: t, rand: rand.New(rand.NewPCG(seed, 0)), home: h, mnt: filepath.Join(root, "mnt"),
		syncing: make(chan struct{}), kept: map[uint64][]string{}}
	if err := os.Mkdir(v.mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.end)
	v.hearth("create", driveName)
	v.hearth("mount", driveName, v.mnt)
	for i := range 2 {
		w := &worker{dir: filepath.Join(v.mnt, fmt.Sprint("w", i)), rand: rand.New(rand.NewPCG(seed, uint64(i)+1)),
			clock: &v.clock, killed: &v.killed, syncing: v.syncing, history: []*state{{root: newFolder(0)}}}
		if err := os.Mkdir(w.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		v.workers = append(v.workers, w)
	}
	v.hearth("sync", v.mnt)
	v.last = v.newest()
	return v
}

// end kills what runs and takes the mount away, however far the test came.
func (v *victim) end() {
	v.kill()
	for {
		err := unix.Unmount(v.mnt, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EPERM) {
			err = exec.Command("fusermount3", "-u", "-z", v.mnt).Run()
		}
		if err != nil { // nothing is mounted any more
			return
		}
	}
}

func (v *victim) command(args ...string) *exec.Cmd {
	cmd := exec.Command("hearth", args...)
	cmd.Env = append(os.Environ(), home.Variable+"="+v.home.Dir())
	return cmd
}

// hearth runs a command, which must succeed.
func (v *victim) hearth(args ...string) {
	v.t.Helper()
	if out, err := v.command(args...).CombinedOutput(); err != nil {
		v.fatal("hearth %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (v *victim) fatal(format string, args ...any) {
	v.t.Helper()
	messages, _ := os.ReadFile(v.home.LogPath())
	v.t.Fatalf("%s\nthe daemon said last:\n%s", fmt.Sprintf(format, args...), messages[max(0, len(messages)-3000):])
}

// newest asks the daemon for its newest version.
func (v *victim) newest() uint64 {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.Connect(ctx, v.home, false)
	if err != nil {
		v.fatal("%v", err)
	}
	defer c.Close()
	s, err := client.Call[control.StatusAnswer](ctx, c, control.Status, struct{}{})
	if err != nil || len(s.Drives) != 1 {
		v.fatal("status: %v, %v", s, err)
	}
	if d := s.Drives[0]; len(d.Health) > 0 || len(s.Mounts) != 1 || s.Mounts[0].Problem != "" {
		v.fatal("after a kill the drive says %v and its mounts are %v", d.Health, s.Mounts)
	}
	return s.Drives[0].Version
}

// spawn starts a daemon as a child, and hears on the channel of its end or
// that it is ready.
func (v *victim) spawn() <-chan error {
	v.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		v.fatal("%v", err)
	}
	v.child = v.command("daemon", "--ready-fd", strconv.Itoa(client.ReadyFD))
	v.child.ExtraFiles = []*os.File{w}
	err = v.child.Start()
	_ = w.Close()
	if err != nil {
		v.child = nil
		v.fatal("start the daemon: %v", err)
	}
	ready := make(chan error, 1)
	go func() { // ends when the daemon is ready or has ended
		defer r.Close()
		line, err := bufio.NewReader(r).ReadString('\n')
		if err == nil && strings.TrimSpace(line) != client.Ready {
			err = errors.New(line)
		}
		ready <- err
	}()
	return ready
}

// kill kills the daemon and returns when it is gone.
func (v *victim) kill() {
	v.killed.Store(true)
	pid := v.home.LockedBy()
	if v.child != nil {
		pid = v.child.Process.Pid
	} else if !v.home.Locked() {
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		v.t.Errorf("the daemon, process %d: %v", pid, err)
		return
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		v.t.Errorf("kill the daemon, process %d: %v", pid, err)
	}
	if !gone(fd, 20*time.Second) {
		v.t.Errorf("the daemon, process %d, does not die", pid)
		// It may wait for itself: that ends with the connection. Linux says
		// EBUSY, and cuts it.
		_ = unix.Unmount(v.mnt, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW)
		gone(fd, time.Minute)
	}
	if v.child != nil {
		_ = v.child.Wait() // says that it was killed
		v.child = nil
	}
}

// gone waits until a process has ended.
func gone(pidfd int, patience time.Duration) bool {
	for until := time.Now().Add(patience); ; {
		left := max(0, time.Until(until).Milliseconds())
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(left))
		switch {
		case n > 0:
			return true
		case left == 0, err != nil && !errors.Is(err, unix.EINTR):
			return false
		}
	}
}

// upTo is a random part of d.
func (v *victim) upTo(d time.Duration) time.Duration {
	return time.Duration(v.rand.Int64N(int64(d) + 1))
}

// restart starts a daemon, or lets a client start one. Before that, some are
// killed while they start.
func (v *victim) restart() {
	v.t.Helper()
	for v.start > 0 && v.rand.IntN(3) == 0 {
		ready := v.spawn()
		<-time.After(v.upTo(v.start * 5 / 4))
		v.kill()
		<-ready
	}
	v.killed.Store(false)
	if v.rand.IntN(3) == 0 {
		v.hearth("mount", driveName, v.mnt)
		return
	}
	begun := time.Now()
	select {
	case err := <-v.spawn():
		if err != nil {
			v.fatal("a daemon does not start after another was killed: %v", err)
		}
	case <-time.After(time.Minute):
		v.fatal("a daemon does not get ready after another was killed")
	}
	v.start = time.Since(begun)
}

// round lets the workers work, kills the daemon, and looks at what is there.
func (v *victim) round() {
	v.t.Helper()
	errs := make([]error, len(v.workers))
	var working sync.WaitGroup
	for i, w := range v.workers {
		working.Go(func() { errs[i] = w.run() })
	}
	ended := make(chan struct{})
	go func() { working.Wait(); close(ended) }() // ends with the workers, below
	select {
	case <-ended: // all have failed
	case <-time.After(v.upTo([]time.Duration{10 * time.Millisecond, 200 * time.Millisecond, 200 * time.Millisecond, 1500 * time.Millisecond}[v.rand.IntN(4)])):
		if v.rand.IntN(2) == 0 {
			select {
			case <-v.syncing:
				<-time.After(v.upTo(3 * time.Millisecond))
			case <-ended:
			case <-time.After(time.Minute):
				v.t.Error("nothing was synced for a minute: the daemon hangs")
			}
		}
	}
	v.kill()
	<-ended
	if err := errors.Join(errs...); err != nil {
		v.fatal("%v", err)
	}
	v.restart()
	v.check()
}

// check compares everything there is with everything that was done.
func (v *victim) check() {
	v.t.Helper()
	newest := v.newest()
	at := make([]int, len(v.workers))
	// What a version holds comes not before what an older one holds.
	for _, n := range v.fresh(newest) {
		seen := v.read(v.version(n), false)
		var err error
		if at, err = v.cut(seen, false, at); err != nil {
			v.fatal("version %d of %d: %v", n, newest, err)
		}
		v.kept[n] = seen
	}
	v.last = newest
	var tick int64
	for _, w := range v.workers {
		tick = max(tick, w.tick)
	}
	for i, w := range v.workers {
		at[i] = max(at[i], w.own, w.done(tick))
	}
	at, err := v.cut(v.read(v.mnt, true), true, at)
	if err != nil {
		v.fatal("the drive: %v", err)
	}
	if got := v.read(v.mnt, false); !slices.Equal(got, v.kept[newest]) {
		v.fatal("the drive is not what its newest version %d is:\n%s\nand\n%s", newest, strings.Join(got, "\n"), strings.Join(v.kept[newest], "\n"))
	}
	some := slices.Sorted(maps.Keys(v.kept))
	v.rand.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	v.checkKept(some[:min(4, len(some))])
	for i, w := range v.workers {
		w.restart(at[i])
	}
	v.checkNothingLeft()
	v.hearth("verify", driveName)
}

// fresh chooses versions that were not looked at yet, the newest among them.
func (v *victim) fresh(newest uint64) []uint64 {
	v.t.Helper()
	if newest < v.last {
		v.fatal("the newest version is %d, and was %d", newest, v.last)
	}
	chosen := map[uint64]bool{newest: true}
	if n := newest - v.last; n > 0 {
		for range 6 {
			chosen[v.last+1+v.rand.Uint64N(n)] = true
		}
	}
	return slices.Sorted(maps.Keys(chosen))
}

func (v *victim) version(n uint64) string {
	return filepath.Join(v.mnt, ".history", fmt.Sprint("@", n))
}

// read renders what each worker has in a folder that shows the drive.
func (v *victim) read(dir string, live bool) []string {
	v.t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		v.fatal("%v", err)
	}
	if len(entries) != len(v.workers) {
		v.fatal("in %s there is %v", dir, entries)
	}
	var all []string
	for _, w := range v.workers {
		s, err := dumpFolder(filepath.Join(dir, filepath.Base(w.dir)), live)
		if err != nil {
			v.fatal("%v", err)
		}
		all = append(all, s)
	}
	return all
}

// cut finds the earliest states, from the given ones on, which look like what
// was seen and which were there at one time: what had ended before something
// in them began is in them too.
func (v *victim) cut(seen []string, live bool, from []int) ([]int, error) {
	at := slices.Clone(from)
	for again := true; again; {
		again = false
		for i, w := range v.workers {
			for at[i] < len(w.history) && !w.history[at[i]].looks(seen[i], live) {
				at[i]++
			}
			if at[i] == len(w.history) {
				return nil, w.none(from[i], seen[i], live)
			}
			for j, other := range v.workers {
				if must := other.done(w.history[at[i]].began); must > at[j] {
					at[j], again = must, true
				}
			}
		}
	}
	return at, nil
}

func (v *victim) checkKept(versions []uint64) {
	v.t.Helper()
	for _, n := range versions {
		if got := v.read(v.version(n), false); !slices.Equal(got, v.kept[n]) {
			v.fatal("version %d is\n%s\nand was\n%s", n, strings.Join(got, "\n"), strings.Join(v.kept[n], "\n"))
		}
	}
}

// checkNothingLeft looks for what files without a name may leave: inodes, and
// the file beside the log that their data was in.
func (v *victim) checkNothingLeft() {
	v.t.Helper()
	want := map[[2]int]bool{}
	for i, w := range v.workers {
		w.now().each("", func(_ string, n *node) { want[[2]int{i, n.id}] = true })
	}
	var st unix.Statfs_t
	if err := unix.Statfs(v.mnt, &st); err != nil {
		v.fatal("statfs: %v", err)
	}
	if got := int(st.Files - st.Ffree); got != len(want)+1 {
		v.fatal("the drive has %d inodes, and %d are seen", got, len(want)+1)
	}
	if _, err := os.Stat(filepath.Join(v.home.DriveDir(driveName), "spill")); !errors.Is(err, iofs.ErrNotExist) {
		v.fatal("the data of files that had no name is still there: %v", err)
	}
}

// finish looks at every version once more, after a clean end too.
func (v *victim) finish() {
	v.t.Helper()
	v.checkKept(slices.Sorted(maps.Keys(v.kept)))
	v.hearth("stop")
	if v.child != nil {
		if err := v.child.Wait(); err != nil {
			v.t.Errorf("the daemon ended with %v", err)
		}
		v.child = nil
	}
	v.hearth("mount", driveName, v.mnt)
	v.checkKept([]uint64{v.newest()})
	v.hearth("stop")
	if st, err := os.ReadDir(v.mnt); err != nil || len(st) > 0 {
		v.t.Errorf("after the end there is %v in the mount point, %v", st, err)
	}
}
