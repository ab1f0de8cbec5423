package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"hearth/log/disk/crashfs"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// crashModel is what a workload knows about the log it works on.
type crashModel struct {
	*crashfs.Run
	log *Log

	freeing bool // much is dropped and reclaimed

	acked     [][]byte // entries that are durable for certain; nil: dropped
	shown     []Head   // every head that was returned
	now       [][]byte // entries as of now
	attempts  [][][]byte
	dropped   *roaring64.Bitmap // dropped for certain
	maybeDrop *roaring64.Bitmap // perhaps
}

func newCrashModel(r *crashfs.Run) *crashModel {
	return &crashModel{
		Run: r, freeing: r.Rand.IntN(3) == 0, dropped: roaring64.New(), maybeDrop: roaring64.New(),
	}
}

func (m *crashModel) options() Options {
	o := testOptions(m.FS, "/log")
	o.Inline, o.Tiny, o.Reserve = true, true, "/reserve"
	return o
}

func (m *crashModel) block() []byte {
	n := 1 + m.Rand.IntN(300)
	switch m.Rand.IntN(12) {
	case 0:
		n = 60<<10 + m.Rand.IntN(100<<10)
	case 1, 2, 3:
		n = 3000 + m.Rand.IntN(20<<10)
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.Rand.Uint32())
	}
	return b
}

// step does one thing to the log. The error is one after which the log must
// be opened again.
func (m *crashModel) step() error {
	n := m.Rand.IntN(100)
	if m.freeing {
		n = 40 + m.Rand.IntN(60)
	}
	switch {
	case n < 50:
		b := m.block()
		index, err := m.log.Append(b)
		if err == nil {
			if index != uint64(len(m.now)) {
				return fmt.Errorf("%w: appended block has number %d, want %d", errWrong, index, len(m.now))
			}
			m.now = append(m.now, b)
		}
		return err
	case n < 75:
		return m.commit()
	case n < 82:
		return m.drop()
	case n < 87:
		_, err := m.log.Reclaim(context.Background(), 0)
		return err
	case n < 91:
		if uint64(len(m.now)) != m.log.Head().Size {
			return nil // it would wait
		}
		_, err := m.log.Erase(context.Background())
		return err
	case n < 93:
		return m.log.Settle()
	case n < 97 && len(m.acked) > 0:
		if err := m.check(m.Rand.IntN(len(m.acked))); err != nil && m.FS.Down() == nil {
			return fmt.Errorf("%w: %w", errWrong, err)
		}
		return nil
	default:
		err := m.log.Close()
		m.log = nil
		if err == nil {
			m.now = m.acked
		}
		return errors.Join(err, errReopen)
	}
}

var (
	errReopen = errors.New("closed")
	errWrong  = errors.New("broken promise")
)

func (m *crashModel) commit() error {
	b := m.block()
	after := append(m.now[:len(m.now):len(m.now)], b)
	sync := m.Rand.IntN(4) > 0
	if sync {
		m.attempts = append(m.attempts, after)
	}
	_, head, err := m.log.Commit(b, sync)
	if err != nil {
		return err
	}
	m.now = after
	if sync {
		if head.Size != uint64(len(m.now)) {
			return fmt.Errorf("%w: head of %d, want %d", errWrong, head.Size, len(m.now))
		}
		m.acked, m.attempts = m.now, nil
		m.shown = append(m.shown, head)
	}
	return nil
}

func (m *crashModel) drop() error {
	if len(m.acked) == 0 {
		return nil
	}
	set := roaring64.New()
	for range 1 + m.Rand.IntN(3) {
		from := m.Rand.IntN(len(m.acked))
		set.AddRange(uint64(from), uint64(min(len(m.acked), from+1+m.Rand.IntN(30))))
	}
	m.maybeDrop.Or(set)
	err := m.log.Drop(context.Background(), set)
	if err == nil {
		m.dropped.Or(set)
	}
	return err
}

// check compares one entry with what it should be.
func (m *crashModel) check(i int) error {
	index := uint64(i)
	want := Describe(m.now[i])
	d, err := m.log.Descriptor(index)
	if err != nil {
		return fmt.Errorf("descriptor %d: %w", i, err)
	}
	if d != want {
		return fmt.Errorf("descriptor %d is another", i)
	}
	got, err := m.log.ReadStored(nil, index)
	switch {
	case errors.Is(err, ErrDropped) && m.maybeDrop.Contains(index):
		return nil
	case err != nil:
		return fmt.Errorf("block %d: %w", i, err)
	case m.dropped.Contains(index):
		return fmt.Errorf("block %d was dropped and is read", i)
	case !bytes.Equal(got, m.now[i]):
		return fmt.Errorf("block %d is another", i)
	}
	return nil
}

// reopen opens the log after whatever happened to it, and compares it with
// what was promised.
func (m *crashModel) reopen() error {
	l, err := OpenLog(m.options())
	if err != nil {
		return err
	}
	m.log = l
	size := l.Size()
	candidates := append([][][]byte{m.acked}, m.attempts...)
	var found [][]byte
	ok := false
	for _, c := range candidates {
		if uint64(len(c)) == size && m.sameAs(c) {
			found, ok = c, true
		}
	}
	if !ok {
		return fmt.Errorf("%d entries are there, which is neither what was acknowledged (%d) nor attempted (%d attempts)", size, len(m.acked), len(m.attempts))
	}
	for _, d := range l.Health().Damage {
		if d.File != l.indexPath("") {
			return fmt.Errorf("found damaged: %v", d)
		}
	}
	m.now, m.acked, m.attempts = found, found, nil
	m.maybeDrop = l.Dropped()
	if !roaring64.AndNot(m.dropped, m.maybeDrop).IsEmpty() {
		return errors.New("a drop was forgotten")
	}
	for _, h := range m.shown {
		if h.Size > size {
			return fmt.Errorf("the head of %d that was shown is gone", h.Size)
		}
		root, err := l.Root(h.Size)
		if err != nil {
			return err
		}
		if root != h.Root {
			return fmt.Errorf("forked below the head of %d that was shown", h.Size)
		}
	}
	if len(m.shown) > 4 {
		m.shown = m.shown[len(m.shown)-4:]
	}
	for i := range m.now {
		if err := m.check(i); err != nil {
			return err
		}
	}
	var damage []Damage
	err = l.Verify(context.Background(), func(d Damage) { damage = append(damage, d) }, nil)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if len(damage) > 0 {
		return fmt.Errorf("verify found %v", damage)
	}
	return nil
}

func (m *crashModel) sameAs(c [][]byte) bool {
	for i := range c {
		d, err := m.log.Descriptor(uint64(i))
		if err != nil || d != Describe(c[i]) {
			m.Logf("entry %d: %v, or it is another", i, err)
			return false
		}
	}
	return true
}

// crashWorkload works on a log through several crashes.
func crashWorkload(r *crashfs.Run) error {
	m := newCrashModel(r)
	if err := r.FS.MkdirAll("/log"); err != nil {
		return err
	}
	l, err := CreateLog(m.options())
	if err != nil {
		return err
	}
	m.log = l
	if r.Rand.IntN(4) == 0 {
		r.FS.SetSyncFailure(crashfs.KeepCache)
	}
	for range 1 + r.Rand.IntN(4) {
		if err := m.work(); err != nil {
			return err
		}
		// Whatever it was, now comes another process.
		if m.log != nil {
			r.Disarm()
			if r.FS.Down() == nil && r.Rand.IntN(3) == 0 {
				_ = m.log.Close() // of a log that may be poisoned
			}
		}
		if r.FS.Down() != nil || r.Rand.IntN(2) == 0 {
			r.Reboot()
		}
		r.Disarm()
		if err := m.losesIndex(); err != nil {
			return err
		}
		if err := m.reopen(); err != nil {
			return err
		}
	}
	return m.log.Close()
}

// work goes on until something goes wrong.
func (m *crashModel) work() error {
	plan := crashfs.Plan{}
	if m.Rand.IntN(5) > 0 {
		plan.Crash = 200
	}
	if m.Rand.IntN(3) == 0 {
		plan.Fault = 0.02
	}
	m.Arm(plan)
	for range 10 + m.Rand.IntN(200) {
		if err := m.step(); err != nil {
			m.Logf("step: %v", err)
			if errors.Is(err, errWrong) {
				return err
			}
			if m.log == nil || m.FS.Down() != nil || m.log.usable() != nil || m.Rand.IntN(4) == 0 {
				return nil
			}
		}
	}
	return nil
}

// losesIndex removes files that can be rebuilt.
func (m *crashModel) losesIndex() error {
	switch m.Rand.IntN(12) {
	case 0:
		return m.FS.RemoveAll("/log/index")
	case 1:
		return removeIfThere(m.FS, "/log/index/mark")
	case 2:
		return removeIfThere(m.FS, "/log/index/hash.0")
	case 3:
		return removeIfThere(m.FS, "/log/index/locs")
	}
	return nil
}

// TestCrashes loses files of the index as well; the harness in crashrun_test.go
// is the larger one.
func TestCrashes(t *testing.T) {
	n := 300
	if testing.Short() {
		n = 50
	}
	crashfs.Explore(t, n, rand.Uint64(), crashWorkload)
}
