package fs

import (
	"strings"
	"testing"
	"time"
)

// may says who may read (and search) what the node shows, as the kernel checks.
func (k *desk) may(dir, path string, c Caller) bool {
	k.t.Helper()
	n, err := k.History(ctx, k.ino(dir))
	k.must(err)
	// The way to the directory is the kernel's to check as well.
	names := strings.Split(strings.Trim(dir, "/"), "/")
	at := RootIno
	allowed := func(a Attr, bits uint32) bool {
		mode := a.Mode & 7
		if a.Uid == c.Uid {
			mode = a.Mode >> 6 & 7
		} else if a.Gid == c.Gid {
			mode = a.Mode >> 3 & 7
		}
		return mode&bits == bits
	}
	for i := 0; ; i++ {
		a, err := k.Getattr(ctx, at)
		k.must(err)
		if !allowed(a, 1) {
			return false
		}
		if i == len(names) || names[i] == "" {
			break
		}
		a, err = k.Lookup(ctx, at, names[i])
		k.must(err)
		at = a.Ino
	}
	for _, name := range append([]string{""}, strings.Split(path, "/")...) {
		if name != "" {
			if n, err = n.Lookup(ctx, name); err != nil {
				k.t.Fatalf("%s: %v", path, err)
			}
		}
		a, err := n.Attr(ctx)
		k.must(err)
		bits := uint32(4)
		if a.IsDir() {
			bits = 5
		}
		if !allowed(a, bits) {
			return false
		}
	}
	return true
}

func TestHistoryPermissions(t *testing.T) {
	owner, friend, stranger := me, Caller{Uid: 2000, Gid: 1000}, Caller{Uid: 3000, Gid: 3000}
	who := func(k *desk, dir, path string) string {
		var b strings.Builder
		for _, c := range []struct {
			name string
			Caller
		}{{"o", owner}, {"f", friend}, {"s", stranger}} {
			if k.may(dir, path, c.Caller) {
				b.WriteString(c.name)
			}
		}
		return b.String()
	}
	saveClosed := func(k *desk) {
		c := k.program()
		k.write(c, "/d/.tmp", "saved")
		k.chmod("/d/.tmp", 0o600)
		k.mv(c, "/d/.tmp", "/d/f", 0)
	}
	for name, c := range map[string]struct {
		before, after func(k *desk)
		dir, path     string
		want          string
	}{
		"open":              {dir: "/", path: "@2/d/f", want: "ofs"},
		"closed since":      {after: func(k *desk) { k.chmod("/d/f", 0o600) }, dir: "/", path: "@2/d/f", want: "o"},
		"to the group":      {after: func(k *desk) { k.chmod("/d/f", 0o640) }, dir: "/", path: "@2/d/f", want: "of"},
		"opened since":      {before: func(k *desk) { k.chmod("/d/f", 0o600) }, after: func(k *desk) { k.chmod("/d/f", 0o644) }, dir: "/", path: "@2/d/f", want: "o"},
		"directory closed":  {after: func(k *desk) { k.chmod("/d", 0o700) }, dir: "/", path: "@2/d/f", want: "o"},
		"directory, below":  {after: func(k *desk) { k.chmod("/d", 0o700) }, dir: "/d", path: "@2/f", want: "o"},
		"given away":        {after: func(k *desk) { k.chown("/d/f", 3000, 3000); k.chmod("/d/f", 0o600) }, dir: "/", path: "@2/d/f", want: "s"},
		"other group":       {before: func(k *desk) { k.chmod("/d/f", 0o640) }, after: func(k *desk) { k.chown("/d/f", 1000, 3000) }, dir: "/", path: "@2/d/f", want: "o"},
		"moved into secret": {after: func(k *desk) { k.mv(me, "/d/f", "/secret/f", 0) }, dir: "/", path: "@2/d/f", want: "o"},
		"moved out of it":   {before: func(k *desk) { k.mv(me, "/d/f", "/secret/f", 0) }, after: func(k *desk) { k.mv(me, "/secret/f", "/d/f", 0) }, dir: "/d", path: "by-file/f/2026-11-22T10.04.05Z_@2_create", want: "o"},
		"deleted":           {after: func(k *desk) { k.rm(me, "/d/f") }, dir: "/d", path: "deleted/f", want: "ofs"},
		"deleted, closed":   {before: func(k *desk) { k.chmod("/d/f", 0o600) }, after: func(k *desk) { k.rm(me, "/d/f") }, dir: "/d", path: "deleted/f", want: "o"},
		"closed, then deleted": {after: func(k *desk) {
			k.chmod("/d/f", 0o600)
			for range 5 {
				k.cut(time.Minute)
				k.write(me, "/other", "x")
			}
			k.rm(me, "/d/f")
			for range 5 {
				k.cut(time.Minute)
				k.write(me, "/other", "x")
			}
		}, dir: "/", path: "@2/d/f", want: "o"},
		"deleted with dir":         {before: func(k *desk) { k.chmod("/d", 0o750) }, after: func(k *desk) { k.rm(me, "/d") }, dir: "/", path: "deleted/d/f", want: "of"},
		"deleted in secret":        {before: func(k *desk) { k.mv(me, "/d", "/secret/d", 0) }, after: func(k *desk) { k.rm(me, "/secret/d") }, dir: "/", path: "@2/secret/d/f", want: "o"},
		"secret opened":            {before: func(k *desk) { k.mv(me, "/d", "/secret/d", 0) }, after: func(k *desk) { k.rm(me, "/secret/d/f"); k.chmod("/secret", 0o755) }, dir: "/secret/d", path: "deleted/f", want: "o"},
		"directory moved":          {before: func(k *desk) { k.mv(me, "/d", "/secret/d", 0) }, after: func(k *desk) { k.mv(me, "/secret/d", "/d", 0) }, dir: "/d", path: "@2/f", want: "o"},
		"an ACL":                   {after: func(k *desk) { k.must(k.Setxattr(ctx, me, k.ino("/d/f"), xattrACL, []byte{2}, 0)) }, dir: "/", path: "@2/d/f", want: "o"},
		"a second name":            {after: func(k *desk) { k.ln(me, "/d/f", "/secret/f") }, dir: "/", path: "@2/d/f", want: "ofs"},
		"saved since, closed":      {after: saveClosed, dir: "/", path: "@2/d/f", want: "o"},
		"version, saved, closed":   {after: saveClosed, dir: "/d", path: "by-file/f/2026-11-22T10.04.05Z_@2_create", want: "o"},
		"saved, moved into secret": {after: func(k *desk) { saveClosed(k); k.chmod("/d/f", 0o644); k.mv(me, "/d/f", "/secret/f", 0) }, dir: "/secret", path: "by-file/f/2026-11-22T10.04.05Z_@2_create", want: "o"},
		"another by the name":      {after: func(k *desk) { k.rm(me, "/d/f"); k.cut(time.Minute); k.write(me, "/d/f", "x") }, dir: "/", path: "@2/d/f", want: "ofs"},
	} {
		t.Run(name, func(t *testing.T) {
			k := newDesk(t, Options{NoIndex: true})
			k.mkdir(me, "/d")
			k.mkdir(me, "/secret")
			k.chmod("/secret", 0o700)
			k.write(me, "/d/f", "text")
			if c.before != nil {
				c.before(k)
			}
			k.cut(time.Minute)
			if c.after != nil {
				c.after(k)
			}
			k.cut(time.Minute)
			if got := who(k, c.dir, c.path); got != c.want {
				t.Errorf("%s%s may be read by %q, want %q", c.dir, c.path, got, c.want)
			}
		})
	}
}

// The log does not tell names of files in a directory that others cannot list.
func TestHistoryLogHidesWhatIsPrivate(t *testing.T) {
	k := newDesk(t, Options{})
	k.mkdir(me, "/private")
	k.chmod("/private", 0o700)
	k.mkdir(me, "/gone")
	k.chmod("/gone", 0o700)
	k.cut(time.Minute)
	k.write(k.program(), "/private/diary", "x")
	k.cut(time.Minute)
	k.write(k.program(), "/gone/plan", "x")
	k.cut(time.Minute)
	k.rm(k.program(), "/gone/plan")
	k.cut(time.Minute)
	k.rm(k.program(), "/gone")
	k.cut(time.Minute)
	k.mv(k.program(), "/private/diary", "/diary", 0)
	k.cut(time.Minute)
	got := k.text("/", "log")
	if strings.Contains(got, "private/diary") || strings.Contains(got, "plan") || !strings.Contains(got, "created private/\n") {
		t.Errorf("log:\n%s", got)
	}
}
