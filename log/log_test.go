package log

import (
	"bytes"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"hearth/log/disk"
	"hearth/log/disk/crashfs"
	"hearth/log/seal"
)

func testSeed(n byte) (seed [32]byte) {
	seed[0] = n
	return seed
}

func testKeys() *seal.Keyring {
	k := seal.NewKeyring()
	k.Add(0, testSeed(9))
	return k
}

func testOptions(d disk.FS, dir string) Options {
	return Options{
		FS: d, Dir: dir, Signer: NewSigner(testSeed(1)), Keys: testKeys(),
		Logger: slog.New(slog.DiscardHandler),
	}
}

func mustCreate(t testing.TB, o Options) *Log {
	t.Helper()
	l, err := CreateLog(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustOpen(t testing.TB, o Options) *Log {
	t.Helper()
	l, err := OpenLog(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustSeal(t testing.TB, l *Log, kind seal.Kind, plain string) []byte {
	t.Helper()
	b, err := l.keys.Seal(nil, kind, []byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustAppend(t testing.TB, l *Log, plain string) uint64 {
	t.Helper()
	index, err := l.Append(mustSeal(t, l, seal.Data, plain))
	if err != nil {
		t.Fatal(err)
	}
	return index
}

func mustCommit(t testing.TB, l *Log, plain string) Head {
	t.Helper()
	_, head, err := l.Commit(mustSeal(t, l, seal.Commit, plain), true)
	if err != nil {
		t.Fatal(err)
	}
	return head
}

func wantBlock(t testing.TB, l *Log, index uint64, kind seal.Kind, plain string) {
	t.Helper()
	got, err := l.ReadBlock(nil, index, kind)
	if err != nil {
		t.Fatalf("block %d: %v", index, err)
	}
	if string(got) != plain {
		t.Fatalf("block %d is %.20q, want %.20q", index, got, plain)
	}
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAppendCommitReopen(t *testing.T) {
	for name, d := range map[string]disk.FS{"os": disk.OS{}, "crashfs": crashfs.New(1)} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "log-0000")
			if err := d.MkdirAll(dir); err != nil {
				t.Fatal(err)
			}
			l := mustCreate(t, testOptions(d, dir))
			var want []string
			for i := range 50 {
				plain := fmt.Sprintf("block %d %s", i, bytes.Repeat([]byte{byte(i)}, i*997))
				want = append(want, plain)
				if index := mustAppend(t, l, plain); index != uint64(len(want)-1) {
					t.Fatalf("index %d, want %d", index, len(want)-1)
				}
				wantBlock(t, l, uint64(len(want)-1), seal.Data, plain)
				if i%7 == 6 {
					want = append(want, "commit")
					mustCommit(t, l, "commit")
					if i == 20 {
						break
					}
				}
			}
			head := l.Head()
			if head.Size != uint64(len(want)) {
				t.Fatalf("head of %d, want %d", head.Size, len(want))
			}
			check := func(l *Log) {
				t.Helper()
				if got := l.Head(); got.Size != head.Size || got.Root != head.Root || l.Size() != head.Size {
					t.Fatalf("head is %d of %d, want %d", got.Size, l.Size(), head.Size)
				}
				if h := l.Health(); len(h.Damage) > 0 {
					t.Fatal(h.Damage)
				}
				for i, plain := range want {
					kind := seal.Data
					if plain == "commit" {
						kind = seal.Commit
					}
					wantBlock(t, l, uint64(i), kind, plain)
				}
			}
			mustAppend(t, l, "not committed")
			mustClose(t, l)
			l = mustOpen(t, testOptions(d, dir))
			check(l)
			mustClose(t, l)
			if err := d.RemoveAll(filepath.Join(dir, "index")); err != nil {
				t.Fatal(err)
			}
			l = mustOpen(t, testOptions(d, dir))
			l.health.damage = nil
			check(l)
			mustClose(t, l)
		})
	}
}
