// Package peer is connections between devices: QUIC, encrypted, with a device
// key proved on each side; proofs, bound to a connection, of which drives a
// side may hold; and the four words that two people compare when their devices
// first meet.
//
// It owns the socket, the limits on connections and memory, and the bytes of
// tokens and of the words exchange. It imports no other package of Hearth. It
// promises that the peer of a [Conn] has the private half of [Conn.Peer], that
// a proof is worth nothing on any other connection or in the other role, and
// that what a stranger can make this device hold is bounded. It is not a
// protocol: what streams carry, who sends its tokens first, and what a proof
// permits is the caller's. It knows nothing of what drives contain, and finds
// no peers.
//
// The rest of this comment is for those who write another implementation.
// Integers are in bytes; || joins; all fields but labels have fixed lengths;
// a label is its ASCII text and, in MACs and hashes, a zero byte.
//
// # Transport
//
// QUIC version 1 (RFC 9000) with TLS 1.3 (RFC 9001) and the ALPN "hearth/1".
// No server name is sent and any is ignored. No 0-RTT, no session tickets: each
// connection proves both keys afresh. Only bidirectional streams; the other
// side may have 64 open. A connection dies after 7 s of silence, and a side
// that has nothing to say sends a PING every 2 s.
//
// # Device keys
//
// A device has an Ed25519 key; its public half, 32 bytes, is its name. Each
// side presents exactly one certificate, of at most 1024 bytes, whose public
// key is that key and which is signed by it (RFC 8410). The listener requires
// one. Nothing else in it is believed, and nothing else should be in it: those
// made here are X.509 version 3 with serial number 1, empty subject and issuer,
// valid from 2000-01-01T00:00:00Z to 9999-12-31T23:59:59Z, without extensions.
// What breaks these rules, and one's own key, is refused within the handshake.
// A dialer that expects a key and meets another aborts before its own
// certificate is sent.
//
// # Close codes
//
// 0 done, 1 the endpoint shuts down, 2 too many connections; from 16 the
// caller's. The reason is UTF-8, at most 256 bytes, and untrusted. Streams are
// reset and stopped with the same codes.
//
// # Tokens
//
// A token names a drive to those who know it, and proves that its maker may
// hold it:
//
//	token    = HMAC-SHA256(hold secret (32),
//	               "hearth/1 token" 00 || exported (32) || role (1) ||
//	               dialer's key (32) || listener's key (32) || drive id (32))
//	exported = TLS exporter (RFC 8446 section 7.5), label
//	           "EXPORTER-hearth-capability", empty context, 32 bytes
//	role     = of the token's maker: 1 dialer, 2 listener
//
// Each side offers the tokens of its drives among random strings of the same
// length, to a multiple of 16 and at least 16, in an order that says nothing
// (sorted); the other computes what it would expect for its own drives, with
// the other's role, and compares.
//
// One value serves as name and proof because it is both. To somebody without
// the hold secret HMAC is a pseudo-random function: a token is like the random
// strings beside it, differs in every connection, and tells nothing but the
// number of drives in steps of 16. Somebody who computes one for this
// connection has the hold secret, which is what a proof must show. Repeated to
// its maker it has the wrong role; passed on by somebody in between it has the
// wrong export, because two TLS sessions share none, and the wrong keys. A side
// that has the secret learns that the other has it too: that is the purpose. A
// hold secret must have 32 bytes of entropy, since a token lets a stranger test
// guesses of it.
//
// # Words
//
// On a stream both sides already have, by the roles of the connection (not of
// the stream), 32 bytes each:
//
//	dialer   -> commitment = SHA-256("hearth/1 commitment" 00 || nonce of the dialer (32) ||
//	                             dialer's key (32) || listener's key (32))
//	listener -> nonce of the listener (32)
//	dialer   -> nonce of the dialer (32)
//
// The listener checks the commitment and ends the meeting if it is broken. Both
// then compute
//
//	hash     = SHA-256("hearth/1 words" 00 || exported (32) || dialer's key (32) ||
//	               listener's key (32) || nonce of the dialer (32) || nonce of the listener (32))
//	exported = TLS exporter, label "EXPORTER-hearth-words", empty context, 32 bytes
//
// whose first 44 bits, most significant first, are four numbers of 11 bits:
// places, from 0, in words.txt, 2048 English words of which no two begin with
// the same four letters and none becomes another by changing, adding or
// dropping one letter. Somebody in between runs the exchange twice and in each
// has to fix its nonce before it sees the other's, so that the two hashes are
// independent of its choices: four equal words have a chance of one in 2^44, and
// a failed try is two people seeing different words.
//
// testdata/vectors.json has examples of a token in each role, a commitment and
// words, with all that goes into them.
//
// # Limits
//
// 256 connections, 4 with one device. When all places are taken, the oldest
// accepted connection that [Conn.Known] was not said of makes room, because
// keys cost nothing and strangers must not keep friends out. 64 handshakes may
// be under way; from the 16th on a dialer must first prove its address (a Retry
// packet), so that a flood from invented addresses costs one packet each. Data
// received and not yet read is bounded by [Options]; what is sent and not yet
// acknowledged, by the window of congestion control, some 14 MB a connection.
// What all connections carry a second is bounded by [Endpoint.SetRates].
//
// Over loopback, both ends in one process on two cores, one stream carries 270 to
// 370 MB/s (BenchmarkStream), and 285 between two processes.
package peer
