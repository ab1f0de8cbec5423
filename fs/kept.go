package fs

import (
	"fmt"
	"time"
)

// keptVersions answers which versions a drive keeps, as of its newest commit.
// What it reads never changes, so no lock is held.
type keptVersions struct {
	d    *Drive
	head version
	v    *view // the newest commit's state: it has a record of every version before it
}

func (d *Drive) kept() *keptVersions {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return &keptVersions{d: d, head: d.head, v: &view{[]*layer{d.buffer}, d.base}}
}

// newest returns the snapshot of the newest commit.
func (k *keptVersions) newest() *Snapshot {
	return &Snapshot{d: k.d, v: k.v, Version: Version{k.d.writer, k.head.seq}, c: k.head.commit}
}

// has reports whether a version is kept.
func (k *keptVersions) has(seq uint64) (bool, error) {
	if seq >= k.head.seq {
		return seq == k.head.seq, nil
	}
	b, err := k.v.get(versionKey(Version{k.d.writer, seq}))
	return b != nil, err
}

// sure is has for a guess: an error is a no, and shows elsewhere.
func (k *keptVersions) sure(seq uint64) bool {
	ok, err := k.has(seq)
	return ok && err == nil
}

// from returns the oldest kept version in [lo, hi], and when it was made; 0 if
// there is none.
func (k *keptVersions) from(lo, hi uint64) (seq uint64, at int64, err error) {
	if lo > hi {
		return 0, 0, nil
	}
	it := k.v.scan(versionKey(Version{k.d.writer, lo}), versionKey(Version{k.d.writer, hi + 1}))
	if it.next() {
		rec, err := decodeVersionRecord(it.value)
		return keyVersion(it.key).Seq, rec.time, err
	}
	if it.err == nil && lo <= k.head.seq && k.head.seq <= hi {
		return k.head.seq, k.head.time, nil
	}
	return 0, 0, it.err
}

// last returns the newest kept version at or before seq for which accept holds,
// 0 if there is none. accept must hold for a prefix of the versions.
func (k *keptVersions) last(seq uint64, accept func(at int64) bool) (uint64, error) {
	var found uint64
	for lo, hi := uint64(1), min(seq, k.head.seq); lo <= hi; {
		mid := lo + (hi-lo)/2
		got, at, err := k.from(mid, hi)
		switch {
		case err != nil:
			return 0, err
		case got != 0 && accept(at):
			found, lo = got, got+1
		default:
			hi = mid - 1
		}
	}
	return found, nil
}

// atOrBefore returns the newest kept version at or before seq, 0 if there is
// none.
func (k *keptVersions) atOrBefore(seq uint64) (uint64, error) {
	if ok, err := k.has(seq); ok || err != nil || seq == 0 {
		return seq, err
	}
	return k.last(seq, func(int64) bool { return true })
}

// lastBefore returns the newest kept version made before t, 0 if there is none.
func (k *keptVersions) lastBefore(t time.Time) (uint64, error) {
	return k.last(k.head.seq, func(at int64) bool { return unixNano(at).Before(t) })
}

// time returns when a kept version was made.
func (k *keptVersions) time(seq uint64) (int64, error) {
	got, at, err := k.from(seq, seq)
	if err == nil && got == 0 {
		err = fmt.Errorf("version %d: %w", seq, ErrNoVersion)
	}
	return at, err
}

// exact checks that a version is kept, and tells which others are if not.
func (k *keptVersions) exact(v Version) (Version, error) {
	if v.Writer != k.d.writer {
		return v, fmt.Errorf("version %v: no writer %d here: %w", v, v.Writer, ErrNoVersion)
	}
	if v.Seq > k.head.seq {
		return v, fmt.Errorf("version %v: the newest is %v: %w", v, Version{v.Writer, k.head.seq}, ErrNoVersion)
	}
	if ok, err := k.has(v.Seq); ok || err != nil {
		return v, err
	}
	before, err := k.atOrBefore(v.Seq)
	if err != nil {
		return v, err
	}
	after, _, err := k.from(v.Seq, k.head.seq)
	if err != nil {
		return v, err
	}
	if before == 0 {
		return v, fmt.Errorf("version %v is not kept, the oldest is %v: %w", v, Version{v.Writer, after}, ErrNoVersion)
	}
	return v, fmt.Errorf("version %v is not kept, the nearest are %v and %v: %w", v, Version{v.Writer, before}, Version{v.Writer, after}, ErrNoVersion)
}

// beganAfter is the error for a time before the oldest kept version.
func (k *keptVersions) beganAfter(limit time.Time) error {
	seq, at, err := k.from(1, k.head.seq)
	if err != nil {
		return err
	}
	return fmt.Errorf("nothing is kept from before %s, the oldest version is %v of %s: %w", limit.UTC().Format(time.RFC3339), Version{k.d.writer, seq}, unixNano(at).Format(time.RFC3339), ErrNoVersion)
}
