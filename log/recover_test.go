package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"hearth/log/disk/crashfs"
	"hearth/log/seal"

	"pgregory.net/rapid"
)

// tornLog is a log with two commits, of entries 0-1 and 2-4, that nobody
// closed. With later, the beginning of a third one is behind, which proves
// that the second was durable.
func tornLog(t *testing.T, settle, later bool) (*crashfs.FS, []int64) {
	t.Helper()
	l, d := tinyLog(t)
	mustAppend(t, l, "zero")
	mustCommit(t, l, "one")
	if settle {
		if err := l.Settle(); err != nil {
			t.Fatal(err)
		}
	}
	mustAppend(t, l, "two")
	mustAppend(t, l, string(randomBlock(5000)))
	mustCommit(t, l, "four")
	offs := []int64{}
	for i := range uint64(5) {
		offs = append(offs, l.locs.get(i).offset())
	}
	offs = append(offs, l.locs.get(4).offset()+frameSize(int(l.locs.get(4).length())), l.pendOff)
	if later {
		mustAppend(t, l, string(randomBlock(100_000)))
		mustAppend(t, l, "six")
		l.appendMu.Lock()
		if err := l.flush(false); err != nil {
			t.Fatal(err)
		}
		l.appendMu.Unlock()
	}
	return d.Kill(), offs
}

// patch changes bytes of the first segment.
func patch(t *testing.T, d *crashfs.FS, off int64, b []byte) {
	t.Helper()
	f, err := d.Open("/log/seg/00000000")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTornOrRotten damages the last commit in all its parts, with and without
// a proof that it was durable.
func TestTornOrRotten(t *testing.T) {
	const none = -1
	for _, tt := range []struct {
		name     string
		part     int   // the frame that is damaged: an entry, or 5 for the checkpoint
		off, n   int64 // in the frame
		torn     uint64
		rot      uint64
		unread   int // the entry that cannot be read if it is rot
		findings int
	}{
		{"body", 2, frameHeader, 8, 2, 5, 2, 1},
		{"header", 2, 0, 30, 2, 5, 2, 1},
		{"digest", 2, 30, 8, 2, 5, 2, 1},
		{"a sector of a large body", 3, 512, 512, 2, 5, 3, 1},
		{"the last body", 4, frameHeader, 8, 2, 5, 4, 1},
		{"the last header", 4, 0, 8, 2, 5, 4, 1},
		{"the checkpoint", 5, frameHeader + 200, 8, 2, 5, none, 2},
		{"the checkpoint's header", 5, 0, 8, 2, 5, none, 2},
	} {
		for _, later := range []bool{false, true} {
			for _, settle := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/later=%v/settled=%v", tt.name, later, settle), func(t *testing.T) {
					d, offs := tornLog(t, settle, later)
					patch(t, d, offs[tt.part]+tt.off, make([]byte, tt.n))
					l := mustOpen(t, tinyOptions(d))
					want := tt.torn
					if later {
						want = tt.rot
					}
					if l.Size() != want || l.Head().Size != want {
						t.Fatalf("%d entries, head of %d, want %d", l.Size(), l.Head().Size, want)
					}
					for i := range want {
						_, err := l.ReadStored(nil, i)
						if later && int(i) == tt.unread {
							if !errors.Is(err, ErrDamaged) {
								t.Fatal(err)
							}
						} else if err != nil {
							t.Fatal(err)
						}
					}
					findings := 0
					for _, f := range l.Health().Damage {
						if f.File != l.indexPath("") {
							findings++
						}
					}
					if later && (findings == 0 || findings > tt.findings) || !later && findings != 0 {
						t.Fatalf("found %v", l.Health().Damage)
					}
					// Work goes on, and what was done is there.
					index := mustAppend(t, l, "more")
					mustCommit(t, l, "and")
					l = mustOpen(t, tinyOptions(d.Crash(1)))
					wantBlock(t, l, index, seal.Data, "more")
					mustClose(t, l)
				})
			}
		}
	}
}

// TestTailOfGarbage has what never was a frame at the end of the log.
func TestTailOfGarbage(t *testing.T) {
	for _, n := range []int{1, 7, 8, 100, 70_000} {
		d, offs := tornLog(t, false, false)
		patch(t, d, offs[6], randomBlock(n))
		l := mustOpen(t, tinyOptions(d))
		if l.Size() != 5 {
			t.Fatalf("%d bytes of garbage: %d entries", n, l.Size())
		}
		mustCommit(t, l, "five")
		mustClose(t, l)
		l = mustOpen(t, tinyOptions(d))
		wantBlock(t, l, 5, seal.Commit, "five")
		mustClose(t, l)
	}
}

// TestTruncatedTail cuts the tail at every byte.
func TestTruncatedTail(t *testing.T) {
	base, offs := tornLog(t, false, false)
	for size := int64(segmentHeader); size < offs[6]; size += 11 {
		d := base.Clone()
		f, err := d.Open("/log/seg/00000000")
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		l := mustOpen(t, tinyOptions(d))
		want := uint64(0)
		if size >= offs[2] {
			want = 2
		}
		// Within the last 7 bytes before an end, padding may be all that is cut.
		if l.Size() != want && !(size >= offs[2]-7 && size < offs[2] && l.Size() == 2) && !(size >= offs[6]-7 && l.Size() == 5) {
			t.Fatalf("cut to %d: %d entries, want %d", size, l.Size(), want)
		}
		mustCommit(t, l, "more")
		mustClose(t, l)
	}
}

// TestForeign opens what is not this log, and changes nothing.
func TestForeign(t *testing.T) {
	write := func(name string, b []byte) func(*crashfs.FS) error {
		return func(d *crashfs.FS) error { return d.WriteFile(name, b) }
	}
	for _, tt := range []struct {
		name   string
		change func(*crashfs.FS) error
		want   error
	}{
		{"nothing", func(d *crashfs.FS) error { return d.RemoveAll("/log") }, ErrForeign},
		{"no segments", func(d *crashfs.FS) error { return d.Remove("/log/seg/00000000") }, ErrForeign},
		{"a text", write("/log/seg/00000000", []byte("hello")), ErrForeign},
		{"a text and no index", func(d *crashfs.FS) error {
			return errors.Join(d.RemoveAll("/log/index"), d.WriteFile("/log/seg/00000000", bytes.Repeat([]byte("hello"), 100)))
		}, ErrForeign},
		{"another log", write("/log/seg/00000000", encodeSegmentHeader(0, 0, [32]byte{1})), ErrForeign},
		{"another segment", write("/log/seg/00000000", encodeSegmentHeader(1, 0, [32]byte{1})), ErrForeign},
		{"a truncated log", func(d *crashfs.FS) error {
			f, err := d.Open("/log/seg/00000000")
			if err != nil {
				return err
			}
			return f.Truncate(300)
		}, ErrForeign},
		{"a hole in the segments", write("/log/seg/00000002", []byte("hello")), ErrForeign},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, d := tinyLog(t)
			mustAppend(t, l, "a")
			mustCommit(t, l, "b")
			mustClose(t, l)
			if err := tt.change(d); err != nil {
				t.Fatal(err)
			}
			before := d.Dump()
			if _, err := OpenLog(tinyOptions(d)); !errors.Is(err, tt.want) {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			if d.Dump() != before {
				t.Fatalf("files were changed:\n%s\n%s", before, d.Dump())
			}
		})
	}
}

// TestModel does random things to a log and compares it with a map; a crash
// of the process is among them.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l, d := tinyLog(t)
		var now, durable [][]byte
		dropped := make(map[int]bool)
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				n := rapid.OneOf(rapid.IntRange(1, 200), rapid.IntRange(1, seal.MaxStored)).Draw(rt, "length")
				b := bytes.Repeat([]byte{rapid.Byte().Draw(rt, "byte")}, n)
				index, err := l.Append(b)
				if err != nil || index != uint64(len(now)) {
					rt.Fatal(index, err)
				}
				now = append(now, b)
			},
			"commit": func(rt *rapid.T) {
				b := bytes.Repeat([]byte{rapid.Byte().Draw(rt, "byte")}, 100)
				_, head, err := l.Commit(b, true)
				if err != nil {
					rt.Fatal(err)
				}
				now = append(now[:len(now):len(now)], b)
				durable = now
				if head.Size != uint64(len(now)) {
					rt.Fatal(head.Size)
				}
			},
			"drop": func(rt *rapid.T) {
				if len(durable) == 0 {
					rt.Skip("nothing to drop")
				}
				set := l.Dropped()
				for _, i := range rapid.SliceOf(rapid.IntRange(0, len(durable)-1)).Draw(rt, "set") {
					set.Add(uint64(i))
					dropped[i] = true
				}
				if err := l.Drop(context.Background(), set); err != nil {
					rt.Fatal(err)
				}
			},
			"reclaim": func(rt *rapid.T) {
				if _, err := l.Reclaim(context.Background(), 0); err != nil {
					rt.Fatal(err)
				}
			},
			"reopen": func(rt *rapid.T) {
				if err := l.Close(); err != nil {
					rt.Fatal(err)
				}
				l = mustOpen(t, tinyOptions(d))
				now = durable
			},
			"kill": func(rt *rapid.T) {
				d = d.Kill()
				l = mustOpen(t, tinyOptions(d))
				now = durable
			},
			"": func(rt *rapid.T) {
				if l.Size() != uint64(len(now)) || l.Head().Size != uint64(len(durable)) {
					rt.Fatalf("%d entries, head of %d; want %d, %d", l.Size(), l.Head().Size, len(now), len(durable))
				}
				for i, b := range now {
					got, err := l.ReadStored(nil, uint64(i))
					if dropped[i] != errors.Is(err, ErrDropped) || err == nil && !bytes.Equal(got, b) || err != nil && !dropped[i] {
						rt.Fatalf("block %d: %v", i, err)
					}
					if desc, err := l.Descriptor(uint64(i)); err != nil || desc != Describe(b) {
						rt.Fatalf("descriptor %d: %v", i, err)
					}
				}
			},
		})
		if err := l.Close(); err != nil {
			rt.Fatal(err)
		}
	})
}

func FuzzParseFrame(f *testing.F) {
	good := frame{typ: frameBlock, length: 3, index: 7, behind: 2}
	f.Add(good.appendTo(nil, []byte("abc")))
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, ok := parseFrame(b)
		if !ok {
			return
		}
		if fr.length > fr.typ.maxBody() {
			t.Fatalf("length %d", fr.length)
		}
		var again [frameHeader]byte
		fr.putHeader(again[:])
		if !bytes.Equal(again[:], b[:frameHeader]) {
			t.Fatal("encodes differently")
		}
	})
}

// FuzzRecovery opens a log whose only segment holds any bytes.
func FuzzRecovery(f *testing.F) {
	o := tinyOptions(crashfs.New(1))
	l, err := CreateLog(o)
	if err != nil {
		f.Fatal(err)
	}
	for range 3 {
		if _, err := l.Append(randomBlock(50)); err != nil {
			f.Fatal(err)
		}
		if _, _, err := l.Commit(randomBlock(40), true); err != nil {
			f.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
	b, err := o.FS.ReadFile("/log/seg/00000000")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)-100])
	f.Add(b[:segmentHeader])
	f.Add(append(b[:300:300], b[400:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := crashfs.New(1)
		if err := d.MkdirAll("/log/seg"); err != nil {
			t.Fatal(err)
		}
		if err := d.WriteFile("/log/seg/00000000", b); err != nil {
			t.Fatal(err)
		}
		l, err := OpenLog(tinyOptions(d))
		if err != nil {
			return
		}
		for i := range l.Size() {
			if stored, err := l.ReadStored(nil, i); err == nil && len(stored) == 0 {
				t.Fatal("an empty block")
			}
		}
		if err := l.Verify(context.Background(), func(Damage) {}, nil); err != nil {
			t.Fatal(err)
		}
		mustClose(t, l)
	})
}

func FuzzMark(f *testing.F) {
	s := NewSigner(testSeed(1))
	head, err := s.Sign(0, emptyRoot)
	if err != nil {
		f.Fatal(err)
	}
	m := mark{pos: position{0, segmentHeader}, head: head}
	f.Add(m.encode())
	v := NewVerifier(s.Public())
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeMark(b, v); err == nil && !bytes.Equal(m.encode(), b) {
			t.Fatal("encodes differently")
		}
	})
}
