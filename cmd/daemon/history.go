package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"hearth/cmd/control"
	"hearth/fs"
)

// This file is all that the daemon knows of history: it translates requests
// into the methods of fs.Drive, and their results into answers.

func (d *Daemon) changes(ctx context.Context, req control.LogRequest, give func(control.Change) error) error {
	p, err := d.find(ctx, req.Target)
	if err != nil {
		return err
	}
	var failed error
	err = p.drive.Changes(ctx, fs.ChangeQuery{Path: p.path, Limit: req.Limit}, func(c fs.Change) bool {
		failed = give(change(c))
		return failed == nil
	})
	return cmp.Or(err, failed)
}

// versions lists the versions of one file.
func (d *Daemon) versions(ctx context.Context, req control.LogRequest, give func(control.FileVersion) error) error {
	p, err := d.find(ctx, req.Target)
	if err != nil {
		return err
	}
	var failed error
	err = p.drive.FileVersions(ctx, p.path, req.Limit, func(v fs.FileVersion) bool {
		failed = give(control.FileVersion{Version: version(v.Version), Time: v.Time, Path: control.PathOf(v.Name),
			Size: v.Size, Program: v.Program, Reason: v.Reason.String()})
		return failed == nil
	})
	return cmp.Or(err, failed)
}

func change(c fs.Change) control.Change {
	return control.Change{
		ID: c.ID, Version: version(c.Last), First: c.First.Seq, Time: c.Time, Verb: c.Verb,
		Paths: control.PathsOf(c.Paths), Files: c.Files, SizeDelta: c.SizeDelta, Program: c.Program, UID: c.Uid, Undone: c.Undone,
	}
}

func version(v fs.Version) control.Version {
	if v.Seq == 0 {
		return control.Version{}
	}
	return control.Version{Version: v.Seq, Writer: uint16(v.Writer), At: v.String()}
}

func (d *Daemon) diff(ctx context.Context, req control.DiffRequest, out *sink) (struct{}, error) {
	p, err := d.find(ctx, req.Target)
	if err != nil {
		return struct{}{}, err
	}
	if p.live {
		return struct{}{}, needsTime("diff", p)
	}
	to := p.drive.Newest() // what is in the folder now: find saved it
	if req.To != "" {
		if to, err = p.resolve(ctx, req.To, req.Now); err != nil {
			return struct{}{}, err
		}
	}
	return struct{}{}, p.drive.Diff(ctx, p.path, p.at, to, func(e fs.DiffEntry) error { return out.item(entry(e)) })
}

func entry(e fs.DiffEntry) control.DiffEntry {
	return control.DiffEntry{Op: e.Op, Path: control.PathOf(e.Path), OldPath: control.OldPathOf(e.OldPath),
		Type: typeName(e.Type), SizeBefore: e.SizeBefore, SizeAfter: e.SizeAfter}
}

// typeName names the file type bits of a mode.
func typeName(bits uint32) string {
	switch bits {
	case fs.ModeRegular:
		return "file"
	case fs.ModeDir:
		return "directory"
	case fs.ModeSymlink:
		return "symlink"
	case fs.ModeFifo:
		return "fifo"
	case fs.ModeSocket:
		return "socket"
	case fs.ModeChar, fs.ModeBlock:
		return "device"
	}
	return ""
}

// needsTime refuses a path without a time where one is needed.
func needsTime(verb string, p place) error {
	return control.Usage("`hearth log PATH` lists the versions; "+whenRule,
		"%s needs a time: %s@WHEN", verb, control.Show(p.path))
}

// catChunk is how much of a file is read at a time.
const catChunk = 1 << 20

func (d *Daemon) cat(ctx context.Context, req control.Target, out io.Writer) error {
	p, err := d.find(ctx, req)
	if err != nil {
		return err
	}
	if p.live {
		return p.catLive(ctx, out)
	}
	s, err := p.drive.At(ctx, p.at)
	if err != nil {
		return err
	}
	ino, err := s.Resolve(ctx, p.path)
	if err != nil {
		return fmt.Errorf("version %s: %w", p.at, err)
	}
	a, err := s.Getattr(ctx, ino)
	if err == nil {
		err = p.hasContents(a)
	}
	if err != nil {
		return fmt.Errorf("version %s: %w", p.at, err)
	}
	return copyOut(ctx, out, a.Size, func(b []byte, off int64) (int, error) { return s.ReadAt(ctx, ino, b, off) })
}

func (p place) catLive(ctx context.Context, out io.Writer) error {
	ino, err := p.drive.Resolve(ctx, p.path)
	if err != nil {
		return err
	}
	a, err := p.drive.Getattr(ctx, ino)
	if err == nil {
		err = p.hasContents(a)
	}
	if err != nil {
		return err
	}
	f, err := p.drive.Open(ctx, fs.Caller{}, ino, false)
	if err != nil {
		return err
	}
	defer f.Close()
	return copyOut(ctx, out, a.Size, func(b []byte, off int64) (int, error) { return f.ReadAt(ctx, b, off) })
}

// hasContents refuses what is no file with contents.
func (p place) hasContents(a fs.Attr) error {
	switch {
	case a.IsDir():
		return fmt.Errorf("%s: %w", control.Show(p.path), fs.ErrIsDir)
	case !a.IsRegular():
		return control.Failed("", "%s is not a file with contents", control.Show(p.path))
	}
	return nil
}

// copyOut writes the first size bytes of what read returns.
func copyOut(ctx context.Context, out io.Writer, size uint64, read func(b []byte, off int64) (int, error)) error {
	buf := make([]byte, min(catChunk, size))
	for off := uint64(0); off < size; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := read(buf[:min(uint64(len(buf)), size-off)], int64(off))
		if _, writeErr := out.Write(buf[:n]); writeErr != nil {
			return writeErr
		}
		off += uint64(n)
		if err != nil && err != io.EOF {
			return err
		}
		if n == 0 {
			break // it was truncated while we read
		}
	}
	return nil
}

func (d *Daemon) restore(ctx context.Context, req control.RestoreRequest) (control.Result, error) {
	p, err := d.find(ctx, req.Target)
	if err != nil {
		return control.Result{}, err
	}
	if p.live {
		return control.Result{}, needsTime("restore", p)
	}
	o := fs.RestoreOptions{Path: p.path, At: p.at, Exact: req.Exact, DryRun: req.DryRun}
	if req.To != nil {
		if o.To = path.Clean("/" + req.To.Raw()); o.To == "/" {
			return control.Result{}, control.Failed("choose a name in it", "the top of the drive exists")
		}
	}
	r, err := p.drive.Restore(ctx, o)
	d.settle(ctx, p.name)
	return result(r, "restored", req.DryRun), err
}

func (d *Daemon) undelete(ctx context.Context, req control.UndeleteRequest) (control.Result, error) {
	p, err := d.findPresent(ctx, req.Target, "undelete")
	if err != nil {
		return control.Result{}, err
	}
	r, err := p.drive.Undelete(ctx, p.path, req.DryRun)
	d.settle(ctx, p.name)
	if errors.Is(err, fs.ErrExist) {
		err = control.Failed("move it away first; `hearth restore PATH@WHEN` brings back what it was", "%w", err)
	}
	return result(r, "undeleted", req.DryRun), err
}

func (d *Daemon) undo(ctx context.Context, req control.UndoRequest) (control.Result, error) {
	p, err := d.findPresent(ctx, req.Target, "undo")
	if err != nil {
		return control.Result{}, err
	}
	r, err := p.drive.Undo(ctx, fs.UndoOptions{Path: p.path, DryRun: req.DryRun, Force: req.Force, Limit: req.Limit})
	d.settle(ctx, p.name)
	return result(r, "undone", req.DryRun), err
}

func (d *Daemon) redo(ctx context.Context, req control.UndoRequest) (control.Result, error) {
	p, err := d.findPresent(ctx, req.Target, "redo")
	if err != nil {
		return control.Result{}, err
	}
	r, err := p.drive.Redo(ctx, fs.UndoOptions{Path: p.path, DryRun: req.DryRun, Force: req.Force, Limit: req.Limit})
	d.settle(ctx, p.name)
	return result(r, "redone", req.DryRun), err
}

// result describes what was done, and in one line: "undone: deleted a, b".
func result(r fs.Result, did string, dry bool) control.Result {
	out := control.Result{Version: version(r.Version), DryRun: dry, Entries: []control.DiffEntry{}}
	if r.Omitted {
		out.Omitted = r.Change.Files
	}
	for _, e := range r.Entries {
		out.Entries = append(out.Entries, entry(e))
	}
	switch {
	case dry:
		out.Summary = "would be " + did
	case len(r.Entries) == 0 && !r.Omitted:
		out.Summary = "nothing to change"
	default:
		out.Summary = did
	}
	if what := change(r.Change).What(); what != "" {
		out.Summary += ": " + what
	}
	return out
}

func (d *Daemon) tag(ctx context.Context, req control.TagRequest) (struct{}, error) {
	p, err := d.find(ctx, req.Target)
	if err != nil {
		return struct{}{}, err
	}
	if p.live {
		err = p.drive.Tag(ctx, p.path, req.Name)
	} else {
		err = p.drive.TagVersion(ctx, p.path, p.at, req.Name)
	}
	if errors.Is(err, fs.ErrInvalid) {
		err = control.Usage("a tag is one name of printable text without '/' and '@', and nothing that could be a time or a version", "%w", err)
	}
	return struct{}{}, err
}

func (d *Daemon) untag(ctx context.Context, req control.TagRequest) (struct{}, error) {
	p, err := d.findPresent(ctx, req.Target, "untag")
	if err != nil {
		return struct{}{}, err
	}
	err = p.drive.Untag(ctx, p.path, req.Name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPerm) {
		err = control.Failed("`hearth tags PATH` lists them, and the paths they were set on", "%w", err)
	}
	return struct{}{}, err
}

func (d *Daemon) tags(ctx context.Context, req control.Target) ([]control.TagInfo, error) {
	p, err := d.find(ctx, req)
	if err != nil {
		return nil, err
	}
	found, err := p.drive.Tags(ctx, p.path)
	tags := []control.TagInfo{}
	for _, t := range found {
		tags = append(tags, control.TagInfo{Name: t.Name, Version: version(t.Version), Path: control.PathOf(t.Path), Time: t.Time})
	}
	return tags, err
}

// feed sends the changes of a drive, oldest first. A follower gets each one
// as soon as it is there.
func (d *Daemon) feed(ctx context.Context, req control.FeedRequest, out *sink) (struct{}, error) {
	p, err := d.findDrive(ctx, req.Drive)
	if err != nil {
		return struct{}{}, err
	}
	var since fs.Version // @0: the beginning
	if s := normalWhen(req.Since, req.Now); s != "@0" {
		if since, err = p.resolve(ctx, s, req.Now); err != nil {
			return struct{}{}, err
		}
	}
	return struct{}{}, p.drive.Feed(ctx, since, req.Follow, func(e fs.FeedEntry) error {
		err := out.item(control.FeedEntry{
			Version: version(e.Version), Time: e.Time, Op: e.Op, Path: control.PathOf(e.Path), OldPath: control.OldPathOf(e.OldPath),
			Type: typeName(e.Type), Ino: uint64(e.Ino), Size: e.Size,
			Change: e.Change, Program: e.Program, UID: e.Uid, Reason: e.Reason.String(),
		})
		if err == nil && req.Follow {
			err = out.now()
		}
		return err
	})
}

// sync makes what is here of a drive durable. One that is held for others has
// no versions that could be named.
func (d *Daemon) sync(ctx context.Context, req control.Target) (control.Version, error) {
	p, err := d.findDrive(ctx, req.Drive)
	if err != nil {
		if h := d.onlyHeld(req.Drive); h != nil {
			return control.Version{}, h.store.Settle()
		}
		return control.Version{}, err
	}
	if err := p.drive.Sync(ctx); err != nil {
		return control.Version{}, err
	}
	return version(p.drive.Newest()), nil
}
