package daemon

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"hearth/cmd/control"
	"hearth/cmd/home"
	"hearth/replicate/parcel"
	"hearth/replicate/peer"
)

// streamParcel is the kind of the streams that files are sent on. Both sides
// first exchange words, see [peer.Conn.Words].
const streamParcel = 2

// inbox is who waits for offers: one client at a time.
type inbox struct {
	mu      sync.Mutex
	waiting *receiver
	// standing says what is taken when nobody waits; nil: nothing.
	standing *home.Receiving
	asked    map[string]chan bool // offers without an answer, by id
}

// receiver is a client that waits.
type receiver struct {
	dir    string
	yes    bool
	events chan control.ReceiveEvent
	ctx    context.Context
	report func(what string, done, total int64)
}

// stream takes a stream that another device opened.
func (d *Daemon) stream(ctx context.Context, kind byte, st *peer.Stream) {
	if kind != streamParcel {
		st.Cancel(peer.CodeUser)
		return
	}
	if err := d.unpack(ctx, st); err != nil && ctx.Err() == nil {
		d.logger.Info("nothing was received", "peer", st.Conn().Peer(), "err", err)
	}
}

// unpack receives what somebody sends, if a client waits for it.
func (d *Daemon) unpack(ctx context.Context, st *peer.Stream) error {
	words, err := st.Conn().Words(ctx, st)
	if err != nil {
		st.Cancel(peer.CodeUser)
		return err
	}
	d.inbox.mu.Lock()
	r, standing := d.inbox.waiting, d.inbox.standing
	d.inbox.mu.Unlock()
	if r == nil && standing != nil {
		return d.takeIn(ctx, st, standing)
	}
	if r == nil {
		_, err := parcel.Receive(ctx, st, parcel.ReceiveOptions{Dir: d.home.Dir(), Decide: refuseOffer})
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(r.ctx, cancel)
	defer stop()
	var from parcel.Offer
	report, err := parcel.Receive(ctx, st, parcel.ReceiveOptions{
		Dir: r.dir,
		Decide: func(ctx context.Context, o parcel.Offer) (parcel.Decision, error) {
			from = o
			return d.decide(ctx, r, st.Conn().Peer(), words, o)
		},
		Progress: func(p parcel.Progress) { r.report("receiving"+pace(p), p.Done, p.Total) },
	})
	if errors.Is(err, parcel.ErrDeclined) || from.ID == (parcel.ID{}) {
		return err
	}
	event := control.ReceiveEvent{}
	if err == nil || errors.Is(err, parcel.ErrChanged) {
		event.Done = transfer(from.Name, report)
		d.network.remember(home.Acquaintance{Key: home.Hex(st.Conn().Peer()), Name: clean(from.Name), Seen: time.Now()})
	}
	if err != nil {
		event.Error = control.AsError(parcelError(err))
	}
	select {
	case r.events <- event:
	case <-r.ctx.Done():
	}
	return err
}

func refuseOffer(context.Context, parcel.Offer) (parcel.Decision, error) { return parcel.Decline, nil }

// decide asks the client that waits.
func (d *Daemon) decide(ctx context.Context, r *receiver, key peer.Key, words peer.Words, o parcel.Offer) (parcel.Decision, error) {
	other, taken := d.network.otherNamed(o.Name, key)
	if taken && r.yes && !d.network.knows(key) {
		e := control.AsError(anotherKey("a sender that calls itself "+control.Show(clean(o.Name)), other, key))
		select {
		case r.events <- control.ReceiveEvent{Refused: e}:
		case <-ctx.Done():
		}
		return parcel.Stranger, nil
	}
	if r.yes || o.Resume {
		return parcel.Accept, nil
	}
	info := &control.OfferInfo{
		ID: o.ID.String(), Device: clean(o.Name), Known: d.network.knows(key), Words: words[:],
		Files: o.Files, Dirs: o.Dirs, Bytes: o.Bytes,
	}
	if taken {
		info.Other = peer.Key(other).String()
	}
	names := []string{}
	for _, t := range o.Tops[:min(len(o.Tops), 8)] {
		names = append(names, t.Name)
	}
	info.Names, info.More = control.PathsOf(names), o.TopCount-len(names)
	yes := make(chan bool, 1)
	d.inbox.mu.Lock()
	if d.inbox.asked == nil {
		d.inbox.asked = map[string]chan bool{}
	}
	if len(d.inbox.asked) > 0 {
		d.inbox.mu.Unlock()
		return parcel.Busy, nil // one question at a time
	}
	d.inbox.asked[info.ID] = yes
	d.inbox.mu.Unlock()
	defer func() {
		d.inbox.mu.Lock()
		delete(d.inbox.asked, info.ID)
		d.inbox.mu.Unlock()
	}()
	select {
	case r.events <- control.ReceiveEvent{Offer: info}:
	case <-ctx.Done():
		return parcel.Decline, ctx.Err()
	}
	select {
	case ok := <-yes:
		if ok {
			return parcel.Accept, nil
		}
		return parcel.Decline, nil
	case <-ctx.Done():
		return parcel.Decline, ctx.Err()
	}
}

// answerOffer says yes or no to an offer.
func (d *Daemon) answerOffer(_ context.Context, req control.AnswerRequest) (struct{}, error) {
	d.inbox.mu.Lock()
	defer d.inbox.mu.Unlock()
	yes := d.inbox.asked[req.ID]
	if yes == nil {
		return struct{}{}, control.Failed("", "the sender gave up")
	}
	select {
	case yes <- req.Accept:
	default:
	}
	return struct{}{}, nil
}

// receive waits for offers for as long as the client stays.
func (d *Daemon) receive(ctx context.Context, req control.ReceiveRequest, out *sink) (struct{}, error) {
	if err := d.network.start(d); err != nil {
		return struct{}{}, err
	}
	r := &receiver{dir: req.Raw(), yes: req.Yes, events: make(chan control.ReceiveEvent), ctx: ctx, report: out.progress}
	d.inbox.mu.Lock()
	if d.inbox.waiting != nil {
		d.inbox.mu.Unlock()
		return struct{}{}, control.Failed("end the other one with Ctrl-C first", "a `hearth receive` waits already")
	}
	d.inbox.waiting = r
	d.inbox.mu.Unlock()
	d.show()
	defer func() {
		d.inbox.mu.Lock()
		d.inbox.waiting = nil
		d.inbox.mu.Unlock()
		d.show()
	}()
	if err := out.item(control.ReceiveEvent{}); err != nil { // it waits now
		return struct{}{}, err
	}
	if err := out.now(); err != nil {
		return struct{}{}, err
	}
	for {
		select {
		case <-ctx.Done():
			return struct{}{}, context.Cause(ctx)
		case e := <-r.events:
			if err := errors.Join(out.item(e), out.now()); err != nil {
				return struct{}{}, err
			}
			if req.Once && (e.Done != nil || e.Error != nil) {
				return struct{}{}, nil
			}
		}
	}
}

// target is a device that something can be sent to.
type target struct {
	name  string
	key   *[32]byte
	addrs []string
}

// findTarget finds the device that is meant.
func (d *Daemon) findTarget(ctx context.Context, to string) (target, error) {
	n := &d.network
	if _, _, err := net.SplitHostPort(to); err == nil {
		return target{name: to, key: n.expected(to), addrs: []string{to}}, nil
	}
	if t, ok := n.connectedTo(to); ok {
		return t, nil
	}
	// First sight takes a moment.
	watch, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var seen []string
	for range n.lan.Watch(watch) {
		var found []target
		seen = nil
		for _, dev := range n.lan.Devices() {
			t := target{name: dev.Name}
			if dev.Known {
				key := [32]byte(dev.Key)
				t.key = &key
				if t.name == "" && to != "" {
					t.name = n.nameOf(home.Hex(dev.Key))
				}
			}
			for _, a := range dev.Addrs {
				t.addrs = append(t.addrs, netip.AddrPort.String(a))
			}
			if dev.Name != "" {
				seen = append(seen, control.Show(dev.Name))
			}
			if to == "" && dev.Name != "" || to != "" && (strings.EqualFold(t.name, to) || dev.ID == to) {
				found = append(found, t)
			}
		}
		if len(found) == 1 {
			return found[0], nil
		}
		if len(found) > 1 {
			return target{}, control.Failed("name one with --to", "several devices wait: %s", strings.Join(seen, ", "))
		}
	}
	if err := context.Cause(ctx); err != nil {
		return target{}, err
	}
	if to == "" {
		return target{}, control.Failed("run `hearth receive` there, or give its address with --to HOST:PORT; `hearth nearby` says what was tried", "no device on this network waits for something")
	}
	hint := "run `hearth receive` there, or give its address with --to HOST:PORT"
	if len(seen) > 0 {
		hint = "these wait: " + strings.Join(seen, ", ")
	}
	return target{}, control.Failed(hint, "there is no device %s on this network", control.Show(to))
}

// send sends files and folders.
func (d *Daemon) send(ctx context.Context, req control.SendRequest, out *sink) (control.Transfer, error) {
	if err := d.network.start(d); err != nil {
		return control.Transfer{}, err
	}
	t, err := d.findTarget(ctx, req.To)
	if err != nil {
		return control.Transfer{}, err
	}
	n := &d.network
	var key [32]byte
	err = errors.New("it has no address")
	for _, addr := range t.addrs {
		dial, cancel := context.WithTimeout(ctx, 10*time.Second)
		if key, err = n.node.Reach(dial, addr, t.key); err == nil {
			cancel()
			break
		}
		cancel()
	}
	if err != nil {
		return control.Transfer{}, n.unreachable(t.name, "see that `hearth receive` runs there, and that UDP gets through", err)
	}
	if other, ok := n.otherNamed(t.name, key); ok && !n.knows(key) {
		return control.Transfer{}, anotherKey("the device that calls itself "+control.Show(t.name), other, key)
	}
	st, err := n.node.Open(ctx, key, streamParcel)
	if err != nil {
		return control.Transfer{}, err
	}
	words, err := st.Conn().Words(ctx, st)
	if err != nil {
		st.Cancel(peer.CodeUser)
		return control.Transfer{}, control.Failed("try again", "%s: %w", control.Show(t.name), err)
	}
	known := n.knows(key)
	if err := errors.Join(out.item(control.SendEvent{Device: t.name, Known: known, Words: words[:]}), out.now()); err != nil {
		return control.Transfer{}, err
	}
	paths := make([]string, len(req.Paths))
	for i, p := range req.Paths {
		paths[i] = p.Raw()
	}
	report, err := parcel.Send(ctx, st, parcel.SendOptions{
		Paths: paths, Name: d.settings.name(), ID: n.parcelID(key, paths),
		Progress: func(p parcel.Progress) { out.progress("sending"+pace(p), p.Done, p.Total) },
	})
	if err != nil && !errors.Is(err, parcel.ErrChanged) {
		return control.Transfer{}, parcelError(err)
	}
	n.sentTo(t, req.To, key)
	if err != nil {
		err = parcelError(err)
	}
	return *transfer(t.name, report), err
}

// parcelID names a transfer the same when it is tried again, so that it goes on
// where it broke off.
func (n *network) parcelID(key [32]byte, paths []string) parcel.ID {
	m := hmac.New(sha256.New, n.beacon[:])
	m.Write([]byte("parcel\x00"))
	m.Write(key[:])
	for _, p := range paths {
		m.Write([]byte(p))
		m.Write([]byte{0})
	}
	return parcel.ID(m.Sum(nil))
}

// pace is how fast it goes and how long it will take.
func pace(p parcel.Progress) string {
	s := fmt.Sprintf(", %s/s", home.Size(p.Rate))
	if p.Left >= 0 {
		s += fmt.Sprintf(", %v left", p.Left.Round(time.Second))
	}
	return s + ":"
}

// clean makes a name that another device chose one that can be kept.
func clean(name string) string {
	name = control.Show(name)
	return name[:min(len(name), 120)]
}

func transfer(device string, r parcel.Report) *control.Transfer {
	t := &control.Transfer{
		Device: clean(device), Names: control.PathsOf(slices.Clone(r.Names)), Files: r.Files, Dirs: r.Dirs,
		Bytes: r.Bytes, Moved: r.Moved, Skipped: []control.SkippedFile{},
	}
	for _, s := range r.Skipped {
		t.Skipped = append(t.Skipped, control.SkippedFile{Path: control.PathOf(s.Path), Reason: s.Reason.String()})
	}
	return t
}

// parcelError gives the errors of transfers their hints.
func parcelError(err error) error {
	switch {
	case errors.Is(err, parcel.ErrDeclined):
		return control.Failed("", "the other side said no")
	case errors.Is(err, parcel.ErrStranger):
		return control.Failed("run `hearth receive` there once, and compare the words", "the receiver takes only from devices it knows")
	case errors.Is(err, parcel.ErrBusy):
		return control.Failed("try again in a moment", "the other side is asked about something else just now")
	case errors.Is(err, parcel.ErrNoSpace):
		return control.Failed("free some space there", "there is not enough space at the receiver")
	case errors.Is(err, parcel.ErrCanceled):
		return control.Failed("the same command goes on where it broke off", "the other side ended the transfer")
	case errors.Is(err, parcel.ErrBroken):
		return control.Failed("the same command goes on where it broke off", "the connection was lost: %w", err)
	case errors.Is(err, parcel.ErrChanged):
		return control.Failed("send them again", "some files changed while they were sent, and were left out: %w", err)
	}
	return err
}
