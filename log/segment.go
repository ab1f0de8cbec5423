package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strconv"
	"sync"

	"hearth/log/disk"
)

// Segment header, 64 bytes:
//
//	0   magic "HEARTHSG"
//	8   version u32, 1
//	12  number of the segment u32
//	16  index of its first entry u64
//	24  SHA-256 of the log's public key
//	56  zero u32
//	60  CRC-32C of the bytes before
const (
	segmentMagic   = "HEARTHSG"
	segmentVersion = 1
	segmentHeader  = 64
	// segmentSize is where a segment ends: no frame starts beyond it.
	segmentSize = 64 << 20
	// maxSegments is bounded by the bits of a location.
	maxSegments = 1 << segmentBits
	// openSegments is how many segments not in use are kept open.
	openSegments = 128
)

func segmentName(num uint32) string { return fmt.Sprintf("%08d", num) }

// parseSegmentName is the inverse of segmentName; false for other files.
func parseSegmentName(name string) (uint32, bool) {
	num, err := strconv.ParseUint(name, 10, 32)
	return uint32(num), err == nil && num < maxSegments && segmentName(uint32(num)) == name
}

func encodeSegmentHeader(num uint32, first uint64, key [32]byte) []byte {
	b := make([]byte, 0, segmentHeader)
	b = append(b, segmentMagic...)
	b = binary.BigEndian.AppendUint32(b, segmentVersion)
	b = binary.BigEndian.AppendUint32(b, num)
	b = binary.BigEndian.AppendUint64(b, first)
	b = append(b, key[:]...)
	b = binary.BigEndian.AppendUint32(b, 0)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// checkSegmentHeader checks the header of segment num of the log with this
// key hash. Errors match ErrDamaged, ErrNewer or ErrForeign.
func checkSegmentHeader(b []byte, num uint32, key [32]byte) (first uint64, err error) {
	switch {
	case len(b) < segmentHeader:
		return 0, fmt.Errorf("%w: segment header is cut short", ErrDamaged)
	case crc32.Checksum(b[:60], castagnoli) != binary.BigEndian.Uint32(b[60:]):
		return 0, fmt.Errorf("%w: segment header", ErrDamaged)
	case string(b[:8]) != segmentMagic:
		return 0, fmt.Errorf("%w: no segment", ErrForeign)
	case binary.BigEndian.Uint32(b[8:]) != segmentVersion:
		return 0, fmt.Errorf("%w: segment version %d", ErrNewer, binary.BigEndian.Uint32(b[8:]))
	case binary.BigEndian.Uint32(b[12:]) != num:
		return 0, fmt.Errorf("%w: segment %d in the place of %d", ErrForeign, binary.BigEndian.Uint32(b[12:]), num)
	case [32]byte(b[24:56]) != key:
		return 0, fmt.Errorf("%w: segment of another log", ErrForeign)
	}
	return binary.BigEndian.Uint64(b[16:]), nil
}

// segment is an open segment file. It is closed when it was forgotten and
// nobody uses it any more.
type segment struct {
	num  uint32
	path string
	file disk.File

	uses   int // under segments.mu
	forgot bool
}

// segments opens segment files and keeps those in use, and some that are not.
type segments struct {
	disk disk.FS
	dir  string

	mu   sync.Mutex
	open map[uint32]*segment
	idle []*segment // uses == 0, oldest first; may hold some used again since
}

func newSegments(d disk.FS, dir string) *segments {
	return &segments{disk: d, dir: dir, open: make(map[uint32]*segment)}
}

func (s *segments) path(num uint32) string { return filepath.Join(s.dir, segmentName(num)) }

// get returns a segment, which the caller gives back with put.
func (s *segments) get(num uint32) (*segment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if seg := s.open[num]; seg != nil {
		seg.uses++
		return seg, nil
	}
	path := s.path(num)
	file, err := s.disk.Open(path)
	if err != nil {
		return nil, err
	}
	seg := &segment{num: num, path: path, file: file, uses: 1}
	s.open[num] = seg
	return seg, nil
}

// add takes in a file that was just created.
func (s *segments) add(num uint32, file disk.File) *segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	seg := &segment{num: num, path: s.path(num), file: file, uses: 1}
	s.open[num] = seg
	return seg
}

// put gives a segment back. Closing can fail only for files that were read,
// or synced before: there is nothing to lose.
func (s *segments) put(seg *segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seg.uses--
	if seg.uses > 0 {
		return
	}
	if seg.forgot {
		_ = seg.file.Close()
		return
	}
	s.idle = append(s.idle, seg)
	if len(s.idle) <= openSegments {
		return
	}
	keep := s.idle[:0]
	seen := make(map[*segment]bool, len(s.idle))
	for i := len(s.idle) - 1; i >= 0; i-- { // newest first
		old := s.idle[i]
		if old.uses > 0 || old.forgot || seen[old] {
			continue
		}
		seen[old] = true
		if len(seen) > openSegments/2 {
			delete(s.open, old.num)
			old.forgot = true
			_ = old.file.Close()
		}
	}
	for _, old := range s.idle {
		if seen[old] && !old.forgot {
			keep = append(keep, old)
			delete(seen, old)
		}
	}
	s.idle = keep
}

// forget drops a segment, whose file was replaced or removed: the next get
// opens the name anew, and those who read the old file finish.
func (s *segments) forget(num uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seg := s.open[num]
	if seg == nil {
		return
	}
	delete(s.open, num)
	seg.forgot = true
	if seg.uses == 0 {
		_ = seg.file.Close()
	}
}

// close closes all segments.
func (s *segments) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for num, seg := range s.open {
		delete(s.open, num)
		seg.forgot = true
		if seg.uses == 0 {
			errs = append(errs, seg.file.Close())
		}
	}
	s.idle = nil
	return errors.Join(errs...)
}
