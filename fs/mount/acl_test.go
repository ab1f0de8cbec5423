package mount

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"hearth/fs"
)

func entries(e ...aclEntry) acl { return acl(e) }

func minimal(u, g, o uint16) acl {
	return entries(aclEntry{aclUserObj, u, aclNoID}, aclEntry{aclGroupObj, g, aclNoID}, aclEntry{aclOther, o, aclNoID})
}

func named(u, user, g, mask, o uint16) acl {
	return entries(aclEntry{aclUserObj, u, aclNoID}, aclEntry{aclUser, user, 1000}, aclEntry{aclGroupObj, g, aclNoID},
		aclEntry{aclMask, mask, aclNoID}, aclEntry{aclOther, o, aclNoID})
}

func TestACLMode(t *testing.T) {
	for _, tt := range []struct {
		name     string
		a        acl
		perm     uint32
		extended bool
	}{
		{"minimal", minimal(7, 5, 1), 0o751, false},
		{"mask without names", entries(aclEntry{aclUserObj, 6, aclNoID}, aclEntry{aclGroupObj, 7, aclNoID},
			aclEntry{aclMask, 4, aclNoID}, aclEntry{aclOther, 0, aclNoID}), 0o640, true},
		{"named user", named(7, 7, 5, 6, 0), 0o760, true},
	} {
		perm, extended := tt.a.mode()
		if perm != tt.perm || extended != tt.extended {
			t.Errorf("%s: %o %v, want %o %v", tt.name, perm, extended, tt.perm, tt.extended)
		}
	}
}

func TestACLInherit(t *testing.T) {
	for _, tt := range []struct {
		name     string
		def      acl
		mode     uint32
		want     uint32
		extended bool
		access   acl
	}{
		{"minimal default", minimal(7, 5, 0), 0o100666, 0o100640, false, minimal(6, 4, 0)},
		{"named user, file", named(7, 7, 5, 7, 5), 0o100666, 0o100664, true, named(6, 7, 5, 6, 4)},
		{"named user, dir", named(7, 7, 5, 7, 0), 0o040777, 0o040770, true, named(7, 7, 5, 7, 0)},
		{"mode keeps setgid", named(7, 7, 5, 7, 7), 0o042755, 0o042755, true, named(7, 7, 5, 5, 5)},
		{"private mode wins", named(7, 7, 7, 7, 7), 0o100600, 0o100600, true, named(6, 7, 7, 0, 0)},
	} {
		a := append(acl(nil), tt.def...)
		mode, extended := a.inherit(tt.mode)
		if mode != tt.want || extended != tt.extended || !bytes.Equal(a.encode(), tt.access.encode()) {
			t.Errorf("%s: %o %v %v, want %o %v %v", tt.name, mode, extended, a, tt.want, tt.extended, tt.access)
		}
	}
}

func TestACLParse(t *testing.T) {
	bad := map[string]acl{
		"empty":          {},
		"no other":       entries(aclEntry{aclUserObj, 7, aclNoID}, aclEntry{aclGroupObj, 7, aclNoID}),
		"out of order":   entries(aclEntry{aclGroupObj, 7, aclNoID}, aclEntry{aclUserObj, 7, aclNoID}, aclEntry{aclOther, 7, aclNoID}),
		"twice":          entries(aclEntry{aclUserObj, 7, aclNoID}, aclEntry{aclUserObj, 7, aclNoID}, aclEntry{aclGroupObj, 7, aclNoID}, aclEntry{aclOther, 7, aclNoID}),
		"name, no mask":  entries(aclEntry{aclUserObj, 7, aclNoID}, aclEntry{aclUser, 7, 5}, aclEntry{aclGroupObj, 7, aclNoID}, aclEntry{aclOther, 7, aclNoID}),
		"nobody's entry": entries(aclEntry{aclUserObj, 7, aclNoID}, aclEntry{aclUser, 7, aclNoID}, aclEntry{aclGroupObj, 7, aclNoID}, aclEntry{aclMask, 7, aclNoID}, aclEntry{aclOther, 7, aclNoID}),
		"unknown tag":    append(minimal(7, 7, 7), aclEntry{0x40, 7, aclNoID}),
		"permission 8":   minimal(8, 7, 7),
	}
	for name, a := range bad {
		if _, err := parseACL(a.encode()); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string][]byte{"nothing": nil, "version": {3, 0, 0, 0}, "torn": minimal(7, 7, 7).encode()[:11]} {
		if _, err := parseACL(b); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func drawACL(t *rapid.T) acl {
	perm := rapid.Uint16Range(0, 7)
	a := entries(aclEntry{aclUserObj, perm.Draw(t, "owner"), aclNoID})
	ids := rapid.SliceOfNDistinct(rapid.Uint32Range(0, 5000), 0, 4, rapid.ID[uint32])
	users, groups := ids.Draw(t, "users"), ids.Draw(t, "groups")
	for _, id := range users {
		a = append(a, aclEntry{aclUser, perm.Draw(t, "user"), id})
	}
	a = append(a, aclEntry{aclGroupObj, perm.Draw(t, "group"), aclNoID})
	for _, id := range groups {
		a = append(a, aclEntry{aclGroup, perm.Draw(t, "group"), id})
	}
	if len(users)+len(groups) > 0 || rapid.Bool().Draw(t, "mask") {
		a = append(a, aclEntry{aclMask, perm.Draw(t, "mask"), aclNoID})
	}
	return append(a, aclEntry{aclOther, perm.Draw(t, "other"), aclNoID})
}

func TestACLProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawACL(t)
		back, err := parseACL(a.encode())
		if err != nil || !bytes.Equal(back.encode(), a.encode()) {
			t.Fatalf("round trip of %v: %v, %v", a, back, err)
		}
		def, _ := a.mode()

		// What is inherited allows nothing that the mode or the default ACL
		// does not, and mirrors its own mode.
		mode := rapid.Uint32Range(0, 0o7777).Draw(t, "mode") | fs.ModeRegular
		child := append(acl(nil), a...)
		got, _ := child.inherit(mode)
		if got&^0o777 != mode&^0o777 || got&0o777&^(mode&def) != 0 {
			t.Fatalf("mode %o under default %o became %o", mode, def, got)
		}
		if perm, _ := child.mode(); perm != got&0o777 {
			t.Fatalf("ACL mirrors %o, mode is %o", perm, got)
		}
		if err := child.validate(); err != nil {
			t.Fatal(err)
		}

		// chmod is mirrored exactly.
		perm := rapid.Uint32Range(0, 0o777).Draw(t, "chmod")
		child.chmod(perm)
		if now, _ := child.mode(); now != perm {
			t.Fatalf("chmod %o shows as %o", perm, now)
		}
	})
}

func FuzzParseACL(f *testing.F) {
	f.Add(minimal(7, 5, 0).encode())
	f.Add(named(7, 7, 5, 7, 0).encode())
	f.Add([]byte{2, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseACL(b)
		if err != nil {
			return
		}
		back, err := parseACL(a.encode())
		if err != nil || len(back) != len(a) {
			t.Fatalf("%v does not survive: %v", a, err)
		}
		a.chmod(0o640)
		a.inherit(0o100600)
	})
}
