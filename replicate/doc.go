// Package replicate carries drives between devices: it offers those that are
// here to peers that prove they may hold them, follows their heads, answers for
// what is here, and gets what somebody wants.
//
// It owns the protocol on the connections of package peer, and the decisions of
// whom to ask for what. It may import packages peer, log (whose logs verify
// everything before it counts) and fs (only what a walk is), and nothing else of
// Hearth. It does not mount, and looks for no peers: it is told addresses, by
// its user and by peers that introduce others.
//
// # Promises
//
// A peer learns of a drive only what the hold secret that it proved entitles it
// to: everything that is stored, sealed as it is. Nothing of an answer is
// stored, counted or shown before package log has verified it against a head
// that it accepted. A peer whose answer does not verify is dropped and
// remembered. What a peer can make this device hold or do is bounded: by the
// limits on messages below, by one answer at a time for each of its streams, and
// by those of package peer.
//
// # Protocol
//
// Integers are big-endian; uvarint and byte strings (a uvarint length and the
// bytes) are those of package wire. A message is its length u32, not counting
// these four bytes, its type u8, and its body.
//
// The dialer opens a control stream, whose first byte is 0, and both sides send
// on it, each an OFFER first:
//
//	OFFER 1   count uvarint | tokens, 32 bytes each: see package peer
//	NAME  2   name string, at most 64 bytes | beacon secret, 32 bytes
//	HEAD  3   drive id, 32 bytes | writer u16 | proof |
//	          controls: count uvarint, index uvarint each
//	HOLDS 4   drive id, 32 bytes | writer u16 |
//	          ranges: count uvarint, (skip uvarint, n uvarint) each
//	EPOCH 5   token, 32 bytes | the control entry that begins an epoch
//	PEERS 6   drive id, 32 bytes | open u8, 0 or 1 | devices: count uvarint,
//	          (device key, 32 bytes | IP address string, 4 or 16 bytes | port u16) each
//	ALIVE 7   nothing
//	WALKS 8   drive id, 32 bytes | u8 1: the sender does walks; 0: it does not
//
// The drives whose tokens both know are shared. An OFFER replaces the one before
// it. It has the tokens of the newest hold secret that its sender knows of each
// drive (each key epoch has one: see package log). Who offers the token of an
// older one is sent EPOCH, as soon as the beginning of the newest epoch is known
// from the drive's log, and so with all boxes before it: the sender's token of
// that older secret, which says which drive it is to those alone who have the
// secret, and what began the newest epoch, which the owner signed. With it a
// drive is not shared; but INFO and BOXES are answered. A reader that gets a box
// of the epoch knows its hold secret and offers that; one that gets none has
// been told that its access was ended. It goes on offering what it has.
//
// NAME is sent once there is a shared drive, and again when the name changes: the
// name of the device, and the secret by which it is recognised on a LAN (package
// discovery). HEAD is sent
// for each log of a shared drive, and again when there is a newer head:
//
//	proof     note string | old u64 | leaves string | edges: count uvarint, strings |
//	          consistency: count uvarint, 32 bytes each | base string, 0 or 32 bytes
//
// It is [log.HeadProof]; one that begins at another size than the reader knows,
// or has neither leaves nor edges, only tells, and the reader asks for its own
// with PROVE. The controls are which of the new entries are control entries.
// HOLDS says which entries are on the device that sends it: each range begins skip
// entries after the end of the one before it, the first after entry 0. It adds to
// what was said before: all that is here when a drive is first shared, then what is
// written and what arrives, gathered for a tenth of a second. It is a hint of whom
// to ask, which GONE takes back.
//
// PEERS says, for a shared drive, which other devices are connected to its sender
// that proved the same, newest hold secret, and the UDP addresses at which they
// are: see Introductions. It replaces the one of that drive before it. It is sent
// when it changes, but a second after other PEERS at the earliest.
// ALIVE is sent by the dialer every 1.75 s, at the multiples of that time since
// 1970: all connections of a device, and those of its peers if their clocks are
// right, have their signs of life at once, in place of the transport's, which each
// would have at a time of its own. WALKS is sent for each shared drive, and again
// when it is another. A WALK holds what is looked for, which only those may see who
// can read the drive: it is sent to those who say that they do walks.
//
// Who did walks of a drive in an earlier connection, under the same hold secret, or
// made the link, may be asked for it at once, before its OFFER has come, in the
// first 2 s of a connection: so long a request waits for the OFFER that makes the
// drive a shared one.
//
// Either side opens streams for requests, whose first byte is 1, or 3 if nobody
// waits for the answers: where a limit is set, these come after the others. On
// one stream the opener sends requests without waiting, and gets the answers in
// their order, so that what a person waits for has a stream of its own. A first
// byte of 2 begins a parcel. The requests:
//
//	INFO  16  drive id
//	PROVE 17  drive id | writer u16 | known u64
//	GET   18  drive id | writer u16 | tiles: count uvarint, (level u8, n uvarint) each |
//	          ranges: count uvarint, (first uvarint, n uvarint) each
//	WALK  19  drive id | writer u16 | commit uvarint | op u8 | inode u64 | name string |
//	          offset uvarint | length uvarint
//	PROBE 20  drive id | writer u16 | nonce, 32 bytes |
//	          slices: count uvarint, (index uvarint, offset uvarint, length uvarint) each
//	HAVE  21  drive id | writer u16 | ranges as in GET
//	BOXES 22  drive id | recipient, 32 bytes: see [log.RecipientID]
//
// An answer is any number of the following and END, whose code is 0 or says why
// there is nothing, or no more:
//
//	GENESIS 32  the first entry of the drive
//	PROOF   33  proof
//	TILE    34  level u8 | n uvarint | 8192 bytes, a full tile
//	BLOCK   35  index uvarint | the stored block
//	CONTROL 36  index uvarint | the control entry
//	GONE    37  index uvarint | n uvarint: these are not here
//	END     38  code u8: 0 all was said, 1 no such drive, 2 cannot, 3 too much
//	HELD    39  index uvarint | proof that the slice is here, 32 bytes
//	HAS     40  index uvarint | n uvarint: these are here
//	BOX     41  the control entry of a key box
//
// INFO is answered with GENESIS, of which the drive id is the hash. PROVE is
// answered with PROOF, from the known size on, and what a reader begins with: the
// newest commit and the control entries since the known size, each after the
// tiles that verify it. From a known size on, that PROOF has leaves or not, and
// in any case edges, the consistency proof and its base, the root that the sender
// has at the known size: if the proof verifies between the base and the head, and
// the base is not the root that the reader knows, then the log has forked, and
// whoever passes it on is not to blame; if it does not verify, it is a lie. GET is answered with the tiles and then the entries, or
// GONE. WALK is answered by who can read the drive with the entries that the
// operation reads (see [hearth/fs.Walk]), with tiles; a tile is sent once in an
// answer. BOXES is answered with the recipient's boxes of the epochs that have
// begun, in their order; the owner's signatures vouch for them.
//
// HAVE is answered with HAS, in order. PROBE asks a peer to prove that it has
// slices of entries as they are stored: the bytes [offset, offset+length) of each,
// an entry once. For each, in their order, the answer has HELD, whose proof is the
// BLAKE3 hash, keyed with the nonce, of
//
//	key of the device that answers | key of the device that asks |
//	drive id | writer u16 | index u64 | offset u32 | the bytes
//
// or GONE, of that one entry, if it is not there. So only who has the bytes can make
// the proof, and nobody can have it made by another. The asker compares it with what
// its own copy gives. What should be there and cannot be read is left out: it is
// lost. Who is asked for all of an entry verifies it first, so that another proof
// than the true one is a lie.
//
// A device audits those that share a drive to which it writes half a minute after
// they have connected, again within minutes as long as they have more each time, and
// every hour: 512 slices of 1,024 bytes, of entries chosen with equal probability,
// which miss the loss of one entry in a hundred with a probability of 0.6 %.
//
// testdata/protocol/v1/transcript.txt is a conversation that has each message at
// least once.
//
// # Introductions
//
// Devices that know only a third one find each other through it, and stay
// together when it is gone. What PEERS says is a hint where to dial, with the
// device's key expected, and nothing more is believed for it.
//
// A device is only told of if it has said itself, in its newest PEERS of the
// drive, that it is open; who is not open need not send PEERS. The address is the
// one at which the sender of PEERS exchanges packets with the device, whichever of
// them dialed, as a device listens and dials with one socket. It must be of use to
// who is told: not unspecified, multicast or link-local; a loopback address only
// over loopback; a private one, of RFC 1918, RFC 4193 or RFC 6598, only to who is
// at such an address, too, or at a loopback or link-local one. Who is told holds
// it against the same rules, with the address of who tells, and passes over what
// breaks them.
//
// A device that is told passes over itself, whom it is connected to, has banned or
// was made to forget, and all of a drive that 8 others share already. It dials at
// most 4 at a time, for 2 s each: 8 packets to who does not answer. Who never
// answered is tried again after half a minute, 3 and 20 minutes, and then not any
// more, unless it is told of after another hour. In an hour there are at most 128
// attempts without success at those who never answered, 32 for what one device
// said, 16 at one IPv4 address or IPv6 network of 64 bits, and 8 of these for what
// one device said. A device that answered there and shared a drive is remembered,
// over restarts, too, and when it is missed tried again, at intervals that grow to
// 2 minutes, and after an hour to an hour. One that shares nothing within 10 s is
// left.
//
// # Eviction
//
// A device evicts a block only when another one has proved, by PROBE, to have
// it. From before it asks until it is done or has given up, it says itself in
// answers to PROBE and HAVE that it has not. So of several devices that evict
// one block, the last one to begin finds nobody to rely on but one that does not
// evict: the block stays somewhere, without locks that others would have to hold
// and give back. A device that leaves a drive does the same for all that it has of
// it, also for what arrives meanwhile, unless it is told to leave without asking.
// What HELD vouches for is durable.
//
// # Limits
//
// A drive has at most 512 valid share links, and the answer to BOXES at most the
// 1,024 newest boxes.
// A message has at most 300,000 bytes, an OFFER 1,024 tokens, a HOLDS 4,096 ranges
// of entries below 2^40, a GET 64 tiles and 64 ranges of together 1,024 entries, a
// PROBE 512 slices of together 16 MiB, a HAVE 64 ranges of 65,536 entries, the answer
// to a WALK 8 MiB of entries. A connection has at most 64 NAMEs, and 16 PEERS of a
// drive and two more for each second of its life, a PEERS 32 devices, a stream at
// most 64 requests that are not answered. Who breaks a rule is
// disconnected with code 16, who leaves requests without an answer, or the next
// part of one, for 10 s with code 17.
package replicate
