package fs

import (
	"fmt"
	"testing"
	"time"
)

// Saves that follow each other without a pause are one change to whoever reads
// the log, but each is a version; and none of them shows what it was called
// while it was written. Versions fall where the program asks for durability.
func TestQuickSavesAreVersions(t *testing.T) {
	word := func(k *desk, c Caller, path, text string) {
		k.write(c, "/~new.tmp", text)
		k.cut(time.Millisecond)
		k.mv(c, path, "/~old.tmp", 0)
		k.mv(c, "/~new.tmp", path, 0)
		k.rm(c, "/~old.tmp")
	}
	exchange := func(k *desk, c Caller, path, text string) {
		k.write(c, path+".new", text)
		k.cut(time.Millisecond)
		k.mv(c, path+".new", path, RenameExchange)
		k.rm(c, path+".new")
	}
	glib := func(k *desk, c Caller, path, text string) {
		k.write(c, "/.tmp", text)
		k.cut(time.Millisecond)
		k.mv(c, "/.tmp", path, 0)
	}
	vim := func(k *desk, c Caller, path, text string) {
		k.mv(c, path, path+"~", 0)
		k.write(c, path, text)
		k.cut(time.Millisecond)
		k.rm(c, path+"~")
	}
	for name, save := range map[string]func(k *desk, c Caller, path, text string){
		"glib": glib, "exchange": exchange, "word": word, "vim": vim,
	} {
		for _, noIndex := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, index %v", name, !noIndex), func(t *testing.T) {
				k := newDesk(t, Options{NoIndex: noIndex})
				k.write(k.program(), "/report.txt", "one")
				k.cut(time.Minute)
				c := k.program()
				for _, text := range []string{"two", "three!", "four"} {
					save(k, c, "/report.txt", text)
					k.clock.pass(100 * time.Millisecond)
				}
				k.cut(time.Minute)
				k.wantVersions("/report.txt", "four", "three!", "two", "one")
				k.wantChanges(ChangeQuery{Path: "/report.txt"}, "saved /report.txt", "created /report.txt")
				k.wantChanges(ChangeQuery{}, "saved /report.txt", "created /report.txt")
				if got := k.deletedIn("/"); len(got) != 0 {
					t.Errorf("deleted: %q", got)
				}
			})
		}
	}
}

// A person who saves again and again has made as many changes, also where the
// editor writes a new file each time.
func TestSavesOfOneEditorAreChanges(t *testing.T) {
	for name, save := range editors {
		t.Run(name, func(t *testing.T) {
			k := newDesk(t, Options{})
			k.write(k.program(), "/report.txt", "one")
			k.cut(time.Minute)
			c := k.program()
			verb := "saved"
			if name == "in place" {
				verb = "edited"
			}
			want := []string{"created /report.txt"}
			for _, text := range []string{"two", "three!", "four"} {
				save(k, c, "/report.txt", text)
				k.cut(500 * time.Millisecond)
				want = append([]string{verb + " /report.txt"}, want...)
			}
			k.wantVersions("/report.txt", "four", "three!", "two", "one")
			k.wantChanges(ChangeQuery{Path: "/report.txt"}, want...)
			k.wantChanges(ChangeQuery{}, want...)
		})
	}
}
