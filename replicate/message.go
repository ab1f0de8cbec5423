package replicate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"hearth/fs"
	"hearth/log"
	"hearth/log/wire"

	"golang.org/x/mod/sumdb/tlog"
)

type messageType uint8

const (
	msgOffer   messageType = 1
	msgName    messageType = 2
	msgHead    messageType = 3
	msgHolds   messageType = 4
	msgEpoch   messageType = 5
	msgPeers   messageType = 6
	msgAlive   messageType = 7
	msgWalks   messageType = 8
	msgInfo    messageType = 16
	msgProve   messageType = 17
	msgGet     messageType = 18
	msgWalk    messageType = 19
	msgProbe   messageType = 20
	msgHave    messageType = 21
	msgBoxes   messageType = 22
	msgGenesis messageType = 32
	msgProof   messageType = 33
	msgTile    messageType = 34
	msgBlock   messageType = 35
	msgControl messageType = 36
	msgGone    messageType = 37
	msgEnd     messageType = 38
	msgHeld    messageType = 39
	msgHas     messageType = 40
	msgBox     messageType = 41
)

// First bytes of streams.
const (
	streamControl = 0
	streamRequest = 1
	streamBulk    = 3 // requests that nobody waits for; 2 is for others
)

// Limits of the protocol, see the package comment.
const (
	maxMessage  = 300_000
	maxOffer    = 1024
	maxTiles    = 64
	maxRanges   = 64
	maxEntries  = 1024
	maxHave     = 1 << 16
	maxControls = 1024
	maxWalk     = 8 << 20
	maxPending  = 64
	maxName     = 64
	maxIndex    = 1 << 40 // of an entry, in what a peer says it has
	maxNames    = 64      // in a connection
	maxLeaves   = 64 << 10
	maxLevels   = 8
	maxProof    = 128
	maxNote     = 4096
	maxBoxes    = 1024
	tileBytes   = 8192
	tileEntries = 256
)

// Codes of END.
const (
	endOK      = 0
	endUnknown = 1
	endCannot  = 2
	endTooMuch = 3
)

// ErrProtocol is matched by errors about peers that break the protocol.
var ErrProtocol = errors.New("the other side breaks the protocol")

// message is one message as it was read; the body is valid until the next.
type message struct {
	typ  messageType
	body []byte
}

// readMessage reads a message into buf, which grows to what is needed. Memory
// is taken as bytes arrive, not as the length says.
func readMessage(r io.Reader, buf *[]byte) (message, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return message{}, err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n < 1 || n > maxMessage {
		return message{}, fmt.Errorf("%w: a message of %d bytes", ErrProtocol, n)
	}
	n--
	for have := 0; have < n; {
		step := min(n-have, 64<<10)
		if cap(*buf) < have+step {
			grown := make([]byte, have+step, max(have+step, min(n, 2*cap(*buf))))
			copy(grown, (*buf)[:have])
			*buf = grown
		}
		*buf = (*buf)[:have+step]
		if _, err := io.ReadFull(r, (*buf)[have:]); err != nil {
			return message{}, err
		}
		have += step
	}
	return message{messageType(head[4]), (*buf)[:n]}, nil
}

// newMessage begins a message; seal completes it.
func newMessage(buf []byte, typ messageType) wire.Writer {
	return wire.Writer{B: append(buf[:0], 0, 0, 0, 0, byte(typ))}
}

func seal(w *wire.Writer) []byte {
	binary.BigEndian.PutUint32(w.B, uint32(len(w.B)-4))
	return w.B
}

// done turns the errors of a decoder into one of the protocol.
func done(r *wire.Reader, what string) error {
	if err := r.Done(); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrProtocol, what, err)
	}
	return nil
}

func read32(r *wire.Reader) (out [32]byte) {
	copy(out[:], r.Raw(32))
	return out
}

func encodeOffer(tokens [][32]byte) []byte {
	w := newMessage(nil, msgOffer)
	w.Uvarint(uint64(len(tokens)))
	for i := range tokens {
		w.Raw(tokens[i][:])
	}
	return seal(&w)
}

func decodeOffer(b []byte) ([][32]byte, error) {
	r := wire.NewReader(b)
	n := r.Count(32)
	if n > maxOffer {
		r.Fail("%d tokens", n)
		n = 0
	}
	out := make([][32]byte, n)
	for i := range out {
		out[i] = read32(r)
	}
	return out, done(r, "offer")
}

// profile is what a device tells those it shares a drive with.
type profile struct {
	name   string
	beacon [32]byte
}

func (p *profile) encode() []byte {
	w := newMessage(nil, msgName)
	w.String(p.name)
	w.Raw(p.beacon[:])
	return seal(&w)
}

func decodeProfile(b []byte) (profile, error) {
	r := wire.NewReader(b)
	p := profile{name: r.String(maxName), beacon: read32(r)}
	return p, done(r, "name")
}

// logName names a log of a shared drive.
type logName struct {
	drive  log.DriveID
	writer log.Writer
}

func (n logName) append(w *wire.Writer) {
	w.Raw(n.drive[:])
	w.U16(uint16(n.writer))
}

func readLogName(r *wire.Reader) logName {
	return logName{drive: read32(r), writer: log.Writer(r.U16())}
}

func appendProof(w *wire.Writer, p *log.HeadProof) {
	w.Bytes(p.Note)
	w.U64(p.Old)
	w.Bytes(p.Leaves)
	w.Uvarint(uint64(len(p.Edges)))
	for _, e := range p.Edges {
		w.Bytes(e)
	}
	w.Uvarint(uint64(len(p.Consistency)))
	for i := range p.Consistency {
		w.Raw(p.Consistency[i][:])
	}
	w.Bytes(p.Base)
}

// readProof reads a proof; it does not alias what it was read from.
func readProof(r *wire.Reader) (p log.HeadProof) {
	p.Note = append([]byte(nil), r.Bytes(maxNote)...)
	p.Old = r.U64()
	p.Leaves = append([]byte(nil), r.Bytes(maxLeaves)...)
	n := r.Count(1)
	if n > maxLevels || len(p.Leaves)%32 != 0 {
		r.Fail("%d levels, %d bytes of leaves", n, len(p.Leaves))
		return p
	}
	for range n {
		p.Edges = append(p.Edges, append([]byte(nil), r.Bytes(tileBytes)...))
	}
	if n = r.Count(32); n > maxProof {
		r.Fail("a proof of %d hashes", n)
		return p
	}
	for range n {
		p.Consistency = append(p.Consistency, tlog.Hash(read32(r)))
	}
	if p.Base = append([]byte(nil), r.Bytes(32)...); len(p.Base) != 0 && len(p.Base) != 32 {
		r.Fail("a root of %d bytes", len(p.Base))
	}
	return p
}

// news is that a log has a newer head.
type news struct {
	log      logName
	proof    log.HeadProof
	controls []uint64
	tries    int // of the reader
}

func (h *news) encode() []byte {
	w := newMessage(nil, msgHead)
	h.log.append(&w)
	appendProof(&w, &h.proof)
	w.Uvarint(uint64(len(h.controls)))
	for _, i := range h.controls {
		w.Uvarint(i)
	}
	return seal(&w)
}

func decodeNews(b []byte) (*news, error) {
	r := wire.NewReader(b)
	h := &news{log: readLogName(r), proof: readProof(r)}
	n := r.Count(1)
	if n > maxControls {
		r.Fail("%d control entries", n)
		n = 0
	}
	for range n {
		h.controls = append(h.controls, r.Uvarint())
	}
	return h, done(r, "head")
}

// span is the entries [first, first+n).
type span struct{ first, n uint64 }

// holds is that entries of a log are on the device that says so.
type holds struct {
	log    logName
	ranges []span // in order, not touching
}

func (h *holds) encode() []byte {
	w := newMessage(nil, msgHolds)
	h.log.append(&w)
	w.Uvarint(uint64(len(h.ranges)))
	var end uint64
	for _, r := range h.ranges {
		w.Uvarint(r.first - end)
		w.Uvarint(r.n)
		end = r.first + r.n
	}
	return seal(&w)
}

func decodeHolds(b []byte) (*holds, error) {
	r := wire.NewReader(b)
	h := &holds{log: readLogName(r)}
	n := r.Count(2)
	if n > maxHoldsRanges {
		r.Fail("%d ranges", n)
		n = 0
	}
	var end uint64
	for range n {
		skip, count := r.Uvarint(), r.Uvarint()
		if skip > maxIndex-end || count == 0 || count > maxIndex-end-skip {
			r.Fail("%d entries after %d from %d on", count, skip, end)
			break
		}
		h.ranges = append(h.ranges, span{end + skip, count})
		end += skip + count
	}
	return h, done(r, "holds")
}

// request is any request.
type request struct {
	typ    messageType
	log    logName
	known  uint64        // PROVE
	tiles  []log.TileRef // GET
	ranges []span        // GET, HAVE
	walk   fs.Walk       // WALK
	nonce  [32]byte      // PROBE
	slices []slice       // PROBE

	recipient [32]byte // BOXES
}

func (q *request) encode() []byte {
	w := newMessage(nil, q.typ)
	if q.typ == msgInfo {
		w.Raw(q.log.drive[:])
		return seal(&w)
	}
	if q.typ == msgBoxes {
		w.Raw(q.log.drive[:])
		w.Raw(q.recipient[:])
		return seal(&w)
	}
	q.log.append(&w)
	switch q.typ {
	case msgProve:
		w.U64(q.known)
	case msgGet:
		w.Uvarint(uint64(len(q.tiles)))
		for _, t := range q.tiles {
			w.U8(uint8(t.Level))
			w.Uvarint(t.N)
		}
		q.appendRanges(&w)
	case msgProbe:
		q.appendSlices(&w)
	case msgHave:
		q.appendRanges(&w)
	case msgWalk:
		w.Uvarint(q.walk.Commit.Index)
		w.U8(uint8(q.walk.Op))
		w.U64(uint64(q.walk.Ino))
		w.String(q.walk.Name)
		w.Uvarint(q.walk.Off)
		w.Uvarint(q.walk.Len)
	}
	return seal(&w)
}

func (q *request) appendRanges(w *wire.Writer) {
	w.Uvarint(uint64(len(q.ranges)))
	for _, s := range q.ranges {
		w.Uvarint(s.first)
		w.Uvarint(s.n)
	}
}

// parts bounds how many parts an answer has.
func (q *request) parts() int {
	switch q.typ {
	case msgInfo:
		return 1
	case msgBoxes:
		return maxBoxes
	case msgProve:
		return 2 + maxControls*(1+maxLevels) + maxLevels
	case msgGet, msgHave:
		n := len(q.tiles)
		for _, s := range q.ranges {
			n += int(s.n)
		}
		return n
	case msgProbe:
		return len(q.slices)
	default:
		return maxWalk / tileBytes
	}
}

func decodeRequest(m message) (*request, error) {
	r := wire.NewReader(m.body)
	q := &request{typ: m.typ}
	switch m.typ {
	case msgInfo:
		q.log.drive = read32(r)
		return q, done(r, "request")
	case msgBoxes:
		q.log.drive, q.recipient = read32(r), read32(r)
		return q, done(r, "request")
	case msgProve, msgGet, msgWalk, msgProbe, msgHave:
	default:
		return nil, fmt.Errorf("%w: a request of type %d", ErrProtocol, m.typ)
	}
	q.log = readLogName(r)
	switch m.typ {
	case msgProve:
		q.known = r.U64()
	case msgGet:
		q.readGet(r)
	case msgProbe:
		q.readSlices(r)
	case msgHave:
		q.readRanges(r, maxHave)
	case msgWalk:
		q.walk = fs.Walk{
			Commit: log.Ref{Writer: q.log.writer, Index: r.Uvarint()}, Op: fs.WalkOp(r.U8()), Ino: fs.Ino(r.U64()),
			Name: r.String(4096), Off: r.Uvarint(), Len: r.Uvarint(),
		}
		if !q.walk.Valid() {
			r.Fail("no such walk")
		}
	}
	return q, done(r, "request")
}

func (q *request) readGet(r *wire.Reader) {
	n := r.Count(2)
	if n > maxTiles {
		r.Fail("%d tiles", n)
		return
	}
	for range n {
		t := log.TileRef{Level: int(r.U8()), N: r.Uvarint()}
		if t.Level >= maxLevels {
			r.Fail("level %d", t.Level)
		}
		q.tiles = append(q.tiles, t)
	}
	q.readRanges(r, maxEntries)
}

// readRanges reads ranges of together at most most entries.
func (q *request) readRanges(r *wire.Reader, most uint64) {
	n := r.Count(2)
	if n > maxRanges {
		r.Fail("%d ranges", n)
		return
	}
	var total uint64
	for range n {
		s := span{r.Uvarint(), r.Uvarint()}
		if total += s.n; s.n > most || total > most || s.first+s.n < s.first {
			r.Fail("more than %d entries", most)
			return
		}
		q.ranges = append(q.ranges, s)
	}
}

// part is one message of an answer.
type part struct {
	typ   messageType
	tile  log.TileRef
	span  span   // GONE, HAS; of entries and HELD the first is their index
	bytes []byte // of entries, tiles, boxes and the genesis; valid until the next part
	proof log.HeadProof
	code  uint8    // END
	mac   [32]byte // HELD
}

func decodePart(m message) (p part, err error) {
	r := wire.NewReader(m.body)
	p.typ = m.typ
	switch m.typ {
	case msgGenesis, msgBox:
		p.bytes = r.Rest()
	case msgProof:
		p.proof = readProof(r)
	case msgTile:
		p.tile = log.TileRef{Level: int(r.U8()), N: r.Uvarint()}
		p.bytes = r.Raw(tileBytes)
	case msgBlock, msgControl:
		p.span = span{r.Uvarint(), 1}
		p.bytes = r.Rest()
	case msgGone, msgHas:
		p.span = span{r.Uvarint(), r.Uvarint()}
	case msgEnd:
		p.code = r.U8()
	case msgHeld:
		p.span = span{r.Uvarint(), 1}
		p.mac = read32(r)
	default:
		return p, fmt.Errorf("%w: an answer of type %d", ErrProtocol, m.typ)
	}
	return p, done(r, "answer")
}
