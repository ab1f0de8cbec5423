package tiering

import (
	"context"
	"errors"
	"fmt"
	"path"

	"hearth/fs"
)

// SetLadder sets the ladder of a file or folder, and what is below it.
func SetLadder(ctx context.Context, d *fs.Drive, p string, l Ladder) error {
	if err := l.Validate(); err != nil {
		return err
	}
	ino, err := d.Resolve(ctx, p)
	if err == nil {
		err = d.Setxattr(ctx, fs.Caller{}, ino, fs.RetainAttr, []byte(l.String()), 0)
	}
	if err != nil {
		return fmt.Errorf("setting what is kept of %s: %w", p, err)
	}
	return nil
}

// LadderOf returns the ladder of a file or folder, and the path that it is set
// on; "" for the default.
func LadderOf(ctx context.Context, d *fs.Drive, p string) (Ladder, string, error) {
	p = path.Clean("/" + p)
	if _, err := d.Resolve(ctx, p); err != nil {
		return Ladder{}, "", err
	}
	for at := p; ; at = path.Dir(at) {
		ino, err := d.Resolve(ctx, at)
		if err != nil {
			return Ladder{}, "", err
		}
		value, err := d.Getxattr(ctx, ino, fs.RetainAttr)
		switch {
		case err == nil:
			return ladderOf(string(value)), at, nil
		case !errors.Is(err, fs.ErrNoAttr):
			return Ladder{}, "", err
		case at == "/":
			return Default(), "", nil
		}
	}
}

// ladderOf reads an attribute. Anybody can write anything there: what is no
// ladder keeps what the default keeps.
func ladderOf(policy string) Ladder {
	l, err := ParseLadder(policy)
	if err != nil {
		return Default()
	}
	return l
}
