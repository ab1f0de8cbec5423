package fs

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkDocument lists the versions of one document that was saved 5,000
// times.
func BenchmarkDocument(b *testing.B) {
	for _, how := range []string{"in place", "glib"} {
		k := newDesk(b, Options{})
		k.write(k.program(), "/f.txt", "0")
		k.cut(time.Minute)
		const n = 5_000
		for i := range n {
			if how == "in place" {
				k.write(k.program(), "/f.txt", fmt.Sprint(i))
			} else {
				editors[how](k, k.program(), "/f.txt", fmt.Sprint(i))
			}
			k.cut(time.Minute)
		}
		k.must(k.Sync(ctx))
		k.index.await(ctx, k.Newest().Seq)
		for _, limit := range []int{0, 200} {
			b.Run(fmt.Sprintf("%s/versions/%d", how, limit), func(b *testing.B) {
				for b.Loop() {
					k.must(k.FileVersions(ctx, "/f.txt", limit, func(FileVersion) bool { return true }))
				}
			})
			b.Run(fmt.Sprintf("%s/changes/%d", how, limit), func(b *testing.B) {
				for b.Loop() {
					k.must(k.Changes(ctx, ChangeQuery{Path: "/f.txt", Limit: limit}, func(Change) bool { return true }))
				}
			})
		}
		b.Run(how+"/all changes/200", func(b *testing.B) {
			for b.Loop() {
				k.must(k.Changes(ctx, ChangeQuery{Limit: 200}, func(Change) bool { return true }))
			}
		})
		b.Run(how+"/list by-file", func(b *testing.B) {
			for b.Loop() {
				k.past.m = nil
				k.list("/", "by-file/f.txt")
			}
		})
		b.Run(how+"/list", func(b *testing.B) {
			for b.Loop() {
				k.list("/", "")
			}
		})
		b.Run(how+"/log", func(b *testing.B) {
			for b.Loop() {
				k.past.m = nil
				k.text("/", "log")
			}
		})
	}
}
