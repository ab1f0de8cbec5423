//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"slices"
)

// rawQUIC is the column of what the network itself does in the same run: one
// stream of one connection, with Hearth's settings of QUIC.
const rawQUIC = "raw"

// networkRow is one line of the table of what goes between two daemons.
type networkRow struct {
	row
	others float64 // what the best of others reached at the same work; 0: none
	who    string
}

// networkRows are what is measured between daemons, each with a home of its
// own, over loopback. What others reached was measured on two shared cores of
// an AMD EPYC with 24 GiB, Linux 6.18: it says where one stands, and is no
// target, as it is from another run.
var networkRows = []networkRow{
	{row{name: "replicate", label: "replicate a 1 GiB drive, durable", unit: "MB/s", share: 0.85}, 149, "WebTorrent"},
	{row{name: "replicate-many", label: "replicate 10,000 files of 4 KiB, durable", unit: "s", less: true, limit: 1}, 9.6, "iroh"},
	{row{name: "send", label: "send a 1 GiB file, from file to file", unit: "MB/s", share: 0.65}, 122, "Syncthing"},
	{row{name: "send-many", label: "send a folder of 10,000 files of 4 KiB", unit: "s", less: true, limit: 2}, 17.1, "iroh"},
	{row{name: "remote-read", label: "read a 1 GiB file of a joined mount, in order", unit: "MB/s", share: 0.65}, 73, "Hyperdrive"},
	{row{name: "first-byte", label: "first byte of a remote file, from the end of mount", unit: "ms", less: true, limit: 40}, 0, ""},
	{row{name: "mount-byte", label: "the same, from the start of mount", unit: "ms", less: true}, 0, ""},
	{row{name: "cold-first", label: "cold 64 KiB in the middle of a 1 GiB file, the first", unit: "ms", less: true, limit: 5}, 46, "Hyperdrive"},
	{row{name: "cold-read", label: "the same, elsewhere in it, p50", unit: "ms", less: true, limit: 5}, 0, ""},
	{row{name: "far-read", label: "the same from a cold start, 50 ms round trip", unit: "ms", less: true, limit: 350}, 445, "Hyperdrive"},
	{row{name: "far-join", label: "the same of a drive never seen, join included", unit: "ms", less: true}, 0, ""},
	{row{name: "live-p50", label: "a commit shows on a connected mount, p50", unit: "ms", less: true, limit: 100}, 0, ""},
	{row{name: "live-p99", label: "the same, p99", unit: "ms", less: true, limit: 300}, 0, ""},
	{row{name: "memory-author", label: "memory above idle of who serves 1 GiB", unit: "MiB", less: true, limit: 128}, 0, ""},
	{row{name: "memory-holder", label: "memory above idle of who gets 1 GiB", unit: "MiB", less: true, limit: 128}, 0, ""},
	{row{name: "memory10-author", label: "memory above idle of who serves 10 GiB", unit: "MiB", less: true, limit: 128}, 0, ""},
	{row{name: "memory10-holder", label: "memory above idle of who gets 10 GiB", unit: "MiB", less: true, limit: 128}, 0, ""},
	{row{name: "idle", label: "idle daemon with 20 connected peers", unit: "% of a core", less: true, limit: 1}, 0, ""},
}

// fraction is what Hearth reached of the raw network; NaN if that was not
// measured.
func (r *report) fraction(w row) float64 {
	raw := r.median(w.name, rawQUIC)
	if raw == 0 {
		return math.NaN()
	}
	return r.median(w.name, "hearth") / raw
}

// printNetwork writes the table of the network.
func (r *report) printNetwork(w io.Writer, line func(cells ...string)) {
	first := true
	for _, n := range networkRows {
		if r.Values[n.name] == nil {
			continue
		}
		if first {
			fmt.Fprintln(w)
			line("between two daemons", "unit", "hearth", "raw QUIC", "x raw QUIC", "best of others, elsewhere", "to reach", "met")
			line(slices.Repeat([]string{"---"}, 8)...)
			first = false
		}
		others := ""
		if n.others > 0 {
			others = fmt.Sprintf("%s (%s)", number(n.others), n.who)
		}
		wanted, met := r.verdict(n.row)
		line(n.label, n.unit, number(r.median(n.name, "hearth")), number(r.median(n.name, rawQUIC)), number(r.fraction(n.row)), others, wanted, met)
	}
}

// allRows is every row there is.
func allRows() []row {
	all := slices.Concat(rows, costRows)
	for _, n := range networkRows {
		all = append(all, n.row)
	}
	return all
}
