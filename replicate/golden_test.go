package replicate

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hearth/fs"
	"hearth/log"
	sealed "hearth/log/seal"
	"hearth/replicate/peer"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/zeebo/blake3"
)

var update = flag.Bool("update", false, "rewrite the transcript in testdata/protocol; released messages must not change")

var transcriptPath = filepath.Join("..", "testdata", "protocol", "v1", "transcript.txt")

// typeNames are all message types of the protocol.
var typeNames = map[messageType]string{
	msgOffer: "OFFER", msgName: "NAME", msgHead: "HEAD", msgHolds: "HOLDS", msgEpoch: "EPOCH", msgPeers: "PEERS", msgAlive: "ALIVE", msgWalks: "WALKS",
	msgInfo: "INFO", msgProve: "PROVE", msgGet: "GET", msgWalk: "WALK", msgProbe: "PROBE", msgHave: "HAVE", msgBoxes: "BOXES",
	msgGenesis: "GENESIS", msgProof: "PROOF", msgTile: "TILE", msgBlock: "BLOCK", msgControl: "CONTROL",
	msgGone: "GONE", msgEnd: "END", msgHeld: "HELD", msgHas: "HAS", msgBox: "BOX",
}

const transcriptHead = `# A conversation of two devices, as docs/protocol.md describes it: what each
# writes to each stream, in the order in which it can be written. A line is the
# stream, who writes, the type of the message, and its bytes in hex, all of them.
# OPEN is the first byte of a stream.
#
# The device keys are those of the Ed25519 seeds of 32 bytes 1 (the reader, which
# dials) and 32 bytes 2 (the author). The tokens are for 32 bytes 3 as what was
# exported from TLS; those that stand for nothing are the SHA-256 of one byte,
# 1 to 15. The hold secret of the drive is
#
#	%x
`

// line is one message of a transcript, or the first byte of a stream.
type line struct {
	stream, from, name string
	bytes              []byte
}

type transcript []line

func (tr *transcript) add(stream, from string, b []byte) {
	for len(b) > 0 {
		n := 4 + int(b[0])<<24 + int(b[1])<<16 + int(b[2])<<8 + int(b[3])
		name := typeNames[messageType(b[4])]
		if name == "" {
			name = fmt.Sprint("TYPE-", b[4])
		}
		*tr = append(*tr, line{stream, from, name, bytes.Clone(b[:n])})
		b = b[n:]
	}
}

func (tr *transcript) open(stream, from string, kind byte) {
	*tr = append(*tr, line{stream, from, "OPEN", []byte{kind}})
}

// fixed is a source of bytes that are no secret.
type fixed struct{ n byte }

func (f *fixed) Read(p []byte) (int, error) {
	for i := range p {
		sum := sha256.Sum256([]byte{f.n, byte(i), byte(i >> 8)})
		p[i] = sum[0]
	}
	f.n++
	return len(p), nil
}

// seed32 returns 32 bytes that are all b.
func seed32(b byte) (s [32]byte) {
	for i := range s {
		s[i] = b
	}
	return s
}

// speaker is a device that answers without a network.
func speaker(t *testing.T, seed byte) *session {
	t.Helper()
	key := seed32(seed)
	n, err := New(Options{Key: ed25519.NewKeyFromSeed(key[:]), Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	other := seed32(3 - seed)
	there := ed25519.NewKeyFromSeed(other[:]).Public().(ed25519.PublicKey)
	return &session{node: n, conn: &peer.Conn{}, other: peer.Key(there), ctx: t.Context(), drives: map[log.DriveID]bool{}}
}

func (s *session) shareOf(store *log.Store, tracer Tracer) {
	s.node.Add(store, tracer, false)
	s.drives[store.DriveID()] = true
	s.proved = map[log.DriveID]peer.Secret{store.DriveID(): store.HoldSecret()}
}

// say answers a request, and returns the bytes.
func (s *session) say(t *testing.T, q *request) []byte {
	t.Helper()
	a := &answering{s: s, out: make(chan []byte), spare: make(chan []byte, sendAhead+1), failed: make(chan error, 1), sent: map[log.TileRef]bool{}}
	for range sendAhead {
		a.spare <- nil
	}
	var all []byte
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := range a.out {
			all = append(all, b...)
			a.spare <- b[:0]
		}
	}()
	code, err := a.one(q)
	if err == nil {
		a.begin(msgEnd)
		a.w.U8(code)
		err = a.send(true)
	}
	close(a.out)
	<-done
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// traced says that a walk reads the given blocks.
type traced []log.Ref

func (tr traced) Trace(_ context.Context, _ fs.Walk, visit func(log.Ref) bool) error {
	for _, r := range tr {
		visit(r)
	}
	return nil
}

// token is computed as docs/protocol.md says.
func token(role byte, dialer, listener [32]byte, store *log.Store) []byte {
	hold, exported, id := store.HoldSecret(), seed32(3), store.DriveID()
	mac := hmac.New(sha256.New, hold[:])
	for _, b := range [][]byte{[]byte("hearth/1 token\x00"), exported[:], {role}, dialer[:], listener[:], id[:]} {
		mac.Write(b)
	}
	return mac.Sum(nil)
}

func offer(token []byte) []byte {
	tokens := [][32]byte{[32]byte(token)}
	for i := range byte(peer.TokenStep - 1) {
		tokens = append(tokens, sha256.Sum256([]byte{i + 1}))
	}
	slices.SortFunc(tokens, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	return encodeOffer(tokens)
}

// converse has two devices say everything once.
func converse(t *testing.T) (*log.Store, transcript) {
	store, err := log.CreateStore(log.StoreOptions{
		Dir: filepath.Join(t.TempDir(), "a"), Logger: slog.New(slog.DiscardHandler), Machine: "m", Random: &fixed{}, Inline: true,
		Now: func() time.Time { return time.Unix(1_700_000_000, 0).UTC() },
	}, "films")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	own := store.Own()
	block := func(kind sealed.Kind, text string) []byte {
		b, err := store.Keys().Seal(nil, kind, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	grow := func(blocks int) {
		for i := range blocks {
			if _, err := own.Append(block(sealed.Data, fmt.Sprintf("block %d of %d", i, own.Size()))); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := own.Commit(block(sealed.Commit, fmt.Sprint("commit ", own.Size())), true); err != nil {
			t.Fatal(err)
		}
	}
	grow(260)

	reader, author := speaker(t, 1), speaker(t, 2)
	author.shareOf(store, traced{{Writer: 0, Index: 5}, {Writer: 0, Index: 261}})
	dialer, listener := reader.node.Key(), author.node.Key()
	name := logName{store.DriveID(), 0}

	var tr transcript
	tr.open("control", "reader", streamControl)
	tr.add("control", "reader", offer(token(1, dialer, listener, store)))
	tr.add("control", "author", offer(token(2, dialer, listener, store)))
	tr.add("control", "reader", (&profile{name: "reader", beacon: seed32(4)}).encode())
	tr.add("control", "author", (&profile{name: "author", beacon: seed32(5)}).encode())
	first := own.Head()
	tell := func(from string, l *log.Log) {
		tr.add("control", from, (&holds{log: name, ranges: heldRanges(l, 0, maxHoldsRanges)}).encode())
	}
	tr.add("control", "author", (&walking{drive: name.drive, yes: true}).encode())
	tell("author", own)
	tr.add("control", "author", headNews(name, own, first, 0).encode())
	tr.add("control", "reader", encodeAlive())

	tr.open("request", "reader", streamRequest)
	ask := func(q request) {
		tr.add("request", "reader", q.encode())
		tr.add("request", "author", author.say(t, &q))
	}
	ask(request{typ: msgInfo, log: logName{drive: name.drive}})
	ask(request{typ: msgProve, log: name})
	ask(request{typ: msgGet, log: name, tiles: []log.TileRef{{Level: 0, N: 0}}, ranges: []span{{0, 3}, {259, 2}, {400, 2}}})
	ask(request{typ: msgWalk, log: name, walk: fs.Walk{
		Commit: log.Ref{Writer: 0, Index: first.Size - 1}, Op: fs.WalkPath, Name: "a/b", Off: 4096, Len: 65536,
	}})
	ask(request{typ: msgGet, log: logName{name.drive, 9}, ranges: []span{{0, 1}}})

	// A new version, which drops blocks; the reader follows.
	if _, err := store.AppendControl(&log.Dropped{Writer: 0, Set: roaring64.BitmapOf(2)}); err != nil {
		t.Fatal(err)
	}
	grow(3)
	tr.add("control", "author", headNews(name, own, own.Head(), first.Size).encode())
	ask(request{typ: msgGet, log: name, ranges: []span{{first.Size, 1}}})
	ask(request{typ: msgProve, log: name, known: 100})

	// The author audits the reader, whose answers are those of a replica. It also
	// wants to know what is where, and to rely on it for two whole entries.
	replica := accept(t, tr)
	reader.shareOf(replica, nil)
	tell("reader", replica.Logs()[0])
	all := func(index uint64) slice {
		c, ok := wholly(own, index)
		if !ok {
			t.Fatalf("entry %d is not here", index)
		}
		return c
	}
	tr.open("proofs", "author", streamRequest)
	for _, q := range []request{
		{typ: msgProbe, log: name, nonce: seed32(6), slices: []slice{{0, 3, 20}, {1, 0, 30}, {7, 1, 2}, {259, 10, 25}}},
		{typ: msgHave, log: name, ranges: []span{{0, 10}, {255, 12}}},
		{typ: msgProbe, log: name, nonce: seed32(7), slices: []slice{all(4), all(5), all(259)}},
	} {
		tr.add("proofs", "author", q.encode())
		tr.add("proofs", "reader", reader.say(t, &q))
	}

	// Each says where others are that share the drive.
	tr.add("control", "reader", (&introduction{drive: name.drive, open: true}).encode())
	tr.add("control", "author", (&introduction{drive: name.drive, open: true, devices: []located{
		{seed32(9), netip.MustParseAddrPort("192.0.2.7:29443")}, {seed32(10), netip.MustParseAddrPort("[2001:db8::7]:29443")},
	}}).encode())

	// A link is revoked. The box and the statement are examples: what seals and
	// signs them is package log's, and has vectors of its own.
	encoded := func(c log.Control) []byte {
		b, err := log.EncodeControl(c)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	begun := epochNews{entry: encoded(&log.EpochBegun{Epoch: 1})}
	copy(begun.token[:], token(2, dialer, listener, store))
	tr.add("control", "author", begun.encode())
	boxes := request{typ: msgBoxes, log: logName{drive: name.drive}, recipient: seed32(8)}
	tr.add("boxes", "reader", boxes.encode())
	box := newMessage(nil, msgBox)
	box.Raw(encoded(&log.KeyBox{Epoch: 1, Kind: log.RecipientLink, Recipient: seed32(8)}))
	tr.add("boxes", "author", seal(&box))
	end := newMessage(nil, msgEnd)
	end.U8(endOK)
	tr.add("boxes", "author", seal(&end))
	return store, tr
}

// accept has a reader take in what the author says in a transcript.
func accept(t *testing.T, tr transcript) *log.Store {
	t.Helper()
	var store *log.Store
	s := speaker(t, 1)
	for _, m := range tr {
		if m.name == "OPEN" || m.from != "author" {
			continue
		}
		var buf []byte
		got, err := readMessage(bytes.NewReader(m.bytes), &buf)
		if err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		var proof *log.HeadProof
		switch m.stream {
		case "control":
			if got.typ != msgHead {
				continue
			}
			h, err := decodeNews(got.body)
			if err != nil {
				t.Fatal(err)
			}
			if proof = &h.proof; len(proof.Leaves) == 0 {
				continue // it only tells
			}
		case "request":
			p, err := decodePart(got)
			switch {
			case err != nil:
				t.Fatalf("%s: %v", m.name, err)
			case got.typ == msgGenesis:
				_, c, err := log.ParseEntry(p.bytes)
				if err != nil {
					t.Fatal(err)
				}
				if store, err = log.JoinStore(log.StoreOptions{Dir: filepath.Join(t.TempDir(), "r"), Machine: "m", Inline: true, Logger: slog.New(slog.DiscardHandler)},
					log.Joined{Genesis: c.(*log.Genesis), Name: "films"}); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = store.Close() })
				s.shareOf(store, nil)
				continue
			case got.typ == msgProof:
				proof = &p.proof
			case got.typ == msgEnd:
				continue
			default:
				if err := s.take(logName{store.DriveID(), 0}, store.Logs()[0], p); err != nil {
					t.Fatalf("%s: %v", m.name, err)
				}
				continue
			}
		default:
			continue
		}
		l := store.Logs()[0]
		before := l.Head().Size
		if _, err := store.Advance(l, *proof); err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		if after := l.Head().Size; after < before || after == 0 {
			t.Fatalf("the head went from %d to %d entries", before, after)
		}
	}
	return store
}

// What is written in testdata/protocol is what the devices say, and what they
// understand.
func TestTranscript(t *testing.T) {
	store, tr := converse(t)
	var b strings.Builder
	fmt.Fprintf(&b, transcriptHead, store.HoldSecret())
	for i, m := range tr {
		if i == 0 || tr[i-1].from != m.from || tr[i-1].stream != m.stream {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s %s %s %x\n", m.stream, m.from, m.name, m.bytes)
	}
	if *update {
		if err := os.MkdirAll(filepath.Dir(transcriptPath), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(transcriptPath, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(transcriptPath)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		had := strings.Split(string(want), "\n")
		for i, got := range strings.Split(b.String(), "\n") {
			if i >= len(had) || had[i] != got {
				t.Fatalf("line %d differs from the protocol that was released; got:\n%s", i+1, got)
			}
		}
		t.Fatal("the transcript ends early")
	}
}

// The transcript alone is enough to have a part of the drive, verified.
func TestTranscriptIsUnderstood(t *testing.T) {
	text, err := os.ReadFile(transcriptPath)
	if err != nil {
		t.Fatal(err)
	}
	var tr transcript
	said := map[string]bool{}
	for s := range strings.Lines(string(text)) {
		if s = strings.TrimSpace(s); s == "" || s[0] == '#' {
			continue
		}
		f := strings.Fields(s)
		if len(f) != 4 {
			t.Fatalf("%q", s)
		}
		b, err := hex.DecodeString(f[3])
		if err != nil {
			t.Fatal(err)
		}
		tr = append(tr, line{f[0], f[1], f[2], b})
		said[f[2]] = true
	}
	for _, name := range typeNames {
		if !said[name] {
			t.Errorf("the transcript has no %s", name)
		}
	}
	for _, m := range tr {
		if m.name == "OPEN" {
			continue
		}
		var buf []byte
		r := bytes.NewReader(m.bytes)
		got, err := readMessage(r, &buf)
		if err != nil || r.Len() > 0 || typeNames[got.typ] != m.name {
			t.Fatalf("%s: %v, %d bytes left", m.name, err, r.Len())
		}
		var again []byte
		switch {
		case got.typ == msgOffer:
			tokens, err := decodeOffer(got.body)
			if err != nil {
				t.Fatal(err)
			}
			again = encodeOffer(tokens)
		case got.typ == msgName:
			p, err := decodeProfile(got.body)
			if err != nil {
				t.Fatal(err)
			}
			again = p.encode()
		case got.typ == msgHead:
			h, err := decodeNews(got.body)
			if err != nil {
				t.Fatal(err)
			}
			again = h.encode()
		case got.typ == msgHolds:
			h, err := decodeHolds(got.body)
			if err != nil {
				t.Fatal(err)
			}
			again = h.encode()
		case got.typ == msgAlive:
			again = encodeAlive()
		case got.typ == msgWalks:
			k, err := decodeWalking(got.body)
			if err != nil {
				t.Fatal(err)
			}
			again = k.encode()
		case got.typ == msgEpoch:
			n, _, err := decodeEpoch(got.body)
			if err != nil {
				t.Fatal(err)
			}
			again = n.encode()
		case got.typ == msgPeers:
			in, err := decodeIntroduction(got.body)
			if err != nil {
				t.Fatal(err)
			}
			again = in.encode()
		case got.typ < msgGenesis:
			q, err := decodeRequest(got)
			if err != nil {
				t.Fatal(err)
			}
			again = q.encode()
		default:
			if _, err := decodePart(got); err != nil {
				t.Fatalf("%s: %v", m.name, err)
			}
			continue
		}
		if !bytes.Equal(again, m.bytes) {
			t.Errorf("%s is encoded as %x", m.name, again)
		}
	}
	l := accept(t, tr).Logs()[0]
	if l.Head().Size != 267 {
		t.Fatalf("a head of %d entries", l.Head().Size)
	}
	for i, want := range map[uint64]bool{0: true, 1: true, 2: false, 3: false, 5: true, 259: true, 260: true, 261: true, 262: true, 263: false, 266: true} {
		if l.Holds(i) != want {
			t.Errorf("entry %d is held: %v", i, l.Holds(i))
		}
	}
	if !l.Dropped().Contains(2) {
		t.Error("block 2 was dropped")
	}
	// The proofs are those that the document says.
	var q *request
	held := 0
	for _, m := range tr {
		var buf []byte
		got, _ := readMessage(bytes.NewReader(m.bytes), &buf)
		switch m.name {
		case "PROBE":
			if q, err = decodeRequest(got); err != nil {
				t.Fatal(err)
			}
		case "HELD":
			held++
			p, err := decodePart(got)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range q.slices {
				if c.index != p.span.first {
					continue
				}
				b, err := l.ReadStoredRange(nil, c.index, int(c.off), int(c.n))
				if err != nil {
					t.Fatal(err)
				}
				if written(q, c, b) != p.mac {
					t.Errorf("the proof of entry %d is another", c.index)
				}
			}
		}
	}
	if held != 5 {
		t.Errorf("%d proofs", held)
	}
}

// written is the proof of a slice as docs/protocol.md describes it, from the reader to
// the author.
func written(q *request, c slice, b []byte) (out [32]byte) {
	h, err := blake3.NewKeyed(q.nonce[:])
	if err != nil {
		panic(err)
	}
	for _, seed := range []byte{1, 2} {
		s := seed32(seed)
		_, _ = h.Write(ed25519.NewKeyFromSeed(s[:]).Public().(ed25519.PublicKey))
	}
	_, _ = h.Write(q.log.drive[:])
	at := binary.BigEndian.AppendUint16(nil, uint16(q.log.writer))
	at = binary.BigEndian.AppendUint64(at, c.index)
	_, _ = h.Write(binary.BigEndian.AppendUint32(at, c.off))
	_, _ = h.Write(b)
	h.Sum(out[:0])
	return out
}
