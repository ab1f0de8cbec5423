//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"hearth/replicate"
)

// bite is the size of a single read from afar.
const bite = 64 * kib

// readAll reads a file in order and returns its checksum, its size and how long
// that took.
func readAll(path string) (sum uint32, size int, took time.Duration, err error) {
	table, buf := crc32.MakeTable(crc32.Castagnoli), make([]byte, block)
	start := time.Now()
	f, err := open(path, unix.O_RDONLY)
	if err != nil {
		return 0, 0, 0, err
	}
	for {
		n, err := f.readAt(buf, size)
		if err != nil {
			return 0, 0, 0, errors.Join(fmt.Errorf("read %s at %d: %w", path, size, err), f.close())
		}
		if n == 0 {
			break
		}
		sum, size = crc32.Update(sum, table, buf[:n]), size+n
	}
	took = time.Since(start)
	return sum, size, took, f.close()
}

// readBite reads a few bytes of a file and returns how long that took, with the
// opening. The runtime knows of these system calls, unlike those of file: what
// is read may have to come through a relay of this process, which would stand
// still with the collector of garbage until the read ends.
func readBite(path string, off, n int) ([]byte, time.Duration, error) {
	buf := make([]byte, n)
	start := time.Now()
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	_, err = f.ReadAt(buf, int64(off))
	took := time.Since(start)
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("read %s at %d: %w", path, off, err), f.Close())
	}
	return buf, took, f.Close()
}

// same reads what was read elsewhere from the author, and compares.
func same(author *member, name string, off int, got []byte) error {
	want, _, err := readBite(author.mnt+"/"+name, off, len(got))
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%s at %d: it is not what the author wrote", name, off)
	}
	return err
}

// remote reads a joined drive of which nothing is local.
func remote(ctx context.Context, n *network) error {
	author, err := n.author(ctx)
	if err != nil {
		return err
	}
	size := n.size(gib)
	for name, size := range map[string]int{"note": page, big: size, "film": size} {
		if err := writeFresh(author.mnt+"/"+name, size); err != nil {
			return err
		}
	}
	sum, _, _, err := readAll(author.mnt + "/film")
	if err != nil {
		return err
	}
	link, err := author.share(ctx, false)
	if err != nil {
		return err
	}
	reader, err := n.device("reader", true)
	if err != nil {
		return err
	}
	if err := reader.begin(ctx); err != nil {
		return err
	}
	if err := reader.join(ctx, link); err != nil {
		return err
	}
	unix.Sync()

	start := time.Now()
	if err := reader.show(ctx); err != nil {
		return err
	}
	shown := time.Since(start)
	first, took, err := readBite(reader.mnt+"/note", 0, 1)
	if err != nil {
		return err
	}
	n.record("first-byte", ms(took))
	n.record("mount-byte", ms(shown+took))
	if err := same(author, "note", 0, first); err != nil {
		return err
	}
	if err := coldReads(n, author, reader, size); err != nil {
		return err
	}

	got, length, took, err := readAll(reader.mnt + "/film")
	if err != nil {
		return err
	}
	if length != size || got != sum {
		return fmt.Errorf("%d bytes were read that are not what the author wrote", length)
	}
	n.record("remote-read", float64(size)/1e6/took.Seconds())
	return n.raw(ctx, "remote-read")
}

// coldReads reads in the middle of a big file, and then wherever nothing was
// read before.
func coldReads(n *network, author, reader *member, size int) error {
	const parts = 21
	middle := size / 2 / bite * bite
	got, took, err := readBite(reader.mnt+"/"+big, middle, bite)
	if err != nil {
		return err
	}
	n.record("cold-first", ms(took))
	if err := same(author, big, middle, got); err != nil {
		return err
	}
	var all []time.Duration
	for _, i := range rand.Perm(parts) {
		if i == parts/2 {
			continue
		}
		off := size / parts * i / bite * bite
		got, took, err := readBite(reader.mnt+"/"+big, off, bite)
		if err != nil {
			return err
		}
		all = append(all, took)
		if err := same(author, big, off, got); err != nil {
			return err
		}
	}
	n.record("cold-read", ms(quantile(all, 0.5)))
	return nil
}

// away is the round trip time of a network that is not this one.
const away = 50 * time.Millisecond

// far reads a drive of a device that is far away.
func far(ctx context.Context, n *network) error {
	author, err := n.author(ctx)
	if err != nil {
		return err
	}
	size := n.size(gib)
	middle := size / 2 / bite * bite
	if err := writeFresh(author.mnt+"/"+big, size); err != nil {
		return err
	}
	text, err := author.share(ctx, false)
	if err != nil {
		return err
	}
	port, err := author.port(ctx)
	if err != nil {
		return err
	}
	link, err := replicate.ParseLink(text)
	if err != nil {
		return err
	}
	// A drive that was joined once; then everything starts anew.
	slow, err := newRelay(port, away/2)
	if err != nil {
		return err
	}
	defer slow.close()
	link.Addresses = []string{slow.addr()}
	known, err := n.device("known", false)
	if err != nil {
		return err
	}
	if err := known.join(ctx, link.String()); err != nil {
		return err
	}
	if err := known.halt(ctx); err != nil {
		return err
	}
	unix.Sync()
	start := time.Now()
	if err := known.show(ctx); err != nil {
		return err
	}
	got, _, err := readBite(known.mnt+"/"+big, middle, bite)
	if err != nil {
		return err
	}
	n.record("far-read", ms(time.Since(start)))
	if err := same(author, big, middle, got); err != nil {
		return err
	}
	if err := known.halt(ctx); err != nil {
		return err
	}

	// A drive that was never seen.
	another, err := newRelay(port, away/2)
	if err != nil {
		return err
	}
	defer another.close()
	link.Addresses = []string{another.addr()}
	newcomer, err := n.device("newcomer", false)
	if err != nil {
		return err
	}
	start = time.Now()
	if err := newcomer.join(ctx, link.String()); err != nil {
		return err
	}
	if err := newcomer.show(ctx); err != nil {
		return err
	}
	if got, _, err = readBite(newcomer.mnt+"/"+big, middle, bite); err != nil {
		return err
	}
	n.record("far-join", ms(time.Since(start)))
	return same(author, big, middle, got)
}
