package mount

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"hearth/fs"
)

// BenchmarkRequest measures what a request costs beside the kernel and the
// wire: the adapter and the drive.
func BenchmarkRequest(b *testing.B) {
	d := newTestDrive(b)
	s := newServer(d, Options{Logger: slog.New(slog.DiscardHandler)})
	root := fuse.InHeader{NodeId: 1, Caller: fuse.Caller{Pid: 1}}
	cancel := make(chan struct{})
	var created fuse.CreateOut
	if st := s.Create(cancel, &fuse.CreateIn{InHeader: root, Mode: 0o644}, "file", &created); st != fuse.OK {
		b.Fatal(st)
	}
	block := make([]byte, 4096)
	ok := func(st fuse.Status) {
		if st != fuse.OK {
			b.Fatal(st)
		}
	}
	run := func(name string, fn func(i int)) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				fn(i)
			}
		})
	}
	run("GetAttr", func(int) {
		ok(s.GetAttr(cancel, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: created.NodeId}}, &fuse.AttrOut{}))
	})
	run("Lookup", func(int) { ok(s.Lookup(cancel, &root, "file", &fuse.EntryOut{})) })
	run("LookupAbsent", func(int) { ok(s.Lookup(cancel, &root, "absent", &fuse.EntryOut{})) })
	run("Write", func(int) {
		_, st := s.Write(cancel, &fuse.WriteIn{InHeader: root, Fh: created.Fh}, block)
		ok(st)
	})
	run("Read", func(int) {
		_, st := s.Read(cancel, &fuse.ReadIn{InHeader: root, Fh: created.Fh, Size: 4096}, block)
		ok(st)
	})
	run("Getxattr", func(int) {
		if _, st := s.GetXAttr(cancel, &root, "security.capability", nil); st != fuse.ENODATA {
			b.Fatal(st)
		}
	})
	n := 0
	run("CreateRelease", func(int) {
		n++
		var out fuse.CreateOut
		ok(s.Create(cancel, &fuse.CreateIn{InHeader: root, Mode: 0o644}, fmt.Sprint("n", n), &out))
		s.Release(cancel, &fuse.ReleaseIn{Fh: out.Fh})
		s.Forget(out.NodeId, 1)
	})
	h := &dirHandle{node: uint64(fs.RootIno)}
	fh := s.dirs.add(h)
	reply := make([]byte, 32<<10)
	run("ReadDirPlus", func(int) {
		ok(s.ReadDirPlus(cancel, &fuse.ReadIn{InHeader: root, Fh: fh, Size: uint32(len(reply))}, fuse.NewDirEntryList(reply, 0)))
	})
	b.ReportMetric(float64(h.names.len()), "entries")
	s.shutdown()
}
