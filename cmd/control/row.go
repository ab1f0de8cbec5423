package control

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// RowsQuery in the URL of a list asks for rows.
const RowsQuery = "rows"

// Row is one line of a long list as people read it. A list of 50,000 versions
// is to be there at once, and most of the time would go into JSON; so those who
// want text ask for rows: "AT<tab>SECONDS<tab>SIZE<tab>WHAT", where only the
// time zone, the units and the columns are still to be chosen.
type Row struct {
	At   string
	Time time.Time // to the second
	Size int64     // or change of size
	What string    // without control characters: see Show
}

// Append appends the row and a newline to dst.
func (r Row) Append(dst []byte) []byte {
	dst = append(append(dst, r.At...), '\t')
	dst = append(strconv.AppendInt(dst, r.Time.Unix(), 10), '\t')
	dst = append(strconv.AppendInt(dst, r.Size, 10), '\t')
	return append(append(dst, r.What...), '\n')
}

// errRow is a row that is none.
var errRow = errors.New("not a row of a list")

// ParseRow reads a row without its newline.
func ParseRow(line string) (Row, error) {
	at, rest, _ := strings.Cut(line, "\t")
	secs, rest, _ := strings.Cut(rest, "\t")
	size, what, ok := strings.Cut(rest, "\t")
	if !ok {
		return Row{}, errRow
	}
	t, err := strconv.ParseInt(secs, 10, 64)
	if err != nil {
		return Row{}, errRow
	}
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return Row{}, errRow
	}
	return Row{At: at, Time: time.Unix(t, 0), Size: n, What: what}, nil
}

// Row describes a change: what was done, by which program, and whether it was
// undone since.
func (c Change) Row() Row {
	what := c.What()
	if what == "" {
		what = "nothing that lasted"
	}
	if c.Program != "" {
		what += "  (" + Show(c.Program) + ")"
	}
	if c.Undone {
		what += "  [undone]"
	}
	return Row{At: c.At, Time: c.Time, Size: c.SizeDelta, What: what}
}

// Row describes a version of a file: its name then, the program, and why it
// was made if not by work.
func (v FileVersion) Row() Row {
	what := Show(v.Raw())
	if v.Program != "" {
		what += "  (" + Show(v.Program) + ")"
	}
	if v.Reason != "work" {
		what += "  [" + v.Reason + "]"
	}
	return Row{At: v.At, Time: v.Time, Size: int64(v.Size), What: what}
}
