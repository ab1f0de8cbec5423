package seal

import (
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	// minCompress is the length below which a Zstandard frame's own header
	// eats what could be saved.
	minCompress = 64
	probeRuns   = 8
	probeRun    = 64
	probeSize   = probeRuns * probeRun
)

// The codecs hold state per core (about 300 KiB for an encoder), are safe for
// concurrent use, and have no settings, so all keyrings share them.
var (
	encoder = sync.OnceValue(func() *zstd.Encoder { return newEncoder() })
	// A program waits for each commit, and most are short: building entropy
	// tables for one takes longer than all else that sealing does (30 of 45 us,
	// measured), and finding its repetitions is most of the gain.
	commitEncoder = sync.OnceValue(func() *zstd.Encoder { return newEncoder(zstd.WithNoEntropyCompression(true)) })
	decoder       = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil,
			zstd.WithDecoderConcurrency(0),
			zstd.WithDecoderMaxMemory(PieceSize),
			zstd.WithDecoderMaxWindow(PieceSize),
			zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			panic(err) // the options are constants
		}
		return d
	})
)

func newEncoder(more ...zstd.EOption) *zstd.Encoder {
	e, err := zstd.NewWriter(nil, append(more,
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithWindowSize(PieceSize),
		zstd.WithEncoderCRC(false), // the tag is the checksum
		zstd.WithLowerEncoderMem(true))...)
	if err != nil {
		panic(err) // the options are constants
	}
	return e
}

// deflate compresses a piece of a block of a kind into dst, which may not
// overlap it, and returns the compressed length, or 0 if the piece is to be
// stored raw.
func deflate(dst, piece []byte, kind Kind) int {
	if len(piece) < minCompress || !compressible(piece) {
		return 0
	}
	e := encoder
	if kind == Commit {
		e = commitEncoder
	}
	z := e().EncodeAll(piece, dst[:0])
	if len(z) > len(piece)-len(piece)/16 {
		return 0
	}
	return copy(dst, z) // EncodeAll may have outgrown dst on its way
}

// inflate decompresses a piece into dst, up to its length, and returns how
// much it was.
func inflate(dst, z []byte) (int, error) {
	out, err := decoder().DecodeAll(z, dst[:0:len(dst)])
	if err != nil || len(out) > len(dst) {
		return 0, damaged("bad compression: %v", err)
	}
	return copy(dst, out), nil
}

// compressible guesses from a sample of half a KiB whether compressing can save a
// sixteenth. What it measures is the collision entropy of single bytes, which
// is never above the Shannon entropy, so what has at most 7.5 bits a byte
// passes. Encrypted and random data, and media, have 7.8 and more and fail.
// What repeats long stretches of such data is missed; the trial that would
// find it costs more than sealing.
func compressible(p []byte) bool {
	if len(p) <= probeSize {
		return true
	}
	var count [256]uint16
	step := (len(p) - probeRun) / (probeRuns - 1)
	for i := range probeRuns {
		for _, b := range p[i*step:][:probeRun] {
			count[b]++
		}
	}
	var pairs uint32
	for _, c := range count {
		pairs += uint32(c) * uint32(c)
	}
	// Each byte meets itself; of the other n*(n-1) pairs, one in 256 is equal
	// in random data. The threshold is 1.3 times that: 7.62 bits.
	const threshold = probeSize + probeSize*(probeSize-1)/256*13/10
	return pairs > threshold
}
