//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"hearth/cmd/control"
)

// live commits on one device and looks when it shows on another: the contents
// and the size of a file that is open there all the time, and a new name that
// was looked for before. The time is that from the start of the write.
func live(ctx context.Context, n *network) error {
	author, err := n.author(ctx)
	if err != nil {
		return err
	}
	if err := os.WriteFile(author.mnt+"/journal", nil, 0o644); err != nil {
		return err
	}
	if err := author.run(ctx, "sync", driveName); err != nil {
		return err
	}
	link, err := author.share(ctx, false)
	if err != nil {
		return err
	}
	reader, err := n.device("reader", true)
	if err != nil {
		return err
	}
	if err := reader.join(ctx, link); err != nil {
		return err
	}
	if err := reader.show(ctx); err != nil {
		return err
	}
	journal, err := os.OpenFile(author.mnt+"/journal", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer journal.Close()
	seen, err := os.Open(reader.mnt + "/journal")
	if err != nil {
		return err
	}
	defer seen.Close()
	var took []time.Duration
	for i := range n.count(300, 20) {
		one, err := change(ctx, author, reader, journal, seen, i)
		if err != nil {
			return err
		}
		took = append(took, one)
	}
	n.record("live-p50", ms(quantile(took, 0.5)))
	n.record("live-p99", ms(quantile(took, 0.99)))
	return nil
}

// change makes one commit, and waits until it shows.
func change(ctx context.Context, author, reader *member, journal, seen *os.File, i int) (time.Duration, error) {
	const length = 16
	name := fmt.Sprintf("/n%06d", i)
	line := fmt.Sprintf("%0*d\n", length-1, i)
	if _, err := os.Lstat(reader.mnt + name); !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("%s is there before it was made: %v", name, err)
	}
	start := time.Now()
	if err := os.WriteFile(author.mnt+name, nil, 0o644); err != nil {
		return 0, err
	}
	if _, err := journal.WriteString(line); err != nil {
		return 0, err
	}
	if err := journal.Sync(); err != nil {
		return 0, err
	}
	buf := make([]byte, length)
	shows := func() (bool, error) {
		st, err := seen.Stat()
		if err != nil || st.Size() < int64((i+1)*length) {
			return false, err
		}
		if _, err := seen.ReadAt(buf, int64(i*length)); err != nil {
			return false, err
		}
		if string(buf) != line {
			return false, nil
		}
		_, err = os.Lstat(reader.mnt + name)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	}
	err := poll(ctx, shows)
	return time.Since(start), err
}

// idle is what a daemon costs while nothing happens: the processor time of one
// that many devices are connected to, each of which holds its drive.
func idle(ctx context.Context, n *network) error {
	hub, err := n.author(ctx)
	if err != nil {
		return err
	}
	link, err := hub.share(ctx, true)
	if err != nil {
		return err
	}
	peers := n.count(20, 3)
	for i := range peers {
		d, err := n.device(fmt.Sprintf("peer%02d", i), true)
		if err != nil {
			return err
		}
		if err := d.join(ctx, link); err != nil {
			return err
		}
	}
	var list control.PeersAnswer
	err = poll(ctx, func() (bool, error) {
		err := hub.ask(ctx, &list, "peers")
		return len(list.Peers) == peers, err
	})
	if err != nil {
		return fmt.Errorf("%d of %d peers are connected: %w", len(list.Peers), peers, err)
	}
	pid, err := hub.pid(ctx)
	if err != nil {
		return err
	}
	rest, length := 5*time.Second, 20*time.Second
	if n.scale < 1 {
		rest, length = time.Second, 2*time.Second
	}
	if err := pause(ctx, rest); err != nil { // the last ones have just come
		return err
	}
	before, err := processorTime(pid)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := pause(ctx, length); err != nil {
		return err
	}
	after, err := processorTime(pid)
	if err != nil {
		return err
	}
	n.record("idle", 100*(after-before).Seconds()/time.Since(start).Seconds())
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// processorTime is what a process has used so far, in user and kernel mode.
func processorTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may be anything. Behind it the state is field 3
	// of proc_pid_stat(5), the times are 14 and 15.
	_, rest, ok := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
	f := strings.Fields(rest)
	if !ok || len(f) < 13 {
		return 0, fmt.Errorf("process %d: %q", pid, text)
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	const tick = time.Second / 100 // USER_HZ, which is 100 on Linux
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}
