// Package tree is an immutable, copy-on-write B-tree of byte-string keys and
// values, stored in pages that somebody else keeps.
//
// It owns the page format, the shape of the tree and a cache of decoded pages.
// It imports log for [log.Ref] alone; where pages come from and go to is the
// two-method interface [Pages]. It promises:
//
//   - A root, once returned, reads the same for ever: no page is changed in
//     place, and [Tree.Apply] writes only pages whose contents changed,
//     children before parents.
//   - Reading is safe from any number of goroutines, also beside an Apply.
//   - A page is outside data. It is validated whole when it is loaded, and the
//     height of a child must be exactly one less than its parent's, so a bad or
//     malicious page gives an error matched by [ErrDamaged], never a panic, a
//     cycle or unbounded recursion. Scans and diffs yield keys in strict order
//     or fail.
//   - The encoding of a page is a function of its entries: equal contents seal
//     to equal blocks.
//
// It is not a transaction layer: one Apply at a time on one line of roots is
// the caller's matter, and so is making pages and the root durable.
//
// # Page format 1
//
// All fixed-width integers are big-endian. A page is at most 16,384 bytes:
//
//	offset   size  field
//	0        1     format: 1
//	1        1     height: 1 is a leaf, 2 to 12 a branch
//	2        2     count n: leaf 1 or more, branch 2 or more
//	4        2     length p of the common prefix
//	6        2n    end of each entry, as an offset from the start of the page
//	6+2n     p     common prefix of the keys of the page
//	6+2n+p   ...   the entries, in key order, without gaps
//
// Entry i starts where entry i-1 ends (entry 0 after the prefix); the last
// entry ends where the page ends. An entry of a leaf is
//
//	1 or 2   length s of the key's suffix, unsigned LEB128, shortest form
//	s        the key without the common prefix
//	...      the value: what is left of the entry
//
// and an entry of a branch is
//
//	2        writer of the child page's block
//	8        index of the child page's block in that writer's log
//	...      the child's separator without the common prefix
//
// The child in entry i holds the keys from separator i (inclusive) to separator
// i+1 (exclusive). The first child has no separator: it starts where the page
// does; its entry is exactly 10 bytes and takes no part in the prefix. A
// separator is the shortest string that is greater than every key before it and
// not greater than any key after it.
//
// The prefix is the longest that the keys (in a branch: separators) have in
// common, so that a page with one key holds it all in the prefix. Keys and
// separators ascend strictly. A key has at most 300 bytes, a value at most
// 4,352. Every page that is not in this form is refused.
//
// Worked examples: the leaf with a1=x and a2=yz is 18 bytes,
//
//	01 01 0002 0001 000e 0012 61 | 01 31 78 | 01 32 797a
//
// and the branch with children 7:5 and 7:6, the second from a2 on, is 32:
//
//	01 02 0002 0002 0016 0020 6132 | 0007 0000000000000005 | 0007 0000000000000006
//
// # Shape
//
// A page is split when it would outgrow 16,384 bytes: evenly, unless the new
// keys are one ascending run, which is packed to 95 % and leaves the rest of
// the old page behind it, so that sequential loads end dense wherever in the
// key space they happen. A page that shrinks below 4,096 bytes is merged with a
// neighbour, or takes from it.
package tree
