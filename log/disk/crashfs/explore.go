package crashfs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Environment variables that Explore reads: how many runs to make instead of
// the number it was given, and the one run to repeat instead of all (with a
// trace of every operation of the file system).
const (
	EnvCount = "HEARTH_CRASHES"
	EnvSeed  = "HEARTH_CRASH_SEED"
)

// Run is one run of a workload, on a machine that may crash.
type Run struct {
	// Seed repeats the run.
	Seed uint64
	// Rand is for the workload's own choices.
	Rand *rand.Rand
	// FS is the machine as the present process sees it. Reboot replaces it.
	FS *FS

	chaos   *rand.Rand // for the choice of crashes and faults
	verbose bool
	trace   []string
	reboots int
}

// Plan says what may go wrong until the next Reboot.
type Plan struct {
	// Crash is the greatest number of changing operations before the machine
	// crashes; the number is chosen below it, small ones more often. 0: it
	// does not crash.
	Crash int
	// Fault is the probability that a changing operation fails, in either
	// half, with EIO or ENOSPC.
	Fault float64
	// ReadFault is the same for ReadAt and ReadFile.
	ReadFault float64
}

// Arm puts a plan in place.
func (r *Run) Arm(p Plan) {
	fuse := -1
	if p.Crash > 0 {
		fuse = r.chaos.IntN(1 + r.chaos.IntN(p.Crash))
	}
	r.FS.CrashAfter(fuse)
	r.FS.SetPolicy(First(
		Random(r.chaos.Uint64(), p.Fault, nil),
		Random(r.chaos.Uint64(), p.ReadFault, Kinds(OpReadAt, OpReadFile)),
	))
	r.Logf("armed: crash after %d, faults %v, read faults %v", fuse, p.Fault, p.ReadFault)
}

// Start makes the run begin with a copy of base, which several runs may share:
// a machine on which something was prepared that takes long.
func (r *Run) Start(base *FS) {
	r.FS = base.Clone()
	r.FS.rng = newRand(r.Seed)
	r.watch()
}

// Disarm ends faults and calls a planned crash off.
func (r *Run) Disarm() {
	r.FS.CrashAfter(-1)
	r.FS.SetPolicy(nil)
}

// PowerLoss crashes the machine, if it has not crashed by itself, and starts
// it again without faults.
func (r *Run) PowerLoss() {
	r.Logf("power loss")
	r.renew(r.FS.Crash(r.chaos.Uint64()))
}

// Kill ends the process and starts another without faults. On a machine that
// has crashed it is PowerLoss.
func (r *Run) Kill() {
	if r.FS.Down() != nil {
		r.PowerLoss()
		return
	}
	r.Logf("kill")
	r.renew(r.FS.Kill())
}

// Reboot is PowerLoss or, one time in four, Kill.
func (r *Run) Reboot() {
	if r.chaos.IntN(4) == 0 {
		r.Kill()
	} else {
		r.PowerLoss()
	}
}

// Reboots returns how often the machine or the process was started again.
func (r *Run) Reboots() int { return r.reboots }

func (r *Run) renew(c *FS) {
	r.reboots++
	r.FS = c
	r.watch()
}

func (r *Run) watch() {
	if r.verbose {
		r.FS.SetTrace(func(op Op, err error) { r.Logf("  %v: %v", op, err) })
	}
}

// Logf adds a line to what is printed if the run fails. It must not be called
// by several goroutines at once.
func (r *Run) Logf(format string, args ...any) {
	const most = 200
	if len(r.trace) >= 2*most && !r.verbose {
		r.trace = append(r.trace[:0], r.trace[len(r.trace)-most:]...)
	}
	r.trace = append(r.trace, fmt.Sprintf(format, args...))
}

// Failure is a run that failed.
type Failure struct {
	Index int // which of the runs
	Seed  uint64
	Err   error
	Trace []string
}

// Error implements error.
func (f *Failure) Error() string {
	return fmt.Sprintf("run %d: %v\n%s\nrepeat with %s=%#x", f.Index, f.Err, strings.Join(f.Trace, "\n"), EnvSeed, f.Seed)
}

// Replay makes the run with the given seed, on an empty machine.
func Replay(seed uint64, verbose bool, workload func(*Run) error) *Failure {
	r := &Run{
		Seed:    seed,
		Rand:    rand.New(rand.NewPCG(seed, 2)),
		FS:      New(seed),
		chaos:   rand.New(rand.NewPCG(seed, 3)),
		verbose: verbose,
	}
	r.watch()
	if err := guard(r, workload); err != nil {
		return &Failure{Seed: seed, Err: err, Trace: r.trace}
	}
	return nil
}

// guard turns a panic of the workload into an error, so that its seed is
// printed.
func guard(r *Run, workload func(*Run) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			stack := make([]byte, 16<<10)
			err = fmt.Errorf("panic: %v\n%s", p, stack[:runtime.Stack(stack, false)])
		}
	}()
	return workload(r)
}

// Search makes up to n runs, several at a time, and returns one that failed,
// or nil. Each run's seed follows from seed and its index.
func Search(n int, seed uint64, workload func(*Run) error) *Failure {
	var (
		next  atomic.Int64
		mu    sync.Mutex
		found *Failure
		wg    sync.WaitGroup
	)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				mu.Lock()
				stop := i >= n || found != nil
				mu.Unlock()
				if stop {
					return
				}
				f := Replay(runSeed(seed, i), false, workload)
				if f == nil {
					continue
				}
				f.Index = i
				mu.Lock()
				if found == nil || i < found.Index {
					found = f
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return found
}

func runSeed(seed uint64, i int) uint64 {
	return rand.New(rand.NewPCG(seed, uint64(i))).Uint64()
}

// Explore makes n runs of a workload, each on an empty machine and with a seed
// of its own, and fails the test with the seed and the trace of the first that
// returns an error or panics. The workload arms what may go wrong, works until
// it does, reboots, and compares what it finds with what was promised.
// Goroutines of its own cost the workload the exact replay.
func Explore(tb testing.TB, n int, seed uint64, workload func(*Run) error) {
	tb.Helper()
	if s := os.Getenv(EnvSeed); s != "" {
		one, err := strconv.ParseUint(s, 0, 64)
		if err != nil {
			tb.Fatalf("%s=%q is not a seed: %v", EnvSeed, s, err)
		}
		if f := Replay(one, true, workload); f != nil {
			tb.Fatal(f)
		}
		return
	}
	if s := os.Getenv(EnvCount); s != "" {
		count, err := strconv.Atoi(s)
		if err != nil {
			tb.Fatalf("%s=%q is not a number: %v", EnvCount, s, err)
		}
		n = count
	}
	if f := Search(n, seed, workload); f != nil {
		tb.Fatal(f)
	}
}
