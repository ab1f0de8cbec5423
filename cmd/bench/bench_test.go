//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Every row that a workload records must be one that the report knows.
func TestWorkloadsRunOnAPlainFolder(t *testing.T) {
	for _, tool := range []string{"git", "tar", "sqlite3", "go"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	if testing.Short() {
		t.Skip("short")
	}
	b := &bench{options: options{reps: 1, scale: 0.002}, base: t.TempDir(), stderr: io.Discard}
	if err := os.Mkdir(filepath.Join(b.base, "prep"), 0o755); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	s := &system{name: "plain", dir: filepath.Join(b.base, "plain")}
	s.home = s.dir
	if err := s.create(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, w := range workloads {
		if w.name == "beside" {
			continue // runs this program's binary, which is a test here
		}
		e := &env{bench: b, system: s, dir: s.dir, record: func(row string, value float64) {
			got[row] = true
			if math.IsNaN(value) || math.IsInf(value, 0) || value <= 0 {
				t.Errorf("%s: %v", row, value)
			}
		}}
		if err := w.run(t.Context(), e); err != nil {
			t.Errorf("%s: %v", w.name, err)
		}
	}
	for _, r := range rows {
		if !got[r.name] && !strings.HasPrefix(r.name, "beside") {
			t.Errorf("nothing recorded %s", r.name)
		}
		delete(got, r.name)
	}
	for name := range got {
		t.Errorf("the report has no row %s", name)
	}
	left, err := list(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(left, []string{big}) {
		t.Errorf("workloads leave %q", left)
	}
}

func TestReport(t *testing.T) {
	r := newReport(options{reps: 3, scale: 1}, t.TempDir())
	for _, v := range []float64{300, 100, 200} {
		r.add("seqwrite", "hearth", v)
	}
	r.add("seqwrite", "gocryptfs", 100)
	r.add("append-p50", "hearth", 0.5)
	r.add("append-p50", "gocryptfs", 0.55)
	r.add("create", "hearth", 3000)
	r.add("create", "gocryptfs", 1000)
	r.add("clone", "hearth", 49)
	var out bytes.Buffer
	r.print(&out)
	for _, want := range []string{
		"| sequential write, final fsync | MiB/s | 200 | - | - | 100 | - | - | 2.00 | >= 1.30x | yes |",
		"| 4 KiB append + fsync, p50 | ms | 0.50 | - | - | 0.55 | - | - | 1.10 | >= 1.20x | NO |",
		"| create 10,000 files of 4 KiB | files/s | 3000 | - | - | 1000 | - | - | 3.00 | >= 1.50x, > loopback | - |",
		"| cp of a committed 1 GiB file | ms | 49.0 | <= 50.0 ms | yes |",
	} {
		if !strings.Contains(squeeze(out.String()), want) {
			t.Errorf("the report lacks %q:\n%s", want, out.String())
		}
	}
	file := filepath.Join(t.TempDir(), "report.json")
	if err := r.save(file); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var back struct {
		Values  map[string]map[string][]float64
		Summary []struct {
			Row    string
			Ratios map[string]float64
		}
	}
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if got := back.Summary[0].Ratios["gocryptfs"]; got != 2 {
		t.Errorf("the saved ratio of %s is %v", back.Summary[0].Row, got)
	}
}

func squeeze(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.Join(strings.Fields(lines[i]), " ")
	}
	return strings.Join(lines, "\n")
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-only", "nothing"}, {"-reps", "0"}, {"-scale", "-1"}, {"word"}} {
		if code := run(context.Background(), args, io.Discard, io.Discard); code != 2 {
			t.Errorf("%q: exit code %d, not 2", args, code)
		}
	}
	o, err := parse([]string{"-quick", "-only", "create,undo"}, io.Discard)
	if err == nil {
		t.Error("undo is a row, not a cost")
	}
	o, err = parse([]string{"-quick", "-only", "create,metadata"}, io.Discard)
	if err != nil || o.reps != 1 || !o.only["metadata"] {
		t.Errorf("%+v, %v", o, err)
	}
}
