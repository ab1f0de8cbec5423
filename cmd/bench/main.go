//go:build linux

// Command bench measures Hearth beside what it will be compared with: the
// plain file system below it, go-fuse's loopback (what any FUSE file system in
// Go costs) and gocryptfs (what encryption costs on top). All of them run the
// same workloads in the same run, in turns, because machines differ and the
// same machine differs from hour to hour: only the ratios mean anything.
//
// It also measures what only Hearth has, as absolute costs: clones, growth,
// history, undo; and what goes between two daemons over loopback, beside what
// the network itself does in the same run: one raw QUIC connection.
//
// It is a driver of programs, the hearth binary among them. Of Hearth it imports
// package peer alone, whose settings of QUIC the raw connection has, and package
// replicate for the text of links. Timings never make it fail; a workload that returns
// an error does.
//
//	system.go     a file system under test: start, restart cold, stop
//	peers.go      ext4 (or whatever is below), loopback, gocryptfs
//	hearth.go     the daemon under test
//	workload.go   what all workloads share
//	data.go, tree.go, database.go     the workloads
//	costs.go, history.go              the absolute costs
//	network.go                        devices on loopback, and what they do:
//	networkbulk.go, networkread.go, networklive.go
//	networkraw.go                     the raw QUIC connection
//	networkrelay.go                   a slow network
//	networkreport.go                  their table
//	report.go     medians, ratios, the table
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	// The runtime interrupts its threads with signals; over FUSE each one that
	// meets a system call becomes a request of its own and sometimes an EINTR.
	if os.Getenv("GODEBUG") == "" {
		exe, err := os.Executable()
		if err == nil {
			_ = syscall.Exec(exe, os.Args, append(os.Environ(), "GODEBUG=asyncpreemptoff=1"))
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are the flags.
type options struct {
	hearth string
	dir    string
	only   map[string]bool
	among  map[string]bool
	reps   int
	scale  float64
	quick  bool
	long   bool
	json   string
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	var only, systems string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.hearth, "hearth", "bin/hearth", "the binary under test")
	f.StringVar(&o.dir, "dir", "", "a folder on the file system to measure on (default: the temporary folder)")
	f.StringVar(&only, "only", "", "comma-separated workloads and costs: "+strings.Join(names(), ","))
	f.StringVar(&systems, "systems", "", "comma-separated file systems: hearth,ext4,loopback,gocryptfs")
	f.IntVar(&o.reps, "reps", 3, "repetitions; medians are shown")
	f.Float64Var(&o.scale, "scale", 1, "size of the workloads; 1: a 1 GiB file, 10,000 files")
	f.BoolVar(&o.quick, "quick", false, "one repetition at a fiftieth of the size: does it work?")
	f.BoolVar(&o.long, "long", false, "also the drive with a million files and 100,000 versions, and replication of 10 GiB (many minutes)")
	f.StringVar(&o.json, "json", "", "write all measurements to this file, too")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("%q is not a flag", f.Arg(0))
	}
	if o.quick {
		o.reps, o.scale = 1, 0.02
	}
	if o.reps < 1 || o.scale <= 0 {
		return o, errors.New("-reps and -scale must be above zero")
	}
	o.only, o.among = set(only), set(systems)
	for name := range o.only {
		if !slices.Contains(names(), name) {
			return o, fmt.Errorf("-only: there is no %q", name)
		}
	}
	return o, nil
}

func set(list string) map[string]bool {
	m := map[string]bool{}
	for _, name := range strings.Split(list, ",") {
		if name != "" {
			m[name] = true
		}
	}
	return m
}

// names lists all that -only understands.
func names() []string {
	var all []string
	for _, w := range workloads {
		all = append(all, w.name)
	}
	for _, c := range costs {
		all = append(all, c.name)
	}
	for _, x := range exchanges {
		all = append(all, x.name)
	}
	return all
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 3 && args[0] == streamVerb {
		if err := stream(args[1], args[2]); err != nil {
			fmt.Fprintln(stderr, "bench:", err)
			return 1
		}
		return 0
	}
	if len(args) > 0 && (args[0] == rawReceiveVerb || args[0] == rawSendVerb) {
		if err := rawEnd(ctx, args, stdout); err != nil {
			fmt.Fprintln(stderr, "bench:", err)
			return 1
		}
		return 0
	}
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench: error:", err)
		return 2
	}
	report, err := measure(ctx, o, stderr)
	if report != nil {
		report.print(stdout)
		if o.json != "" {
			err = errors.Join(err, report.save(o.json))
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench: error:", err)
		return 1
	}
	return 0
}

// measure runs everything that o asks for. The report holds what was measured
// even when some of it failed.
func measure(ctx context.Context, o options, stderr io.Writer) (*report, error) {
	exe, err := filepath.Abs(o.hearth)
	if err == nil {
		_, err = exec.LookPath(exe)
	}
	if err != nil {
		return nil, fmt.Errorf("the hearth binary: %w", err)
	}
	base, err := os.MkdirTemp(o.dir, "hearth-bench.")
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, base: base, hearth: exe, stderr: stderr, report: newReport(o, base)}
	defer b.clean()
	if err := b.prepare(ctx); err != nil {
		return nil, err
	}
	var systems []*system
	if slices.ContainsFunc(workloads, func(w workload) bool { return b.wanted(w.name) }) {
		systems = b.build(ctx)
	}
	var failed error
	for rep := range o.reps {
		err := b.repetition(ctx, rep, systems)
		failed = errors.Join(failed, err)
		if ctx.Err() != nil {
			return b.report, ctx.Err()
		}
	}
	failed = errors.Join(failed, b.absolute(ctx))
	if ctx.Err() != nil {
		return b.report, ctx.Err()
	}
	return b.report, errors.Join(failed, b.network(ctx))
}

// bench is one run of the program.
type bench struct {
	options
	base   string // everything is below it
	hearth string // the binary
	stderr io.Writer
	report *report
}

func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(b.stderr, format+"\n", args...)
}

// wanted reports whether -only names it, or nothing.
func (b *bench) wanted(name string) bool { return len(b.only) == 0 || b.only[name] }

// repetition runs every workload once on every system. Systems take turns
// workload by workload, and another one begins each time, so that none always
// meets the machine in the same state.
func (b *bench) repetition(ctx context.Context, rep int, systems []*system) error {
	var up []*system
	var failed error
	defer func() {
		for _, s := range up {
			s.remove(context.WithoutCancel(ctx), b)
		}
	}()
	for _, s := range systems {
		if err := s.create(ctx); err != nil {
			b.progress("%s: %v", s.name, err)
			failed = errors.Join(failed, fmt.Errorf("%s: %w", s.name, err))
			continue
		}
		up = append(up, s)
	}
	for i, w := range workloads {
		if !b.wanted(w.name) {
			continue
		}
		for j := range up {
			s := up[(i+j+rep)%len(up)]
			if err := b.once(ctx, w, s); err != nil {
				err = fmt.Errorf("%s on %s: %w", w.name, s.name, err)
				b.progress("%v", err)
				failed = errors.Join(failed, err)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return failed
}

// once runs one workload on one system.
func (b *bench) once(ctx context.Context, w workload, s *system) error {
	if err := s.settle(ctx); err != nil {
		return err
	}
	e := &env{bench: b, system: s, dir: s.dir, record: func(row string, value float64) {
		b.progress("%-12s %-20s %s", s.name, row, number(value))
		b.report.add(row, s.name, value)
	}}
	return w.run(ctx, e)
}

// save writes the report as JSON.
func (r *report) save(file string) error {
	text, err := json.MarshalIndent(r.document(), "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
