package fs

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"hearth/fs/tree"
)

// Verbs of a Change.
const (
	verbCreated    = "created"
	verbEdited     = "edited"
	verbSaved      = "saved" // under a new inode, as editors do
	verbDeleted    = "deleted"
	verbRenamed    = "renamed"
	verbMoved      = "moved"
	verbAttributes = "changed the attributes of"
	verbLinked     = "gave another name to"
	verbUnlinked   = "took a name from"
	verbMixed      = "changed"
	verbUndid      = "undid"
	verbRedid      = "redid"
	verbRestored   = "restored"
	verbPurged     = "purged"
)

// maxPaths is how many paths a change names before it names just their
// directory.
const maxPaths = 3

func isNoVersion(err error) bool { return errors.Is(err, ErrNoVersion) }

// nothing is the state before the first version.
func (d *Drive) nothing() *view {
	return &view{tree: tree.New(&d.pages, d.cache, tree.Root{})}
}

// summarize sets the verb and the paths from what differs.
func (ch *Change) summarize(r Reason, list []DiffEntry, saved map[Ino]struct{}) {
	list = telling(list)
	if len(list) == 0 {
		return
	}
	files := 0
	for _, e := range list {
		if e.Type != ModeDir {
			files++
		}
	}
	if ch.Files = files; files == 0 {
		ch.Files = len(list)
	}
	ch.Verb = verbOf(r, list, saved)
	top := topmost(list)
	if len(top) == 1 && top[0].Op == OpMoved {
		ch.Paths = []string{top[0].OldPath, top[0].Path}
		return
	}
	for _, e := range top {
		if len(ch.Paths) == 0 || ch.Paths[len(ch.Paths)-1] != e.Path {
			ch.Paths = append(ch.Paths, e.Path)
		}
	}
	if len(ch.Paths) > maxPaths {
		ch.Paths = []string{commonDir(ch.Paths)}
	}
}

// telling leaves out what nobody asked for: scratch files of editors, backups
// beside what was saved, what was overwritten by a move, and attributes where
// there is more to say.
func telling(list []DiffEntry) []DiffEntry {
	list = slices.DeleteFunc(slices.Clone(list), func(e DiffEntry) bool { return isScratch(path.Base(e.Path)) })
	changed, taken, more := map[string]struct{}{}, map[string]struct{}{}, false
	for _, e := range list {
		switch e.Op {
		case OpChanged:
			changed[e.Path] = struct{}{}
		case OpMoved:
			taken[e.Path] = struct{}{}
		}
		more = more || e.Op != OpAttributes
	}
	backup := func(p string) bool {
		if len(changed) > 16 {
			return false // not an editor
		}
		dir, name := path.Split(p)
		for c := range changed {
			if d, base := path.Split(c); d == dir && isBackup(name, base) {
				return true
			}
		}
		return false
	}
	return slices.DeleteFunc(list, func(e DiffEntry) bool {
		switch e.Op {
		case OpAttributes:
			return more
		case OpDeleted:
			_, ok := taken[e.Path]
			return ok || backup(e.Path)
		}
		return backup(e.Path)
	})
}

// isScratch reports whether a name is one that editors give to files which
// only they need: swap files, locks, vim's write test.
func isScratch(name string) bool {
	switch {
	case name == "4913":
		return true
	case strings.HasPrefix(name, ".#"): // emacs
		return true
	case strings.HasPrefix(name, ".~lock.") && strings.HasSuffix(name, "#"): // LibreOffice
		return true
	case strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#") && len(name) > 2: // emacs autosave
		return true
	case strings.HasPrefix(name, "."): // vim: .name.swp, .name.swo, ...
		ext := path.Ext(name)
		return len(ext) == 4 && len(name) > 5 && ext[:3] == ".sw" && ext[3] >= 'a' && ext[3] <= 'p'
	}
	return false
}

func verbOf(r Reason, list []DiffEntry, saved map[Ino]struct{}) string {
	switch r {
	case ReasonUndo:
		return verbUndid
	case ReasonRedo:
		return verbRedid
	case ReasonRestore:
		return verbRestored
	case ReasonPurge:
		return verbPurged
	}
	verb := ""
	for _, e := range list {
		v := verbMixed
		switch e.Op {
		case OpAdded:
			v = verbCreated
		case OpChanged:
			v = verbEdited
			if _, ok := saved[e.Ino]; ok {
				v = verbSaved
			}
		case OpMoved:
			v = verbMoved
			if path.Dir(e.OldPath) == path.Dir(e.Path) {
				v = verbRenamed
			}
		case OpDeleted:
			v = verbDeleted
		case OpAttributes:
			v = verbAttributes
		}
		switch {
		case verb == "" || verb == v:
			verb = v
		case verb == verbSaved && v == verbEdited || verb == verbEdited && v == verbSaved:
			verb = verbEdited
		case verb == verbMoved && v == verbRenamed || verb == verbRenamed && v == verbMoved:
			verb = verbMoved
		default:
			return verbMixed
		}
	}
	return verb
}

// topmost leaves out what came or went with its directory. list is in the
// order of paths.
func topmost(list []DiffEntry) []DiffEntry {
	whole := map[string]string{} // directories that came or went, by how
	var out []DiffEntry
	for _, e := range list {
		if e.Type == ModeDir && (e.Op == OpAdded || e.Op == OpDeleted) {
			whole[e.Path] = e.Op
		}
		if op, ok := whole[path.Dir(e.Path)]; !ok || op != e.Op || e.Path == "/" {
			out = append(out, e)
		}
	}
	return out
}

// commonDir returns the deepest directory that all paths are in, with a slash
// at the end.
func commonDir(paths []string) string {
	dir := path.Dir(paths[0])
	for _, p := range paths[1:] {
		for dir != "/" && !strings.HasPrefix(p, dir+"/") {
			dir = path.Dir(dir)
		}
	}
	if dir == "/" {
		return dir
	}
	return dir + "/"
}

// What says in a few words what a change did: "edited /a/b", "renamed /a to
// /b", "created /src (1200 files)".
func (c Change) What() string {
	shown := make([]string, len(c.Paths))
	for i, p := range c.Paths {
		shown[i] = showPath(p)
	}
	renamed := (c.Verb == verbRenamed || c.Verb == verbMoved) && len(shown) == 2 && c.Files == 1
	switch {
	case len(shown) == 0:
		return c.Verb
	case renamed:
		return c.Verb + " " + shown[0] + " to " + shown[1]
	case len(shown) == 1 && c.Files > 1 && strings.HasSuffix(c.Paths[0], "/"):
		return fmt.Sprintf("%s %d files in %s", c.Verb, c.Files, shown[0])
	case c.Files > len(shown):
		return fmt.Sprintf("%s %s (%d files)", c.Verb, strings.Join(shown, ", "), c.Files)
	}
	return c.Verb + " " + strings.Join(shown, ", ")
}

// FormatChange returns a change as one line: version, time in UTC, change of
// size, what was done, and by which program.
func FormatChange(c Change) string {
	line := fmt.Sprintf("%-8s %s  %9s  %s", c.Last, c.Time.UTC().Format("2006-01-02 15:04:05Z"), sizeDelta(c.SizeDelta), c.What())
	if c.Program != "" {
		line += "  (" + showPath(c.Program) + ")"
	}
	if c.Undone {
		line += "  [undone]"
	}
	return line
}

// showPath returns a name as it is if it can be shown, quoted if not: names
// are bytes, and a message must stay one line.
func showPath(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	return strconv.Quote(s)
}

func sizeDelta(n int64) string {
	if n == 0 {
		return "0 B"
	}
	sign, v := "+", float64(n)
	if n < 0 {
		sign, v = "-", -v
	}
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	i := 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if i == 0 || v >= 100 {
		return fmt.Sprintf("%s%.0f %s", sign, v, units[i])
	}
	return fmt.Sprintf("%s%.1f %s", sign, v, units[i])
}
