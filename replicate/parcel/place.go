package parcel

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"hearth/log/wire"
)

// few is up to how many files and folders are synced one by one. Beyond, one
// syncfs is quicker, although it waits for what others wrote, too.
const few = 64

// manyNames is how often another name is tried before giving up.
const manyNames = 1 << 20

// finish makes everything durable in the partial folder, and then moves it to
// its place. What an earlier attempt did of that is not done again.
func (r *receiver) finish() error {
	past := r.s.past
	if past == nil || !past.complete {
		if err := r.s.complete(r.given); err != nil {
			return err
		}
	}
	if r.c.ctx.Err() != nil {
		return r.c.err()
	}
	names, err := r.s.place(r.given)
	if err != nil {
		return err
	}
	r.report.Names = names
	r.report.Files = r.m.files - len(r.given)
	r.report.Dirs, r.report.Links = r.m.dirs, r.m.links
	r.report.Bytes = r.bytes
	return nil
}

// complete makes symlinks, gives folders their modes and times, deepest
// first, and syncs. Top-level folders stay open to their owner, as moving a
// folder writes to it.
func (s *store) complete(given map[uint32]Reason) error {
	d := s.dirs()
	defer d.close()
	var rec []byte
	for i, why := range given {
		// An earlier attempt may have left a part of it.
		dir, name, err := d.in(i)
		if err == nil {
			err = unix.Unlinkat(dir, name, 0)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%q: %w", s.m.path(i), err)
		}
		rec = record(rec, recGiven, func(w *wire.Writer) {
			w.U32(i)
			w.U8(uint8(why))
		})
	}
	each := !canSyncAll || s.m.files+s.m.dirs <= few
	for i := len(s.m.entries) - 1; i >= 0; i-- {
		if _, out := given[uint32(i)]; out {
			continue
		}
		dir, name, err := d.in(uint32(i))
		if err == nil {
			err = s.completeOne(uint32(i), dir, name, each)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", s.m.path(uint32(i)), err)
		}
	}
	// The data must be durable before the record that says so can be.
	if !each {
		if err := syncAll(s.part); err != nil {
			return fmt.Errorf("%s: sync: %w", s.name, err)
		}
	}
	if err := s.j.put(record(rec, recComplete, nil)); err != nil {
		return err
	}
	for _, fd := range []int{s.tree, int(s.j.f.Fd()), s.part, s.dest} {
		if err := fsync(fd); err != nil {
			return fmt.Errorf("%s: sync: %w", s.name, err)
		}
	}
	return nil
}

// link makes a symlink; an earlier attempt may have made it.
func (s *store) link(dir int, name, target string) error {
	err := unix.Symlinkat(target, dir, name)
	if errors.Is(err, unix.EEXIST) {
		if err = unix.Unlinkat(dir, name, 0); err == nil {
			err = unix.Symlinkat(target, dir, name)
		}
	}
	return err
}

// completeOne finishes one entry and, if it is to, syncs it. The folders on
// the way to it are still open to their owner, as they come later.
func (s *store) completeOne(i uint32, dir int, name string, sync bool) error {
	e := &s.m.entries[i]
	switch {
	case e.kind == kindLink:
		if err := s.link(dir, name, s.m.targets[i]); err != nil {
			return err
		}
		return setTime(dir, name, e.sec, e.nsec)
	case e.kind == kindFile && sync:
		return syncFile(dir, name)
	case e.kind == kindFile:
		return nil
	}
	fd, err := openDirAt(dir, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if e.parent > 0 {
		if err := unix.Fchmod(fd, uint32(e.mode)); err != nil {
			return err
		}
		if err := setTime(dir, name, e.sec, e.nsec); err != nil {
			return err
		}
	}
	if sync {
		return fsync(fd)
	}
	return nil
}

// syncFile syncs a file, also one whose mode forbids its owner to open it.
func syncFile(dir int, name string) error {
	fd, err := openAt(dir, name, unix.O_RDONLY, 0)
	if errors.Is(err, unix.EACCES) {
		st, err := statAt(dir, name)
		if err != nil {
			return err
		}
		if err := unix.Fchmodat(dir, name, 0o600, 0); err != nil {
			return err
		}
		fd, err = openAt(dir, name, unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Fchmod(fd, uint32(st.Mode&0o777)); err != nil {
			return err
		}
		return fsync(fd)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return fsync(fd)
}

// place moves the top-level entries to free names in the destination and
// makes that durable.
func (s *store) place(given map[uint32]Reason) ([]string, error) {
	var names []string
	for i := range s.m.tops {
		if _, out := given[uint32(i)]; out {
			continue
		}
		name, err := s.placeOne(uint32(i))
		if err != nil {
			return nil, fmt.Errorf("%q: %w", s.m.entries[i].name, err)
		}
		names = append(names, name)
	}
	if s.past != nil && s.past.placed {
		return names, nil
	}
	if canSyncAll && s.m.tops > few {
		if err := syncAll(s.dest); err != nil {
			return nil, fmt.Errorf("sync: %w", err)
		}
	}
	if err := fsync(s.dest); err != nil {
		return nil, fmt.Errorf("sync: %w", err)
	}
	return names, s.j.put(record(nil, recPlaced, nil))
}

// placeOne moves one top-level entry. The name is written down before: if
// the entry is not in the tree any more, that is where it went.
func (s *store) placeOne(i uint32) (string, error) {
	e := &s.m.entries[i]
	dir := e.kind == kindDir
	fd := -1
	if s.past != nil && s.past.complete {
		if _, err := statAt(s.tree, e.name); errors.Is(err, unix.ENOENT) {
			if name, ok := s.past.placing[i]; ok {
				return name, nil
			}
			return e.name, nil
		}
	}
	if dir {
		var err error
		if fd, err = openDirAt(s.tree, e.name); err != nil {
			return "", err
		}
		defer unix.Close(fd)
	}
	for n := 1; n < manyNames; n++ {
		name := freeName(e.name, n, dir)
		if _, err := statAt(s.dest, name); err == nil {
			continue // surely taken: spares the journal a record
		}
		err := s.j.put(record(nil, recPlacing, func(w *wire.Writer) {
			w.U32(i)
			w.String(name)
		}))
		if err != nil {
			return "", err
		}
		err = renameFree(s.tree, e.name, s.dest, name, dir)
		switch {
		case errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOTEMPTY):
			continue
		case err != nil:
			return "", err
		case !dir:
			return name, nil
		}
		if err := unix.Fchmod(fd, uint32(e.mode)); err != nil {
			return "", err
		}
		if err := setTime(s.dest, name, e.sec, e.nsec); err != nil && !errors.Is(err, unix.ENOENT) {
			return "", err // gone is no error: from here on it is the user's
		}
		if !canSyncAll || s.m.tops <= few {
			return name, fsync(fd)
		}
		return name, nil
	}
	return "", unix.EEXIST
}

// renameOver is renameFree where the kernel has no such call: an empty file
// or folder takes the free name, and the rename replaces it. What appears
// there in between is a folder that is not empty, which stops the rename, or
// was written into this side's own empty file.
func renameOver(from int, name string, to int, free string, dir bool) error {
	if dir {
		if err := unix.Mkdirat(to, free, 0o700); err != nil {
			return err
		}
	} else {
		fd, err := openAt(to, free, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		unix.Close(fd)
	}
	return unix.Renameat(from, name, to, free)
}

// freeName is the n-th name to try: "photo.jpg", "photo (2).jpg". A name
// that grows too long loses the end of what is before the number.
func freeName(name string, n int, dir bool) string {
	if n < 2 {
		return name
	}
	stem, ext := name, ""
	if !dir {
		if ext = filepath.Ext(name); ext == name || len(ext) > 32 { // .profile has no stem
			ext = ""
		}
		if filepath.Ext(strings.TrimSuffix(name, ext)) == ".tar" && len(ext) > 0 && len(name) > len(".tar"+ext) {
			ext = ".tar" + ext
		}
		stem = name[:len(name)-len(ext)]
	}
	number := " (" + strconv.Itoa(n) + ")"
	for len(stem)+len(number)+len(ext) > MaxName {
		_, size := utf8.DecodeLastRuneInString(stem)
		stem = stem[:len(stem)-size]
	}
	return stem + number + ext
}

// tell says where everything went, and waits until the sender knows.
func (r *receiver) tell() error {
	w := wire.Writer{B: make([]byte, headerLen, 1024)}
	k := 0
	for i := range r.m.tops {
		if _, out := r.given[uint32(i)]; out {
			continue
		}
		w.Uvarint(uint64(i))
		w.String(r.report.Names[k])
		if k++; len(w.B) > maxPayload/2 {
			if err := r.c.write(msgPlaced, w.B); err != nil {
				return err
			}
			w.B = w.B[:headerLen]
		}
	}
	if len(w.B) > headerLen {
		if err := r.c.write(msgPlaced, w.B); err != nil {
			return err
		}
	}
	err := r.c.send(msgDone, func(w *wire.Writer) {
		w.Uvarint(uint64(r.report.Files))
		w.Uvarint(uint64(r.report.Bytes))
	})
	if err != nil {
		return err
	}
	f, err := r.expect(msgBye)
	if err == nil {
		r.c.release(f)
	}
	return err
}
