package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hearth/cmd/home"
)

// What a program reads of what is not here is an error that says why. It is
// never zeros, a short read, or that there is no such file.

// refused checks the error of an operation, and that it came in time.
func (l *lab) refused(what string, o outcome, want syscall.Errno, most time.Duration) {
	l.Helper()
	got := errnoOf(o.err)
	l.Logf("%s: %v after %v", what, o.err, o.took.Round(time.Millisecond))
	if got != want {
		l.Errorf("%s: %v and %d bytes, not %v", what, o.err, len(o.b), want)
	}
	if o.took > most+10*time.Second {
		l.Errorf("%s: that took %v, more than %v", what, o.took, most)
	}
}

// listed lists a directory.
func listed(dir string) outcome {
	start := time.Now()
	_, err := os.ReadDir(dir)
	return outcome{err: err, took: time.Since(start)}
}

// looked looks a name up.
func looked(path string) outcome {
	start := time.Now()
	_, err := os.Lstat(path)
	return outcome{err: err, took: time.Since(start)}
}

// absent is a drive of which a reader has one file, and knows of others.
func (l *lab) absent(w *wire) (author, reader *device, mnt string, here, want []byte) {
	l.Helper()
	here, want = noise(1, mib), noise(2, 2*mib)
	author, dir := l.author(w, nil)
	// What is read comes last, as what follows in the log is read ahead.
	l.must(os.Mkdir(filepath.Join(dir, "folder"), 0o755))
	for i := range 3000 { // enough for the folder to have pages of its own
		l.must(os.WriteFile(filepath.Join(dir, "folder", fmt.Sprint("a name that takes some room ", i)), nil, 0o600))
	}
	author.hearth("sync", labDrive)
	l.must(os.WriteFile(filepath.Join(dir, "there"), want, 0o600))
	author.hearth("sync", labDrive)
	l.must(os.WriteFile(filepath.Join(dir, "here"), here, 0o600))
	author.hearth("sync", labDrive)
	reader = l.device("reader", nil).start()
	reader.join(author.share())
	mnt = reader.mount()
	l.same(readAt(filepath.Join(mnt, "here"), 0, mib), here)
	st, err := os.Stat(filepath.Join(mnt, "there"))
	l.must(err)
	if st.Size() != int64(len(want)) {
		l.Fatalf("the size is %d", st.Size())
	}
	return author, reader, mnt, here, want
}

// labUnreachable: when nobody can be reached, that is what is said.
func labUnreachable(l *lab) {
	author, reader, mnt, here, want := l.absent(nil)
	author.plug(false)
	// The connection is not known to be dead at once.
	const bound = 20 * time.Second
	there := filepath.Join(mnt, "there")
	l.refused("a read, when the cable was pulled just now", readAt(there, 1024*1024, 64<<10), syscall.ENETUNREACH, bound)
	l.until("the reader has no peer", 30*time.Second, func() bool { return len(reader.peers()) == 0 })
	l.refused("a read, with nobody connected", readAt(there, 0, 64<<10), syscall.ENETUNREACH, bound)
	l.refused("a list, with nobody connected", listed(filepath.Join(mnt, "folder")), syscall.ENETUNREACH, bound)
	l.refused("a look-up, with nobody connected", looked(filepath.Join(mnt, "folder", "a name that takes some room 1500")), syscall.ENETUNREACH, bound)
	if st, err := os.Stat(there); err != nil || st.Size() != int64(len(want)) {
		l.Errorf("the size of a file that is known is %v, %v", st, err)
	}
	l.same(readAt(filepath.Join(mnt, "here"), 0, mib), here)

	// A device that was restarted meanwhile says the same.
	reader.hearth("unmount", mnt)
	reader.stop()
	reader.start()
	reader.hearth("mount", labDrive, mnt)
	l.same(readAt(filepath.Join(mnt, "here"), 0, mib), here)
	l.refused("a read after a restart, with nobody connected", readAt(there, 0, 64<<10), syscall.ENETUNREACH, bound)

	author.plug(true)
	took := l.until("the reader is connected again", time.Minute, func() bool { return reader.sharing() > 0 })
	l.Logf("connected again after %v", took.Round(time.Millisecond))
	l.same(readAt(there, 0, len(want)), want)
}

// labSilence: who is there and does not answer is waited for no longer than
// 30 s.
func labSilence(l *lab) {
	w := &wire{}
	_, _, mnt, here, want := l.absent(w)
	there := filepath.Join(mnt, "there")
	w.narrow.Store(true)
	l.refused("a read from a device that answers nothing", readAt(there, 0, 64<<10), syscall.ETIMEDOUT, 30*time.Second)
	l.same(readAt(filepath.Join(mnt, "here"), 0, mib), here)
	w.narrow.Store(false)
	took := l.until("it can be read again", time.Minute, func() bool {
		o := readAt(there, 0, mib)
		if o.err == nil {
			l.same(o, want[:mib])
		}
		return o.err == nil
	})
	l.Logf("read again %v after it began to answer", took.Round(time.Millisecond))
}

// labStopped: a daemon that is stopped gives no sign of life, as if it were
// gone, which cannot be told apart; so either error will do.
func labStopped(l *lab) {
	author, _, mnt, here, want := l.absent(nil)
	there := filepath.Join(mnt, "there")
	author.signal(unix.SIGSTOP)
	o := readAt(there, 0, 64<<10)
	wanted := syscall.ENETUNREACH
	if errnoOf(o.err) == syscall.ETIMEDOUT {
		wanted = syscall.ETIMEDOUT
	}
	l.refused("a read from a device that is stopped", o, wanted, 30*time.Second)
	l.same(readAt(filepath.Join(mnt, "here"), 0, mib), here)
	author.signal(unix.SIGCONT)
	l.until("it can be read again", time.Minute, func() bool {
		o := readAt(there, 0, len(want))
		if o.err == nil {
			l.same(o, want)
		}
		return o.err == nil
	})
}

// labFullDisk: a full disk under a reader is said to be that, and what is here
// is read as before.
func labFullDisk(l *lab) {
	want := noise(1, 24*mib)
	author, _ := l.author(nil, func(dir string) {
		l.must(os.WriteFile(filepath.Join(dir, "film"), want, 0o600))
	})
	link := author.share()
	reader := l.device("reader", nil)
	disk := reader.home.Dir()
	record, err := os.ReadFile(filepath.Join(disk, "device.json"))
	l.must(err)
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=16m,mode=700"); err != nil {
		l.Skipf("this machine mounts no tmpfs: %v", err)
	}
	l.Cleanup(func() {
		reader.kill()
		l.must(unix.Unmount(disk, unix.MNT_DETACH))
	})
	reader.home, err = home.Ensure(disk)
	l.must(err)
	l.must(os.WriteFile(filepath.Join(disk, "device.json"), record, 0o600))
	reader.start()
	reader.join(link)
	mnt := reader.mount()
	film := filepath.Join(mnt, "film")
	l.same(readAt(film, 0, 512<<10), want[:512<<10])
	// The disk fills up with what is read.
	full := false
	for off := 512 << 10; off < len(want); off += 512 << 10 {
		o := readAt(film, off, 512<<10)
		if o.took > 10*time.Second {
			l.Errorf("a read on a disk that fills up took %v", o.took)
		}
		if o.err != nil {
			l.refused("a read on a full disk", o, syscall.ENOSPC, 10*time.Second)
			full = true
			break
		}
		l.same(o, want[off:][:512<<10])
	}
	if !full {
		l.Error("24 MiB fit on a disk of 16")
	}
	l.same(readAt(film, 0, 512<<10), want[:512<<10])
	again := readAt(film, len(want)-64<<10, 64<<10)
	if again.err == nil {
		l.same(again, want[len(want)-64<<10:]) // a little fits in perhaps
	} else {
		l.refused("another", again, syscall.ENOSPC, 10*time.Second)
	}
	// With room again all is as it was.
	l.must(unix.Mount("", disk, "", unix.MS_REMOUNT, "size=128m"))
	l.until("it can be read", time.Minute, func() bool {
		o := readAt(film, 0, len(want))
		if o.err == nil {
			l.same(o, want)
		} else if !errors.Is(o.err, syscall.ENOSPC) {
			l.Errorf("with room on the disk: %v", o.err)
		}
		return o.err == nil || l.Failed()
	})
}
