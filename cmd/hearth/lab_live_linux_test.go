package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"hearth/cmd/control"
)

// labLive: what is committed on one device is seen on the other, through the
// kernel, at once; what did not change costs its daemon nothing.
func labLive(l *lab) {
	still := noise(1, mib)
	author, dir := l.author(nil, func(dir string) {
		l.must(os.WriteFile(filepath.Join(dir, "counter"), make([]byte, 8), 0o600))
		l.must(os.WriteFile(filepath.Join(dir, "still"), still, 0o600))
		l.must(os.Mkdir(filepath.Join(dir, "folder"), 0o755))
	})
	reader := l.device("reader", nil).start()
	reader.join(author.share())
	mnt := reader.mount()
	held, err := os.Open(filepath.Join(mnt, "counter"))
	l.must(err)
	defer held.Close()
	counter, err := os.OpenFile(filepath.Join(dir, "counter"), os.O_RDWR, 0)
	l.must(err)
	defer counter.Close()

	feed := reader.command("changes", labDrive, "--since", fmt.Sprint("@", reader.version()), "--follow")
	lines, err := feed.StdoutPipe()
	l.must(err)
	l.must(feed.Start())
	defer func() { _ = feed.Process.Kill(); _ = feed.Wait() }()
	changes := make(chan control.FeedEntry, 10_000)
	go func() { // ends with the command
		defer close(changes)
		for s := bufio.NewScanner(lines); s.Scan(); {
			var e control.FeedEntry
			if json.Unmarshal(s.Bytes(), &e) == nil {
				changes <- e
			}
		}
	}()

	n := sized(100, 1000)
	var size int64 = 8
	for _, m := range []struct {
		what string
		do   func(i int)
		seen func(i int) bool
	}{
		{"contents, in a file that is held open", func(i int) {
			b := binary.BigEndian.AppendUint64(nil, uint64(i+1))
			_, err := counter.WriteAt(b, 0)
			l.must(err)
			l.must(counter.Sync())
		}, func(i int) bool {
			var b [8]byte
			_, err := held.ReadAt(b[:], 0)
			l.must(err)
			got := binary.BigEndian.Uint64(b[:])
			if got > uint64(i+1) || got < uint64(i) {
				l.Fatalf("the counter was %d and then %d", i, got)
			}
			return got == uint64(i+1)
		}},
		{"size", func(int) {
			size++
			_, err := counter.WriteAt([]byte{1}, size-1)
			l.must(err)
			l.must(counter.Sync())
		}, func(int) bool {
			st, err := os.Stat(filepath.Join(mnt, "counter"))
			l.must(err)
			return st.Size() == size
		}},
		{"listing", func(i int) {
			f, err := os.Create(filepath.Join(dir, "folder", fmt.Sprint(i)))
			l.must(err)
			l.must(f.Sync())
			l.must(f.Close())
		}, func(i int) bool {
			names, err := os.ReadDir(filepath.Join(mnt, "folder"))
			l.must(err)
			return len(names) == i+1
		}},
	} {
		var times []time.Duration
		for i := range n {
			start := time.Now()
			m.do(i)
			l.until(m.what+" is seen", 30*time.Second, func() bool { return m.seen(i) })
			times = append(times, time.Since(start))
		}
		l.within(m.what+" seen after the write began, median", percentile(times, 50), 100*time.Millisecond, time.Second)
		l.within(m.what+" seen after the write began, 99th percentile", percentile(times, 99), 300*time.Millisecond, 5*time.Second)
	}

	want := fmt.Sprintf("/folder/%d", n-1)
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	for found := false; !found; {
		select {
		case e, ok := <-changes:
			found = e.Path.Raw() == want
			if !ok {
				l.Fatal("`hearth changes --follow` ended")
			}
		case <-late.C:
			l.Fatalf("`hearth changes --follow` did not tell of %s", want)
		}
	}
	start := time.Now()
	l.must(os.WriteFile(filepath.Join(dir, "folder", "last"), nil, 0o600))
	author.hearth("sync", labDrive)
	for e := range changes {
		if e.Path.Raw() == "/folder/last" {
			break
		}
	}
	l.within("change told by `hearth changes --follow`", time.Since(start), time.Second, 10*time.Second)

	l.unchanged(reader, filepath.Join(mnt, "still"), still)
}

// unchanged checks that reading a file again does not reach the daemon: its
// pages are there when it is opened again, and a file that is open is read
// while the daemon is stopped.
func (l *lab) unchanged(reader *device, path string, want []byte) {
	l.Helper()
	l.same(readAt(path, 0, len(want)), want)
	f, err := os.Open(path)
	l.must(err)
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ, unix.MAP_SHARED)
	l.must(err)
	resident := make([]byte, len(want)/os.Getpagesize())
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&resident[0])))
	l.must(unix.Munmap(m))
	if errno != 0 {
		l.Fatalf("mincore: %v", errno)
	}
	for i, r := range resident {
		if r&1 == 0 {
			l.Errorf("page %d of %d of a file that was read is not in memory when it is opened again", i, len(resident))
			break
		}
	}
	reader.signal(unix.SIGSTOP)
	defer reader.signal(unix.SIGCONT)
	done := make(chan []byte, 1)
	go func() { // ends with the read
		b := make([]byte, len(want))
		n, _ := f.ReadAt(b, 0)
		done <- b[:n]
	}()
	select {
	case b := <-done:
		l.same(b, want)
	case <-time.After(10 * time.Second):
		l.Error("reading a file again needs the daemon")
	}
}

// labStream: a file that grows is followed while it grows, and read anywhere.
func labStream(l *lab) {
	const rate = 50 * mbit
	seconds := sized(4, 30)
	all := noise(1, rate*seconds)
	author, dir := l.author(nil, nil)
	link := author.share()
	reader, late := l.device("viewer", nil).start(), l.device("late", nil).start()
	reader.join(link)
	mnt := reader.mount()
	live, err := os.Create(filepath.Join(dir, "live"))
	l.must(err)
	l.until("the file is there", 10*time.Second, func() bool {
		_, err := os.Stat(filepath.Join(mnt, "live"))
		return err == nil
	})
	tail := reader.command()
	tail.Path, tail.Args = "/usr/bin/tail", []string{"tail", "-c", "+1", "-s", "0.1", "-f", filepath.Join(mnt, "live")}
	follows, err := tail.StdoutPipe()
	l.must(err)
	l.must(tail.Start())
	defer func() { _ = tail.Process.Kill(); _ = tail.Wait() }()

	start := time.Now()
	const piece = 64 << 10
	due := func(off int) time.Time {
		return start.Add(time.Duration(float64(off) / rate * float64(time.Second)))
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for off := 0; off < len(all); off += piece {
			<-time.After(time.Until(due(off)))
			if _, err := live.Write(all[off:min(off+piece, len(all))]); err != nil {
				l.Errorf("writing: %v", err)
				return
			}
		}
		if err := live.Sync(); err != nil {
			l.Errorf("writing: %v", err)
		}
	})
	wg.Go(func() { // somebody joins late, and seeks
		<-time.After(time.Until(due(len(all) / 2)))
		if !late.tryJoin(link) {
			return
		}
		mnt := late.mount()
		path := filepath.Join(mnt, "live")
		seeks := 0
		for time.Now().Before(due(len(all))) {
			st, err := os.Stat(path)
			if err != nil {
				l.Errorf("the late viewer: %v", err)
				return
			}
			size := int(st.Size())
			for _, at := range []int{size - piece, 0, size / 2, size / 3, size - 3*piece} {
				o := readAt(path, max(at, 0), min(piece, size))
				if o.err != nil && o.err != io.EOF || string(o.b) != string(all[max(at, 0):][:len(o.b)]) || len(o.b) < min(piece, size-max(at, 0)) {
					l.Errorf("the late viewer read %d bytes at %d of %d: %v", len(o.b), at, size, o.err)
					return
				}
				seeks++
			}
		}
		l.Logf("the late viewer sought %d times", seeks)
	})
	var lags []time.Duration
	buf := make([]byte, 1<<20)
	for off := 0; off < len(all); {
		n, err := follows.Read(buf)
		if err != nil {
			l.Errorf("tail ended after %d bytes: %v", off, err)
			break
		}
		if off+n > len(all) || string(buf[:n]) != string(all[off:off+n]) {
			l.Errorf("tail read something else between %d and %d", off, off+n)
			break
		}
		off += n
		lags = append(lags, time.Since(due(off)))
	}
	wg.Wait()
	l.must(live.Close())
	if len(lags) > 0 {
		l.within("`tail -f` of a file that grows at 50 Mbit/s is behind, median", percentile(lags, 50), 1200*time.Millisecond, 5*time.Second)
		l.within("`tail -f` of a file that grows at 50 Mbit/s is behind, at most", percentile(lags, 100), 2*time.Second, 10*time.Second)
	}
}
