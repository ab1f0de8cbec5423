package replicate

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"hearth/fs"
	"hearth/log"
)

// Point is a version of a drive and the checkpoint that ends with it, as
// [fs.Drive.Checkpoint] returns it. In a link it follows an "@":
//
//	LINK@SEQ.ROOT  LINK@WRITER.SEQ.ROOT
//
// with the numbers in decimal and the 32 bytes of the root in base64url without
// padding. A writer of 0 is left out.
type Point struct {
	Version fs.Version
	Root    [32]byte
}

// String returns the text of a point, with its "@".
func (p *Point) String() string {
	return p.Version.String() + "." + base64.RawURLEncoding.EncodeToString(p.Root[:])
}

// SplitLink parses a link that may name a point; it is nil if there is none.
// The error matches ErrLink.
func SplitLink(text string) (*Link, *Point, error) {
	text, point, strong := strings.Cut(strings.TrimSpace(text), "@")
	link, err := ParseLink(text)
	if err != nil || !strong {
		return link, nil, err
	}
	p, err := parsePoint(point)
	return link, p, err
}

func parsePoint(text string) (*Point, error) {
	parts := strings.Split(text, ".")
	bad := func() (*Point, error) {
		return nil, fmt.Errorf("%w: %q is no version and checkpoint", ErrLink, "@"+text)
	}
	if len(parts) != 2 && len(parts) != 3 {
		return bad()
	}
	p := &Point{}
	root, err := base64.RawURLEncoding.Strict().DecodeString(parts[len(parts)-1])
	if err != nil || copy(p.Root[:], root) != len(root) || len(root) != len(p.Root) {
		return bad()
	}
	if len(parts) == 3 {
		w, err := strconv.ParseUint(parts[0], 10, 16)
		if err != nil {
			return bad()
		}
		p.Version.Writer = log.Writer(w)
	}
	if p.Version.Seq, err = strconv.ParseUint(parts[len(parts)-2], 10, 62); err != nil || "@"+text != p.String() {
		return bad()
	}
	return p, nil
}
