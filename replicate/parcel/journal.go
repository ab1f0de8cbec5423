package parcel

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"time"

	"github.com/zeebo/blake3"

	"hearth/log/wire"
)

// The journal of a partial folder is a magic, a version and records. Each is
//
//	u16 length of the body, u8 type, body, the first 4 bytes of the BLAKE3 of
//	all before
//
// A record that does not check out ends the journal: it is the torn end of a
// write. Nothing in it is trusted beyond that, as neither the journal nor the
// files are durable before recComplete: what it says of files is compared
// with the files when a transfer resumes.
const (
	journalMagic   = "HRTHPJNL"
	journalVersion = 1
	journalName    = "journal"
	treeName       = "tree"
	maxJournal     = 1 << 30
)

// Types of records.
const (
	recHeader   = 1 // id, digest of the manifest, unix seconds, sender's name, files, bytes
	recFinished = 2 // u32 entry, hash of the whole file
	recPrefix   = 3 // u32 entry, u64 length, hash of so much of it; length 0: begins anew
	recGiven    = 4 // u32 entry, u8 reason
	recComplete = 5 // all that will come is in the tree
	recPlacing  = 6 // u32 entry, name: about to be renamed to that
	recPlaced   = 7 // all is where it belongs
)

type header struct {
	id      ID
	digest  [32]byte
	started time.Time
	from    string
	files   int
	bytes   int64
}

type prefix struct {
	length int64
	hash   [32]byte
}

// past is what a journal says of earlier attempts.
type past struct {
	header   header
	finished map[uint32][32]byte
	prefixes map[uint32][]prefix // lengths ascend
	given    map[uint32]Reason
	complete bool
	placing  map[uint32]string
	placed   bool
}

func record(b []byte, typ uint8, fill func(*wire.Writer)) []byte {
	start := len(b)
	w := wire.Writer{B: append(b, 0, 0, typ)}
	if fill != nil {
		fill(&w)
	}
	n := len(w.B) - start - 3
	w.B[start], w.B[start+1] = byte(n>>8), byte(n)
	sum := blake3.Sum256(w.B[start:])
	return append(w.B, sum[:4]...)
}

func headerRecord(h header) []byte {
	b := append([]byte(journalMagic), journalVersion)
	return record(b, recHeader, func(w *wire.Writer) {
		w.Raw(h.id[:])
		w.Raw(h.digest[:])
		w.U64(uint64(h.started.Unix()))
		w.String(h.from)
		w.Uvarint(uint64(h.files))
		w.Uvarint(uint64(h.bytes))
	})
}

func finishedRecord(b []byte, i uint32, hash [32]byte) []byte {
	return record(b, recFinished, func(w *wire.Writer) {
		w.U32(i)
		w.Raw(hash[:])
	})
}

func prefixRecord(i uint32, length int64, hash [32]byte) []byte {
	return record(nil, recPrefix, func(w *wire.Writer) {
		w.U32(i)
		w.U64(uint64(length))
		w.Raw(hash[:])
	})
}

// errJournal is a journal that is not one, or of another version.
var errJournal = errors.New("not a journal of this version")

// parseJournal reads all that is valid and says how much that is.
func parseJournal(b []byte) (*past, int, error) {
	start := len(journalMagic) + 1
	if len(b) < start || string(b[:len(journalMagic)]) != journalMagic || b[start-1] != journalVersion {
		return nil, 0, errJournal
	}
	p := &past{finished: map[uint32][32]byte{}, prefixes: map[uint32][]prefix{},
		given: map[uint32]Reason{}, placing: map[uint32]string{}}
	valid, first := start, true
	for rest := b[start:]; len(rest) >= 3; {
		n := 3 + int(rest[0])<<8 + int(rest[1])
		if len(rest) < n+4 {
			break
		}
		sum := blake3.Sum256(rest[:n])
		if string(sum[:4]) != string(rest[n:n+4]) {
			break
		}
		if first != (rest[2] == recHeader) || !p.apply(rest[2], wire.NewReader(rest[3:n])) {
			break
		}
		first = false
		valid += n + 4
		rest = rest[n+4:]
	}
	if first {
		return nil, 0, errJournal
	}
	return p, valid, nil
}

func (p *past) apply(typ uint8, r *wire.Reader) bool {
	hash := func() (h [32]byte) {
		copy(h[:], r.Raw(32))
		return h
	}
	switch typ {
	case recHeader:
		copy(p.header.id[:], r.Raw(16))
		p.header.digest = hash()
		p.header.started = time.Unix(int64(r.U64()), 0)
		p.header.from = r.String(MaxName)
		files, bytes := r.Uvarint(), r.Uvarint()
		if files > MaxEntries || bytes > math.MaxInt64 {
			return false
		}
		p.header.files, p.header.bytes = int(files), int64(bytes)
	case recFinished:
		i, h := r.U32(), hash()
		p.finished[i] = h
		delete(p.prefixes, i)
	case recPrefix:
		i, n, h := r.U32(), r.U64(), hash()
		if n > math.MaxInt64 {
			return false
		}
		if n == 0 {
			delete(p.prefixes, i)
			break
		}
		list := p.prefixes[i]
		if k := len(list); k > 0 && list[k-1].length >= int64(n) {
			return false
		}
		p.prefixes[i] = append(list, prefix{int64(n), h})
	case recGiven:
		i := r.U32()
		p.given[i] = Reason(r.U8())
	case recComplete:
		p.complete = true
	case recPlacing:
		i := r.U32()
		p.placing[i] = r.String(MaxName)
	case recPlaced:
		p.placed = true
	default:
		return false
	}
	return r.Done() == nil
}

// journal is the open journal; put is safe from several goroutines.
type journal struct {
	f  *os.File // flocked while the transfer lives
	mu sync.Mutex
}

// put appends records with one write: a kill leaves all or none of them, but
// for the torn end that is cut off by the next attempt.
func (j *journal) put(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.f.Write(b); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// readJournal reads all that is valid, and tells if anything else is behind it.
func readJournal(f *os.File) (p *past, valid int, torn bool, err error) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, maxJournal))
	if err != nil {
		return nil, 0, false, fmt.Errorf("journal: %w", err)
	}
	p, valid, err = parseJournal(b)
	return p, valid, valid < len(b), err
}

// load reads the journal and cuts off what is not valid.
func (j *journal) load() (*past, error) {
	p, valid, torn, err := readJournal(j.f)
	if err == nil && torn {
		if err := j.f.Truncate(int64(valid)); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
	}
	return p, err
}
