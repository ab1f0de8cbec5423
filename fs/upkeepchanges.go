package fs

import "cmp"

// changeList joins the change lists of versions that become one, oldest first.
type changeList struct {
	actors  []actor
	index   map[uint64]int // actor id to index
	changes []change
}

func (l *changeList) add(actors []actor, changes []change) {
	if l.index == nil {
		l.index = map[uint64]int{}
	}
	number := make([]int, len(actors))
	for i, a := range actors {
		n, ok := l.index[a.id]
		if !ok {
			n = len(l.actors)
			l.index[a.id] = n
			l.actors = append(l.actors, a)
		}
		number[i] = n
	}
	for _, c := range changes {
		c.actor = number[c.actor]
		l.changes = append(l.changes, c)
	}
}

// maxActors bounds the actors of one version, as they stand in its commit
// block. Beyond it, all runs of one program are one.
const maxActors = 4096

// life is what happened to an inode: whether it was made or lost its last name
// first, and last.
type life struct{ first, last what }

// result returns the list. What was made and removed again in between leaves
// nothing. With fold, what several actors did to one thing is the last one's.
func (l *changeList) result(fold bool) ([]actor, []change) {
	lives := map[Ino]life{}
	for _, c := range l.changes {
		for _, w := range [2]what{didCreate, didRemove} { // in this order, if both
			if c.what&w == 0 {
				continue
			}
			x := lives[c.ino]
			x.first, x.last = cmp.Or(x.first, w), w
			lives[c.ino] = x
		}
	}
	var out []change
	at := map[workKey]int{}
	for _, c := range l.changes {
		switch x := lives[c.ino]; {
		case x.first == didCreate && x.last == didRemove:
			continue
		case x.first == didRemove && x.last == didCreate: // it was brought back
			if c.what&(didCreate|didRemove) != 0 {
				c.what = c.what&^(didCreate|didRemove) | didAttr
			}
		case x.first != 0: // it came, or it went: once
			if c.what&(didCreate|didRemove) != 0 {
				c.what = c.what&^(didCreate|didRemove) | x.last
			}
		}
		k := workKey{ino: c.ino, parent: c.parent, name: c.name}
		if !fold {
			k.actor = c.actor
		}
		i, ok := at[k]
		if !ok {
			at[k] = len(out)
			out = append(out, c)
			continue
		}
		o := &out[i]
		o.what |= c.what
		o.delta += c.delta
		o.actor = c.actor
		if c.what&didWrite != 0 {
			o.size = c.size
		}
	}
	return l.used(out)
}

// used returns the actors that changes name, and the changes naming them.
func (l *changeList) used(changes []change) ([]actor, []change) {
	wanted := map[int]struct{}{}
	for _, c := range changes {
		wanted[c.actor] = struct{}{}
	}
	type run struct {
		program string
		uid     uint32
	}
	many := len(wanted) > maxActors
	var actors []actor
	number, runs := map[int]int{}, map[run]int{}
	for i, a := range l.actors {
		if _, ok := wanted[i]; !ok {
			continue
		}
		r := run{a.program, a.uid}
		if len(runs) >= maxActors {
			r = run{} // so many programs: nobody tells them apart
		}
		n, ok := runs[r]
		if many && ok {
			a.program, a.uid = r.program, r.uid
			actors[n] = a
		} else {
			n = len(actors)
			actors = append(actors, a)
			runs[r] = n
		}
		number[i] = n
	}
	for i := range changes {
		changes[i].actor = number[changes[i].actor]
	}
	return actors, changes
}
