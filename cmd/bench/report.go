//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// row is one line of the table of ratios. A ratio above 1 always means that
// Hearth is better.
type row struct {
	name   string
	label  string
	unit   string
	less   bool    // less is better
	target float64 // at least so many times gocryptfs; 0: no target
	beside string  // a further system that must be beaten
	limit  float64 // at most so much, absolutely; 0: no limit
	share  float64 // at least so much of the raw network; 0: no such target
}

var rows = []row{
	{name: "seqwrite", label: "sequential write, final fsync", unit: "MiB/s", target: 1.3},
	{name: "seqread-cold", label: "sequential read, cold", unit: "MiB/s", target: 1.3},
	{name: "seqread-warm", label: "sequential read, warm", unit: "MiB/s", target: 6},
	{name: "randread-cold", label: "random 4 KiB read, cold", unit: "IOPS", target: 0.85},
	{name: "randwrite", label: "random 4 KiB overwrite, fsync every 32", unit: "IOPS", target: 2.5},
	{name: "append-p50", label: "4 KiB append + fsync, p50", unit: "ms", less: true, target: 1.2},
	{name: "append-p99", label: "4 KiB append + fsync, p99", unit: "ms", less: true},
	{name: "beside-p50", label: "the same beside a 1 GiB stream, p50", unit: "ms", less: true},
	{name: "beside-p99", label: "the same beside a 1 GiB stream, p99", unit: "ms", less: true, limit: 30},
	{name: "create", label: "create 10,000 files of 4 KiB", unit: "files/s", target: 1.5, beside: "loopback"},
	{name: "stat-cold", label: "readdir + stat of 10,000 files, cold", unit: "files/s", target: 3},
	{name: "stat-warm", label: "readdir + stat of 10,000 files, warm", unit: "files/s", target: 3},
	{name: "untar", label: "untar of Go's src", unit: "s", less: true, target: 1.6},
	{name: "rm", label: "rm -rf of it", unit: "s", less: true, target: 2.5},
	{name: "git-clone", label: "git clone of it", unit: "s", less: true, target: 1.5},
	{name: "git-status", label: "git status", unit: "s", less: true, target: 1.5},
	{name: "sqlite", label: "SQLite, 10,000 one-row transactions, WAL, FULL", unit: "txn/s", target: 1},
}

// costRows are the absolute costs; target is unused.
var costRows = []row{
	{name: "clone", label: "cp of a committed 1 GiB file", unit: "ms", less: true, limit: 50},
	{name: "edit-growth", label: "growth by a 4 KiB edit in 1 GiB, mean", unit: "KiB", less: true, limit: 16},
	{name: "edit-time", label: "such an edit, of an append's time, p50", unit: "x", less: true, limit: 1},
	{name: "insert-growth", label: "growth by 1 KB inserted into 100 MB, rewritten", unit: "MB", less: true, limit: 1},
	{name: "metadata", label: "metadata of a 4 KiB file, of 100,000", unit: "bytes", less: true, limit: 600},
	{name: "undo", label: "undo of rm -r of 100,000 files", unit: "s", less: true, limit: 2},
	{name: "log-all", label: "list 50,000 versions of one file", unit: "ms", less: true, limit: 300},
	{name: "log-200", label: "list the newest 200 of them", unit: "ms", less: true, limit: 20},
	{name: "command", label: "of which: starting the command", unit: "ms", less: true},
	{name: "by-file", label: "ls .history/by-file of it", unit: "ms", less: true},
	{name: "open-warm", label: "open 1,000,000 files, 100,000 versions", unit: "ms", less: true, limit: 300},
	{name: "open-cold", label: "the same with cold caches", unit: "ms", less: true},
	{name: "open-memory", label: "memory of the daemon then", unit: "MiB", less: true, limit: 100},
	{name: "history-open", label: "open .history/@V/path on it, p50", unit: "ms", less: true, limit: 5},
	{name: "find-memory", label: "most memory after a find over it", unit: "MiB", less: true, limit: 512},
}

// report collects measurements.
type report struct {
	Date    time.Time                       `json:"date"`
	Machine string                          `json:"machine"`
	Scale   float64                         `json:"scale"`
	Reps    int                             `json:"reps"`
	Values  map[string]map[string][]float64 `json:"values"` // by row and system
}

func newReport(o options, base string) *report {
	return &report{Date: time.Now().UTC().Truncate(time.Second), Machine: machine(base), Scale: o.scale, Reps: o.reps,
		Values: map[string]map[string][]float64{}}
}

// machine says what the figures were measured on.
func machine(base string) string {
	cpu := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for _, line := range strings.Split(string(text), "\n") {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	var u unix.Utsname
	_ = unix.Uname(&u)
	below := "an unknown file system"
	var st unix.Statfs_t
	if unix.Statfs(filepath.Clean(base), &st) == nil {
		switch st.Type {
		case unix.EXT4_SUPER_MAGIC:
			below = "ext4"
		case unix.TMPFS_MAGIC:
			below = "tmpfs (memory: syncing is free, so ratios mislead)"
		case unix.BTRFS_SUPER_MAGIC:
			below = "btrfs"
		case unix.XFS_SUPER_MAGIC:
			below = "xfs"
		default:
			below = fmt.Sprintf("file system %#x", st.Type)
		}
	}
	return fmt.Sprintf("%d cores of %s, %s %s, on %s", runtime.NumCPU(), cpu,
		unix.ByteSliceToString(u.Sysname[:]), unix.ByteSliceToString(u.Release[:]), below)
}

func (r *report) add(row, system string, value float64) {
	if r.Values[row] == nil {
		r.Values[row] = map[string][]float64{}
	}
	r.Values[row][system] = append(r.Values[row][system], value)
}

// median is NaN where nothing was measured.
func (r *report) median(row, system string) float64 {
	v := slices.Sorted(slices.Values(r.Values[row][system]))
	switch n := len(v); {
	case n == 0:
		return math.NaN()
	case n%2 == 1:
		return v[n/2]
	default:
		return (v[n/2-1] + v[n/2]) / 2
	}
}

// ratio says how many times better Hearth is; NaN if it cannot be said.
func (r *report) ratio(w row, peer string) float64 {
	h, p := r.median(w.name, "hearth"), r.median(w.name, peer)
	if w.less {
		h, p = p, h
	}
	if p == 0 {
		return math.NaN()
	}
	return h / p
}

// verdict compares a row with what it should reach.
func (r *report) verdict(w row) (wanted, met string) {
	var want []string
	ok, known := true, true
	check := func(text string, value float64, good bool) {
		want = append(want, text)
		ok, known = ok && good, known && !math.IsNaN(value)
	}
	if w.target > 0 {
		v := r.ratio(w, "gocryptfs")
		check(fmt.Sprintf(">= %sx", number(w.target)), v, v >= w.target)
	}
	if w.beside != "" {
		v := r.ratio(w, w.beside)
		check("> "+w.beside, v, v > 1)
	}
	if w.share > 0 {
		v := r.fraction(w)
		check(fmt.Sprintf(">= %sx raw", number(w.share)), v, v >= w.share)
	}
	if w.limit > 0 {
		v := r.median(w.name, "hearth")
		check(fmt.Sprintf("<= %s %s", number(w.limit), w.unit), v, v <= w.limit)
	}
	switch {
	case len(want) == 0:
		return "", ""
	case !known:
		return strings.Join(want, ", "), "-"
	case ok:
		return strings.Join(want, ", "), "yes"
	}
	return strings.Join(want, ", "), "NO"
}

// number prints with three digits that matter.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "-"
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// print writes the tables. Rows that were not measured are left out.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s, %s\nscale %g, medians of %d\n", r.Date.Format(time.DateTime), r.Machine, r.Scale, r.Reps)
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	line := func(cells ...string) { fmt.Fprintf(t, "| %s |\n", strings.Join(cells, "\t| ")) }
	peers := allSystems[1:]
	first := true
	for _, w := range rows {
		if r.Values[w.name] == nil {
			continue
		}
		if first {
			fmt.Fprintln(t)
			line("workload", "unit", "hearth", "ext4", "loopback", "gocryptfs", "x ext4", "x loopback", "x gocryptfs", "to reach", "met")
			line(slices.Repeat([]string{"---"}, 11)...)
			first = false
		}
		cells := []string{w.label, w.unit}
		for _, s := range allSystems {
			cells = append(cells, number(r.median(w.name, s)))
		}
		for _, s := range peers {
			cells = append(cells, number(r.ratio(w, s)))
		}
		wanted, met := r.verdict(w)
		line(append(cells, wanted, met)...)
	}
	_ = t.Flush()
	first = true
	for _, w := range costRows {
		if r.Values[w.name] == nil {
			continue
		}
		if first {
			fmt.Fprintln(t)
			line("cost", "unit", "hearth", "to reach", "met")
			line(slices.Repeat([]string{"---"}, 5)...)
			first = false
		}
		wanted, met := r.verdict(w)
		line(w.label, w.unit, number(r.median(w.name, "hearth")), wanted, met)
	}
	_ = t.Flush()
	r.printNetwork(t, line)
	_ = t.Flush()
}

// document is what is saved as JSON: the measurements and what they come to.
func (r *report) document() any {
	type summary struct {
		Row     string             `json:"row"`
		Unit    string             `json:"unit"`
		Medians map[string]float64 `json:"medians"`
		Ratios  map[string]float64 `json:"ratios,omitempty"`
		Target  string             `json:"target,omitempty"`
		Met     string             `json:"met,omitempty"`
	}
	var all []summary
	for _, w := range allRows() {
		if r.Values[w.name] == nil {
			continue
		}
		s := summary{Row: w.name, Unit: w.unit, Medians: map[string]float64{}, Ratios: map[string]float64{}}
		for _, sys := range append(slices.Clone(allSystems), rawQUIC) {
			if m := r.median(w.name, sys); !math.IsNaN(m) {
				s.Medians[sys] = m
			}
			if v := r.ratio(w, sys); sys != "hearth" && !math.IsNaN(v) {
				s.Ratios[sys] = v
			}
		}
		s.Target, s.Met = r.verdict(w)
		all = append(all, s)
	}
	return struct {
		*report
		Summary []summary `json:"summary"`
	}{r, all}
}
