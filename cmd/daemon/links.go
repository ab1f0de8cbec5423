package daemon

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"hearth/cmd/control"
	"hearth/cmd/home"
	"hearth/log"
	"hearth/replicate"
)

// share makes a link to a drive, or to a version of it.
func (d *Daemon) share(ctx context.Context, req control.ShareRequest) (control.ShareAnswer, error) {
	h, err := d.ownedDrive(ctx, req.Drive, "ask the owner for a link")
	if err != nil {
		return control.ShareAnswer{}, err
	}
	var point *replicate.Point
	if req.When != "" {
		p, err := d.findDrive(ctx, req.Drive)
		if err != nil {
			return control.ShareAnswer{}, err
		}
		v, err := p.resolve(ctx, req.When, req.Now)
		if err != nil {
			return control.ShareAnswer{}, err
		}
		point = &replicate.Point{Version: v}
		if point.Root, err = p.drive.Checkpoint(ctx, v); err != nil {
			return control.ShareAnswer{}, err
		}
	}
	if err := d.network.start(d); err != nil {
		return control.ShareAnswer{}, err
	}
	link, err := d.makeLink(ctx, h, req.Hold) // which makes the version durable, too
	if err != nil {
		return control.ShareAnswer{}, err
	}
	recipient, err := link.Recipient()
	if err != nil {
		return control.ShareAnswer{}, err
	}
	answer := control.ShareAnswer{Link: link.String(), Hold: req.Hold, ID: hex.EncodeToString(recipient[:])}
	if point != nil {
		answer.Link += point.String()
		answer.Version = point.Version.String()
	}
	n := &d.network
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known.Links = append(n.known.Links, home.Shared{Drive: req.Drive, Recipient: recipient, Made: time.Now()})
	return answer, n.home.SaveNetwork(n.known)
}

// ownedDrive opens a drive of which this device is the owner's.
func (d *Daemon) ownedDrive(ctx context.Context, name, hint string) (*held, error) {
	h, err := d.openDrive(ctx, name)
	if err == nil && !h.store.IsOwner() {
		err = control.Failed(hint, "drive %s belongs to another device", name)
	}
	return h, err
}

func (d *Daemon) makeLink(ctx context.Context, h *held, hold bool) (*replicate.Link, error) {
	// Who belongs to the drive must not change between making its boxes and
	// announcing them.
	h.links.Lock()
	defer h.links.Unlock()
	n := &d.network
	var seed [32]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return nil, err
	}
	link := &replicate.Link{
		Drive: h.store.DriveID(), Hold: h.store.HoldSecret(), Epoch: h.store.HoldEpoch(),
		Device: n.node.Key(), Beacon: n.beacon, Addresses: n.addresses(),
	}
	boxes := h.store.HoldBoxes
	if hold {
		link.Holder = seed
	} else {
		link.Seed, link.Name, boxes = &seed, h.name, h.store.LinkBoxes
	}
	controls, err := boxes(seed)
	if errors.Is(err, log.ErrReadOnly) {
		return nil, control.Failed("`hearth share "+h.name+" --list` lists them, `hearth unshare` revokes one", "%w", err)
	}
	if err != nil {
		return nil, err
	}
	return link, h.drive.Announce(ctx, controls)
}

// level is what a link lets do.
func level(k log.RecipientKind) string {
	if k == log.RecipientHolder {
		return "hold"
	}
	return "read"
}

// links lists the share links of a drive. Which there are is in the drive's log;
// when they were made is this device's record.
func (d *Daemon) links(ctx context.Context, req control.LinksRequest) ([]control.LinkInfo, error) {
	h, err := d.ownedDrive(ctx, req.Drive, "its owner has the list")
	if err != nil {
		return nil, err
	}
	known, err := d.home.Network()
	if err != nil {
		return nil, control.Failed("mend or remove the file peers.json in "+d.home.Dir(), "known devices: %w", err)
	}
	made := map[home.Hex]time.Time{}
	for _, l := range known.Links {
		made[l.Recipient] = l.Made
	}
	list := []control.LinkInfo{}
	for _, l := range h.store.Links() {
		list = append(list, control.LinkInfo{ID: hex.EncodeToString(l.ID[:]), Level: level(l.Kind), Made: made[l.ID], Revoked: l.Revoked})
	}
	return list, nil
}

// leastID is how many letters of a link's id there must be.
const leastID = 4

// unshare revokes a link: a key epoch begins, with boxes for all others.
func (d *Daemon) unshare(ctx context.Context, req control.UnshareRequest) (control.Unshared, error) {
	h, err := d.ownedDrive(ctx, req.Drive, "only the owner can revoke a link")
	if err != nil {
		return control.Unshared{}, err
	}
	h.links.Lock()
	defer h.links.Unlock()
	link, err := findLink(h, req.Link)
	if err != nil {
		return control.Unshared{}, err
	}
	if link.Revoked {
		return control.Unshared{}, control.Failed("", "that link was revoked already")
	}
	controls, err := h.store.Revoke(link.ID)
	if err != nil {
		return control.Unshared{}, err
	}
	if err := h.drive.Announce(ctx, controls); err != nil {
		return control.Unshared{}, err
	}
	done := control.Unshared{ID: hex.EncodeToString(link.ID[:]), Level: level(link.Kind), Epoch: h.store.HoldEpoch()}
	for _, l := range h.store.Links() {
		if !l.Revoked {
			done.Left++
		}
	}
	d.logger.Info("a share link was revoked", "drive", h.name, "link", done.ID[:8], "epoch", done.Epoch)
	return done, nil
}

// findLink finds the link of a drive that a person names.
func findLink(h *held, name string) (log.ShareLink, error) {
	hint := "`hearth share " + h.name + " --list` lists the links"
	id := strings.ToLower(name)
	if strings.Contains(name, "://") {
		link, _, err := replicate.SplitLink(name)
		if err != nil {
			return log.ShareLink{}, control.Usage("give the whole line that `hearth share` printed, or an id; "+hint, "%w", err)
		}
		if link.Drive != h.store.DriveID() {
			return log.ShareLink{}, control.Failed("name the drive that it is a link to", "that is a link to another drive than %s", h.name)
		}
		recipient, err := link.Recipient()
		if err != nil {
			return log.ShareLink{}, err
		}
		id = hex.EncodeToString(recipient[:])
	} else if len(id) < leastID {
		return log.ShareLink{}, control.Usage(hint, "%s is too short for the id of a link", control.Show(name))
	}
	var found []log.ShareLink
	for _, l := range h.store.Links() {
		if strings.HasPrefix(hex.EncodeToString(l.ID[:]), id) {
			found = append(found, l)
		}
	}
	switch len(found) {
	case 0:
		return log.ShareLink{}, control.Failed(hint, "drive %s has no such link", h.name)
	case 1:
		return found[0], nil
	}
	return log.ShareLink{}, control.Usage("give more of it; "+hint, "%d links begin with %s", len(found), control.Show(name))
}
