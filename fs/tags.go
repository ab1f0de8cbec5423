package fs

import (
	"context"
	"fmt"
	"time"

	"hearth/log/wire"
)

// tagRecord is the record of a tag: the version it names, when and by whom it
// was set, and the directory or file it was set from.
//
//	version   writer uvarint, seq uvarint
//	time      varint, ns since 1970
//	uid       uvarint
//	scope     inode uvarint
type tagRecord struct {
	version Version
	time    int64
	uid     uint32
	scope   Ino
}

func (t tagRecord) encode() []byte {
	w := wire.Writer{B: make([]byte, 0, 32)}
	putVersion(&w, t.version)
	w.Varint(t.time)
	w.Uvarint(uint64(t.uid))
	w.Uvarint(uint64(t.scope))
	return w.B
}

func decodeTag(b []byte) (tagRecord, error) {
	r := wire.NewReader(b)
	t := tagRecord{version: getVersion(r), time: r.Varint(), uid: getU32(r), scope: Ino(r.Uvarint())}
	if err := r.Done(); err != nil {
		return t, fmt.Errorf("tag: %w: %w", ErrDamaged, err)
	}
	return t, nil
}

// TagInfo describes a tag.
type TagInfo struct {
	Name    string
	Version Version
	Time    time.Time // when it was set
	Uid     uint32    // who set it
	Path    string    // what it was set from; "" if that is gone
}

// Tag names the drive's present state, for ever. The path says for whom it was
// made: it is listed there, and above and below.
func (d *Drive) Tag(ctx context.Context, path, name string) error {
	ino, err := d.Resolve(ctx, path)
	if err != nil {
		return err
	}
	return d.setTag(ctx, Caller{}, ino, Version{}, name)
}

// TagVersion is Tag for a kept version.
func (d *Drive) TagVersion(ctx context.Context, path string, v Version, name string) error {
	ino, err := d.Resolve(ctx, path)
	if err != nil {
		return err
	}
	return d.setTag(ctx, Caller{}, ino, v, name)
}

// setTag stores a tag; without a version it names the present state.
func (d *Drive) setTag(ctx context.Context, c Caller, scope Ino, v Version, name string) error {
	if err := checkTag(name); err != nil {
		return err
	}
	return d.transactTag(ctx, func(now *Snapshot) (*tagChange, error) {
		k := d.kept()
		if _, err := k.tag(name); err == nil {
			return nil, fmt.Errorf("tag %q: %w", name, ErrExist)
		} else if !isNotExist(err) {
			return nil, err
		}
		at := now.Version
		if v.Seq != 0 {
			var err error
			if at, err = k.exact(v); err != nil {
				return nil, err
			}
		}
		rec := tagRecord{version: at, time: d.clock().UnixNano(), uid: c.Uid, scope: scope}
		return &tagChange{name: name, uid: c.Uid, scope: scope, value: rec.encode()}, nil
	})
}

// Untag drops a tag that was set from a path, or from below it. What it kept
// is kept from then on as long as any other version.
func (d *Drive) Untag(ctx context.Context, path, name string) error {
	ino, err := d.Resolve(ctx, path)
	if err != nil {
		return err
	}
	return d.dropTag(ctx, Caller{}, ino, name)
}

func (d *Drive) dropTag(ctx context.Context, c Caller, dir Ino, name string) error {
	return d.transactTag(ctx, func(now *Snapshot) (*tagChange, error) {
		rec, err := d.kept().tag(name)
		if err != nil {
			return nil, err
		}
		below, err := now.v.inside(rec.scope, dir)
		if err != nil {
			return nil, err
		}
		if !below && dir != RootIno {
			return nil, fmt.Errorf("tag %q was set elsewhere: %w", name, ErrPerm)
		}
		return &tagChange{name: name, uid: c.Uid, scope: rec.scope}, nil
	})
}

// Tags lists the tags that were set from a path, from below it or from above
// it, in the order of their names.
func (d *Drive) Tags(ctx context.Context, path string) ([]TagInfo, error) {
	ino, err := d.Resolve(ctx, path)
	if err != nil {
		return nil, err
	}
	var out []TagInfo
	k := d.kept()
	err = k.tags("", func(name string, t tagRecord) (bool, error) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if related, err := k.related(t.scope, ino); !related || err != nil {
			return err == nil, err
		}
		path, err := k.v.path(t.scope)
		if err != nil && !isNotExist(err) {
			return false, err
		}
		out = append(out, TagInfo{Name: name, Version: t.version, Time: unixNano(t.time), Uid: t.uid, Path: path})
		return true, nil
	})
	return out, err
}

// tag finds a tag.
func (k *keptVersions) tag(name string) (tagRecord, error) {
	if name == "" || len(name) > MaxName {
		return tagRecord{}, fmt.Errorf("tag %q: %w", name, ErrNotExist)
	}
	b, err := k.v.get(tagKey(name))
	if err != nil {
		return tagRecord{}, err
	}
	if b == nil {
		return tagRecord{}, fmt.Errorf("no tag is called %q: %w", name, ErrNotExist)
	}
	return decodeTag(b)
}

// tags calls fn for each tag after a name.
func (k *keptVersions) tags(after string, fn func(name string, t tagRecord) (bool, error)) error {
	lo, hi := kindRange(0, kindTag)
	if after != "" {
		lo = append(tagKey(after), 0)
	}
	it := k.v.scan(lo, hi)
	for it.next() {
		t, err := decodeTag(it.value)
		if err != nil {
			return fmt.Errorf("%q: %w", keyName(it.key), err)
		}
		if more, err := fn(keyName(it.key), t); !more || err != nil {
			return err
		}
	}
	return it.err
}

// related reports whether a tag set from scope is of interest in dir: it was
// set there, above or below. One set from something that is gone is of
// interest everywhere.
func (k *keptVersions) related(scope, dir Ino) (bool, error) {
	if scope == RootIno || dir == RootIno {
		return true, nil
	}
	if _, err := k.v.inode(scope); isNotExist(err) {
		return true, nil
	}
	in, err := k.v.inside(scope, dir)
	if in || err != nil {
		return in, err
	}
	return k.v.inside(dir, scope)
}

// tagChange sets a tag, or drops it without a value.
type tagChange struct {
	name  string
	uid   uint32
	scope Ino
	value []byte
}

// transactTag computes a change of a tag against the present state and makes
// it a version of its own, again if the drive changed meanwhile.
func (d *Drive) transactTag(ctx context.Context, compute func(now *Snapshot) (*tagChange, error)) error {
	for range 100 {
		now, base, err := d.settled(ctx)
		if err != nil {
			return err
		}
		t, err := compute(now)
		if err != nil {
			return err
		}
		stale, err := d.applyTag(ctx, t, base)
		if err != nil || !stale {
			return err
		}
	}
	return fmt.Errorf("the drive is too busy: %w", ErrBusy)
}

func (d *Drive) applyTag(ctx context.Context, t *tagChange, base uint64) (stale bool, err error) {
	d.commitMu.Lock()
	defer d.commitMu.Unlock()
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if err := d.begin(); err != nil {
		return false, err
	}
	if d.mutations != base || len(d.work.changes) > 0 {
		d.mu.Unlock()
		return true, nil
	}
	if t.value == nil {
		d.open.del(tagKey(t.name))
	} else {
		d.open.put(tagKey(t.name), t.value)
	}
	d.note(&session{program: "hearth", uid: t.uid}, change{what: didTag, ino: t.scope, parent: t.scope, name: t.name})
	d.work.reason = ReasonTag
	d.mutated()
	d.mu.Unlock()
	return false, d.commitLocked(true)
}
