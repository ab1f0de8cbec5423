package parcel

import (
	"context"
	"errors"
	"os"
	"testing"
)

// A folder or file that becomes a symlink between the walk and the reading is
// not followed, not even to something inside the tree.
func TestSwappedSymlinkAtSender(t *testing.T) {
	for _, target := range []string{"../secret", "other"} {
		src, dst := tempDir(t), tempDir(t)
		write(t, src+"/secret/file", []byte("secret"))
		write(t, src+"/t/other/file", []byte("secret"))
		write(t, src+"/t/sub/file", []byte("public"))
		write(t, src+"/t/top", []byte("public"))
		a, b := loopback(t)
		o := transfer(context.Background(), a, b, SendOptions{Paths: []string{src + "/t"}},
			ReceiveOptions{Dir: dst, Decide: func(context.Context, Offer) (Decision, error) {
				for name, to := range map[string]string{"sub": target, "top": target + "/file"} {
					os.RemoveAll(src + "/t/" + name)
					if err := os.Symlink(to, src+"/t/"+name); err != nil {
						t.Error(err)
					}
				}
				return Accept, nil
			}})
		if !errors.Is(o.sendErr, ErrChanged) || !errors.Is(o.getErr, ErrChanged) || len(o.sent.Skipped) != 2 {
			t.Fatalf("%+v", o)
		}
		for _, name := range []string{"sub/file", "top"} {
			if b, err := os.ReadFile(dst + "/t/" + name); err == nil {
				t.Fatalf("%s came: %q", name, b)
			}
		}
	}
}

// A symlink in the receiver's tree leads nowhere.
func TestSwappedSymlinkAtReceiver(t *testing.T) {
	dst := tempDir(t)
	write(t, dst+"/outside/keep", []byte("keep"))
	m := &manifest{}
	if err := m.decode(cat(folder("d"), raw(kindFile, 1, "keep", 0o644, 1, "")), 9); err != nil {
		t.Fatal(err)
	}
	s, err := openDest(dst, ID{1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	s.m = m
	if err := s.create(header{}); err != nil {
		t.Fatal(err)
	}
	tree := dst + "/" + partialName(ID{1}) + "/tree"
	if err := os.Symlink("../../outside", tree+"/d"); err != nil {
		t.Fatal(err)
	}
	if err := s.skeleton(context.Background()); err == nil {
		t.Fatal("a symlink was taken for a folder")
	}
	d := s.dirs()
	defer d.close()
	if err := s.writeSmall(d, 1, []byte("x")); err == nil {
		t.Fatal("written through a symlink")
	}
	os.Remove(tree + "/d")
	write(t, tree+"/d/other", nil)
	if err := os.Symlink("../../../outside/keep", tree+"/d/keep"); err != nil {
		t.Fatal(err)
	}
	if err := s.writeSmall(d, 1, []byte("x")); err != nil { // replaces the link
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(dst + "/outside/keep"); string(b) != "keep" {
		t.Fatal("written outside")
	}
}
