package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// labSparse: a drive of any size opens at once, at any version, and what is
// read of it costs what it is.
func labSparse(l *lab) {
	const (
		gib    = 1 << 30
		tib    = 1 << 40
		middle = tib/2 + 12345
		part   = 64 << 10
		round  = 50 * time.Millisecond
	)
	files := sized(20_000, 1_000_000)
	old, young, unseen := noise(1, mib), noise(2, mib), noise(3, mib)
	author, dir := l.author(nil, func(dir string) {
		f, err := os.Create(filepath.Join(dir, "vast"))
		l.must(err)
		defer f.Close()
		l.must(f.Truncate(tib))
		for i := range 64 { // something to either side
			_, err = f.WriteAt(noise(byte(i), 16<<10), int64(i)*(tib/64)+777)
			l.must(err)
		}
		_, err = f.WriteAt(old, middle)
		l.must(err)
		other, err := os.Create(filepath.Join(dir, "other"))
		l.must(err)
		defer other.Close()
		_, err = other.WriteAt(unseen, gib/2)
		l.must(err)
		l.must(other.Truncate(gib))
		for i := range files {
			sub := filepath.Join(dir, fmt.Sprintf("folder %03d", i%200))
			if i < 200 {
				l.must(os.Mkdir(sub, 0o755))
			}
			l.must(os.WriteFile(filepath.Join(sub, fmt.Sprintf("file %07d", i)), fmt.Appendf(nil, "contents %d\n", i), 0o600))
		}
	})
	author.hearth("tag", dir, "before")
	f, err := os.OpenFile(filepath.Join(dir, "vast"), os.O_WRONLY, 0)
	l.must(err)
	_, err = f.WriteAt(young, middle)
	l.must(err)
	l.must(f.Close())
	author.hearth("sync", labDrive)
	read, hold := author.share(), author.share("--hold")
	const off = middle + mib/2

	// Bytes.
	for _, v := range []struct {
		name, path string
		want       []byte
	}{{"newest", "vast", young}, {"older", ".history/tags/before/vast", old}} {
		d := l.device(v.name, nil).start()
		was, sent := d.moved()
		d.join(read)
		mnt := d.mount()
		l.same(readAt(filepath.Join(mnt, v.path), off, part), v.want[mib/2:][:part])
		if st, err := os.Stat(filepath.Join(mnt, "vast")); err != nil || st.Size() != tib {
			l.Errorf("the size is %v, %v", st, err)
		}
		n, m := d.moved()
		moved := n - was + m - sent
		l.Logf("joining and reading 64 KiB of the %s version of a drive of 1 TiB and %d files moved %d bytes", v.name, files, moved)
		if moved >= 512<<10 {
			l.Errorf("%d bytes were moved, more than 512 KiB", moved)
		}
		// The rest can be read, too.
		name := fmt.Sprintf("folder %03d/file %07d", 77, files-200+77)
		l.same(readAt(filepath.Join(mnt, name), 0, len(fmt.Sprintf("contents %d\n", files-200+77))), fmt.Appendf(nil, "contents %d\n", files-200+77))
		d.stop()
	}

	// Round trips, and time from a cold start.
	holder := l.device("holder", nil).start()
	holder.join(hold)
	holder.settle(sized(time.Minute, 10*time.Minute))
	for _, v := range []struct {
		name    string
		from    *device
		without *device
		most    int
	}{{"author", author, holder, 2}, {"holder", holder, author, 3}} {
		v.without.plug(false)
		v.from.plug(true)
		w := &wire{delay: round / 2}
		d := l.device("far from the "+v.name, w).start()
		if v.from == holder {
			d.reach(holder)
		}
		start := time.Now()
		d.join(read)
		joined := time.Now()
		mnt := d.mount()
		mounted := time.Now()
		o := readAt(filepath.Join(mnt, "vast"), off, part)
		l.same(o, young[mib/2:][:part])
		end := time.Now()
		l.Logf("at round trips of %v to the %s: join %v, mount %v, read 64 KiB %v, together %v", round, v.name,
			joined.Sub(start).Round(time.Millisecond), mounted.Sub(joined).Round(time.Millisecond),
			end.Sub(mounted).Round(time.Millisecond), end.Sub(start).Round(time.Millisecond))
		n := w.rounds(mounted)
		l.Logf("the read took %d dependent requests, %d with those of the join; datagrams and when they were sent:%s", n, w.rounds(start), w.dump(start))
		if n > v.most {
			l.Logf("promised are %d: NOT KEPT, unless something was lost and came again", v.most)
		}
		if n > sized(v.most+3, v.most) { // beside other work packets are lost
			l.Errorf("the read from the %s took %d dependent requests, more than %d", v.name, n, v.most)
		}

		// A device that has the drive already, and was off: nothing of this file
		// was looked at.
		d.stop()
		begun := time.Now()
		d.start()
		ready := time.Now()
		o = readAt(filepath.Join(mnt, "other"), gib/2+part, part)
		l.same(o, unseen[part:][:part])
		l.Logf("the daemon was ready after %v, the read took %v; datagrams:%s", ready.Sub(begun).Round(time.Millisecond), o.took.Round(time.Millisecond), w.dump(begun))
		l.within("cold start and a read of 64 KiB at round trips of 50 ms to the "+v.name, time.Since(begun), 350*time.Millisecond, 4*time.Second)
		d.kill()
	}
}
