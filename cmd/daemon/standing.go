package daemon

import (
	"context"
	"errors"
	"os"
	"time"

	"hearth/cmd/control"
	"hearth/cmd/home"
	"hearth/replicate/parcel"
	"hearth/replicate/peer"
)

func (b *inbox) receiving() *home.Receiving {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.standing
}

// standing makes the daemon take what others send, also after a restart, or
// ends that.
func (d *Daemon) standing(_ context.Context, req control.StandingRequest) (struct{}, error) {
	var r *home.Receiving
	if req.On {
		dir := req.Raw()
		if st, err := os.Stat(dir); err != nil || !st.IsDir() {
			return struct{}{}, control.Failed("give an existing folder with --dir", "%s is no folder", control.Show(dir))
		}
		if err := d.network.start(d); err != nil {
			return struct{}{}, err
		}
		r = &home.Receiving{Dir: []byte(dir), Shown: control.Show(dir), Yes: req.Yes}
	}
	if err := d.home.SaveReceiving(r); err != nil {
		return struct{}{}, err
	}
	d.inbox.mu.Lock()
	d.inbox.standing = r
	d.inbox.mu.Unlock()
	d.show()
	return struct{}{}, nil
}

// shownAs is the name under which strangers on the LAN see this device: none,
// unless something would be taken from them.
func (d *Daemon) shownAs() string {
	d.inbox.mu.Lock()
	defer d.inbox.mu.Unlock()
	if d.inbox.waiting != nil || d.inbox.standing != nil && d.inbox.standing.Yes {
		return d.settings.name()
	}
	return ""
}

// show shows this device on the LAN, or hides it, as it is due now.
func (d *Daemon) show() {
	d.network.mu.Lock()
	lan := d.network.lan
	d.network.mu.Unlock()
	if lan == nil {
		return
	}
	d.showing.Lock()
	defer d.showing.Unlock()
	lan.SetVisible(d.shownAs())
}

// takeIn receives what somebody sends while nobody is there to be asked: from
// devices that are known, and from others if that was said. Nobody becomes
// known by it, as no person has compared the words.
func (d *Daemon) takeIn(ctx context.Context, st *peer.Stream, to *home.Receiving) error {
	key := st.Conn().Peer()
	known := d.network.knows(key)
	var from parcel.Offer
	report, err := parcel.Receive(ctx, st, parcel.ReceiveOptions{
		Dir: string(to.Dir),
		Decide: func(_ context.Context, o parcel.Offer) (parcel.Decision, error) {
			from = o
			other, taken := d.network.otherNamed(o.Name, key)
			switch {
			case known:
				return parcel.Accept, nil
			case taken:
				d.logger.Warn("a stranger uses the name of a device that is known", "name", clean(o.Name), "known", peer.Key(other), "peer", key)
				return parcel.Stranger, nil
			case !to.Yes:
				return parcel.Stranger, nil
			}
			return parcel.Accept, nil
		},
	})
	if err != nil && !errors.Is(err, parcel.ErrChanged) {
		return err
	}
	if known {
		d.network.remember(home.Acquaintance{Key: home.Hex(key), Seen: time.Now()})
	}
	d.logger.Info("received", "from", clean(from.Name), "peer", key, "known", known, "dir", to.Shown,
		"files", report.Files, "bytes", report.Bytes)
	return err
}
