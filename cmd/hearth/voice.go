package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"golang.org/x/term"

	"hearth/cmd/control"
	"hearth/cmd/home"
)

// voice is how every verb speaks.
type voice struct {
	out      *bufio.Writer
	err      io.Writer
	outTerm  bool
	errTerm  bool
	painted  bool // a progress line is on the terminal
	repaint  time.Time
	location *time.Location
}

func newVoice(stdout, stderr io.Writer) voice {
	return voice{out: bufio.NewWriterSize(stdout, 64<<10), err: stderr,
		outTerm: isTerminal(stdout), errTerm: isTerminal(stderr), location: time.Local}
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// fail says what went wrong and returns the exit code.
func (v *voice) fail(err error) int {
	v.clear()
	e := control.AsError(err)
	fmt.Fprintf(v.err, "hearth: error: %s\n", oneLine(e.Message))
	if e.Hint != "" {
		v.hint("%s", e.Hint)
	}
	return e.Exit
}

// hint says what to do next.
func (v *voice) hint(format string, args ...any) {
	v.clear()
	fmt.Fprintf(v.err, "hearth: hint: %s\n", oneLine(fmt.Sprintf(format, args...)))
}

// note says what goes on, beside the output.
func (v *voice) note(format string, args ...any) {
	v.clear()
	fmt.Fprintf(v.err, "hearth: %s\n", oneLine(fmt.Sprintf(format, args...)))
}

// oneLine keeps messages that carry text of others (a joined error, a name)
// from breaking out of their line.
func oneLine(s string) string {
	s = strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) { // C1 controls are obeyed too
			return '?'
		}
		return r
	}, s)
}

// progress shows how far long work is: on a terminal, and only there.
func (v *voice) progress(p control.Progress) {
	if !v.errTerm || time.Since(v.repaint) < 100*time.Millisecond {
		return
	}
	v.repaint, v.painted = time.Now(), true
	if p.Total > 0 {
		fmt.Fprintf(v.err, "\r\x1b[K%s %d%%", oneLine(p.What), 100*p.Done/p.Total)
		return
	}
	fmt.Fprintf(v.err, "\r\x1b[K%s %d", oneLine(p.What), p.Done)
}

// clear takes the progress line away.
func (v *voice) clear() {
	if v.painted {
		fmt.Fprint(v.err, "\r\x1b[K")
		v.painted = false
	}
}

func (v *voice) flush() error {
	v.clear()
	return v.out.Flush()
}

func (v *voice) printf(format string, args ...any) { fmt.Fprintf(v.out, format, args...) }

// json prints one value.
func (v *voice) json(value any) error {
	enc := json.NewEncoder(v.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(value)
}

// array prints a JSON array whose items come one by one, one per line.
type array struct {
	v *voice
	n int
}

func (a *array) add(item json.RawMessage) error {
	sep := ",\n"
	if a.n == 0 {
		sep = "[\n"
	}
	a.n++
	if _, err := a.v.out.WriteString(sep); err != nil {
		return err
	}
	_, err := a.v.out.Write(item)
	return err
}

func (a *array) close() {
	if a.n == 0 {
		a.v.printf("[]\n")
		return
	}
	a.v.printf("\n]\n")
}

// table prints rows in columns; the first row is the heading, shown only on a
// terminal.
func (v *voice) table(rows [][]string) error {
	if !v.outTerm {
		rows = rows[1:]
	}
	w := tabwriter.NewWriter(v.out, 0, 8, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	return w.Flush()
}

// when shows a time in the user's zone.
func (v *voice) when(t time.Time) string {
	return t.In(v.location).Format(timeLayout)
}

const timeLayout = "2006-01-02 15:04:05"

// size shows a number of bytes.
func size(n int64) string { return home.Size(n).String() }

// delta shows a change of size, "" for none.
func delta(n int64) string {
	switch {
	case n > 0:
		return "+" + size(n)
	case n < 0:
		return size(n)
	}
	return ""
}

// count shows a number of things: "1 file", "3 files".
func count[N int | int64 | uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
