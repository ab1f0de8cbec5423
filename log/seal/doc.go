// Package seal turns plaintext into stored blocks and back, and cuts streams
// into the chunks that become blocks.
//
// It owns the format of a stored block, the keys derived from a drive's read
// keys, and the chunker. It does no I/O, keeps nothing on disk and knows
// nothing of logs, files or trees; it may import nothing of Hearth but the
// codec, package wire. It promises that sealing is deterministic, that no
// input makes it panic, that opening allocates no more than [MaxPlain] bytes
// and a fixed scratch, and that what opens was sealed by a holder of the read
// key. It is not what makes a block the right one: that a stored block belongs
// at its place in a log is proved by the digest in the log's descriptor.
//
// # Stored block, version 1
//
// Integers are big-endian. A block holds 0 to 245,760 ([MaxPlain]) bytes of
// plaintext of one [Kind], cut into pieces of 16,384 ([PieceSize]) bytes; only
// the last piece may be shorter. An empty block has one empty piece.
//
//	offset  size
//	0       1     version, 1
//	1       4     key epoch
//	5       1     n, number of pieces, 1 to 15
//	6       2n    stored length of each piece
//	6+2n          the pieces, back to back, to the end of the block
//
// A stored piece is
//
//	24   nonce
//	m    ciphertext of the m bytes of the body
//	16   tag
//
// so its stored length is m+40. The body of every piece but the last is the
// payload and nothing else: the 16,384 bytes of plaintext when m is 16,384
// (such a piece is raw), and otherwise, with m from 1 to 16,383, a Zstandard
// frame of exactly those bytes. A raw piece thus decrypts straight into the
// reader's buffer. The body of the last piece is
//
//	p       payload: the plaintext, or a Zstandard frame of it
//	z       zero bytes of padding
//	2       trailer: bit 15 set if the payload is Zstandard, bits 0 to 14 are p
//
// with p at most 16,384, a plaintext of at most 16,384 bytes, and at least one
// byte of plaintext unless the block is empty.
//
// Compression is the writer's choice for each piece. This package uses it when
// it saves at least a sixteenth, and asks a cheap probe first.
//
// # Encryption
//
// With K the epoch's read key, HKDF-SHA256 (RFC 5869, no salt) gives
//
//	sealing key   info "hearth.tradle.io/seal/v1 aead"    32 bytes
//	nonce key     info "hearth.tradle.io/seal/v1 nonce"   32 bytes
//	gear table    info "hearth.tradle.io/seal/v1 gear"    2,048 bytes
//
// A piece is sealed with XAES-256-GCM (https://c2sp.org/XAES-256-GCM) under
// the sealing key. The additional data are two bytes: the kind, and the index
// of the piece, plus 128 for the last piece. They are not stored: a piece of
// another kind, from another position, or of a block that was cut short does
// not open. The nonce is the first 24 bytes of BLAKE3, keyed with the nonce
// key, over the body followed by the additional data: over exactly the bytes
// being sealed, not over the plaintext, because another version of the
// compressor would repeat a nonce over other bytes. So no nonce is ever used
// twice for different input, whatever crashes and is done again, and equal
// blocks seal equally within an epoch.
//
// # Length
//
// The padding makes the length of the stored block, L without padding, a
// Padmé length (PURBs, https://doi.org/10.2478/popets-2019-0056, section 4),
// which tells at most O(log log L) bits of L and costs at most 12 %:
//
//	padme(L) = L rounded up to a multiple of 2^(e-s),
//	           e = floor(log2 L), s = floor(log2 e) + 1
//
// A block whose pieces are all raw, but for the last, is uniform. For those
// the length alone must tell the number of pieces, so that one piece can be
// read without reading the header: piece i of n starts at 6 + 2n + 16424 i.
// With
//
//	full(n) = 6 + 2n + 16424 n + 2, the greatest L of n pieces
//
// a uniform block of n > 1 pieces is padded to padme(max(L, padme(full(n-1)) +
// 1)), and n is the least number with stored length <= padme(full(n)).
//
// # Worked sizes
//
//	plaintext                          L        stored
//	0                                  50       52
//	100, raw                           150      160
//	4,096, raw                         4,146    4,352
//	65,536, raw                        65,712   67,584
//	65,537, raw                        65,755   69,632
//	245,760, raw                       246,398  249,856
//
// # Chunks
//
// A stream is cut by a gear hash (FastCDC, USENIX ATC 2016) with h = 0 at byte
// 16,320 of the chunk and, for each byte b from there, h = 2h + gear[b] mod
// 2^64. The chunk ends after the first byte from index 16,384 on with h < 2^46
// if the byte's index is below 53,248 and h < 2^50 otherwise; at the latest
// after 245,760 bytes; and at the end of the stream. The gear table is the
// 256 64-bit integers of the table above for the oldest epoch that is held. It
// is secret because the lengths of blocks are public and would otherwise
// fingerprint known files. It hides known contents from those who only look;
// someone who chooses what is written to a drive and sees the lengths that
// result can learn about the table.
package seal
