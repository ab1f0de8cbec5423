package fs

import (
	"context"
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"
)

// docEvent is what one version did to a document, under the inode it had then.
type docEvent struct {
	fileChange
	ino Ino
}

// renames reports whether the inode had another name before, or others.
func (e docEvent) renames() bool {
	return e.what&(didLink|didUnlink) != 0 && e.what&(didCreate|didReplace|didRemove) == 0
}

// docEvents walks what the index knows of a document, newest first: the events
// of an inode down to the one in which it took the document over, then those of
// the inode it succeeded, and so on. They are read in batches, so that nothing
// of the index is held while the events are looked at.
type docEvents struct {
	d     *Drive
	k     *keptVersions
	ino   Ino    // where to read on
	below uint64 // in versions before this
	top   uint64 // the inode is the document in versions before this: from there on it is followed back
	batch []docEvent
	next  int
	size  int
	ended bool
	lost  bool // the index cannot tell
}

func (d *Drive) docEvents(ctx context.Context, k *keptVersions, ino Ino, below uint64) *docEvents {
	it := &docEvents{d: d, k: k, ino: ino, below: below, top: below, size: 64}
	it.lost = d.index == nil || !d.index.await(ctx, d.Newest().Seq)
	return it
}

// seek goes on with the events of an inode in versions before one.
func (it *docEvents) seek(ino Ino, below uint64) {
	for it.next < len(it.batch) && it.batch[it.next].seq >= below {
		it.next++
	}
	if it.next < len(it.batch) && it.batch[it.next].ino == ino {
		return
	}
	if it.next == len(it.batch) && it.ino == ino && it.below <= below {
		return
	}
	it.ino, it.below, it.ended = ino, below, false
	it.batch, it.next = it.batch[:0], 0
}

// peek returns the next event, false if there is none or the index is lost.
func (it *docEvents) peek() (docEvent, bool) {
	if it.next == len(it.batch) && !it.ended && !it.lost {
		it.batch, it.next = it.batch[:0], 0
		if !it.d.index.readEvents(it) {
			it.lost = true
			it.batch = it.batch[:0]
		}
		it.size = min(2*it.size, 4096)
	}
	if it.next == len(it.batch) {
		return docEvent{}, false
	}
	return it.batch[it.next], true
}

func (it *docEvents) take() { it.next++ }

// readEvents reads the next batch, and reports whether the index could tell.
func (x *index) readEvents(e *docEvents) bool {
	x.dbMu.RLock()
	defer x.dbMu.RUnlock()
	if x.db == nil {
		return false
	}
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{'c'}, UpperBound: []byte{'c' + 1}})
	if err != nil {
		go x.fail(err)
		return false
	}
	defer it.Close()
	ok := e.below > 0 && it.SeekGE(changeKey(e.ino, e.below-1))
	for len(e.batch) < e.size {
		if !ok || len(it.Key()) != 17 || Ino(binary.BigEndian.Uint64(it.Key()[1:])) != e.ino {
			e.ended = true
			break
		}
		seq := ^binary.BigEndian.Uint64(it.Key()[9:])
		c, err := decodeFileChange(seq, it.Value())
		if err != nil {
			go x.fail(err)
			return false
		}
		e.batch = append(e.batch, docEvent{c, e.ino})
		if e.below = seq; seq < e.top && c.what&didReplace != 0 && c.from != 0 && c.from != e.ino && e.k.sure(seq) {
			e.ino = c.from
			ok = it.SeekGE(changeKey(e.ino, seq-1))
			continue
		}
		ok = it.Next()
	}
	if err := it.Error(); err != nil {
		go x.fail(err)
		return false
	}
	return true
}

// eventOf finds what a kept version did to an inode, in the version itself.
func (d *Drive) eventOf(v version, ino Ino) (docEvent, bool, error) {
	changes, err := d.allChanges(d.writer, v.commit)
	if err != nil {
		return docEvent{}, false, err
	}
	own := changes[:0:0]
	for _, c := range changes {
		if c.ino == ino {
			own = append(own, c)
		}
	}
	f, ok := fileChanges(v.commit, own)[ino]
	return docEvent{f, ino}, ok, nil
}
