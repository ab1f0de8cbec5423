package parcel

import (
	"context"
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// The disk is full although the space was there when it was asked for.
func TestDiskFull(t *testing.T) {
	src, dst := tempDir(t), tempDir(t)
	if err := unix.Mount("tmpfs", dst, "tmpfs", 0, "size=6m"); err != nil {
		t.Skip("only root can mount a small file system to fill: ", err)
	}
	defer unix.Unmount(dst, unix.MNT_DETACH)
	write(t, src+"/f", random(1, 12<<20))
	so := SendOptions{Paths: []string{src + "/f"}}
	a, b := loopback(t)
	o := transfer(context.Background(), a, b, so, ReceiveOptions{Dir: dst})
	if !errors.Is(o.sendErr, ErrNoSpace) || !errors.Is(o.getErr, ErrNoSpace) || len(names(t, dst)) > 0 {
		t.Fatalf("%+v", o)
	}
	a, b = loopback(t)
	o = transfer(context.Background(), a, b, so, ReceiveOptions{Dir: dst, space: func(int) (space, error) { return space{1 << 40, 4096}, nil }})
	if !errors.Is(o.sendErr, ErrNoSpace) || !errors.Is(o.getErr, ErrNoSpace) {
		t.Fatalf("%+v", o)
	}
	if list, err := Partials(dst); err != nil || len(list) != 1 || !slices.Equal(names(t, dst), []string{partialName(list[0].ID)}) {
		t.Fatalf("%+v, %v", list, err)
	}
}
