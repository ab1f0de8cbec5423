package parcel

import (
	"fmt"
	"math"
	"strings"

	"hearth/log/wire"
)

// kind is the type of an entry, a number of the wire format.
type kind uint8

const (
	kindFile kind = iota
	kindDir
	kindLink
)

// entry is one file, folder or symlink. A million of them have to fit in
// memory beside their names, so the fields are packed and there is no path.
type entry struct {
	name   string
	size   int64 // of a file
	sec    int64 // mtime
	nsec   uint32
	parent uint32 // index of its folder + 1; 0: top level
	mode   uint16 // permission bits
	kind   kind
	depth  uint8
}

// meta is what may differ from the manifest when a file is sent again.
type meta struct {
	size int64
	sec  int64
	nsec uint32
	mode uint16
}

func (e *entry) meta() meta { return meta{e.size, e.sec, e.nsec, e.mode} }

// manifest is the list of all entries. Parents do not decrease and names
// ascend within one parent: the order is breadth first, the entries of a
// folder lie together, and no two can have one path, which so needs no table
// to be checked.
type manifest struct {
	entries            []entry
	targets            map[uint32]string // of symlinks
	encoded            int64
	files, dirs, links int
	tops               int // the first so many entries are the top level
	bytes              int64
	lastParent         uint32 // of the coding, which stores differences
}

// checkName refuses what is not one component of a path.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("name %q", name)
	case len(name) > MaxName:
		return fmt.Errorf("name of %d bytes", len(name))
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("name %q", name)
	}
	return nil
}

// checkTarget refuses the target of a symlink that could lead out of its
// top-level folder. up is how many folders of that tree the link lies in, the
// top-level one not counted.
//
// ".." is allowed in front only. The kernel starts at the real folder of the
// link, so what is in front climbs real folders; all that follows either
// descends or is a link held to the same rule. Behind a name that is itself a
// link, ".." would climb from where that link leads: a/b/c -> ../.. and
// a/b/d -> c/../.. each look as if they stayed inside.
func checkTarget(target string, up int) error {
	if target == "" || len(target) > MaxTarget || target[0] == '/' || strings.IndexByte(target, 0) >= 0 {
		return fmt.Errorf("symlink target %.100q", target)
	}
	down := false
	for c := range strings.SplitSeq(target, "/") {
		switch c {
		case "", ".":
		case "..":
			if up--; down || up < 0 {
				return fmt.Errorf("symlink target %.100q", target)
			}
		default:
			down = true
		}
	}
	return nil
}

// add appends an entry that obeys all rules; depth is set by add.
func (m *manifest) add(e entry, target string) error {
	if len(m.entries) >= MaxEntries {
		return ErrTooLarge
	}
	if err := checkName(e.name); err != nil {
		return err
	}
	e.depth = 1
	if e.parent > 0 {
		if int(e.parent) > len(m.entries) || m.entries[e.parent-1].kind != kindDir {
			return fmt.Errorf("parent %d of %q is no folder", e.parent, e.name)
		}
		d := m.entries[e.parent-1].depth
		if d >= MaxDepth {
			return fmt.Errorf("%q is deeper than %d", e.name, MaxDepth)
		}
		e.depth = d + 1
	} else if strings.HasPrefix(e.name, partialPrefix) {
		return fmt.Errorf("reserved name %q", e.name)
	}
	if n := len(m.entries); n > 0 {
		last := &m.entries[n-1]
		if e.parent < last.parent || e.parent == last.parent && e.name <= last.name {
			return fmt.Errorf("%q is out of order", e.name)
		}
	}
	if e.mode&^0o777 != 0 || e.nsec >= 1e9 {
		return fmt.Errorf("mode %o or time of %q", e.mode, e.name)
	}
	switch e.kind {
	case kindFile:
		if e.size < 0 || e.size > math.MaxInt64/2-m.bytes {
			return fmt.Errorf("size of %q", e.name)
		}
		m.files++
		m.bytes += e.size
	case kindDir:
		m.dirs++
	case kindLink:
		if e.parent == 0 {
			return fmt.Errorf("symlink %q at the top level", e.name)
		}
		if err := checkTarget(target, int(e.depth)-2); err != nil {
			return err
		}
		if m.targets == nil {
			m.targets = map[uint32]string{}
		}
		m.targets[uint32(len(m.entries))] = target
		m.links++
	default:
		return fmt.Errorf("kind %d of %q", e.kind, e.name)
	}
	if e.parent == 0 {
		m.tops++
	}
	m.entries = append(m.entries, e)
	return nil
}

// path is the whole path of an entry, with slashes.
func (m *manifest) path(i uint32) string {
	e := &m.entries[i]
	if e.parent == 0 {
		return e.name
	}
	return m.path(e.parent-1) + "/" + e.name
}

// encode appends entry i to w.
func (m *manifest) encode(w *wire.Writer, i int) {
	e := &m.entries[i]
	w.U8(uint8(e.kind))
	w.Uvarint(uint64(e.parent - m.lastParent))
	m.lastParent = e.parent
	w.String(e.name)
	w.U16(e.mode)
	w.Varint(e.sec)
	w.Uvarint(uint64(e.nsec))
	switch e.kind {
	case kindFile:
		w.Uvarint(uint64(e.size))
	case kindLink:
		w.String(m.targets[uint32(i)])
	}
}

// decode adds the entries of one chunk, at most limit in all. The names of a
// chunk share one string, which halves what a million small ones cost.
func (m *manifest) decode(chunk []byte, limit int) error {
	if m.encoded += int64(len(chunk)); m.encoded > MaxManifest {
		return fmt.Errorf("%w: manifest of more than %d bytes", ErrProtocol, MaxManifest)
	}
	r := wire.NewReader(chunk)
	text := string(chunk)
	for r.Len() > 0 {
		e := entry{kind: kind(r.U8())}
		delta := r.Uvarint()
		if delta > MaxEntries {
			r.Fail("parent")
		}
		e.parent = m.lastParent + uint32(delta)
		n := len(r.Bytes(MaxName))
		end := len(text) - r.Len()
		e.mode = r.U16()
		e.sec = r.Varint()
		nsec := r.Uvarint()
		if nsec >= 1e9 {
			r.Fail("nanoseconds")
		}
		e.nsec = uint32(nsec)
		target := ""
		switch e.kind {
		case kindFile:
			size := r.Uvarint()
			if size > math.MaxInt64 {
				r.Fail("size")
			}
			e.size = int64(size)
		case kindLink:
			target = r.String(MaxTarget)
		}
		if r.Err() != nil {
			break
		}
		e.name = text[end-n : end]
		if len(m.entries) >= limit {
			return fmt.Errorf("%w: more entries than the %d offered", ErrProtocol, limit)
		}
		if err := m.add(e, target); err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		m.lastParent = e.parent
	}
	if err := r.Err(); err != nil {
		return fmt.Errorf("%w: manifest: %w", ErrProtocol, err)
	}
	return nil
}

// offer sums the manifest up.
func (m *manifest) offer() Offer {
	o := Offer{Files: m.files, Dirs: m.dirs, Links: m.links, Bytes: m.bytes, TopCount: m.tops}
	o.Tops = make([]Top, min(m.tops, MaxTops))
	top := make([]uint32, len(m.entries)) // of each entry; parents come first
	for i := range m.entries {
		e := &m.entries[i]
		if e.parent == 0 {
			top[i] = uint32(i)
			if i < len(o.Tops) { // the top level is the beginning of the manifest
				o.Tops[i].Name, o.Tops[i].Dir = e.name, e.kind == kindDir
			}
		} else {
			top[i] = top[e.parent-1]
		}
		if t := int(top[i]); t < len(o.Tops) && e.kind == kindFile {
			o.Tops[t].Files++
			o.Tops[t].Bytes += e.size
		}
	}
	return o
}
