package discovery

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// These tests run devices in network namespaces: each is this test binary once
// more, which in a namespace is a device that tells what it sees.
const (
	helperDevice  = "HEARTH_TEST_DISCOVERY_DEVICE" // "1" knows "2", and the other way round
	helperMethods = "HEARTH_TEST_DISCOVERY_METHODS"
)

func TestMain(m *testing.M) {
	if which := os.Getenv(helperDevice); which != "" {
		if err := helper(which, os.Getenv(helperMethods)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// helper is a device until stdin ends. It writes a line with the addresses of
// the other whenever they change; an empty one while there is none.
func helper(which, methods string) error {
	me, other := which[0], '1'+'2'-which[0]
	s, err := New(Options{Secret: secretOf(me), Port: 4400 + int(me), Logger: slog.New(slog.DiscardHandler),
		NoMDNS: methods == "beacon", NoBeacon: methods == "mdns"})
	if err != nil {
		return err
	}
	s.SetKnown(map[Key][32]byte{keyOf(other): secretOf(other)})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	said := "nothing yet"
	for range s.Watch(ctx) {
		line := ""
		for _, d := range s.Devices() {
			for _, a := range d.Addrs {
				if d.Key == keyOf(other) {
					line += a.String() + " "
				}
			}
		}
		if line != said {
			fmt.Println(line)
			said = line
		}
	}
	return <-ran
}

// device is a helper process.
type device struct {
	t     *testing.T
	which string
	began time.Time
	lines chan string
	last  string // that was seen
	stop  func()
}

// spawn starts a device in a namespace.
func spawn(t *testing.T, ns, which, methods string) *device {
	t.Helper()
	cmd := exec.Command("ip", "netns", "exec", ns, os.Args[0])
	cmd.Env = append(os.Environ(), helperDevice+"="+which, helperMethods+"="+methods)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d := &device{t: t, which: which, began: time.Now(), lines: make(chan string, 1000), last: "nothing"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			d.lines <- scan.Text()
		}
	}()
	stopped := false
	d.stop = func() {
		if stopped {
			return
		}
		stopped = true
		in.Close()
		late := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		defer late.Stop()
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("device %s: %v", which, err)
		}
	}
	t.Cleanup(d.stop)
	return d
}

// busy is what a machine that has much else to do may add to every wait: times
// are measured and logged, and fail nothing.
const busy = 30 * time.Second

// until waits for a line that is as wanted, and logs how long after start that
// was, and if it was more than it should be.
func (d *device) until(what string, start time.Time, most time.Duration, is func(line string) bool) {
	d.t.Helper()
	deadline := time.NewTimer(time.Until(start.Add(most + busy)))
	defer deadline.Stop()
	for !is(d.last) { // one line may tell several things
		select {
		case d.last = <-d.lines:
		case <-deadline.C:
			d.t.Fatalf("device %s: not %s within %v; it last saw %q", d.which, what, most, d.last)
		}
	}
	took := time.Since(start).Round(time.Millisecond)
	d.t.Logf("device %s: %s after %v", d.which, what, took)
	if took > most {
		d.t.Logf("which is LATE: it should take %v at most", most)
	}
}

func gone(line string) bool { return line == "" }

func contains(part string) func(string) bool {
	return func(line string) bool { return strings.Contains(line, part) }
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// namespaces makes namespaces that are removed after the test.
func namespaces(t *testing.T, names ...string) []string {
	t.Helper()
	if testing.Short() {
		t.Skip("it waits for devices to be missed, half a minute in all; make test does")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("network namespaces need ip, of iproute2")
	}
	var out []string
	for _, n := range names {
		ns := fmt.Sprintf("hearth-%d-%s", os.Getpid(), n)
		if text, err := exec.Command("ip", "netns", "add", ns).CombinedOutput(); err != nil {
			t.Skipf("this machine makes no network namespaces: %v: %s", err, text)
		}
		t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
		ip(t, "-n", ns, "link", "set", "lo", "up")
		out = append(out, ns)
	}
	return out
}

// bridged makes two namespaces that are connected by a bridge in a third.
func bridged(t *testing.T, name string) (one, two, bridge string) {
	t.Helper()
	ns := namespaces(t, name+"1", name+"2", name+"b")
	one, two, bridge = ns[0], ns[1], ns[2]
	ip(t, "-n", bridge, "link", "add", "br0", "type", "bridge")
	ip(t, "-n", bridge, "link", "set", "br0", "up")
	for i, n := range []string{one, two} {
		port := fmt.Sprintf("port%d", i+1)
		ip(t, "-n", bridge, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", n)
		ip(t, "-n", bridge, "link", "set", port, "master", "br0", "up")
		ip(t, "-n", n, "addr", "add", fmt.Sprintf("10.77.0.%d/24", i+1), "brd", "+", "dev", "eth0")
		ip(t, "-n", n, "link", "set", "eth0", "up")
	}
	return one, two, bridge
}

func TestNetwork(t *testing.T) {
	for _, methods := range []string{"both", "beacon"} {
		t.Run(methods, func(t *testing.T) {
			t.Parallel()
			n1, n2, bridge := bridged(t, methods)
			one := spawn(t, n1, "1", methods)
			one.until("alone", one.began, 5*time.Second, gone)
			two := spawn(t, n2, "2", methods)
			two.until("sees the old one", two.began, 2*time.Second, contains("10.77.0.1:"))
			one.until("sees the new one", two.began, 2*time.Second, contains("10.77.0.2:"))
			one.until("has its link-local address with the zone", two.began, 10*time.Second, contains("%eth0]:"))

			// An interface that goes down, and comes with another address.
			start := time.Now()
			ip(t, "-n", n2, "link", "set", "eth0", "down")
			two.until("lost it, with its own interface down", start, 2*time.Second, gone)
			one.until("lost it, with the interface of the other down", start, 10*time.Second, gone)
			ip(t, "-n", n2, "addr", "flush", "dev", "eth0")
			ip(t, "-n", n2, "addr", "add", "10.77.0.9/24", "brd", "+", "dev", "eth0")
			start = time.Now()
			ip(t, "-n", n2, "link", "set", "eth0", "up")
			one.until("sees it at the new address", start, 5*time.Second, contains("10.77.0.9:"))
			two.until("sees the other again", start, 5*time.Second, contains("10.77.0.1:"))

			// A cable that is pulled between two switches: no interface of
			// either device notices.
			start = time.Now()
			ip(t, "-n", bridge, "link", "set", "br0", "down")
			one.until("lost it, with the network down", start, 10*time.Second, gone)
			two.until("lost it, with the network down", start, 10*time.Second, gone)
			start = time.Now()
			ip(t, "-n", bridge, "link", "set", "br0", "up")
			one.until("sees it again", start, 5*time.Second, contains("10.77.0.9:"))
			two.until("sees it again", start, 5*time.Second, contains("10.77.0.1:"))

			start = time.Now()
			two.stop()
			one.until("lost it, which said goodbye", start, 4*time.Second, gone)
		})
	}
	t.Run("mdns", func(t *testing.T) {
		t.Parallel()
		n1, n2, _ := bridged(t, "mdns")
		one := spawn(t, n1, "1", "mdns")
		one.until("alone", one.began, 5*time.Second, gone)
		two := spawn(t, n2, "2", "mdns")
		two.until("sees the old one", two.began, 2*time.Second, contains("10.77.0.1:"))
		one.until("sees the new one", two.began, 2*time.Second, contains("10.77.0.2:"))
		start := time.Now()
		ip(t, "-n", n2, "link", "set", "eth0", "down")
		two.until("lost it, with its own interface down", start, 2*time.Second, gone)
		ip(t, "-n", n2, "addr", "flush", "dev", "eth0")
		ip(t, "-n", n2, "addr", "add", "10.77.0.9/24", "dev", "eth0")
		start = time.Now()
		ip(t, "-n", n2, "link", "set", "eth0", "up")
		two.until("sees the other again", start, 5*time.Second, contains("10.77.0.1:"))
		one.until("sees it at the new address", start, 5*time.Second, contains("10.77.0.9:"))
	})
	for _, methods := range []string{"both", "beacon", "mdns"} {
		t.Run("loopback alone, "+methods, func(t *testing.T) {
			t.Parallel()
			n := namespaces(t, "lo"+methods)[0]
			one := spawn(t, n, "1", methods)
			one.until("alone", one.began, 5*time.Second, gone)
			two := spawn(t, n, "2", methods)
			two.until("sees the old one", two.began, 2*time.Second, contains("127.0.0.1:"))
			one.until("sees the new one", two.began, 2*time.Second, contains("127.0.0.1:"))
		})
	}
}
