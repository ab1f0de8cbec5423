package hearth_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	iofs "io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
)

const module = "hearth"

// source is one Go file of the project.
type source struct {
	path  string // with slashes, from the root
	dir   string // "" for the root
	test  bool
	lines int
	fset  *token.FileSet
	file  *ast.File
}

// sources parses every Go file of the project, nested modules included.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(".", func(p string, d iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if name != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		s := source{path: filepath.ToSlash(p), test: strings.HasSuffix(name, "_test.go"), fset: token.NewFileSet()}
		s.dir = strings.TrimPrefix(path.Dir(s.path), ".")
		s.lines = strings.Count(string(text), "\n")
		s.file, err = parser.ParseFile(s.fset, p, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (s source) at(p token.Pos) string { return s.fset.Position(p).String() }

// imports calls fn with the path and the local name ("" if none) of each import.
func (s source) imports(fn func(at, path, name string)) {
	for _, i := range s.file.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		name := ""
		if i.Name != nil {
			name = i.Name.Name
		}
		fn(s.at(i.Pos()), p, name)
	}
}

// under reports whether dir is a folder or lies in it.
func under(dir, folder string) bool { return dir == folder || strings.HasPrefix(dir, folder+"/") }

type layer struct {
	folder string
	may    []string
}

// layers says which folders of the project a folder may import, itself apart.
// Dependencies point one way: cmd -> tiering, replicate, discovery -> fs -> log.
// The first rule that matches counts.
var layers = []layer{
	{"log/wire", nil},
	{"log/seal", []string{"log/wire"}},
	{"log/disk", nil},
	{"log", nil},
	{"fs/mount", []string{"fs", "log"}},
	{"fs/tree", []string{"log"}},
	{"fs", []string{"log"}},
	{"tiering", []string{"fs", "log"}},
	{"replicate", []string{"fs", "log"}},
	{"discovery", []string{"fs", "log"}},
	{"cmd", []string{"tiering", "replicate", "discovery", "fs", "log"}},
}

func TestLayers(t *testing.T) {
	for _, s := range sources(t) {
		if s.dir == "" {
			continue
		}
		rule := slices.IndexFunc(layers, func(l layer) bool { return under(s.dir, l.folder) })
		if rule < 0 {
			t.Errorf("%s: no layer is called %s", s.path, s.dir)
			continue
		}
		l := layers[rule]
		if s.test { // tests of a part may use all of its layer
			l.folder, _, _ = strings.Cut(l.folder, "/")
		}
		s.imports(func(at, p, _ string) {
			dir, ok := strings.CutPrefix(p, module+"/")
			if !ok || under(dir, l.folder) || slices.ContainsFunc(l.may, func(m string) bool { return under(dir, m) }) {
				return
			}
			t.Errorf("%s: %s may not import %s", at, l.folder, p)
		})
	}
}

// The kernel adapter is above the file system it adapts: fs compiles and is
// tested without it.
func TestFileSystemKnowsNoKernel(t *testing.T) {
	for _, s := range sources(t) {
		if !under(s.dir, "fs") || under(s.dir, "fs/mount") {
			continue
		}
		s.imports(func(at, p, _ string) {
			if p == module+"/fs/mount" || strings.HasPrefix(p, "github.com/hanwen/go-fuse/") {
				t.Errorf("%s: %s is for fs/mount alone", at, p)
			}
		})
	}
}

// homes are dependencies that one folder keeps to itself. Benchmarks measure
// QUIC alone beside what is made of it.
var homes = map[string][]string{
	"github.com/hanwen/go-fuse/": {"fs/mount"},
	"github.com/urfave/cli/":     {"cmd/hearth"},
	"github.com/quic-go/":        {"replicate/peer", "cmd/bench"},
	"github.com/grandcat/":       {"discovery"},
	"rsc.io/qr":                  {"cmd/hearth"},
}

func TestDependenciesStayAtHome(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		s.imports(func(at, p, _ string) {
			for dep, in := range homes {
				if strings.HasPrefix(p, dep) && !slices.ContainsFunc(in, func(home string) bool { return under(s.dir, home) }) {
					t.Errorf("%s: %s is for %s alone", at, p, strings.Join(in, " and "))
				}
			}
		})
	}
}

// The packages log and fs share their names with two of the standard library,
// so those two have fixed other names, or none.
func TestImportNames(t *testing.T) {
	fixed := map[string]string{"io/fs": "iofs", "github.com/hanwen/go-fuse/v2/fs": "gofuse"}
	for _, s := range sources(t) {
		s.imports(func(at, p, name string) {
			if p == "log" {
				t.Errorf("%s: messages go through log/slog, not the standard log", at)
			}
			if want, ok := fixed[p]; ok && name != want {
				t.Errorf("%s: %s is imported as %s", at, p, want)
			}
		})
	}
}

func TestNothingShadowsLogOrFs(t *testing.T) {
	for _, s := range sources(t) {
		check := func(idents ...*ast.Ident) {
			for _, id := range idents {
				if id != nil && (id.Name == "log" || id.Name == "fs") {
					t.Errorf("%s: a variable called %s hides the package", s.at(id.Pos()), id.Name)
				}
			}
		}
		fields := func(lists ...*ast.FieldList) {
			for _, l := range lists {
				if l == nil {
					continue
				}
				for _, f := range l.List {
					check(f.Names...)
				}
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				check(n.Names...)
			case *ast.AssignStmt:
				if n.Tok == token.DEFINE {
					for _, e := range n.Lhs {
						id, _ := e.(*ast.Ident)
						check(id)
					}
				}
			case *ast.RangeStmt:
				if n.Tok == token.DEFINE {
					key, _ := n.Key.(*ast.Ident)
					value, _ := n.Value.(*ast.Ident)
					check(key, value)
				}
			case *ast.FuncDecl:
				fields(n.Recv)
			case *ast.FuncType:
				fields(n.Params, n.Results)
			}
			return true
		})
	}
}

// longest is the most lines a file may have: what does not fit has two jobs.
const longest = 800

func TestFilesAreShort(t *testing.T) {
	for _, s := range sources(t) {
		if s.lines > longest {
			t.Errorf("%s has %d lines, more than %d", s.path, s.lines, longest)
		}
	}
}

func TestPackagesAreExplained(t *testing.T) {
	explained := map[string]bool{}
	for _, s := range sources(t) {
		name := s.file.Name.Name
		if s.dir != "" && s.test {
			continue
		}
		key := s.dir + " (" + name + ")"
		explained[key] = explained[key] || s.file.Doc != nil
	}
	for pkg, ok := range explained {
		if !ok {
			t.Errorf("package %s has no package comment", pkg)
		}
	}
}

func TestNothingIsLeftForLater(t *testing.T) {
	later := regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`)
	for _, s := range sources(t) {
		for _, group := range s.file.Comments {
			if word := later.FindString(group.Text()); word != "" {
				t.Errorf("%s: a comment says %s", s.at(group.Pos()), word)
			}
		}
	}
}

// Every direct dependency is in docs/design.md with the reason for it, and
// nothing else is.
func TestDependenciesHaveReasons(t *testing.T) {
	text, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := modfile.Parse("go.mod", text, nil)
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, r := range mod.Require {
		if !r.Indirect {
			have = append(have, r.Mod.Path)
		}
	}
	doc, err := os.ReadFile("docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(doc), "\n## Direct dependencies\n")
	if !ok {
		t.Fatal("docs/design.md has no section \"Direct dependencies\"")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	row := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.+) \\|$")
	var listed []string
	for _, m := range row.FindAllStringSubmatch(section, -1) {
		listed = append(listed, m[1])
		if len(strings.Fields(m[2])) < 3 {
			t.Errorf("docs/design.md: the reason for %s is missing", m[1])
		}
	}
	slices.Sort(have)
	slices.Sort(listed)
	if diff := compare(have, listed); diff != "" {
		t.Errorf("go.mod and the list in docs/design.md differ: %s", diff)
	}
}

// compare says what is in only one of two sorted lists.
func compare(have, listed []string) string {
	var out []string
	for _, h := range have {
		if !slices.Contains(listed, h) {
			out = append(out, fmt.Sprintf("%s is not listed", h))
		}
	}
	for _, l := range listed {
		if !slices.Contains(have, l) {
			out = append(out, fmt.Sprintf("%s is not in go.mod", l))
		}
	}
	return strings.Join(out, "; ")
}
