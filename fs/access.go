package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Permissions of what is in .history. The kernel checks them as those of any
// file, so they are given as an owner, a group and bits that let nobody read
// what they may not read today, nor what they might not read then:
//
//   - The owner and the group are the present ones, and reading and executing
//     are allowed where both the old bits and the present ones allow it. If the
//     group has changed since, the new one gets what others had.
//   - Whoever cannot reach the inode today (a directory above it denies
//     searching) cannot reach it here. Directories that lead to the .history
//     that is read through are the kernel's to check.
//   - What is reached from .history in one step (the directory at a version, a
//     version of a file, something deleted) must also have been reachable then,
//     or moving a file out of a private directory would publish what it held
//     before.
//   - For what was deleted, its last permissions stand for the present ones,
//     and of the directories above it those that are still there.
//
// What cannot be said with one owner and one group is denied. So groups and
// others get nothing where an ACL takes part, and ACLs are not shown. Write
// permissions are shown as they were, nobody can use them; setuid and setgid
// are not, so that an old program with a hole is not run with rights.
type access struct {
	uid, gid uint32
	mode     uint32 // 0777
}

// xattrACL holds the access ACL of an inode.
const xattrACL = "system.posix_acl_access"

// access returns the permissions of an inode.
func (v *view) access(ino Ino) (access, error) {
	n, err := v.inode(ino)
	if err != nil {
		return access{}, err
	}
	return v.accessOf(ino, n)
}

func (v *view) accessOf(ino Ino, n *inode) (access, error) {
	a := access{n.uid, n.gid, n.mode & 0o777}
	_, err := v.xattr(ino, xattrACL)
	if errors.Is(err, ErrNoAttr) {
		return a, nil
	}
	a.mode &= 0o700
	return a, err
}

// now returns what is left of old permissions of an inode that has the given
// ones today.
func (a access) now(b access) access {
	u, g, o := a.mode>>6&7, a.mode>>3&7, a.mode&7
	if a.gid != b.gid {
		// Members of the present group were others then, and the other way round.
		g, o = g&o, g&o
	}
	if a.uid != b.uid {
		// The owner of then is in the group or among others now.
		g, o = g&u, o&u
	}
	const write = 2
	u &= b.mode>>6&7 | write
	g &= b.mode>>3&7 | write
	o &= b.mode&7 | write
	return access{b.uid, b.gid, u<<6 | g<<3 | o}
}

// through returns what is left of permissions for those who can search a
// directory.
func (a access) through(dir access) access {
	u, g, o := dir.mode&0o100 != 0, dir.mode&0o010 != 0, dir.mode&0o001 != 0
	sameOwner, sameGroup := a.uid == dir.uid, a.gid == dir.gid
	// Whoever is not the directory's owner may be in its group or not.
	owner := sameOwner && u || !sameOwner && g && o || a.uid == 0
	group := g && (sameGroup || o) && (sameOwner || u)
	other := o && (sameGroup || g) && (sameOwner || u)
	for _, c := range []struct {
		pass bool
		bits uint32
	}{{owner, 0o700}, {group, 0o070}, {other, 0o007}} {
		if !c.pass {
			a.mode &^= c.bits
		}
	}
	return a
}

// open reports whether anybody can search a directory.
func (a access) open() bool { return a.mode&0o111 == 0o111 }

// door is a directory that not everybody can search.
type door struct {
	ino Ino
	access
}

// doors returns the directories from the root down to dir that not everybody
// can search today. Under mu.
func (d *Drive) doors(dir Ino) ([]door, error) {
	if cached, ok := d.past.doorsOf(dir, d.mutations); ok {
		return cached, nil
	}
	v := d.live()
	var out []door
	for ino, depth := dir, 0; ino != 0 && depth < maxDepth; depth++ {
		a, err := v.access(ino)
		if err != nil {
			return nil, err
		}
		if !a.open() {
			out = append(out, door{ino, a})
		}
		if ino == RootIno {
			break
		}
		up := Ino(0)
		if err := v.parents(ino, func(p Ino, _ string) bool { up = p; return false }); err != nil {
			return nil, err
		}
		ino = up
	}
	slices.Reverse(out)
	d.past.keepDoors(dir, d.mutations, out)
	return out, nil
}

// effective returns the permissions that an inode of an old state has in the
// .history of a directory.
func (d *Drive) effective(ctx context.Context, dir Ino, s *Snapshot, ino Ino, entry []access) (access, error) {
	old := s.v
	n, err := old.inode(ino)
	if err != nil {
		return access{}, err
	}
	a, err := old.accessOf(ino, n)
	if err != nil {
		return access{}, err
	}
	for _, e := range entry {
		a = a.through(e)
	}
	present, err := d.today(ino, &a)
	if err != nil {
		return access{}, err
	}
	if !present && a.mode&0o077 != 0 {
		last, err := d.lastState(ctx, s.Version.Seq, ino)
		if err != nil {
			return access{}, err
		}
		b, err := last.access(ino)
		if err != nil {
			return access{}, err
		}
		a = a.now(b)
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	v := d.live()
	doors, err := d.waysTo(v, old, ino, present)
	if err != nil {
		return access{}, err
	}
	for _, door := range doors {
		above, err := v.inside(dir, door.ino)
		if err != nil {
			return access{}, err
		}
		if !above {
			a = a.through(door.access)
		}
	}
	return a, nil
}

// today takes from old permissions what is not allowed now, if the inode is
// still there.
func (d *Drive) today(ino Ino, a *access) (present bool, err error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	now, err := d.live().access(ino)
	if isNotExist(err) {
		return false, nil
	}
	if err == nil {
		*a = a.now(now)
	}
	return true, err
}

// lastState returns the newest kept state that has an inode which is gone now
// and was there in version seq. It halves the versions in between: of what was
// brought back and deleted again it may find an earlier end. What lies together
// was mostly deleted together, so the state found last is tried first.
func (d *Drive) lastState(ctx context.Context, seq uint64, ino Ino) (*view, error) {
	k := d.kept()
	at := func(seq uint64) (*view, bool, error) {
		s, err := d.At(ctx, Version{d.writer, seq})
		if err != nil {
			return nil, false, err
		}
		_, err = s.v.inode(ino)
		if err != nil && !isNotExist(err) {
			return nil, false, err
		}
		return s.v, err == nil, nil
	}
	found, has, err := at(seq)
	if err != nil {
		return nil, err
	}
	if !has {
		return nil, fmt.Errorf("inode %d in version %d: %w", ino, seq, ErrNotExist)
	}
	end := d.past.lastEnd.Load()
	guesses := []uint64{end, end + 1}
	for lo, hi := seq+1, k.head.seq; lo <= hi; { // there before lo, gone after hi
		mid := lo + (hi-lo)/2
		if len(guesses) > 0 {
			if lo <= guesses[0] && guesses[0] <= hi {
				mid = guesses[0]
			}
			guesses = guesses[1:]
		}
		got, _, err := k.from(mid, hi)
		if err != nil {
			return nil, err
		}
		if got == 0 {
			hi = mid - 1
			continue
		}
		v, has, err := at(got)
		if err != nil {
			return nil, err
		}
		if has {
			found, seq, lo = v, got, got+1
		} else {
			hi = mid - 1
		}
	}
	d.past.lastEnd.Store(seq)
	return found, nil
}

// waysTo returns the doors on the way to an inode today, or to the nearest
// directory above it that is still there. Of several ways an open one is
// taken. Under mu.
func (d *Drive) waysTo(v, old *view, ino Ino, present bool) ([]door, error) {
	if ino == RootIno {
		return nil, nil
	}
	if !present {
		for depth := 0; depth < maxDepth; depth++ {
			up := Ino(0)
			if err := old.parents(ino, func(p Ino, _ string) bool { up = p; return false }); err != nil {
				return nil, err
			}
			if up == 0 {
				return nil, nil
			}
			if _, err := v.inode(up); err == nil {
				return d.doors(up)
			} else if !isNotExist(err) {
				return nil, err
			}
			ino = up
		}
		return nil, nil
	}
	var dirs []Ino
	err := v.parents(ino, func(p Ino, _ string) bool {
		if !slices.Contains(dirs, p) {
			dirs = append(dirs, p)
		}
		return len(dirs) < 16
	})
	if err != nil {
		return nil, err
	}
	var first []door
	for i, dir := range dirs {
		doors, err := d.doors(dir)
		if err != nil || len(doors) == 0 {
			return nil, err
		}
		if i == 0 {
			first = doors
		}
	}
	return first, nil
}

// entrance returns the directories above an inode in an old state through which
// not everybody could get then, as far as the way to the .history of dir does
// not ask for as much today.
func (d *Drive) entrance(dir Ino, old *view, ino Ino) ([]access, error) {
	var out []access
	d.mu.RLock()
	defer d.mu.RUnlock()
	v := d.live()
	for depth := 0; ino != RootIno && depth < maxDepth; depth++ {
		up := Ino(0)
		if err := old.parents(ino, func(p Ino, _ string) bool { up = p; return false }); err != nil {
			return nil, err
		}
		if up == 0 {
			break
		}
		ino = up
		then, err := old.access(ino)
		if err != nil {
			return nil, err
		}
		if then.open() {
			continue
		}
		if now, err := v.access(ino); err == nil && now.uid == then.uid && now.gid == then.gid && now.mode&^then.mode&0o111 == 0 {
			above, err := v.inside(dir, ino)
			if err != nil {
				return nil, err
			}
			if above {
				continue
			}
		} else if err != nil && !isNotExist(err) {
			return nil, err
		}
		out = append(out, then)
	}
	return out, nil
}
