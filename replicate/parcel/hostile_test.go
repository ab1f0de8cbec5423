package parcel

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/zeebo/blake3"
	"pgregory.net/rapid"

	"hearth/log/wire"
)

// raw encodes an entry without asking whether it is allowed.
func raw(k kind, delta uint64, name string, mode uint16, size uint64, target string) []byte {
	w := wire.Writer{}
	w.U8(uint8(k))
	w.Uvarint(delta)
	w.String(name)
	w.U16(mode)
	w.Varint(1)
	w.Uvarint(1)
	if k == kindFile {
		w.Uvarint(size)
	}
	if k == kindLink {
		w.String(target)
	}
	return w.B
}

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func file(name string, size uint64) []byte { return raw(kindFile, 0, name, 0o644, size, "") }
func folder(name string) []byte            { return raw(kindDir, 0, name, 0o755, 0, "") }

func offerOf(files, dirs, links int, bytes int64, tops ...Top) Offer {
	return Offer{ID: ID{1}, Name: "evil", Files: files, Dirs: dirs, Links: links, Bytes: bytes, Tops: tops, TopCount: len(tops)}
}

func small(i uint64, data string) []byte {
	w := wire.Writer{}
	w.Uvarint(i)
	h := blake3.Sum256([]byte(data))
	w.Raw(h[:])
	w.String(data)
	return w.B
}

func begin(i, offset uint64, size int64) []byte {
	w := wire.Writer{}
	w.Uvarint(i)
	w.Uvarint(offset)
	encodeMeta(&w, meta{size: size, sec: 1, nsec: 1, mode: 0o644})
	return w.B
}

type message struct {
	typ  uint8
	body []byte
}

func TestHostileSender(t *testing.T) {
	one := offerOf(1, 0, 0, 5, Top{"f", false, 1, 5})
	two := offerOf(1, 1, 0, 5, Top{"d", true, 1, 5})
	huge := offerOf(1, 0, 0, 200<<10, Top{"f", false, 1, 200 << 10})
	link := offerOf(0, 1, 1, 0, Top{"d", true, 0, 0})
	child := func(k kind, name, target string) []byte {
		return cat(folder("d"), raw(k, 1, name, 0o644, 5, target))
	}
	for _, c := range []struct {
		what     string
		offer    Offer
		manifest []byte
		steps    []message
	}{
		{"dot dot", one, file("..", 5), nil},
		{"dot", one, file(".", 5), nil},
		{"empty name", one, file("", 5), nil},
		{"slash", one, file("a/b", 5), nil},
		{"absolute", one, file("/etc/x", 5), nil},
		{"nul", one, file("a\x00b", 5), nil},
		{"long name", one, file(strings.Repeat("a", 256), 5), nil},
		{"reserved name", one, file(partialName(ID{2}), 5), nil},
		{"other name", one, file("g", 5), nil},
		{"other size", one, file("f", 6), nil},
		{"setuid", one, raw(kindFile, 0, "f", 0o4755, 5, ""), nil},
		{"unknown kind", one, raw(7, 0, "f", 0o644, 5, ""), nil},
		{"top-level link", offerOf(0, 0, 1, 0), raw(kindLink, 0, "l", 0o777, 0, "x"), nil},
		{"link up", link, child(kindLink, "l", "../x"), nil},
		{"absolute link", link, child(kindLink, "l", "/etc"), nil},
		{"link through a link", link, child(kindLink, "l", "x/../../.."), nil},
		{"empty link", link, child(kindLink, "l", ""), nil},
		{"nested dot dot", two, child(kindFile, "..", ""), nil},
		{"parent is a file", offerOf(2, 0, 0, 10, Top{"f", false, 1, 5}), cat(file("f", 5), raw(kindFile, 1, "g", 0o644, 5, "")), nil},
		{"parent is itself", one, raw(kindFile, 1, "f", 0o644, 5, ""), nil},
		{"parent out of range", one, raw(kindFile, 1<<40, "f", 0o644, 5, ""), nil},
		{"same name twice", offerOf(2, 0, 0, 10, Top{"f", false, 1, 5}, Top{"f", false, 1, 5}), cat(file("f", 5), file("f", 5)), nil},
		{"link and folder of one name", offerOf(0, 2, 1, 0, Top{"d", true, 0, 0}),
			cat(folder("d"), raw(kindLink, 1, "x", 0o777, 0, "y"), raw(kindDir, 0, "x", 0o755, 0, "")), nil},
		{"out of order", offerOf(2, 0, 0, 10, Top{"g", false, 1, 5}, Top{"f", false, 1, 5}), cat(file("g", 5), file("f", 5)), nil},
		{"more entries than offered", one, cat(file("f", 5), file("g", 5)), nil},
		{"fewer entries than offered", offerOf(2, 0, 0, 5, Top{"f", false, 2, 5}), file("f", 5), nil},
		{"sizes that overflow", one, file("f", 1<<63-1), nil},
		{"torn entry", one, file("f", 5)[:6], nil},
		{"large batch entry", one, file("f", 5), []message{{msgBatch, small(0, "123456")}}},
		{"file twice", one, file("f", 5), []message{{msgBatch, cat(small(0, "12345"), small(0, "12345"))}}},
		{"folder as a file", two, child(kindFile, "f", ""), []message{{msgBatch, small(0, "12345")}}},
		{"index out of range", one, file("f", 5), []message{{msgBatch, small(9, "12345")}}},
		{"end without files", one, file("f", 5), []message{{msgEnd, nil}}},
		{"data without file", one, file("f", 5), []message{{msgData, []byte("x")}}},
		{"too much data", huge, file("f", 200<<10), []message{{msgFile, begin(0, 0, 200<<10)}, {msgData, make([]byte, 200<<10+1)}}},
		{"too little data", huge, file("f", 200<<10), []message{{msgFile, begin(0, 0, 200<<10)}, {msgFileEnd, make([]byte, 32)}}},
		{"offset that is not there", huge, file("f", 200<<10), []message{{msgFile, begin(0, 100, 200<<10)}}},
		{"grown beyond the offer", huge, file("f", 200<<10), []message{{msgFile, begin(0, 0, 1<<30)}}},
		{"two files at once", huge, file("f", 200<<10), []message{{msgFile, begin(0, 0, 200<<10)}, {msgFile, begin(0, 0, 200<<10)}}},
		{"changed file that is none", one, file("f", 5), []message{{msgChanged, []byte{0, 0}}}},
		{"wrong hash for ever", one, file("f", 5), []message{{msgBatch, wrong()}, {msgEnd, nil}, {msgBatch, wrong()}, {msgEnd, nil},
			{msgBatch, wrong()}, {msgEnd, nil}, {msgBatch, wrong()}, {msgEnd, nil}}},
		{"unknown message", one, file("f", 5), []message{{14, nil}}},
		{"offer again", one, file("f", 5), []message{{msgOffer, nil}}},
	} {
		t.Run(c.what, func(t *testing.T) {
			dst := tempDir(t)
			err := hostile(t, dst, c.offer, c.manifest, c.steps)
			if !errors.Is(err, ErrProtocol) {
				t.Fatal(err)
			}
			for _, n := range names(t, dst) {
				if n != partialName(ID{1}) {
					t.Fatalf("placed %q", n)
				}
			}
			if c.steps == nil && len(names(t, dst)) > 0 {
				t.Fatal("something was written for a bad manifest")
			}
		})
	}
}

func wrong() []byte {
	b := small(0, "12345")
	b[5] ^= 1
	return b
}

// hostile plays a sender and returns what Receive made of it.
func hostile(t *testing.T, dst string, o Offer, manifest []byte, steps []message) error {
	t.Helper()
	a, b := loopback(t)
	result := make(chan error, 1)
	go func() {
		_, err := Receive(context.Background(), b, ReceiveOptions{Dir: dst, Decide: yes})
		result <- err
	}()
	c := newConn(context.Background(), a, 0)
	say := func(typ uint8, body []byte) error {
		return c.write(typ, append(make([]byte, headerLen), body...))
	}
	err := c.preface()
	if err == nil {
		err = c.send(msgOffer, func(w *wire.Writer) { encodeOffer(w, o) })
	}
	if err == nil {
		_, err = c.recv()
	}
	if err == nil {
		err = say(msgManifest, manifest)
	}
	if err == nil {
		h := blake3.Sum256(manifest)
		err = say(msgManifestEnd, h[:])
	}
	if err == nil {
		_, err = c.recv()
	}
	for _, s := range steps {
		if err == nil {
			if err = say(s.typ, s.body); err == nil && s.typ == msgEnd {
				_, err = c.recv()
			}
		}
	}
	for err == nil { // until the receiver says what it thinks of it
		_, err = c.recv()
	}
	c.end(err, false)
	return <-result
}

// The manifest never ends: it is cut off at what was offered, in memory that
// the offer bounds.
func TestEndlessManifest(t *testing.T) {
	dst := tempDir(t)
	m := &manifest{}
	chunk := []byte{}
	for i := range 4000 {
		chunk = append(chunk, file(strings.Repeat("a", 100)+string(rune('A'+i/1000))+string([]byte{byte('0' + i/100%10), byte('0' + i/10%10), byte('0' + i%10)}), 1)...)
	}
	if err := m.decode(chunk, 100); !errors.Is(err, ErrProtocol) || len(m.entries) > 100 {
		t.Fatal(err, len(m.entries))
	}
	m = &manifest{encoded: MaxManifest}
	if err := m.decode(chunk, 1<<20); !errors.Is(err, ErrProtocol) || len(m.entries) > 0 {
		t.Fatal(err)
	}
	if err := hostile(t, dst, offerOf(1, 0, 0, 5, Top{"f", false, 1, 5}), chunk, nil); !errors.Is(err, ErrProtocol) {
		t.Fatal(err)
	}
}

func TestOtherVersion(t *testing.T) {
	a, b := loopback(t)
	go a.Write(append([]byte(magic), 2))
	_, err := Receive(context.Background(), b, ReceiveOptions{Dir: tempDir(t), Decide: yes})
	if !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), "version 2") {
		t.Fatal(err)
	}
}

func TestTooDeep(t *testing.T) {
	m := &manifest{}
	for i := range MaxDepth {
		if err := m.add(entry{name: "d", parent: uint32(i), kind: kindDir}, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.add(entry{name: "d", parent: MaxDepth, kind: kindDir}, ""); err == nil {
		t.Fatal("too deep, and taken")
	}
}

func TestCheckTarget(t *testing.T) {
	for _, c := range []struct {
		target string
		up     int
		ok     bool
	}{
		{"a", 0, true}, {".", 0, true}, {"a/b/c", 0, true}, {"./a", 0, true}, {"..", 1, true}, {"../..", 2, true}, {"a//b/", 0, true},
		{"..", 0, false}, {"../..", 1, false}, {"", 3, false}, {"/", 3, false}, {"a/..", 3, false}, {"./../a", 1, true}, {"a\x00", 0, false},
		{strings.Repeat("a", MaxTarget+1), 0, false},
	} {
		if err := checkTarget(c.target, c.up); (err == nil) != c.ok {
			t.Errorf("%.20q %d: %v", c.target, c.up, err)
		}
	}
}

// What a decoder takes, the encoder gives back.
func FuzzManifest(f *testing.F) {
	f.Add(cat(folder("d"), file("f", 5), raw(kindLink, 1, "l", 0o777, 0, "x")))
	f.Add(file("..", 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &manifest{}
		if err := m.decode(b, 1000); err != nil {
			if !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrTooLarge) {
				t.Fatal(err)
			}
			return
		}
		again := &manifest{}
		w := &wire.Writer{}
		m.lastParent = 0
		for i := range m.entries {
			m.encode(w, i)
		}
		if err := again.decode(w.B, 1000); err != nil || len(again.entries) != len(m.entries) || again.bytes != m.bytes {
			t.Fatal(err)
		}
		for i := range m.entries {
			if again.entries[i] != m.entries[i] || strings.Contains("/"+m.path(uint32(i))+"/", "/../") {
				t.Fatal(i)
			}
		}
		m.offer()
	})
}

func FuzzMessages(f *testing.F) {
	w := &wire.Writer{}
	encodeOffer(w, offerOf(1, 1, 0, 5, Top{"d", true, 1, 5}))
	f.Add(w.B)
	f.Add(small(1, "12345"))
	f.Add(begin(1, 0, 5))
	f.Add([]byte{1, 2, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &manifest{}
		if err := m.decode(cat(folder("d"), file("f", 5), raw(kindFile, 1, "g", 0o644, 9, "")), 10); err != nil {
			t.Fatal(err)
		}
		check := func(err error) {
			if err != nil && !errors.Is(err, ErrProtocol) {
				t.Fatal(err)
			}
		}
		o, err := decodeOffer(b)
		check(err)
		if err == nil {
			w := &wire.Writer{}
			encodeOffer(w, o)
			if p, err := decodeOffer(w.B); err != nil || p.Bytes != o.Bytes || len(p.Tops) != len(o.Tops) {
				t.Fatal(err)
			}
		}
		_, err = decodeFile(b, m)
		check(err)
		items, err := decodeBatch(b, m, nil)
		check(err)
		if err == nil && len(items) > len(b)/34 {
			t.Fatal(len(items))
		}
		_, _, err = decodeChanged(b, m)
		check(err)
		next, n := uint64(0), 0
		runs, err := decodeHave(b, m, &next)
		check(err)
		if err == nil && len(runs) > len(m.entries) {
			t.Fatal(runs)
		}
		_, _, err = decodeAgain(b, m)
		check(err)
		_, err = decodeRefusal(b)
		check(err)
		_, err = decodePlaced(b, m, &n, nil)
		check(err)
		_, _, err = decodeDone(b, m)
		check(err)
	})
}

func FuzzJournal(f *testing.F) {
	b := headerRecord(header{id: ID{1}, from: "Ann", files: 2, bytes: 9})
	b = append(b, prefixRecord(1, step, [32]byte{1})...)
	f.Add(finishedRecord(b, 1, [32]byte{2}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, valid, err := parseJournal(b)
		if err != nil {
			if !errors.Is(err, errJournal) {
				t.Fatal(err)
			}
			return
		}
		q, again, err := parseJournal(b[:valid])
		if err != nil || again != valid || len(q.finished) != len(p.finished) {
			t.Fatal(err, again, valid)
		}
	})
}

// Any cut of a journal is the journal of an earlier moment.
func TestTornJournal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := headerRecord(header{id: ID{1}})
		start := len(b)
		for i := range rapid.IntRange(0, 20).Draw(t, "records") {
			b = finishedRecord(b, uint32(i), [32]byte{byte(i)})
		}
		n := rapid.IntRange(0, len(b)).Draw(t, "cut")
		p, valid, err := parseJournal(b[:n])
		if n < start {
			if err == nil {
				t.Fatal("no header, and read")
			}
			return
		}
		if err != nil || valid > n || len(p.finished) != (valid-start)/43 || n-valid >= 43 {
			t.Fatal(err, valid, n)
		}
	})
}
