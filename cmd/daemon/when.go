package daemon

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"hearth/cmd/control"
	"hearth/fs"
)

// place is a path in a drive, at a time if live is false.
type place struct {
	*held
	path string
	live bool
	at   fs.Version
	when string // as it was written
}

// find opens the drive of a target and reads PATH@WHEN.
func (d *Daemon) find(ctx context.Context, t control.Target) (place, error) {
	p, err := d.findDrive(ctx, t.Drive)
	if err != nil {
		return p, err
	}
	raw := t.Raw()
	p.path, p.when = path.Clean("/"+raw), t.When
	left, when, past, err := splitHistory(p.path, t.Now)
	switch {
	case err != nil:
		return p, err
	case past:
		p.path, p.when = left, when
	case t.Timed:
		if err := p.readWhen(ctx, t); err != nil {
			return p, err
		}
	}
	if p.when == "" {
		return p, nil
	}
	p.live = false
	p.at, err = p.resolve(ctx, p.when, t.Now)
	return p, err
}

// readWhen takes the WHEN off PATH@WHEN, unless that is the name of a file.
func (p *place) readWhen(ctx context.Context, t control.Target) error {
	left, when, ok := splitWhen(t.Raw(), t.Now)
	if _, err := p.drive.Resolve(ctx, p.path); err == nil {
		if ok {
			giveHint(ctx, "%s is a file of that very name; %s@%s names the other one", control.Show(p.path), control.Show(left), normalWhen(when, t.Now))
		}
		return nil
	}
	if ok {
		p.path, p.when = left, when
		return nil
	}
	// In a checkout there may be a file of that very name.
	if i := strings.LastIndexByte(p.path, '@'); i >= 0 && t.When == "" && !strings.Contains(p.path[i:], "/") {
		return control.Usage(whenRule, "%s is no time, and there is no file %s", control.Show(p.path[i:]), control.Show(p.path))
	}
	return nil
}

// splitHistory reads a path through .history, which people have at hand when
// they browse there: DIR/.history/WHEN/below is DIR/below at that time, and so
// is DIR/.history/tags/TAG/below.
func splitHistory(s string, now time.Time) (left, when string, ok bool, err error) {
	dir, past, ok := strings.Cut(s+"/", "/"+fs.HistoryName+"/")
	if !ok {
		return s, "", false, nil
	}
	name, below, _ := strings.Cut(past, "/")
	if name == "tags" {
		name, below, _ = strings.Cut(below, "/")
	}
	if _, err := fs.ParseWhen(normalWhen(name, now), now); err != nil {
		return s, "", false, control.Usage("PATH@WHEN names a path at a time, and so does .history/WHEN/PATH",
			"%s is a view of the history, and no path in the drive", control.Show(s))
	}
	return path.Clean("/" + dir + "/" + below), name, true, nil
}

// findPresent finds the target of a verb that changes the present. A path in
// the past is refused: nobody who looks at an old version means the new one.
func (d *Daemon) findPresent(ctx context.Context, t control.Target, verb string) (place, error) {
	p, err := d.find(ctx, t)
	if err == nil && !p.live {
		err = control.Failed("name the path in the mounted drive, or as "+p.name+":"+control.Show(p.path),
			"%s changes the present, and this is %s at version %s", verb, control.Show(p.path), p.at)
	}
	return p, err
}

func (d *Daemon) findDrive(ctx context.Context, name string) (place, error) {
	h, err := d.openDrive(ctx, name)
	if err != nil {
		return place{}, err
	}
	// What was done before a command counts for it. A full disk is no reason to
	// refuse: purging and sweeping are how it gets room again.
	if err := h.drive.Save(ctx); err != nil && !errors.Is(err, fs.ErrNoSpace) {
		return place{}, err
	}
	return place{held: h, path: "/", live: true}, nil
}

// resolve finds the version that a WHEN means.
func (h *held) resolve(ctx context.Context, when string, now time.Time) (fs.Version, error) {
	w, err := fs.ParseWhen(normalWhen(when, now), now)
	if err != nil {
		return fs.Version{}, control.Usage(whenRule, "not a time: %w", err)
	}
	v, err := h.drive.ResolveWhen(ctx, w)
	if err != nil {
		return fs.Version{}, fmt.Errorf("drive %s: %w", h.name, err)
	}
	return v, nil
}

// whenRule is what WHEN may be, in one line.
const whenRule = "WHEN is a version (@1234), a time (2026-11-22T10:04:05Z or shorter), ago (5m, 2h, 3d), yesterday, or a tag"

// bareVersion is a version without its "@", as in PATH@1234.
var bareVersion = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)

// normalWhen lets a version be written without its "@": after PATH@ a second
// one is easily left out. What may be a year of this drive's life is one.
func normalWhen(s string, now time.Time) string {
	if !bareVersion.MatchString(s) {
		return s
	}
	if year, err := strconv.Atoi(s); err == nil && len(s) == 4 && year >= 1970 && year <= now.Year() {
		return s
	}
	return "@" + s
}

// splitWhen splits PATH@WHEN at the last "@" whose right side is a WHEN.
// PATH@@1234 and PATH@1234 both name a version.
func splitWhen(s string, now time.Time) (left, when string, ok bool) {
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return s, "", false
	}
	left, when = s[:i], s[i+1:]
	if when == "" || strings.Contains(when, "/") {
		return s, "", false
	}
	if bareVersion.MatchString(when) {
		left = strings.TrimSuffix(left, "@")
	}
	if _, err := fs.ParseWhen(normalWhen(when, now), now); err != nil {
		return s, "", false
	}
	return path.Clean("/" + left), when, true
}
