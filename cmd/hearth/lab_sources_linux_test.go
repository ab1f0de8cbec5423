package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

// Many sources: whoever keeps a drive has it from all who have it.

// bulk is a drive of one large file.
func (l *lab) bulk(size int) (author *device, dir string) {
	l.Helper()
	return l.author(nil, func(dir string) {
		l.must(os.WriteFile(filepath.Join(dir, "film"), noise(1, size), 0o600))
	})
}

// holders makes devices that have all of a drive.
func (l *lab) holders(n int, link string) []*device {
	l.Helper()
	all := make([]*device, n)
	for i := range all {
		all[i] = l.device(fmt.Sprint("holder", i+1), nil).start()
	}
	var wg sync.WaitGroup
	for _, h := range all {
		wg.Go(func() {
			if h.tryJoin(link) {
				h.settle(2 * time.Minute)
			}
		})
	}
	wg.Wait()
	if l.Failed() {
		l.FailNow()
	}
	return all
}

// tryJoin joins the drive; it may be called in any goroutine.
func (d *device) tryJoin(link string) bool {
	_, err := client.Call[control.Joined](d.ctx, d.api, control.Join, control.JoinRequest{Link: link, As: labDrive})
	if err != nil {
		d.Errorf("%s: join: %v", d.name, err)
	}
	return err == nil
}

// complete stops a device and fails if it lacks anything of the drive.
func (d *device) complete() {
	d.Helper()
	d.stop()
	if lacks, of := d.missing(); lacks > 0 || of == 0 {
		d.Errorf("%s lacks %d of %d entries", d.name, lacks, of)
	}
}

// labSources: with N holders of the same rate a transfer takes an Nth of the
// time.
func labSources(l *lab) {
	size, rate := sized(16*mib, 128*mib), sized(10*mbit, 40*mbit)
	author, _ := l.bulk(size)
	link := author.share("--hold")
	holders := l.holders(8, link)
	author.plug(false)
	for _, h := range holders {
		h.limit(rate, 0)
		h.plug(false)
	}
	for _, n := range []int{2, 4, 8} {
		reader := l.device(fmt.Sprint("reader", n), nil).start()
		for _, h := range holders[:n] {
			h.plug(true)
			reader.reach(h)
		}
		begun := time.Now()
		reader.join(link)
		f := reader.settle(2 * time.Minute)
		took := f.end().Sub(begun)
		ideal := time.Duration(float64(size) / float64(n*rate) * float64(time.Second))
		l.within(fmt.Sprintf("%d MiB from %d holders of %d Mbit/s, which could take %v", size/mib, n, rate/mbit, ideal.Round(time.Millisecond)),
			took, ideal*115/100, ideal*140/100+time.Second)
		l.Logf("%d bytes arrived, %.3f of the contents, the longest pause was %v", f.total(), float64(f.total())/float64(size), f.pause())
		reader.complete()
	}
}

// labVanish: a holder that vanishes in the middle of a transfer costs seconds.
func labVanish(l *lab) {
	size, rate := sized(16*mib, 64*mib), sized(10*mbit, 20*mbit)
	author, _ := l.bulk(size)
	link := author.share("--hold")
	holders := l.holders(3, link)
	author.plug(false)
	reader := l.device("reader", nil).start()
	for _, h := range holders {
		h.limit(rate, 0)
		reader.reach(h)
	}
	begun := time.Now()
	reader.join(link)
	had, _ := reader.moved()
	l.until("a quarter of it is there", time.Minute, func() bool {
		n, _ := reader.moved()
		return n-had > int64(size/4)
	})
	holders[0].plug(false)
	f := reader.settle(2 * time.Minute)
	// A quarter came from three, the rest has to come from two.
	ideal := time.Duration((float64(size)/4/3 + float64(size)*3/4/2) / float64(rate) * float64(time.Second))
	l.within(fmt.Sprintf("%d MiB from 3 holders, of whom one vanished; it could take %v", size/mib, ideal.Round(time.Millisecond)),
		f.end().Sub(begun), ideal*115/100+8*time.Second, ideal*140/100+20*time.Second)
	reader.complete()
}

// labHalves: who have different parts complete each other.
func labHalves(l *lab) {
	const size = 8 * mib
	author, dir := l.bulk(size)
	want, err := os.ReadFile(filepath.Join(dir, "film"))
	l.must(err)
	read, hold := author.share(), author.share("--hold")
	var halves []*device
	for i, name := range []string{"front", "back"} {
		d := l.device(name, nil).start()
		d.join(read)
		mnt := d.mount()
		l.same(readAt(filepath.Join(mnt, "film"), i*size/2, size/2), want[i*size/2:][:size/2])
		halves = append(halves, d)
	}
	author.plug(false)

	// A reader, of whom neither knows that the other has the rest.
	reader := l.device("reader", nil).start()
	for _, d := range halves {
		reader.reach(d)
	}
	reader.join(read)
	mnt := reader.mount()
	l.same(readAt(filepath.Join(mnt, "film"), 0, size), want)

	// A holder gets what anybody has.
	holder := l.device("holder", nil).start()
	for _, d := range halves {
		holder.reach(d)
	}
	holder.join(hold)
	holder.settle(time.Minute)
	holder.stop()
	lacks, of := holder.missing()
	for _, d := range halves {
		d.stop()
	}
	nowhere := uint64(0)
	front, back := halves[0].holding(), halves[1].holding()
	for i := range of {
		if !front[i] && !back[i] {
			nowhere++
		}
	}
	l.Logf("of %d entries the holder lacks %d, and both halves lack %d", of, lacks, nowhere)
	if lacks != nowhere {
		l.Errorf("the holder lacks %d entries; %d are nowhere", lacks, nowhere)
	}
}

// labResume: after kill -9, what is there is not moved again.
func labResume(l *lab) {
	size, rate := sized(16*mib, 256*mib), sized(40*mbit, 100*mbit)
	author, _ := l.bulk(size)
	link := author.share("--hold")
	author.limit(rate, 0)
	h := l.device("holder", nil).start()
	h.join(link)
	l.until("half of it is there", time.Minute, func() bool {
		n, _ := h.moved()
		return n > int64(size/2)
	})
	h.kill()
	before := h.holding()
	was, _ := h.moved()
	h.start()
	f := h.settle(2 * time.Minute)
	var received int64 // in datagrams: without the headers of IP and Ethernet
	for _, p := range h.peers() {
		received += int64(p.Received)
	}
	h.stop()
	lacked, all, lacks := h.bytesOf(before)
	if lacks > 0 {
		l.Errorf("%d entries are lacking at the end", lacks)
	}
	l.Logf("of %d bytes %d were lacking after the kill; then %d arrived, %d with the headers of packets, until %v after the start",
		all, lacked, received, f.bytes[len(f.bytes)-1]-was, f.end().Sub(f.at[0]).Round(time.Millisecond))
	if lacked == 0 || lacked == all {
		l.Errorf("it was not killed in the middle: %d of %d bytes were lacking", lacked, all)
	}
	most := int64(115) // beside other work packets are lost and sent again
	if labFull {
		most = 105
	}
	if received > lacked*most/100 {
		l.Errorf("%d bytes arrived, %.1f %% more than was lacking", received, 100*float64(received-lacked)/float64(lacked))
	}
}

// labDemand: what somebody waits for does not wait behind a bulk transfer, be
// it of another device or of the same one.
func labDemand(l *lab) {
	const rate = 10 * mbit
	samples := sized(12, 100)
	author, dir := l.author(nil, func(dir string) {
		l.must(os.WriteFile(filepath.Join(dir, "film"), noise(1, sized(32*mib, 256*mib)), 0o600))
		l.must(os.WriteFile(filepath.Join(dir, "album"), noise(2, 32*mib), 0o600))
	})
	want, err := os.ReadFile(filepath.Join(dir, "album"))
	l.must(err)
	read, hold := author.share(), author.share("--hold")
	reader, holder := l.device("reader", nil).start(), l.device("holder", nil).start()
	reader.join(read)
	mnt := reader.mount()
	author.limit(rate, 0)
	album, err := os.Open(filepath.Join(mnt, "album"))
	l.must(err)
	defer album.Close()
	at := 0
	measure := func(what string, filling *device) {
		begun, _ := filling.moved()
		start := time.Now()
		var times []time.Duration
		for range samples {
			// Jumping about, so that nothing is read ahead.
			at = (at + 13*mib + 128<<10) % (len(want) - 64<<10) &^ (64<<10 - 1)
			one := time.Now()
			got := make([]byte, 64<<10)
			_, err := album.ReadAt(got, int64(at))
			l.must(err)
			times = append(times, time.Since(one))
			l.same(got, want[at:][:len(got)])
		}
		n, _ := filling.moved()
		took := time.Since(start)
		l.Logf("%s: meanwhile %s got %.1f Mbit/s", what, filling.name, float64(n-begun)/mbit/took.Seconds())
		l.within(what+", median", percentile(times, 50), time.Second, 1500*time.Millisecond)
		l.within(what+", 95th percentile", percentile(times, 95), time.Second, 1500*time.Millisecond)
	}
	measure("64 KiB read on an idle link of 10 Mbit/s", reader)

	// A program that reads ahead, on the same connection.
	film, err := os.Open(filepath.Join(mnt, "film"))
	l.must(err)
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 128<<10)
		for {
			if _, err := film.Read(buf); err != nil {
				return // it is closed
			}
		}
	})
	measure("64 KiB read while a program on the device streams", reader)
	l.must(film.Close())

	holder.join(hold)
	measure("64 KiB read while another device fetches everything", holder)
	holder.kill()
	author.limit(0, 0)
	wg.Wait()
}

// labSwarm: who fetch the same share what they have, so that eight copies take
// less than twice as long as one.
func labSwarm(l *lab) {
	size, rate := sized(8*mib, 64*mib), sized(16*mbit, 40*mbit)
	const leechers = 8
	author, _ := l.bulk(size)
	link := author.share("--hold")
	all := make([]*device, leechers)
	for i := range all {
		all[i] = l.device(fmt.Sprint("leecher", i+1), nil).start()
	}
	for i, d := range all {
		d.reach(author)
		for _, o := range all[:i] {
			d.reach(o)
		}
	}
	author.limit(rate, 0)
	_, was := author.moved()
	begun := time.Now()
	ends := make([]flow, leechers)
	var wg sync.WaitGroup
	for i, d := range all {
		wg.Go(func() {
			if d.tryJoin(link) {
				ends[i] = d.settle(2 * time.Minute)
			}
		})
	}
	wg.Wait()
	if l.Failed() {
		return
	}
	last := begun
	for _, f := range ends {
		if f.end().After(last) {
			last = f.end()
		}
	}
	_, sent := author.moved()
	ideal := time.Duration(float64(size) / float64(rate) * float64(time.Second))
	l.Logf("the seed sent %.2f copies", float64(sent-was)/float64(size))
	l.within(fmt.Sprintf("%d copies of %d MiB; one alone takes %v", leechers, size/mib, ideal.Round(time.Millisecond)),
		last.Sub(begun), 2*ideal, 3*ideal+time.Second)
	for _, d := range all {
		d.complete()
	}
}
