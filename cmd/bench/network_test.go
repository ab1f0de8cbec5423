//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The ends of the raw connection are processes of this program, which is a test
// here.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == rawReceiveVerb || os.Args[1] == rawSendVerb) {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// Every row that an exchange records must be one that the report knows, and
// every row must be recorded.
func TestExchangesRun(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs daemons, a minute in all; make test does")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("a joined drive is mounted, and this machine has no FUSE")
	}
	base := t.TempDir()
	exe := filepath.Join(base, "hearth")
	if out, err := exec.Command("go", "build", "-o", exe, "../hearth").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	o := options{reps: 1, scale: 0.002}
	b := &bench{options: o, base: base, hearth: exe, stderr: io.Discard, report: newReport(o, base)}
	for _, x := range exchanges {
		if err := b.exchange(t.Context(), x); err != nil {
			t.Errorf("%s: %v", x.name, err)
		}
	}
	got := b.report.Values
	for _, r := range networkRows {
		v := b.report.median(r.name, "hearth")
		if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
			t.Errorf("%s: %v", r.name, v)
		}
		if raw := b.report.median(r.name, rawQUIC); r.share > 0 && !(raw > 0) {
			t.Errorf("%s: the raw network has %v", r.name, raw)
		}
		delete(got, r.name)
	}
	for name := range got {
		t.Errorf("the report has no row %s", name)
	}
	left, err := list(base)
	if err != nil || len(left) != 1 {
		t.Errorf("exchanges leave %q, %v", left, err)
	}
}

func TestNetworkReport(t *testing.T) {
	r := newReport(options{reps: 3, scale: 1}, t.TempDir())
	for _, v := range []float64{170, 90, 180} {
		r.add("replicate", "hearth", v)
	}
	for _, v := range []float64{200, 210, 100} {
		r.add("replicate", rawQUIC, v)
	}
	r.add("send", "hearth", 129)
	r.add("send", rawQUIC, 200)
	r.add("remote-read", "hearth", 100)
	r.add("far-read", "hearth", 350)
	r.add("live-p99", "hearth", 301)
	var out bytes.Buffer
	r.print(&out)
	for _, want := range []string{
		"| between two daemons | unit | hearth | raw QUIC | x raw QUIC | best of others, elsewhere | to reach | met |",
		"| replicate a 1 GiB drive, durable | MB/s | 170 | 200 | 0.85 | 149 (WebTorrent) | >= 0.85x raw | yes |",
		"| send a 1 GiB file, from file to file | MB/s | 129 | 200 | 0.65 | 122 (Syncthing) | >= 0.65x raw | NO |",
		"| read a 1 GiB file of a joined mount, in order | MB/s | 100 | - | - | 73.0 (Hyperdrive) | >= 0.65x raw | - |",
		"| the same from a cold start, 50 ms round trip | ms | 350 | - | - | 445 (Hyperdrive) | <= 350 ms | yes |",
		"| the same, p99 | ms | 301 | - | - | | <= 300 ms | NO |",
	} {
		if !strings.Contains(squeeze(out.String()), want) {
			t.Errorf("the report lacks %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "idle") {
		t.Error("a row that was not measured is shown")
	}
}

func TestRowsHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range allRows() {
		if seen[r.name] {
			t.Errorf("two rows are called %s", r.name)
		}
		seen[r.name] = true
	}
}

func TestRawConnection(t *testing.T) {
	rate, err := rawRate(t.Context(), 3*mib+17)
	if err != nil || rate <= 0 {
		t.Fatalf("%v MB/s, %v", rate, err)
	}
}

// A receiver that gets another length than it was told says so.
func TestRawConnectionCounts(t *testing.T) {
	said, out := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		err := rawEnd(ctx, []string{rawReceiveVerb, "1001"}, out)
		_ = out.CloseWithError(err)
		done <- err
	}()
	lines := bufio.NewScanner(said)
	if !lines.Scan() {
		t.Fatal(lines.Err())
	}
	_ = rawEnd(ctx, []string{rawSendVerb, "1000", lines.Text()}, io.Discard) // may hear of it
	if err := <-done; err == nil || !strings.Contains(err.Error(), "1000 of 1001 bytes") {
		t.Errorf("%v", err)
	}
}

// A packet takes its time on both ways, and is what it was.
func TestRelay(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := server.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = server.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	const delay = 20 * time.Millisecond
	r, err := newRelay(server.LocalAddr().(*net.UDPAddr).Port, delay)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	for range 2 { // the second client takes the place of the first
		c, err := net.Dial("udp4", r.addr())
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for _, text := range []string{"one", "two"} {
			if _, err := c.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		buf := make([]byte, 2048)
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		for _, text := range []string{"one", "two"} {
			n, err := c.Read(buf)
			if err != nil || string(buf[:n]) != text {
				t.Fatalf("%q, %v; not %q", buf[:n], err, text)
			}
		}
		if took := time.Since(start); took < 2*delay {
			t.Errorf("there and back took %v", took)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestProcessorTime(t *testing.T) {
	for deadline := time.Now().Add(30 * time.Second); ; {
		used, err := processorTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if used > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("this process used no time")
		}
	}
}
