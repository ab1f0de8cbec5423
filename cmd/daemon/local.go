package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"hearth/cmd/control"
	"hearth/cmd/home"
	"hearth/fs"
	"hearth/log"
	"hearth/replicate"
)

// What of a drive's contents is on this device: fetch, evict and status PATH.

// located is a path, and what its contents consist of.
type located struct {
	place
	version  fs.Version
	contents *fs.Contents
	all      fs.Blocks // with what is needed beside the contents
	foreign  fs.Blocks // of the contents: that other devices wrote
}

// locate finds the contents of a path.
func (d *Daemon) locate(ctx context.Context, req control.Target) (located, error) {
	p, err := d.find(ctx, req)
	if err != nil {
		return located{}, err
	}
	l := located{place: p, version: p.at}
	if p.live {
		l.version = p.drive.Newest()
	}
	s, err := p.drive.At(ctx, l.version)
	if err != nil {
		return l, err
	}
	s.Prepare(ctx, fs.Walk{Op: fs.WalkPath, Name: p.path})
	ino, err := s.Resolve(ctx, p.path)
	if err != nil {
		return l, err
	}
	if l.contents, err = s.Contents(ctx, ino); err != nil {
		return l, err
	}
	l.all, l.foreign = l.contents.Blocks(true), fs.Blocks{}
	for w, set := range l.contents.Blocks(false) {
		from, err := p.store.Log(w)
		if err != nil {
			return l, err
		}
		if from.IsReplica() {
			l.foreign[w] = set
		}
	}
	return l, nil
}

// fetchTold is how often a fetch counts what is here.
const fetchTold = 200 * time.Millisecond

// fetch brings the contents of a path to this device.
func (d *Daemon) fetch(ctx context.Context, req control.Target, out *sink) (control.Fetched, error) {
	l, err := d.locate(ctx, req)
	if err != nil {
		return control.Fetched{}, err
	}
	c := l.contents
	before := c.Local()
	done := control.Fetched{Path: control.PathOf(l.path), Version: version(l.version), Files: c.Files, Bytes: c.Bytes, Local: before}
	if !l.missing() {
		return done, nil
	}
	if err := d.network.start(d); err != nil {
		return done, err
	}
	out.progress("fetch", int64(before), int64(c.Bytes))
	last := time.Now()
	err = d.network.node.Bring(ctx, l.store, l.all, func() {
		if time.Since(last) >= fetchTold {
			last = time.Now()
			out.progress("fetch", int64(c.Local()), int64(c.Bytes))
		}
	})
	done.Local = c.Local()
	done.Fetched = done.Local - min(before, done.Local)
	if errors.Is(err, log.ErrMissing) {
		return done, control.Failed("turn on a device that has it and run this again: what was fetched stays; `hearth peers` lists who is connected, `hearth status PATH` what they have",
			"%s of %s in %s: no device that is connected has the rest", home.Size(int64(done.Local)), home.Size(int64(c.Bytes)), control.Show(l.path))
	}
	return done, err
}

// missing reports whether something is elsewhere.
func (l *located) missing() bool {
	for w, set := range l.all {
		from, err := l.store.Log(w)
		if err != nil {
			return true
		}
		for it := set.Iterator(); from.IsReplica() && it.HasNext(); {
			if !from.Holds(it.Next()) {
				return true
			}
		}
	}
	return false
}

// evict frees the space of the contents of a path, as far as others have them.
func (d *Daemon) evict(ctx context.Context, req control.Target, out *sink) (control.Evicted, error) {
	l, err := d.locate(ctx, req)
	if err != nil {
		return control.Evicted{}, err
	}
	c := l.contents
	if c.Bytes > 0 && l.foreign.Count() == 0 {
		return control.Evicted{}, control.Failed("evict it on the devices that joined the drive; old versions are freed by `hearth sweep "+l.name+"`",
			"%s was written on this device, and what a device wrote itself stays on it", control.Show(l.path))
	}
	before := c.Local()
	done := control.Evicted{Path: control.PathOf(l.path), Version: version(l.version), Bytes: c.Bytes, Local: before}
	if before == 0 {
		return done, nil
	}
	if err := d.network.start(d); err != nil {
		return done, err
	}
	out.progress("evict", 0, int64(l.foreign.Count()))
	e, err := d.network.node.Evict(ctx, l.store, l.foreign, func(n, total uint64) { out.progress("evict", int64(n), int64(total)) })
	c.Evicted()
	d.settle(ctx, l.name)
	done.Local, done.Freed, done.Asked = c.Local(), e.Freed, e.Asked
	done.Evicted = before - min(before, done.Local)
	switch {
	case err != nil:
		return done, err
	case e.Stay.Count() > 0 && e.Asked == 0:
		done.Reason = "no other device that has the drive is connected"
	case e.Stay.Count() > 0:
		done.Reason = "no device that is connected has shown that it has it"
	case done.Local > 0:
		done.Reason = "it was written on this device, or read meanwhile"
	}
	return done, nil
}

// where says what of a path is on this device, and what others have.
func (d *Daemon) where(ctx context.Context, req control.Target) (control.PathStatus, error) {
	l, err := d.locate(ctx, req)
	if err != nil {
		return control.PathStatus{}, err
	}
	c := l.contents
	st := control.PathStatus{
		Drive: l.name, Path: control.PathOf(l.path), Version: version(l.version),
		Files: c.Files, Size: c.Size, Bytes: c.Bytes, Local: c.Local(), Peers: []control.PeerShare{},
	}
	if d.network.idle() {
		return st, nil // this device never spoke to another
	}
	for _, h := range d.network.node.Holders(ctx, l.store, c.Blocks(false)) {
		st.Peers = append(st.Peers, peerShare(h, c))
	}
	return st, nil
}

func peerShare(h replicate.Holder, c *fs.Contents) control.PeerShare {
	p := control.PeerShare{Name: h.Name, ID: hex.EncodeToString(h.Key[:]), Bytes: c.In(h.Has)}
	if h.Err != nil {
		p.Problem = fmt.Sprint("it was asked in vain: ", h.Err)
	}
	return p
}
