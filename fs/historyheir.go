package fs

import "slices"

// A document that was saved under a new inode is still the document: what its
// old inodes held is no more open than it is today. The old inode is gone, so
// its own permissions of today say nothing.

// heirs returns the files that may be today what a file of an old state was:
// those that have its names now, if it is gone. Whether the document went on in
// them or they are others by the same name is not asked: who may not read a
// path today does not read it here.
func (d *Drive) heirs(old *view, ino Ino) ([]Ino, error) {
	n, err := old.inode(ino)
	if err != nil || !n.isRegular() {
		return nil, err
	}
	names, err := old.names(ino)
	if err != nil {
		return nil, err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	v := d.live()
	if _, err := v.inode(ino); err == nil || !isNotExist(err) {
		return nil, err
	}
	var out []Ino
	for _, at := range names {
		e, err := v.lookup(at.parent, at.name)
		if isNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if e.typ == ModeRegular && !slices.Contains(out, e.ino) {
			out = append(out, e.ino)
		}
	}
	return out, nil
}

// asToday returns what an inode leaves of permissions today, with the
// directories on the way to it that the way to the .history of dir does not
// lead through. One that is gone leaves all.
func (d *Drive) asToday(dir Ino, a access, ino Ino) (access, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	v := d.live()
	now, err := v.access(ino)
	if isNotExist(err) {
		return a, nil
	}
	if err != nil {
		return a, err
	}
	a = a.now(now)
	doors, err := d.waysTo(v, v, ino, true)
	if err != nil {
		return a, err
	}
	for _, door := range doors {
		above, err := v.inside(dir, door.ino)
		if err != nil {
			return a, err
		}
		if !above {
			a = a.through(door.access)
		}
	}
	return a, nil
}
