// Package parcel sends files and folders from one device to another over one
// stream that it is given. It owns the wire format of that stream, and the
// partial folders that a receiver keeps until a transfer is complete.
//
// It imports log/wire, and nothing else of Hearth: it knows no drives, keys or
// devices. Who is at the other end, and that nobody else listens, is the
// stream's promise.
//
// # Promises
//
//   - Nothing is written before the receiver's Decide said yes and the whole
//     manifest was checked and fits.
//   - What is placed is byte-identical to what the sender read, checked with
//     BLAKE3, file by file. A file that changes while it is read is sent again,
//     three times in all, and then left out and reported.
//   - Nothing is overwritten: a name that is taken becomes "name (2).ext".
//   - Nothing is read or written outside the folders that were named. Every
//     path is walked one component at a time and no symlink is followed, also
//     not one that is swapped in meanwhile.
//   - When Send returns without an error, everything is durable at the receiver.
//   - A transfer that broke goes on with the same ID. After the death of the
//     receiver at any moment, less than 5 MiB of a large file, and of small
//     files the frames on their way, are moved again.
//   - Memory is bounded: 17 MiB of buffers, and some 160 MiB for the manifest of
//     a million files, which is not asked for before the yes.
//
// # What is not carried
//
// The bits setuid, setgid and sticky; owners, access control lists, extended
// attributes; holes and hard links, which arrive as data and as separate
// files. Devices, sockets and fifos are skipped and reported, and so are
// symlinks that are absolute, are named themselves, or could lead out of
// their top-level folder: ".." counts only in front, see checkTarget. A
// change of a file that leaves size, times and mode as they were, as through
// a shared mapping within one tick of the clock, is not seen. A receiver whose
// file system takes two names for one (by case, say) ends the transfer with
// an error.
//
// # Wire format, version 1
//
// Integers and strings are as in package log/wire: u8, u16, u32 and u64 are
// fixed and big-endian, uvarint and varint are LEB128, a string is a uvarint
// length and its bytes. Names are bytes, not text.
//
// Each side starts with a preface, the 8 bytes "HRTHPRCL" and u8 version. Then
// come frames: u8 type, u32 length, at most 1 MiB, and so many bytes. An
// unknown type or version, a frame that does not decode to its last byte, and
// any message where it is not due end the stream with Cancel.
//
//	   sender                              receiver
//	1  Offer                          ->
//	                                  <-   32 Ping until the user decides
//	                                  <-   16 Want, or 19 Decline
//	2  Manifest, any number           ->
//	3  ManifestEnd                    ->
//	                                  <-   17 Have, any number
//	                                  <-   18 Accept, or 19 Decline
//	4  Batch, or
//	5  File, 6 Data ..., 7 FileEnd    ->
//	8  Changed                        ->
//	9  End                            ->
//	                                  <-   20 Again; not empty: the files come
//	                                       again, and another End
//	                                  <-   21 Placed, any number
//	                                  <-   22 Done
//	10 Bye                            ->
//
//	32 Ping    both, at any time between frames; empty
//	33 Cancel  both, likewise; the last frame of a side
//
// Offer: 16 bytes id; string sender's name, at most 255 bytes; uvarint files,
// folders, symlinks; uvarint bytes of all files; uvarint number of things
// skipped; uvarint number of top-level entries; uvarint number of those that
// follow, the first min(all, 1000): string name, u8 kind (0 file, 1 folder),
// uvarint files and uvarint bytes below it. A receiver refuses a manifest that
// does not add up to its offer.
//
// Manifest: entries to the end of the frame, never torn. An entry is
//
//	u8 kind          0 file, 1 folder, 2 symlink
//	uvarint          parent less the parent of the entry before (0 at first);
//	                 a parent is the index of a folder plus 1, 0 the top level
//	string name      1 to 255 bytes, no "/", no NUL, neither "." nor ".."
//	u16 mode         permission bits, at most 0777
//	varint, uvarint  seconds and nanoseconds of the modification time
//	uvarint size     of a file
//	string target    of a symlink, at most 4095 bytes
//
// Entries are numbered from 0. Parents come before their entries and do not
// decrease; the names within one parent ascend strictly by bytes. So the order
// is breadth first, and no path occurs twice. No symlink, and no name that
// begins with ".hearth-incoming-", is at the top level. A path has at most 128
// components, a manifest at most 4,194,304 entries and 256 MiB. ManifestEnd is
// the BLAKE3, 32 bytes, of the bodies of all Manifest frames, in order.
//
// Have: runs to the end of the frame: uvarint first entry, uvarint number of
// further entries, uvarint part. With part 0, all files among these entries
// are there. Otherwise it is one file, of which so many bytes are. Runs ascend
// over all frames.
//
// Batch: whole files to the end of the frame: uvarint entry, 32 bytes BLAKE3,
// string contents, at most 64 KiB and as long as the manifest says.
//
// File: uvarint entry, uvarint offset, uvarint size, u16 mode, varint seconds,
// uvarint nanoseconds. The offset is 0, or what Have said, once, if the rest
// is as in the manifest. The rest differs for a file that changed since it was
// listed; all files together may outgrow the manifest by 64 MiB and a
// sixteenth of the offered bytes. Data is the next bytes, not empty. FileEnd
// is the BLAKE3 of the whole file, the part before the offset included.
//
// Changed: uvarint entry, u8 reason. 0: what came of the file under way is
// void, it comes again from 0. 3 (unreadable) or 4 (changed): it does not
// come at all; also without a File before.
//
// Again: u8 1 if another Again follows, else 0; then uvarint entries,
// ascending, whose hash did not match. After the fourth End it must be empty.
//
// Placed: to the end of the frame uvarint top-level entry, string name it was
// given; entries ascend over all frames. Done: uvarint files, uvarint bytes
// that are there, in place and durable.
//
// Decline and Cancel: u8 reason (1 declined, 2 no space, 3 busy, 4 canceled, 5
// protocol, 6 failed, 7 sender not known), uvarint bytes needed and uvarint bytes free (for 2,
// else 0), string for people, at most 1024 bytes. Whoever sent one of them, or
// Bye, waits up to 2 seconds for the other side to close.
//
// A side that hears nothing for 30 seconds gives up; each sends Ping after 10
// seconds without another frame.
//
// # The partial folder
//
// It is DIR/.hearth-incoming-ID, mode 0700, with a tree that becomes the
// top-level entries and a journal, which is locked while a transfer runs:
//
//	journal   see journal.go: what is finished, and every 4 MiB of the file
//	          under way the hash up to there
//	tree/     the entries under their names
//
// Order of writes: files and journal, without waiting for the disk; at the
// end folders' modes and times, deepest first; a sync of everything; the
// record that all is complete, synced; renames without replacing; a sync of
// the destination; Done. The folder is removed when Bye comes. If it does not,
// the journal stays, so that the sender, asking again with the same ID, learns
// that all is there.
//
// Before the complete record, neither files nor journal are durable, and a
// resuming receiver believes none of it: it hashes each file and compares. If
// the manifest is another one than before, it begins anew.
package parcel
