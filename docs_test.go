package hearth_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/doc/comment"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "renew what the documents quote")

// quoted is a part of a document that the code says:
//
//	<!-- comment PLACE NAME --> ... <!-- end -->     a comment, as text
//	<!-- source PLACE NAME --> ... <!-- end -->      a declaration, as code
//
// PLACE is the folder of a package or a file. NAME is what is declared, or the
// first words of a comment that stands by itself, with _ for the blanks;
// without it the comment is the package's. #NAME is one section of that, and
// #NAME.. the section and all after it.
var quoted = regexp.MustCompile(`(?s)<!-- (comment|source) (\S+)(?: (\S+))? -->\n(.*?)<!-- end -->`)

// What is stored or sent is described once, beside the code that does it, and
// the documents quote that: so that they cannot say something else.
func TestDocumentsQuoteTheCode(t *testing.T) {
	for _, name := range []string{"docs/format.md", "docs/protocol.md"} {
		t.Run(name, func(t *testing.T) { quotes(t, name) })
	}
}

func quotes(t *testing.T, name string) {
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	renewed := quoted.ReplaceAllFunc(text, func(part []byte) []byte {
		n++
		m := quoted.FindSubmatch(part)
		what, place, decl := string(m[1]), string(m[2]), string(m[3])
		said, err := quote(what, place, decl)
		if err != nil {
			t.Errorf("%s: %s %s %s: %v", name, what, place, decl, err)
			return part
		}
		head, _, _ := bytes.Cut(part, []byte("\n"))
		return fmt.Appendf(nil, "%s\n\n%s\n\n<!-- end -->", head, strings.TrimSpace(said))
	})
	if n == 0 {
		t.Fatalf("%s quotes nothing", name)
	}
	if bytes.Equal(text, renewed) {
		return
	}
	if !*update {
		t.Fatalf("%s is older than the comments it quotes: run `go test . -run DocumentsQuote -update`", name)
	}
	if err := os.WriteFile(name, renewed, 0o644); err != nil {
		t.Fatal(err)
	}
}

// quote finds a comment or a declaration.
func quote(what, place, name string) (string, error) {
	files := []string{place}
	if !strings.HasSuffix(place, ".go") {
		var err error
		if files, err = filepath.Glob(place + "/*.go"); err != nil {
			return "", err
		}
	}
	fset := token.NewFileSet()
	section := ""
	if strings.HasPrefix(name, "#") {
		section, name = name, ""
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, file, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return "", err
		}
		doc, decl := find(f, name)
		switch {
		case what == "source" && decl != nil:
			return code(fset, decl)
		case what == "comment" && doc != nil:
			return markdown(doc, section)
		}
	}
	return "", fmt.Errorf("not found")
}

// find returns what is declared by a name and the comment on it, or the
// comment alone.
func find(f *ast.File, name string) (*ast.CommentGroup, ast.Node) {
	if name == "" {
		return f.Doc, nil
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.Name == name {
				return d.Doc, d.Type
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				var names []*ast.Ident
				var doc *ast.CommentGroup
				switch s := s.(type) {
				case *ast.TypeSpec:
					names, doc = []*ast.Ident{s.Name}, s.Doc
				case *ast.ValueSpec:
					names, doc = s.Names, s.Doc
				}
				for _, id := range names {
					if id.Name != name {
						continue
					}
					if doc == nil {
						doc = d.Doc
					}
					return doc, d
				}
			}
		}
	}
	words := strings.ReplaceAll(name, "_", " ")
	for _, c := range f.Comments {
		if strings.HasPrefix(c.Text(), words) {
			return c, nil
		}
	}
	return nil, nil
}

// links are references to other declarations, which a document has not.
var links = regexp.MustCompile(`\\\[([A-Za-z.]+)\]`)

// markdown is a comment, or a section of it, as a part of a document: its
// headings are below those of the document.
func markdown(group *ast.CommentGroup, section string) (string, error) {
	doc := new(comment.Parser).Parse(group.Text())
	if section != "" {
		name, rest := strings.CutSuffix(strings.ReplaceAll(section[1:], "_", " "), "..")
		from, to := -1, len(doc.Content)
		for i, block := range doc.Content {
			h, ok := block.(*comment.Heading)
			switch {
			case ok && from >= 0 && !rest:
				to = min(to, i)
			case ok && from < 0 && len(h.Text) == 1 && h.Text[0] == comment.Plain(name):
				from = i
			}
		}
		if from < 0 {
			return "", fmt.Errorf("there is no section %q", name)
		}
		doc.Content = doc.Content[from:to]
	}
	p := comment.Printer{
		HeadingLevel: 3,
		HeadingID:    func(*comment.Heading) string { return "" },
		DocLinkURL:   func(*comment.DocLink) string { return "" },
	}
	return links.ReplaceAllString(string(p.Markdown(doc)), "`$1`"), nil
}

// code is a declaration without the comment above it.
func code(fset *token.FileSet, decl ast.Node) (string, error) {
	if d, ok := decl.(*ast.GenDecl); ok {
		d.Doc = nil
	}
	var b bytes.Buffer
	if err := format.Node(&b, fset, decl); err != nil {
		return "", err
	}
	return "```go\n" + b.String() + "\n```", nil
}
