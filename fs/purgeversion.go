package fs

import (
	"bytes"
	"maps"
	"slices"

	"hearth/fs/tree"
	"hearth/log"
)

// purgedVersion is a version written once more.
type purgedVersion struct {
	commit *commit
	index  uint64
}

// purgedRoot is the tree of one or several versions, without the purged.
type purgedRoot struct {
	old     tree.Root
	new     *tree.Tree
	changed map[string][]byte // what differs; nil: gone
}

// stripped is what has to change in a state.
type stripped struct {
	changes map[string][]byte // nil: gone
	inodes  uint64            // that go
	bytes   uint64            // of contents that go
}

// strip finds what a state has of the purged.
func (p *purger) strip(v *view) (*stripped, error) {
	s := &stripped{changes: map[string][]byte{}}
	gone := map[Ino]struct{}{}
	var queue []Ino
	for it := p.gone.Iterator(); it.HasNext(); {
		ino := Ino(it.Next())
		b, err := v.get(inodeKey(ino))
		if err != nil {
			return nil, err
		}
		if b != nil {
			gone[ino] = struct{}{}
			queue = append(queue, ino)
		}
	}
	subdirs := map[Ino]uint32{} // directories that stay, by how many of theirs go
	links := map[Ino]struct{}{} // files that lose a name
	for len(queue) > 0 {
		ino := queue[0]
		queue = queue[1:]
		n, err := v.inode(ino)
		if err != nil {
			return nil, err
		}
		s.inodes++
		if n.isRegular() {
			s.bytes += n.size
		}
		lo, hi := inoRange(ino)
		it := v.scan(lo, hi)
		for it.next() {
			s.changes[string(it.key)] = nil
			switch keyKind(it.key) {
			case kindParent:
				up, name := keyParent(it.key)
				s.changes[string(direntKey(up, name))] = nil
				if n.isDir() {
					subdirs[up]++
				}
			case kindDirent:
				e, err := decodeDirent(it.value)
				if err != nil {
					return nil, err
				}
				s.changes[string(parentKey(e.ino, ino, keyName(it.key)))] = nil
				links[e.ino] = struct{}{}
			}
		}
		if it.err != nil {
			return nil, it.err
		}
		if len(queue) > 0 {
			continue
		}
		// What was in there and is not purged has lost its place; if it has no
		// other in this state, it is not in it any more.
		for child := range links {
			if _, ok := gone[child]; ok {
				continue
			}
			var names uint32
			err := v.parents(child, func(up Ino, _ string) bool {
				if _, ok := gone[up]; !ok {
					names++
				}
				return true
			})
			if err != nil {
				return nil, err
			}
			if names == 0 {
				gone[child] = struct{}{}
				queue = append(queue, child)
				continue
			}
			c, err := v.inode(child)
			if err != nil {
				return nil, err
			}
			if !c.isDir() {
				c.nlink = names
				s.changes[string(inodeKey(child))] = c.encode()
			}
		}
	}
	for dir, n := range subdirs {
		if _, ok := gone[dir]; ok {
			continue
		}
		d, err := v.inode(dir)
		if err != nil {
			return nil, err
		}
		d.nlink -= n
		s.changes[string(inodeKey(dir))] = d.encode()
	}
	return s, p.share.relocateState(v, s.changes)
}

// root returns a tree without the purged.
func (p *purger) root(root tree.Root) (*purgedRoot, error) {
	if p.last.new != nil && p.last.old == root {
		return &p.last, nil
	}
	u := p.u
	t := tree.New(&u.d.pages, u.cache, root)
	s, err := p.strip(&view{nil, t})
	if err != nil {
		return nil, err
	}
	out := root
	if len(s.changes) > 0 {
		if out, err = t.Apply(sortedChanges(s.changes)); err != nil {
			return nil, err
		}
	}
	out, err = tree.New(&u.d.pages, u.cache, out).Reseparate(p.keys,
		func(r log.Ref) bool { return p.clean.Contains(pageNumber(r)) },
		func(r log.Ref) { p.clean.Add(pageNumber(r)) })
	if err != nil {
		return nil, err
	}
	p.last = purgedRoot{old: root, new: tree.New(&u.d.pages, u.cache, out), changed: s.changes}
	return &p.last, nil
}

func sortedChanges(m map[string][]byte) []tree.Change {
	out := make([]tree.Change, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, tree.Change{Key: []byte(k), Value: m[k], Delete: m[k] == nil})
	}
	return out
}

// version writes a version once more, unless it knows nothing of the purged.
func (p *purger) version(v *kept, update *indexUpdate) (*purgedVersion, error) {
	c, err := p.u.commitOf(v)
	if err != nil {
		return nil, err
	}
	root, err := p.root(c.root)
	if err != nil {
		return nil, err
	}
	next := *c
	next.root = root.new.Root()
	if err := p.buffer(&next, c, root); err != nil {
		return nil, err
	}
	changes, err := p.u.d.allChanges(p.u.d.writer, c)
	if err != nil {
		return nil, err
	}
	next.changes, next.more = p.changes(changes), nil
	listed := len(next.changes) != len(changes)
	for i := 0; !listed && i < len(changes); i++ {
		listed = next.changes[i] != changes[i]
	}
	if !listed && next.root == c.root && sameBuffer(next.buffer, c.buffer) {
		return nil, nil
	}
	if listed {
		update.forgetVersion(v.seq, changes)
		update.setVersion(&next)
	}
	index, err := p.u.d.appendCommit(&next)
	return &purgedVersion{&next, index}, err
}

func sameBuffer(a, b []tree.Change) bool {
	return slices.EqualFunc(a, b, func(x, y tree.Change) bool {
		return x.Delete == y.Delete && bytes.Equal(x.Key, y.Key) && bytes.Equal(x.Value, y.Value)
	})
}

// buffer sets the root buffer of next, which is c over another root: what
// differs between the state without the purged and that root.
func (p *purger) buffer(next, c *commit, root *purgedRoot) error {
	state := p.u.viewOf(c)
	s, err := p.strip(state)
	if err != nil {
		return err
	}
	next.inodes -= s.inodes
	next.bytes -= s.bytes
	keys := map[string]struct{}{}
	for _, ch := range c.buffer {
		keys[string(ch.Key)] = struct{}{}
	}
	for k := range s.changes {
		keys[k] = struct{}{}
	}
	for k := range root.changed {
		keys[k] = struct{}{}
	}
	var buffer []tree.Change
	size := 0
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		want, ok := s.changes[k]
		if !ok {
			if want, err = state.get([]byte(k)); err != nil {
				return err
			}
		}
		have, found, err := root.new.Get([]byte(k))
		switch {
		case err != nil:
			return err
		case want == nil && !found, want != nil && found && bytes.Equal(want, have):
			continue
		}
		buffer = append(buffer, tree.Change{Key: []byte(k), Value: want, Delete: want == nil})
		size += len(k) + len(want) + 4
	}
	if size <= max(bufferLimit, 2*bufferSize(c.buffer)) {
		next.buffer = buffer
		return nil
	}
	next.buffer = nil
	next.root, err = root.new.Apply(buffer)
	return err
}

func bufferSize(changes []tree.Change) int {
	size := 0
	for _, c := range changes {
		size += len(c.Key) + len(c.Value) + 4
	}
	return size
}

// changes returns a change list without the purged, and names in it.
func (p *purger) changes(list []change) []change {
	var out []change
	for _, c := range list {
		if p.isGone(c.ino) {
			continue
		}
		if c.parent != 0 && p.isGone(c.parent) {
			if c.what&^didReplace == 0 || c.name != "" {
				continue
			}
			c.what, c.parent = c.what&^didReplace, 0 // its document's part is gone
		}
		out = append(out, c)
	}
	return out
}
