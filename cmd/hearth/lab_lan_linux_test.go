package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

// address gives the device another address.
func (d *device) address(last int) {
	d.Helper()
	d.addr = fmt.Sprintf("10.66.0.%d", last)
	d.ip("-n", d.ns, "addr", "flush", "dev", "eth0", "scope", "global")
	d.ip("-n", d.ns, "addr", "add", d.addr+"/24", "brd", "+", "dev", "eth0")
}

// version is the newest version the device knows of the drive.
func (d *device) version() uint64 {
	d.Helper()
	s, err := client.Call[control.StatusAnswer](d.ctx, d.api, control.Status, struct{}{})
	if err != nil || len(s.Drives) != 1 {
		d.fatal("status: %v, %v", s, err)
	}
	return s.Drives[0].Version
}

// known is how many devices the device sees on the LAN that it knows.
func (d *device) known() int {
	d.Helper()
	answer, err := client.Call[control.NearbyAnswer](d.ctx, d.api, control.Nearby, struct{}{})
	if err != nil {
		d.fatal("nearby: %v", err)
	}
	n := 0
	for _, o := range answer.Devices {
		if o.Known {
			n++
		}
	}
	return n
}

// labLAN: devices on one network find each other without being told anything,
// miss each other, and find each other again.
func labLAN(l *lab) {
	author, dir := l.author(nil, func(dir string) {
		l.must(os.WriteFile(filepath.Join(dir, "letter"), []byte("one"), 0o600))
	})
	reader := l.device("reader", nil).start()
	reader.join(author.share())
	change := func(text string) {
		l.must(os.WriteFile(filepath.Join(dir, "letter"), []byte(text), 0o600))
		author.hearth("sync", labDrive)
	}
	heads := func() bool { return reader.version() == author.version() }
	both := func() bool { return reader.sharing() > 0 && author.sharing() > 0 }

	// What is known of the other's address is wrong from here on.
	reader.stop()
	change("two")
	author.hearth("unmount", dir)
	author.stop()
	author.address(101)
	reader.address(102)
	reader.start()
	author.start()
	start := time.Now()
	author.hearth("mount", labDrive, dir)
	l.until("they find each other", 30*time.Second, both)
	l.within("found each other", time.Since(start), 2*time.Second, 10*time.Second)
	l.until("heads are exchanged", 30*time.Second, heads)
	l.within("heads exchanged", time.Since(start), 3*time.Second, 12*time.Second)

	for i, addr := range []int{101, 103} {
		start = time.Now()
		author.plug(false)
		l.until("they miss each other", time.Minute, func() bool { return len(reader.peers()) == 0 && len(author.peers()) == 0 })
		l.within("connection given up after a cable pull", time.Since(start), 10*time.Second, 20*time.Second)
		l.until("they are not listed any more", time.Minute, func() bool { return reader.known() == 0 && author.known() == 0 })
		l.within("not nearby after a cable pull", time.Since(start), 10*time.Second, 20*time.Second)
		change(fmt.Sprint("three ", i))
		author.address(addr)
		start = time.Now()
		author.plug(true)
		l.until("they find each other again", time.Minute, both)
		l.until("heads are exchanged again", time.Minute, heads)
		l.within(fmt.Sprintf("found each other again, the author at %s", author.addr), time.Since(start), 5*time.Second, 20*time.Second)
	}
}
