package mount

import (
	"encoding/binary"
	"fmt"

	"hearth/fs"
)

// The extended attributes that hold POSIX ACLs, in the kernel's encoding
// (acl(5), linux/posix_acl_xattr.h): version u32 = 2, then entries of
// tag u16, perm u16, id u32, all little-endian.
const (
	xattrAccess  = "system.posix_acl_access"
	xattrDefault = "system.posix_acl_default"

	aclVersion   = 2
	aclHeader    = 4
	aclEntrySize = 8
)

// Tags of ACL entries, in the order they stand in.
const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
)

// aclNoID is the id of an entry that names nobody.
const aclNoID = 0xffffffff

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

// acl is a valid list: owner, users, group, groups, mask, other.
type acl []aclEntry

// parseACL decodes and validates an ACL as the kernel's posix_acl_valid does.
func parseACL(b []byte) (acl, error) {
	if len(b) < aclHeader || (len(b)-aclHeader)%aclEntrySize != 0 {
		return nil, fmt.Errorf("ACL of %d bytes: %w", len(b), fs.ErrInvalid)
	}
	if v := binary.LittleEndian.Uint32(b); v != aclVersion {
		return nil, fmt.Errorf("ACL version %d: %w", v, fs.ErrInvalid)
	}
	b = b[aclHeader:]
	a := make(acl, 0, len(b)/aclEntrySize)
	for ; len(b) > 0; b = b[aclEntrySize:] {
		e := aclEntry{
			tag:  binary.LittleEndian.Uint16(b),
			perm: binary.LittleEndian.Uint16(b[2:]),
			id:   aclNoID,
		}
		if e.tag == aclUser || e.tag == aclGroup {
			e.id = binary.LittleEndian.Uint32(b[4:])
		}
		a = append(a, e)
	}
	return a, a.validate()
}

func (a acl) validate() error {
	bad := func(i int) error { return fmt.Errorf("ACL entry %d: %w", i, fs.ErrInvalid) }
	last := uint16(0)
	var seen, named uint16
	for i, e := range a {
		if e.perm&^7 != 0 || e.tag < last {
			return bad(i)
		}
		switch e.tag {
		case aclUserObj, aclGroupObj, aclMask, aclOther:
			if seen&e.tag != 0 {
				return bad(i)
			}
		case aclUser, aclGroup:
			if e.id == aclNoID {
				return bad(i)
			}
			named = 1
		default:
			return bad(i)
		}
		seen |= e.tag
		last = e.tag
	}
	const required = aclUserObj | aclGroupObj | aclOther
	if seen&required != required || named != 0 && seen&aclMask == 0 {
		return fmt.Errorf("ACL lacks an entry: %w", fs.ErrInvalid)
	}
	return nil
}

func (a acl) encode() []byte {
	b := make([]byte, 0, aclHeader+len(a)*aclEntrySize)
	b = binary.LittleEndian.AppendUint32(b, aclVersion)
	for _, e := range a {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// mode returns the nine permission bits that mirror the ACL, and whether the
// ACL says more than they do.
func (a acl) mode() (perm uint32, extended bool) {
	var mask uint32
	for _, e := range a {
		p := uint32(e.perm)
		switch e.tag {
		case aclUserObj:
			perm |= p << 6
		case aclGroupObj:
			perm |= p << 3
		case aclOther:
			perm |= p
		case aclMask:
			mask, extended = p, true
		default:
			extended = true
		}
	}
	if extended { // the group bits show the mask
		perm = perm&^0o070 | mask<<3
	}
	return perm, extended
}

// groupClass returns the entry the group bits of a mode stand for.
func (a acl) groupClass() *aclEntry {
	var group *aclEntry
	for i := range a {
		switch a[i].tag {
		case aclMask:
			return &a[i]
		case aclGroupObj:
			group = &a[i]
		}
	}
	return group
}

// inherit turns a copy of a directory's default ACL into the access ACL of
// what is created in it with mode, as the kernel's posix_acl_create does: each
// class gets what both allow. It returns the mode to create with and whether
// the ACL must be stored beside it.
func (a acl) inherit(mode uint32) (newMode uint32, extended bool) {
	for i := range a {
		e := &a[i]
		switch e.tag {
		case aclUserObj:
			e.perm &= uint16(mode >> 6)
		case aclOther:
			e.perm &= uint16(mode)
		}
	}
	g := a.groupClass()
	g.perm &= uint16(mode >> 3)
	perm, extended := a.mode()
	return mode&^0o777 | perm, extended
}

// chmod makes the ACL mirror new permission bits, as the kernel's
// posix_acl_chmod does.
func (a acl) chmod(mode uint32) {
	for i := range a {
		switch a[i].tag {
		case aclUserObj:
			a[i].perm = uint16(mode >> 6 & 7)
		case aclOther:
			a[i].perm = uint16(mode & 7)
		}
	}
	a.groupClass().perm = uint16(mode >> 3 & 7)
}
