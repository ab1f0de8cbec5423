package seal

import (
	"bytes"
	"crypto/sha3"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// random returns n incompressible bytes that depend on the name only.
func random(name string, n int) []byte {
	s := sha3.NewSHAKE128()
	_, _ = s.Write([]byte(name))
	out := make([]byte, n)
	_, _ = s.Read(out)
	return out
}

func testKey(epoch uint32) [32]byte {
	return [32]byte(random(fmt.Sprintf("read key %d", epoch), 32))
}

// testKeyring holds the given epochs, 0 if none are given.
func testKeyring(epochs ...uint32) *Keyring {
	k := NewKeyring()
	for _, e := range append([]uint32{}, epochs...) {
		k.Add(e, testKey(e))
	}
	if len(epochs) == 0 {
		k.Add(0, testKey(0))
	}
	return k
}

// plaintexts draws blocks whose pieces are raw, compressible or a mixture.
func plaintexts(t *rapid.T) []byte {
	var plain []byte
	for range rapid.IntRange(0, 6).Draw(t, "runs") {
		n := rapid.OneOf(
			rapid.SampledFrom([]int{1, PieceSize - 1, PieceSize, PieceSize + 1, 4 * PieceSize}),
			rapid.IntRange(0, 80<<10),
		).Draw(t, "length")
		switch rapid.IntRange(0, 2).Draw(t, "sort") {
		case 0:
			plain = append(plain, random(fmt.Sprint(n, len(plain)), n)...)
		case 1:
			plain = append(plain, make([]byte, n)...)
		default:
			r := rand.New(rand.NewPCG(uint64(n), 1))
			for range n {
				plain = append(plain, "etaoin shrdlu"[r.IntN(13)])
			}
		}
	}
	return plain[:min(len(plain), MaxPlain)]
}

func TestRoundTrip(t *testing.T) {
	k := testKeyring(0, 3)
	rapid.Check(t, func(t *rapid.T) {
		plain := plaintexts(t)
		kind := rapid.SampledFrom([]Kind{Data, Page, Commit}).Draw(t, "kind")
		prefix := []byte("prefix")
		sealed := must(k.Seal(prefix, kind, plain))
		stored := sealed[len(prefix):]
		if !bytes.HasPrefix(sealed, prefix) || len(stored) > MaxStored {
			t.Fatalf("sealed to %d bytes", len(stored))
		}
		if err := ValidateHeader(stored); err != nil {
			t.Fatal(err)
		}
		if e := must(BlockEpoch(stored[:6])); e != 3 {
			t.Fatalf("epoch %d", e)
		}
		got, err := k.Open(prefix, kind, stored)
		if err != nil || !bytes.Equal(got[len(prefix):], plain) || !bytes.HasPrefix(got, prefix) {
			t.Fatalf("opened %d of %d bytes: %v", len(got), len(plain), err)
		}

		off := rapid.IntRange(0, len(plain)).Draw(t, "off")
		n := rapid.IntRange(0, len(plain)-off).Draw(t, "n")
		dst := make([]byte, n, n+64)
		guard := random("guard", 64)
		copy(dst[n:n+64], guard)
		check := func(how string, err error) {
			if err != nil || !bytes.Equal(dst, plain[off:off+n]) || !bytes.Equal(dst[n:n+64], guard) {
				t.Fatalf("%s [%d,%d) of %d: %v", how, off, off+n, len(plain), err)
			}
			clear(dst)
		}
		check("OpenRange", k.OpenRange(dst, kind, stored, off))
		if span, ok := UniformSpan(len(stored), off, n); Uniform(stored) && n > 0 {
			if !ok {
				t.Fatalf("no span for [%d,%d) of %d", off, off+n, len(plain))
			}
			part := bytes.Clone(stored[span.Off:][:span.Len])
			check("OpenUniform", k.OpenUniform(dst, kind, len(stored), off, part))
		}
		if err := k.OpenRange(make([]byte, n+1), kind, stored, len(plain)-n); !errors.Is(err, ErrDamaged) {
			t.Fatalf("a range past the end: %v", err)
		}
	})
}

func TestDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := testKeyring(), testKeyring()
		plain, other := plaintexts(t), plaintexts(t)
		want := must(a.Seal(nil, Page, plain))
		must(b.Seal(nil, Data, other)) // what the codec saw before does not matter
		if got := must(b.Seal(random("dirt", 100), Page, plain)); !bytes.Equal(got[100:], want) {
			t.Fatal("equal plaintexts seal differently")
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	k := testKeyring()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			plain := append(random(fmt.Sprint(i), 20<<10), make([]byte, 30<<10)...)
			for e := range uint32(20) {
				k.Add(e, testKey(e))
				stored := must(k.Seal(nil, Data, plain))
				if got := must(k.Open(nil, Data, stored)); !bytes.Equal(got, plain) {
					t.Error("mixed up")
				}
			}
		})
	}
	wg.Wait()
}

// samples are one block of each shape.
func samples() map[string][]byte {
	return map[string][]byte{
		"empty":      nil,
		"tiny":       []byte("x"),
		"small":      random("small", 1000),
		"text":       bytes.Repeat([]byte("a line of text\n"), 100),
		"uniform":    random("uniform", 2*PieceSize+100),
		"exact":      random("exact", 2*PieceSize),
		"zeros":      make([]byte, 2*PieceSize+5),
		"mixed":      append(make([]byte, PieceSize), random("mixed", PieceSize+9)...),
		"tail zeros": append(random("tail", PieceSize), make([]byte, 900)...),
	}
}

func TestEveryByteMatters(t *testing.T) {
	k := testKeyring(0, 1)
	for name, plain := range samples() {
		stored := must(k.Seal(nil, Commit, plain))
		step := 1
		if len(stored) > 4<<10 {
			step = 61 // of the pieces; headers are short
		}
		for i := 0; i < len(stored); i++ {
			if i > 64 && i < len(stored)-64 {
				i += step - 1
			}
			bad := bytes.Clone(stored)
			bad[i] ^= byte(1 << (i % 8))
			if _, err := k.Open(nil, Commit, bad); !errors.Is(err, ErrDamaged) && !(errors.Is(err, ErrNoKey) && i < 5) {
				t.Fatalf("%s: byte %d of %d flipped: %v", name, i, len(stored), err)
			}
		}
		for _, n := range []int{0, 1, 5, 6, 8, 50, len(stored) - 1} {
			if _, err := k.Open(nil, Commit, stored[:n]); !errors.Is(err, ErrDamaged) {
				t.Fatalf("%s: cut to %d: %v", name, n, err)
			}
		}
		if _, err := k.Open(nil, Commit, append(stored, 0)); !errors.Is(err, ErrDamaged) {
			t.Fatalf("%s: one byte more: %v", name, err)
		}
	}
}

func TestKindAndEpochAreBound(t *testing.T) {
	k := testKeyring(7)
	plain := random("kind", 3*PieceSize)
	stored := must(k.Seal(nil, Data, plain))
	dst := make([]byte, PieceSize)
	span, _ := UniformSpan(len(stored), 0, len(dst))
	part := stored[span.Off:][:span.Len]
	for _, kind := range []Kind{Page, Commit} {
		_, err := k.Open(nil, kind, stored)
		for _, err := range []error{err, k.OpenRange(dst, kind, stored, 0), k.OpenUniform(dst, kind, len(stored), 0, part)} {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("opened as %v: %v", kind, err)
			}
		}
	}
	if err := k.OpenUniform(dst, Data, len(stored), PieceSize, part); !errors.Is(err, ErrDamaged) {
		t.Errorf("piece 0 opened as piece 1: %v", err)
	}

	stranger := testKeyring(6)
	if _, err := stranger.Open(nil, Data, stored); !errors.Is(err, ErrNoKey) {
		t.Errorf("unknown epoch: %v", err)
	}
	if err := NewKeyring().OpenUniform(dst, Data, len(stored), 0, part); !errors.Is(err, ErrNoKey) {
		t.Errorf("no keys: %v", err)
	}
	stranger.Add(9, testKey(9))
	stranger.Add(7, testKey(7))
	if err := stranger.OpenUniform(dst, Data, len(stored), 0, part); err != nil || !bytes.Equal(dst, plain[:PieceSize]) {
		t.Errorf("an older epoch: %v", err)
	}
	if e := must(BlockEpoch(must(stranger.Seal(nil, Data, plain)))); e != 9 {
		t.Errorf("sealed under epoch %d", e)
	}
	stranger.Add(7, testKey(8))
	if _, err := stranger.Open(nil, Data, stored); !errors.Is(err, ErrDamaged) {
		t.Errorf("another key of the epoch: %v", err)
	}
}

func TestSealRefuses(t *testing.T) {
	k := testKeyring()
	if _, err := k.Seal(nil, Data, make([]byte, MaxPlain+1)); err == nil {
		t.Error("sealed a block that is too long")
	}
	if _, err := k.Seal(nil, 4, nil); err == nil {
		t.Error("sealed an unknown kind")
	}
	if _, err := k.Open(nil, 0, must(k.Seal(nil, Data, nil))); err == nil {
		t.Error("opened an unknown kind")
	}
	if _, err := NewKeyring().Seal(nil, Data, nil); !errors.Is(err, ErrNoKey) {
		t.Error("sealed without a key")
	}
	if NewKeyring().Chunker() != nil {
		t.Error("a chunker without a secret")
	}
}

// sealBodies seals hand-made bodies: what a faulty or hostile holder of the
// key could write.
func sealBodies(k *Keyring, bodies ...[]byte) []byte {
	key := (*k.keys.Load())[0]
	s := key.sealers.Get().(*sealer)
	stored := []byte{version, 0, 0, 0, 0, byte(len(bodies))}
	for _, b := range bodies {
		stored = binary.BigEndian.AppendUint16(stored, uint16(len(b)+overhead))
	}
	for i, b := range bodies {
		place := byte(i)
		if i == len(bodies)-1 {
			place |= lastMarker
		}
		pos := len(stored)
		stored = append(stored, make([]byte, len(b)+overhead)...)
		if err := s.seal(key.aead, stored[pos:], b, Data, place); err != nil {
			panic(err)
		}
	}
	return stored
}

// lastBody is a body whose block of one piece is a Padmé length.
func lastBody(payload []byte, pad byte, trailer uint16) []byte {
	size := padme(headerSize(1)+overhead+len(payload)+trailerSize) - headerSize(1) - overhead
	b := append(bytes.Clone(payload), bytes.Repeat([]byte{pad}, size-len(payload)-trailerSize)...)
	return binary.BigEndian.AppendUint16(b, trailer)
}

func TestHostileBodies(t *testing.T) {
	k := testKeyring()
	bomb := encoder().EncodeAll(make([]byte, PieceSize+1), nil)
	good := encoder().EncodeAll(make([]byte, PieceSize), nil)
	fit := func(bodies ...[]byte) []byte { // pads the last body
		size := headerSize(len(bodies))
		for _, b := range bodies {
			size += overhead + len(b)
		}
		last := bodies[len(bodies)-1]
		trailer := last[len(last)-2:]
		pad := make([]byte, padme(size)-size)
		bodies[len(bodies)-1] = append(append(bytes.Clone(last[:len(last)-2]), pad...), trailer...)
		return sealBodies(k, bodies...)
	}
	ok := fit(good, lastBody([]byte("hi"), 0, 2))
	if _, err := k.Open(nil, Data, ok); err != nil {
		t.Fatalf("the control: %v", err)
	}
	for name, stored := range map[string][]byte{
		"payload longer than body": sealBodies(k, lastBody(random("a", 100), 0, 9999)),
		"payload over 16 KiB":      sealBodies(k, lastBody(random("a", PieceSize+1), 0, PieceSize+1)),
		"padding not zero":         sealBodies(k, lastBody(random("a", 200), 1, 200)),
		"last is a bomb":           sealBodies(k, lastBody(bomb, 0, uint16(len(bomb))|codecZstd)),
		"last is no zstd":          sealBodies(k, lastBody(random("z", 100), 0, 100|codecZstd)),
		"last of two is empty":     fit(good, []byte{0, 0}),
		"middle is a bomb":         fit(bomb, lastBody([]byte("hi"), 0, 2)),
		"middle is short":          fit(encoder().EncodeAll(make([]byte, PieceSize-1), nil), lastBody([]byte("hi"), 0, 2)),
		"middle is no zstd":        fit(random("z", 100), lastBody([]byte("hi"), 0, 2)),
	} {
		if err := ValidateHeader(stored); err != nil {
			t.Errorf("%s: not the intended damage: %v", name, err)
		}
		if _, err := k.Open(nil, Data, stored); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCompressionPaysOff(t *testing.T) {
	k := testKeyring()
	for name, tc := range map[string]struct {
		plain []byte
		most  int
	}{
		"zeros":  {make([]byte, MaxPlain), 2 << 10},
		"text":   {bytes.Repeat([]byte("a line of text\n"), 4000), 4 << 10},
		"random": {random("r", 4*PieceSize), 67584},
	} {
		if n := len(must(k.Seal(nil, Data, tc.plain))); n > tc.most {
			t.Errorf("%s: %d bytes stored as %d, want at most %d", name, len(tc.plain), n, tc.most)
		}
	}
	if compressible(random("r", PieceSize)) {
		t.Error("random data seem compressible")
	}
}

func TestAllocations(t *testing.T) {
	k := testKeyring()
	plain := random("alloc", 4*PieceSize)
	stored := must(k.Seal(nil, Data, plain))
	buf := make([]byte, 0, MaxStored)
	// Per piece: the AES key schedule and the GCM made from it, which the
	// standard library does not let one keep.
	const most = 4 * 2
	if n := testing.AllocsPerRun(50, func() { buf = must(k.Seal(buf[:0], Data, plain)) }); n > most+1 {
		t.Errorf("Seal allocates %v times", n)
	}
	if n := testing.AllocsPerRun(50, func() { buf = must(k.Open(buf[:0], Data, stored)) }); n > most+1 {
		t.Errorf("Open allocates %v times", n)
	}
}

// One nonce for two inputs of GCM, the additional data included, would give
// its authentication key away.
func TestNoncesDifferWithContext(t *testing.T) {
	k := testKeyring()
	piece := random("nonce", PieceSize)
	plain := slices.Concat(piece, piece, piece)
	seen := map[[nonceSize]byte]string{}
	for _, kind := range []Kind{Data, Page, Commit} {
		stored := must(k.Seal(nil, kind, plain))
		l := must(parse(stored))
		for i := range l.n {
			nonce := [nonceSize]byte(stored[l.at[i]:])
			name := fmt.Sprint(kind, " piece ", i)
			if other, ok := seen[nonce]; ok {
				t.Errorf("%s and %s have one nonce", name, other)
			}
			seen[nonce] = name
		}
	}
}
