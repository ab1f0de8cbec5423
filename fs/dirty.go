package fs

import (
	"container/list"
	"sort"
	"sync"
)

// Bounds of unsealed data.
const (
	maxRun   = 1<<20 + 256<<10 // a run is sealed in one go and held in one buffer
	maxDirty = 8 << 20         // unsealed bytes at most; writers wait beyond it
	lowDirty = 2 << 20         // sealing starts behind the writers here
	// Both while a program asks for durability again and again: its commits
	// have to seal and sync what others write.
	maxHurried = 1 << 20
	lowHurried = 512 << 10
	// A file with no more than this has as much room again, then.
	littleDirty = 128 << 10
)

// run is a stretch of file contents that is not sealed yet.
type run struct {
	off  uint64
	data []byte
}

func (r run) end() uint64 { return r.off + uint64(len(r.data)) }

// runBuffers recycles the buffers of long runs; short ones are the garbage
// collector's.
var runBuffers = sync.Pool{New: func() any { b := make([]byte, 0, maxRun); return &b }}

const pooledRun = 128 << 10

// grow returns data with room for n more bytes, in a pooled buffer once long.
func grow(data []byte, n int) []byte {
	if len(data)+n <= cap(data) {
		return data
	}
	if len(data)+n < pooledRun {
		c := max(2*cap(data), len(data)+n)
		return append(make([]byte, 0, c), data...)
	}
	b := (*runBuffers.Get().(*[]byte))[:0]
	return append(b, data...)
}

func recycle(data []byte) {
	if cap(data) == maxRun {
		data = data[:0]
		runBuffers.Put(&data)
	}
}

// dirtyFile holds the unsealed contents of one inode. Reads see runs over
// sealing over extents.
type dirtyFile struct {
	ino     Ino
	runs    []run // sorted, not overlapping
	sealing []run // being sealed; sorted, not overlapping
	elem    *list.Element
}

// find returns the index of the first run that ends after off.
func find(runs []run, off uint64) int {
	return sort.Search(len(runs), func(i int) bool { return runs[i].end() > off })
}

// bytes is how much of the file is not sealed; a nil one has nothing.
func (f *dirtyFile) bytes() (n int) {
	if f == nil {
		return 0
	}
	for _, runs := range [2][]run{f.sealing, f.runs} {
		for _, r := range runs {
			n += len(r.data)
		}
	}
	return n
}

// write puts p at off over what is there; it returns how many bytes the file
// grew in unsealed data.
func (f *dirtyFile) write(off uint64, p []byte) (added int) {
	for len(p) > 0 {
		i := find(f.runs, off)
		if i < len(f.runs) && f.runs[i].off <= off { // inside a run
			n := copy(f.runs[i].data[off-f.runs[i].off:], p)
			off, p = off+uint64(n), p[n:]
			continue
		}
		n := len(p) // the gap up to the next run
		if i < len(f.runs) {
			n = int(min(uint64(n), f.runs[i].off-off))
		}
		if i > 0 && f.runs[i-1].end() == off && len(f.runs[i-1].data) < maxRun {
			n = min(n, maxRun-len(f.runs[i-1].data))
			d := grow(f.runs[i-1].data, n)
			if cap(f.runs[i-1].data) != cap(d) {
				recycle(f.runs[i-1].data)
			}
			f.runs[i-1].data = append(d, p[:n]...)
		} else {
			n = min(n, maxRun)
			f.runs = append(f.runs, run{})
			copy(f.runs[i+1:], f.runs[i:])
			f.runs[i] = run{off, append(grow(nil, n), p[:n]...)}
		}
		added += n
		off, p = off+uint64(n), p[n:]
	}
	return added
}

// under puts p at off beneath what is there: newer bytes win.
func (f *dirtyFile) under(off uint64, p []byte) (added int) {
	for len(p) > 0 {
		i := find(f.runs, off)
		n := len(p)
		if i < len(f.runs) {
			if f.runs[i].off <= off { // covered
				n = int(min(uint64(n), f.runs[i].end()-off))
				off, p = off+uint64(n), p[n:]
				continue
			}
			n = int(min(uint64(n), f.runs[i].off-off))
		}
		added += f.write(off, p[:n])
		off, p = off+uint64(n), p[n:]
	}
	return added
}

// join merges a run with the one after it where they touch and fit, so that a
// stream's tail meets what was written behind it.
func (f *dirtyFile) join(off uint64) {
	i := find(f.runs, off)
	for i >= 0 && i+1 < len(f.runs) {
		a, b := &f.runs[i], f.runs[i+1]
		if a.end() != b.off || len(a.data)+len(b.data) > maxRun {
			return
		}
		d := grow(a.data, len(b.data))
		if cap(a.data) != cap(d) {
			recycle(a.data)
		}
		a.data = append(d, b.data...)
		recycle(b.data)
		f.runs = append(f.runs[:i+1], f.runs[i+2:]...)
	}
}

// cut drops what is unsealed in [lo, hi) and returns how many bytes went.
func (f *dirtyFile) cut(lo, hi uint64) (dropped int) {
	if lo >= hi {
		return 0
	}
	out := f.runs[:0:0]
	for _, r := range f.runs {
		if r.end() <= lo || r.off >= hi {
			out = append(out, r)
			continue
		}
		if r.off < lo {
			out = append(out, run{r.off, r.data[: lo-r.off : lo-r.off]})
		}
		if r.end() > hi {
			out = append(out, run{hi, r.data[hi-r.off:]})
		}
		dropped += int(min(hi, r.end()) - max(lo, r.off))
	}
	f.runs = out
	return dropped
}

// overlay copies what is unsealed in [off, off+len(p)) into p.
func (f *dirtyFile) overlay(off uint64, p []byte) {
	for _, runs := range [2][]run{f.sealing, f.runs} {
		for i := find(runs, off); i < len(runs) && runs[i].off < off+uint64(len(p)); i++ {
			r := runs[i]
			if r.off >= off {
				copy(p[r.off-off:], r.data)
			} else {
				copy(p, r.data[off-r.off:])
			}
		}
	}
}

// covers reports whether one run or sealing run holds all of [off, off+n).
func (f *dirtyFile) covers(off, n uint64) bool {
	for _, runs := range [2][]run{f.runs, f.sealing} {
		if i := find(runs, off); i < len(runs) && runs[i].off <= off && runs[i].end() >= off+n {
			return true
		}
	}
	return false
}
