package main

import (
	"testing"
	"time"

	"hearth/cmd/control"
)

func TestTransferLine(t *testing.T) {
	for _, c := range []struct {
		done, total, came int64
		in                time.Duration
		want              string
	}{
		{0, 10 << 20, 0, 0, "fetch 0B of 10MiB"},
		{5 << 20, 10 << 20, 1 << 20, 100 * time.Millisecond, "fetch 5MiB of 10MiB"},
		{6 << 20, 10 << 20, 2 << 20, 2 * time.Second, "fetch 6MiB of 10MiB, 1MiB/s, 5s left"},
		{10 << 20, 10 << 20, 10 << 20, 5 * time.Second, "fetch 10MiB of 10MiB, 2MiB/s"},
		{1, 1 << 40, 1, 5 * time.Second, "fetch 1B of 1TiB, 0B/s"},
		{1, 0, 1, 5 * time.Second, "fetch 1B of 0B, 0B/s"},
	} {
		got := transferLine(control.Progress{What: "fetch", Done: c.done, Total: c.total}, c.came, c.in)
		if got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func TestShare(t *testing.T) {
	for _, c := range []struct {
		part, all uint64
		want      string
	}{
		{0, 0, "0B (100%)"},
		{0, 1000, "0B (0%)"},
		{1, 1 << 30, "1B (0.1%)"},
		{1<<30 - 1, 1 << 30, "1024.0MiB (99.9%)"},
		{1 << 30, 1 << 30, "1GiB (100%)"},
		{1, 3, "1B (33.3%)"},
	} {
		if got := share(c.part, c.all); got != c.want {
			t.Errorf("%d of %d: %q", c.part, c.all, got)
		}
	}
}
