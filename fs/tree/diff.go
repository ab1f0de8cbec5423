package tree

import "bytes"

// Diff calls fn for every key in [lo, hi) whose value differs between a and b,
// in ascending order: old is nil when b added the key, new is nil when b
// deleted it. A nil hi is the end. key is valid during the call only; old and
// new alias cached pages. An error from fn ends the diff and is returned.
//
// References must mean the same in both trees: subtrees under equal ones are
// skipped, wherever they stand, so that the cost is in the number of changes
// times the height.
func Diff(a, b *Tree, lo, hi []byte, fn func(key, old, new []byte) error) error {
	x, y := newCursor(a, lo, hi), newCursor(b, lo, hi)
	for {
		kx, ky := x.front(), y.front()
		switch {
		case kx == atEnd && ky == atEnd:
			return nil
		case kx == atSubtree && ky == atSubtree:
			if x.height == y.height && x.child == y.child {
				x.advance()
				y.advance()
				continue
			}
			if err := expandOne(x, y); err != nil {
				return err
			}
		case kx == atSubtree && (ky == atEnd || x.reaches(y.key())):
			if err := x.expand(); err != nil {
				return err
			}
		case ky == atSubtree && (kx == atEnd || y.reaches(x.key())):
			if err := y.expand(); err != nil {
				return err
			}
		default:
			if err := emit(x, y, kx, ky, fn); err != nil {
				return err
			}
		}
	}
}

// expandOne opens the subtree in front of x or of y, or both: the one that ends
// before the other starts; else the higher; else both.
func expandOne(x, y *cursor) error {
	ex, ey := x.height >= y.height, y.height >= x.height
	xlo, xhi := x.bounds()
	ylo, yhi := y.bounds()
	if xhi != nil && bytes.Compare(xhi, ylo) <= 0 {
		ex, ey = true, false
	} else if yhi != nil && bytes.Compare(yhi, xlo) <= 0 {
		ex, ey = false, true
	}
	if ex {
		if err := x.expand(); err != nil {
			return err
		}
	}
	if ey {
		return y.expand()
	}
	return nil
}

// emit reports the lesser of the entries in front of x and y, one of which may
// be at its end or at a subtree that starts later, and moves past it.
func emit(x, y *cursor, kx, ky position, fn func(key, old, new []byte) error) error {
	c := -1 // the entry is: -1 only in x, 1 only in y, 0 in both
	if kx == atEntry && ky == atEntry {
		c = bytes.Compare(x.key(), y.key())
	} else if ky == atEntry {
		c = 1
	}
	var err error
	switch {
	case c < 0:
		err = fn(x.key(), x.value(), nil)
	case c > 0:
		err = fn(y.key(), nil, y.value())
	default:
		if old, now := x.value(), y.value(); !bytes.Equal(old, now) {
			err = fn(x.key(), old, now)
		}
	}
	if err != nil {
		return err
	}
	if c <= 0 {
		x.advance()
	}
	if c >= 0 {
		y.advance()
	}
	return nil
}
