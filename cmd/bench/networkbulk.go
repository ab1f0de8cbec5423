//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// writeFresh writes a file of bytes that were never seen before, and syncs it.
func writeFresh(path string, size int) error {
	f, err := open(path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY)
	if err != nil {
		return err
	}
	for off := 0; off < size && err == nil; off += block {
		err = f.writeAt(fresh(min(block, size-off)), off)
	}
	if err == nil {
		err = f.sync()
	}
	return errors.Join(err, f.close())
}

// replicateBig brings a drive with one big file to a device that holds it.
func replicateBig(ctx context.Context, n *network) error {
	return n.replicate(ctx, n.size(gib), "memory", func(size int, took time.Duration) error {
		n.record("replicate", float64(size)/1e6/took.Seconds())
		return n.raw(ctx, "replicate")
	})
}

// replicateHuge is ten times that, for the memory it takes.
func replicateHuge(ctx context.Context, n *network) error {
	return n.replicate(ctx, n.size(10*gib), "memory10", func(int, time.Duration) error { return nil })
}

func (n *network) replicate(ctx context.Context, size int, memory string, took func(int, time.Duration) error) error {
	author, err := n.author(ctx)
	if err != nil {
		return err
	}
	if err := writeFresh(author.mnt+"/"+big, size); err != nil {
		return err
	}
	holder, link, err := n.holder(ctx, author)
	if err != nil {
		return err
	}
	var above []func() (float64, error)
	for _, d := range []*member{author, holder} {
		f, err := d.watchMemory(ctx)
		if err != nil {
			return err
		}
		above = append(above, f)
	}
	d, err := holder.hold(ctx, link)
	if err != nil {
		return err
	}
	for i, f := range above {
		most, err := f()
		if err != nil {
			return err
		}
		n.record(memory+[]string{"-author", "-holder"}[i], most)
	}
	return took(size, d)
}

// replicateMany brings a drive with many small files to one.
func replicateMany(ctx context.Context, n *network) error {
	author, err := n.author(ctx)
	if err != nil {
		return err
	}
	if _, err := makeMany(author.mnt+"/"+many, n.count(10_000, 200)); err != nil {
		return err
	}
	holder, link, err := n.holder(ctx, author)
	if err != nil {
		return err
	}
	took, err := holder.hold(ctx, link)
	if err != nil {
		return err
	}
	n.record("replicate-many", took.Seconds())
	return nil
}

// holder makes a second device for the author's drive, which is shared. Both
// daemons run, and nothing is left to write.
func (n *network) holder(ctx context.Context, author *member) (*member, string, error) {
	if err := author.run(ctx, "sync", driveName); err != nil {
		return nil, "", err
	}
	if err := author.halt(ctx); err != nil { // with what writing took
		return nil, "", err
	}
	link, err := author.share(ctx, true)
	if err != nil {
		return nil, "", err
	}
	holder, err := n.device("holder", true)
	if err != nil {
		return nil, "", err
	}
	if err := holder.begin(ctx); err != nil {
		return nil, "", err
	}
	unix.Sync()
	return holder, link, nil
}

// hold joins by a link that lets hold, and returns how long it took until all
// of the drive is there and durable.
func (d *member) hold(ctx context.Context, link string) (time.Duration, error) {
	start := time.Now()
	if err := d.join(ctx, link); err != nil {
		return 0, err
	}
	if err := d.whole(ctx); err != nil {
		return 0, err
	}
	if err := d.run(ctx, "sync", driveName); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

// watchMemory returns a function that says how much resident memory the daemon
// took at most since, above what it has now, in MiB.
func (d *member) watchMemory(ctx context.Context) (func() (float64, error), error) {
	pid, err := d.pid(ctx)
	if err != nil {
		return nil, err
	}
	// 5: the peak begins anew, see proc_pid_clear_refs(5).
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5\n"), 0); err != nil {
		return nil, err
	}
	idle, _, err := d.memory(ctx)
	if err != nil {
		return nil, err
	}
	return func() (float64, error) {
		_, most, err := d.memory(ctx)
		return most - idle, err
	}, nil
}

// sendBig sends one big file from hand to hand.
func sendBig(ctx context.Context, n *network) error {
	size := n.size(gib)
	if err := writeFresh(n.path(big), size); err != nil {
		return err
	}
	took, err := n.send(ctx, big)
	if err != nil {
		return err
	}
	n.record("send", float64(size)/1e6/took.Seconds())
	return n.raw(ctx, "send")
}

// sendMany sends a folder of small files.
func sendMany(ctx context.Context, n *network) error {
	if _, err := makeMany(n.path(many), n.count(10_000, 200)); err != nil {
		return err
	}
	took, err := n.send(ctx, many)
	if err != nil {
		return err
	}
	n.record("send-many", took.Seconds())
	return nil
}

// send sends what has a name in the network's folder from one device to
// another, and compares. The time is that until both sides say that they are
// done.
func (n *network) send(ctx context.Context, name string) (time.Duration, error) {
	left, err := n.device("left", true)
	if err != nil {
		return 0, err
	}
	right, err := n.device("right", true)
	if err != nil {
		return 0, err
	}
	for _, d := range n.devices {
		if err := d.begin(ctx); err != nil {
			return 0, err
		}
	}
	port, err := right.port(ctx)
	if err != nil {
		return 0, err
	}
	in := n.path("in")
	if err := os.Mkdir(in, 0o755); err != nil {
		return 0, err
	}
	wait, err := right.receive(ctx, in)
	if err != nil {
		return 0, err
	}
	unix.Sync()
	start := time.Now()
	err = left.run(ctx, "send", n.path(name), "--to", fmt.Sprintf("127.0.0.1:%d", port))
	err = errors.Join(err, wait(err == nil))
	took := time.Since(start)
	if err != nil {
		return 0, err
	}
	return took, command(ctx, "diff", "-r", n.path(name), in+"/"+name)
}

// receive starts a client that takes one transfer, and returns what waits for
// its end, or makes it end.
func (d *member) receive(ctx context.Context, dir string) (wait func(good bool) error, err error) {
	cmd := d.command(ctx, "receive", "--yes", "--once", "--dir", dir)
	var said bytes.Buffer
	pipe, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(pipe)
	waits := false
	for !waits && lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		waits = strings.Contains(lines.Text(), "waiting")
	}
	end := func(good bool) error {
		if !good {
			_ = cmd.Process.Kill()
		}
		for lines.Scan() {
			said.WriteString(lines.Text() + "\n")
		}
		var failed *exec.ExitError
		if err := cmd.Wait(); errors.As(err, &failed) && good {
			return fmt.Errorf("receive: %w: %s", err, strings.TrimSpace(said.String()))
		}
		return nil
	}
	if !waits {
		return nil, end(true)
	}
	return end, nil
}
