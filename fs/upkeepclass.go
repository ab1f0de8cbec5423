package fs

import (
	"context"
	"errors"
	"strings"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"hearth/fs/tree"
	"hearth/log"
)

// RetainAttr is the extended attribute that says how long the history of a
// file or folder is kept. Folders hand it down to what is in them.
const RetainAttr = "user.hearth.retain"

// maxClasses is how many policies a drive can tell apart: as many as Classes
// has bits, one of which stands for all beyond.
const maxClasses = 63

// classes tells which retention policy an inode is under. A policy lasts as
// long as what it is set on: what was deleted is under that of the nearest
// folder above it that is still there.
type classes struct {
	policies []string        // the first is of the root
	at       map[Ino]Classes // where a policy is set
	head     *view
	known    []*roaring64.Bitmap // by class; only with several
}

// findClasses collects the policies that are set now.
func findClasses(ctx context.Context, head *view) (*classes, error) {
	c := &classes{policies: []string{""}, at: map[Ino]Classes{}, head: head}
	if b, err := head.xattr(RootIno, RetainAttr); err == nil {
		x, err := decodeXattr(b)
		if err != nil {
			return nil, err
		}
		c.policies[0] = string(x.inline)
	} else if !errors.Is(err, ErrNoAttr) {
		return nil, err
	}
	bits := map[string]Classes{c.policies[0]: 1}
	set := func(key, value []byte) error {
		if keyKind(key) != kindXattr || keyName(key) != RetainAttr {
			return nil
		}
		x, err := decodeXattr(value)
		if err != nil {
			return err
		}
		// A value that stands in a block is longer than any policy: what it
		// means is not known, so all of it is kept.
		policy := string(x.inline)
		bit, ok := bits[policy]
		switch {
		case keyIno(key) == RootIno:
			return nil
		case x.block || !ok && len(c.policies) == maxClasses:
			bit = AllClasses
		case !ok:
			bit = 1 << len(c.policies)
			bits[policy] = bit
			c.policies = append(c.policies, policy)
		}
		c.at[keyIno(key)] = bit
		return nil
	}
	buffer := head.layers[0]
	err := head.tree.Walk(ctx, func(ref log.Ref, height uint8) (bool, error) {
		if height > 1 {
			return true, nil
		}
		return false, head.tree.Leaf(ref, func(key, value []byte) error {
			if !validKey(key) {
				return &tree.DamageError{Ref: ref, Reason: "a key that is none of a drive's"}
			}
			if _, over := buffer.m.Get(string(key)); over {
				return nil
			}
			return set(key, value)
		})
	})
	if err != nil {
		return nil, err
	}
	buffer.m.Scan(func(k string, v []byte) bool {
		if v != nil {
			err = set([]byte(k), v)
		}
		return err == nil
	})
	for range c.policies {
		c.known = append(c.known, roaring64.New())
	}
	return c, err
}

// single reports whether there is only the default policy.
func (c *classes) single() bool { return len(c.at) == 0 }

// of returns the classes of an inode that state holds. A file with names in
// several folders is in the classes of all of them.
func (c *classes) of(ino Ino, state *view) (Classes, error) {
	if c.single() {
		return 1, nil
	}
	return c.resolve(ino, state, 0)
}

func (c *classes) resolve(ino Ino, state *view, depth int) (Classes, error) {
	var mask Classes
	for i, set := range c.known {
		if set.Contains(uint64(ino)) {
			mask |= 1 << i
		}
	}
	if mask != 0 {
		return mask, nil
	}
	if bit, ok := c.at[ino]; ok {
		return bit, nil
	}
	if ino == RootIno || depth > maxDepth {
		return 1, nil
	}
	if state != c.head {
		b, err := c.head.get(inodeKey(ino))
		if err != nil {
			return 0, err
		}
		if b != nil {
			state = c.head
		}
	}
	var parents []Ino
	if err := state.parents(ino, func(p Ino, _ string) bool { parents = append(parents, p); return true }); err != nil {
		return 0, err
	}
	for _, p := range parents {
		bits, err := c.resolve(p, state, depth+1)
		if err != nil {
			return 0, err
		}
		mask |= bits
	}
	if mask == 0 {
		mask = 1
	}
	for i, set := range c.known {
		if mask&(1<<i) != 0 {
			set.Add(uint64(ino))
		}
	}
	return mask, nil
}

// policyPrefix begins the names of attributes that say how a file is kept.
const policyPrefix = "user.hearth."

// inheritPolicies has an inode that continues a document be kept as that was:
// programs that save by replacing a file do not copy its attributes. earlier is
// the state before the open layer. Under mu.
func (d *Drive) inheritPolicies(earlier *view, from, ino Ino) error {
	state := d.viewOf(from)
	if _, err := state.inode(from); isNotExist(err) {
		state = earlier
	} else if err != nil {
		return err
	}
	now := d.live()
	return state.xattrs(from, func(name string, record []byte) error {
		if !strings.HasPrefix(name, policyPrefix) {
			return nil
		}
		if _, err := now.xattr(ino, name); !errors.Is(err, ErrNoAttr) {
			return err
		}
		d.open.put(xattrKey(ino, name), record)
		return nil
	})
}
