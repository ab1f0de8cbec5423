package daemon

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"hearth/cmd/control"
	"hearth/fs"
	"hearth/log"
	"hearth/replicate"
)

// followLink turns the request to mount a link into one to mount a drive, which
// is joined if it is not here, or a version of it, which is verified. A drive that
// was joined for a version that is refused is left again.
func (d *Daemon) followLink(ctx context.Context, req control.MountRequest) (control.MountRequest, error) {
	link, point, err := replicate.SplitLink(req.Link)
	if err != nil {
		return req, control.Usage("paste the whole line that `hearth share` printed", "%w", err)
	}
	if req.Drive, err = d.knownAs(ctx, link.Drive); err != nil {
		return req, err
	}
	known := req.Drive != ""
	if !known {
		joined, err := d.joinLink(ctx, link, d.freeName(link))
		if err != nil {
			return req, err
		}
		req.Drive = joined.Name
	}
	h, err := d.openDrive(ctx, req.Drive)
	if err != nil || point == nil {
		return req, err
	}
	if err := h.checkPoint(ctx, point, d.sharesWithOthers); err != nil {
		if !known && control.AsError(err).Exit == control.ExitVerify {
			if _, leaving := d.discard(ctx, h); leaving != nil {
				d.logger.Error("a drive stays that was joined for a link that is refused", "drive", h.name, "err", leaving)
			}
		}
		return req, err
	}
	req.When, req.ReadOnly = point.Version.String(), true
	return req, nil
}

// freeName is how a drive that comes by a link is called: as its owner calls it,
// if no other is.
func (d *Daemon) freeName(link *replicate.Link) string {
	name := nameOfLink(link)
	for n := 2; n < 100; n++ {
		if _, err := os.Lstat(d.home.DriveDir(name)); err != nil {
			break
		}
		name = nameOfLink(link) + "-" + strconv.Itoa(n)
	}
	return name
}

// sharesWithOthers reports whether a device is connected that has the drive.
func (d *Daemon) sharesWithOthers(id log.DriveID) bool {
	d.network.mu.Lock()
	node := d.network.node
	d.network.mu.Unlock()
	if node == nil {
		return false
	}
	for _, p := range node.Peers() {
		for _, drive := range p.Drives {
			if drive == id {
				return true
			}
		}
	}
	return false
}

// pointTime is how long a version that a link names may take to be known here.
const pointTime = 5 * time.Second

// checkPoint verifies that a version of the drive is the one that a link names.
func (h *held) checkPoint(ctx context.Context, p *replicate.Point, connected func(log.DriveID) bool) error {
	wait, cancel := context.WithTimeout(ctx, pointTime)
	defer cancel()
	if p.Version.Seq > 0 && h.drive.Followed() {
		_ = h.drive.WaitVersion(wait, p.Version.Seq-1) // what is not there then is said below
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	newest := h.drive.Newest()
	if p.Version.Writer == newest.Writer && p.Version.Seq > newest.Seq && h.drive.Followed() && !connected(h.store.DriveID()) {
		return control.Failed("connect a device that has it; `hearth peers` lists who is connected",
			"version %v of drive %s is not known here: the newest is %v", p.Version, h.name, newest)
	}
	root, err := h.drive.Checkpoint(ctx, p.Version)
	if errors.Is(err, fs.ErrNoVersion) {
		return control.Damaged("it is not kept any more, or somebody changed the link; without the @ and what follows it shows the newest",
			"drive %s has no version %v", h.name, p.Version)
	}
	if err != nil {
		return err
	}
	if root != p.Root {
		return control.Damaged("somebody changed the link, or the drive's writer went back and began anew: ask whoever gave you the link",
			"version %v of drive %s is not the one that the link names: the checkpoint differs", p.Version, h.name)
	}
	return nil
}
