package fs

import (
	"fmt"
	"time"
)

// What was deleted can be brought back for some time. The rule: of a version
// and the next one, whichever actors' names an inode loses for good between
// them make the version be kept, if
//
//   - the inode was minAge old when the change that removed it began, so that
//     temporary files and the journals of databases hold nothing,
//   - none of its names leads to something else in the next version: a file
//     that was replaced is an older version of what replaced it,
//   - the version kept before it does not hold the same inode with the same
//     contents: then that is where it comes back from.

// DeletedNext returns for which classes version i is to be kept because the
// version next deletes what only i still has; before is the version kept last
// before i for these classes, or -1.
func (u *Upkeep) DeletedNext(i, next, before int, classes Classes, minAge time.Duration) (Classes, error) {
	if u.all[next].still {
		return 0, nil
	}
	c, err := u.commitOf(u.all[next])
	if err != nil {
		return 0, err
	}
	changes, err := u.d.allChanges(u.d.writer, c)
	if err != nil {
		return 0, err
	}
	var states [3]*view // of i, next and before
	state := func(n, i int) (*view, error) {
		if states[n] == nil {
			c, err := u.commitOf(u.all[i])
			if err != nil {
				return nil, err
			}
			states[n] = u.viewOf(c)
		}
		return states[n], nil
	}
	var found Classes
	for _, ch := range changes {
		if ch.what&didRemove == 0 {
			continue
		}
		if classes == 0 {
			break
		}
		old, err := state(0, i)
		if err != nil {
			return 0, err
		}
		n, err := old.inode(ch.ino)
		if isNotExist(err) {
			continue // it came and went in between
		}
		if err != nil {
			return 0, err
		}
		if unixNano(c.actors[ch.actor].since).Sub(n.btime.Std()) < minAge {
			continue
		}
		class, err := u.classes.of(ch.ino, old)
		if err != nil {
			return 0, err
		}
		if class&classes == 0 {
			continue
		}
		if before >= 0 {
			earlier, err := state(2, before)
			if err != nil {
				return 0, err
			}
			was, err := earlier.inode(ch.ino)
			if err == nil && was.content == n.content {
				continue
			}
			if err != nil && !isNotExist(err) {
				return 0, err
			}
		}
		after, err := state(1, next)
		if err != nil {
			return 0, err
		}
		replaced, err := namesTaken(old, after, ch.ino)
		if err != nil {
			return 0, fmt.Errorf("version %d: %w", u.all[next].seq, err)
		}
		if !replaced {
			found |= class & classes
			classes &^= class
		}
	}
	return found, nil
}

// namesTaken reports whether a name that an inode had leads to another one.
func namesTaken(old, now *view, ino Ino) (bool, error) {
	var names []nameOf
	if err := old.parents(ino, func(p Ino, name string) bool { names = append(names, nameOf{p, name}); return true }); err != nil {
		return false, err
	}
	for _, at := range names {
		_, err := now.lookup(at.parent, at.name)
		if err == nil {
			return true, nil
		}
		if !isNotExist(err) {
			return false, err
		}
	}
	return false, nil
}
