package fs

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// historyRoot is a .history directory.
type historyRoot struct{ historyBase }

func (r *historyRoot) Attr(context.Context) (Attr, error) { return r.attr(ModeDir | 0o555) }

func (r *historyRoot) Lookup(ctx context.Context, name string) (HistoryNode, error) {
	switch name {
	case HistoryName:
		return nil, ErrNotExist
	case "README":
		return &historyText{historyBase: r.historyBase, text: func(context.Context) (string, error) { return historyReadme, nil }}, nil
	case "log":
		return &historyText{historyBase: r.historyBase, text: r.log}, nil
	case "tags":
		return &historyTags{r.historyBase}, nil
	case "by-file":
		return &historyFiles{r.historyBase}, nil
	case "deleted":
		return &historyDeleted{r.historyBase}, nil
	}
	w, err := ParseWhen(name, r.d.clock())
	if err != nil {
		return nil, absent(name, err)
	}
	v, err := r.d.ResolveWhen(ctx, w)
	if err != nil {
		return nil, absent(name, err)
	}
	n, err := r.at(ctx, v, true)
	if err != nil {
		return nil, absent(name, err)
	}
	if name == v.String() {
		return n, nil
	}
	return &historyLink{r.historyBase, v.String()}, nil
}

// at returns the directory as a version has it.
func (b historyBase) at(ctx context.Context, v Version, fixed bool) (*historyPast, error) {
	s, err := b.d.At(ctx, v)
	if err != nil {
		return nil, err
	}
	return b.past(s, b.dir, fixed)
}

// ReadDir lists about 200 names: the newest versions one by one, older ones
// ever more thinly.
func (r *historyRoot) ReadDir(ctx context.Context, after string, fn func(DirEntry) bool) error {
	a, err := r.d.Getattr(ctx, r.dir)
	if err != nil {
		return err
	}
	k := r.d.kept()
	list := []DirEntry{
		{Name: "README", Type: ModeRegular}, {Name: "log", Type: ModeRegular}, {Name: "tags", Type: ModeDir},
		{Name: "by-file", Type: ModeDir}, {Name: "deleted", Type: ModeDir},
	}
	sampled, err := k.sample(ctx, r.d.clock(), a.Btime.Std())
	if err != nil {
		return err
	}
	for _, s := range sampled {
		// Around the time it was made, versions may not have it yet.
		if unixNano(s.time).Sub(a.Btime.Std()) < time.Second {
			if _, err := r.at(ctx, Version{r.d.writer, s.seq}, true); isNotExist(err) || isNoVersion(err) {
				continue
			} else if err != nil {
				return err
			}
		}
		list = append(list,
			DirEntry{Name: Version{r.d.writer, s.seq}.String(), Type: ModeDir},
			DirEntry{Name: unixNano(s.time).Format(stampLayout), Type: ModeSymlink})
	}
	for _, name := range []string{"latest", "1h-ago", "yesterday"} {
		if _, err := r.Lookup(ctx, name); err == nil {
			list = append(list, DirEntry{Name: name, Type: ModeSymlink})
		} else if !isNotExist(err) {
			return err
		}
	}
	sortEntries(list)
	list = slices.CompactFunc(list, func(a, b DirEntry) bool { return a.Name == b.Name })
	listNames(list, after, fn)
	return nil
}

// stampLayout is how times are listed: in UTC, without colons.
const stampLayout = "2006-01-02T15.04.05Z"

// sampledVersion is a version that is listed.
type sampledVersion struct {
	seq  uint64
	time int64
}

// newestListed is how many of the newest versions are listed one by one.
const newestListed = 25

// ladder is how older versions are listed: the last one of each period.
var ladder = [...]struct {
	step  time.Duration
	count int
}{{5 * time.Minute, 12}, {time.Hour, 24}, {24 * time.Hour, 21}, {7 * 24 * time.Hour, 12}, {30 * 24 * time.Hour, 12}}

// periods calls fn for the end of each period of the ladder, newest first.
// Periods are cut the same way at any time.
func periods(now time.Time, fn func(end time.Time) (bool, error)) error {
	for _, l := range ladder {
		end := now.UTC().Truncate(l.step)
		for range l.count {
			if more, err := fn(end); !more || err != nil {
				return err
			}
			end = end.Add(-l.step)
		}
	}
	return nil
}

// sample picks about 100 versions made at or after since, newest first.
func (k *keptVersions) sample(ctx context.Context, now, since time.Time) ([]sampledVersion, error) {
	var out []sampledVersion
	add := func(seq uint64) (bool, error) {
		for range 16 { // upkeep is nothing a person did
			if seq == 0 {
				return false, nil
			}
			rec, err := k.record(seq)
			if err != nil {
				return false, err
			}
			if unixNano(rec.time).Before(since) {
				return false, nil
			}
			if len(out) > 0 && out[len(out)-1].seq <= seq {
				return true, nil // listed already
			}
			if !rec.hidden {
				out = append(out, sampledVersion{seq, rec.time})
				return true, nil
			}
			if seq, err = k.atOrBefore(seq - 1); err != nil {
				return false, err
			}
		}
		return true, nil
	}
	seq := k.head.seq
	for range newestListed {
		if more, err := add(seq); !more || err != nil {
			return out, err
		}
		var err error
		if seq, err = k.atOrBefore(min(seq, out[max(len(out)-1, 0)].seq) - 1); err != nil {
			return out, err
		}
	}
	err := periods(now, func(end time.Time) (bool, error) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		seq, err := k.lastBefore(end)
		if err != nil {
			return false, err
		}
		return add(seq)
	})
	return out, err
}

// record returns the record of a kept version.
func (k *keptVersions) record(seq uint64) (versionRecord, error) {
	if seq == k.head.seq {
		return versionRecord{index: k.head.index, time: k.head.time, hidden: k.head.reason == ReasonUpkeep}, nil
	}
	b, err := k.v.get(versionKey(Version{k.d.writer, seq}))
	if err == nil && b == nil {
		err = fmt.Errorf("version %d: %w", seq, ErrNoVersion)
	}
	if err != nil {
		return versionRecord{}, err
	}
	return decodeVersionRecord(b)
}

// Bounds of the log in .history.
const (
	logLines = 200
	logTime  = 250 * time.Millisecond
)

// log returns the newest changes below the directory, one a line.
func (r *historyRoot) log(ctx context.Context) (string, error) {
	r.d.mu.RLock()
	stamp := r.d.mutations
	r.d.mu.RUnlock()
	return remembered(&r.d.past, historyKey{cachedLog, r.dir}, stamp<<16|r.d.Newest().Seq&0xffff, func() (string, error) {
		dir, err := r.d.Path(ctx, r.dir)
		if err != nil {
			return "", err
		}
		var b strings.Builder
		var failed error
		n := 0
		limited, cancel := context.WithTimeout(ctx, logTime)
		defer cancel()
		err = r.d.Changes(limited, ChangeQuery{Path: dir, Limit: logLines}, func(c Change) bool {
			if c.Paths, failed = r.visible(ctx, dir, c); failed != nil {
				return false
			}
			n++
			b.WriteString(FormatChange(c))
			b.WriteByte('\n')
			return true
		})
		cut := n == logLines
		if err != nil && ctx.Err() == nil && limited.Err() != nil {
			cut, err = true, nil
		}
		if err == nil {
			err = failed
		}
		if cut {
			b.WriteString("... older changes: hearth log DIR\n")
		}
		return b.String(), err
	})
}

// visible makes paths relative to the directory, and cuts them where not
// everybody who can list the directory can list what is below.
func (r *historyRoot) visible(ctx context.Context, dir string, c Change) ([]string, error) {
	var states []*view
	for _, v := range []Version{c.Last, {c.First.Writer, c.First.Seq - 1}} {
		s, err := r.d.At(ctx, v)
		if err == nil {
			states = append(states, s.v)
		} else if !isNoVersion(err) {
			return nil, err
		}
	}
	r.d.mu.RLock()
	defer r.d.mu.RUnlock()
	states = append([]*view{r.d.live()}, states...)
	own, err := states[0].access(r.dir)
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, len(c.Paths))
	for _, p := range c.Paths {
		rel, ok := strings.CutPrefix(p, strings.TrimSuffix(dir, "/")+"/")
		if !ok {
			if path.Clean(p) == dir {
				out = append(out, ".")
			} else {
				out = append(out, "(elsewhere)")
			}
			continue
		}
		shown, err := r.listable(states, own, rel)
		if err != nil {
			return nil, err
		}
		out = append(out, shown)
	}
	return out, nil
}

// listable returns as much of a path below the directory as everybody may know
// who can list the directory: each directory on the way is looked at in the
// first state that has it.
func (r *historyRoot) listable(states []*view, own access, rel string) (string, error) {
	names := strings.Split(strings.TrimSuffix(rel, "/"), "/")
	at := make([]Ino, len(states))
	for i := range at {
		at[i] = r.dir
	}
	for n := range names[:max(len(names)-1, 0)] {
		found := false
		for i, v := range states {
			if at[i] == 0 {
				continue
			}
			ino, err := v.lookupIno(nameOf{at[i], names[n]})
			if err != nil {
				return "", err
			}
			at[i] = ino
			if ino == 0 || found {
				continue
			}
			a, err := v.access(ino)
			if err != nil {
				return "", err
			}
			a.mode &= a.mode >> 2 & 0o111 // who can list it and search it
			if own.through(a) != own {
				return strings.Join(names[:n+1], "/") + "/", nil
			}
			found = true
		}
		if !found {
			return strings.Join(names[:n+1], "/") + "/", nil
		}
	}
	return rel, nil
}

const historyReadme = `This folder remembers everything. How to get something back:

  ls deleted/                   what was deleted from here
  cp -a deleted/NAME ..         gets it back
  ls by-file/NAME/              every version of one file, newest first
  cp by-file/NAME/VERSION ../NAME
  ls @1234/                     the folder as version 1234 left it
  ls yesterday/                 as yesterday left it; also 1h-ago/ and latest/
  cat log                       what was changed, newest first
  mkdir tags/NAME               keeps the present state for ever, as tags/NAME/
  rmdir tags/NAME               takes that back

Any time works as a name here, listed or not: 5m-ago, 3d, 2026-11-22,
2026-11-22T10.04, @1234, a tag. Times without a Z at the end are local.
Nothing in here can be changed, and nothing shows more than you may read now.

On the command line:

  hearth log .                  hearth undo            hearth undelete NAME
  hearth diff .@yesterday       hearth restore NAME@2h
`
