package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"hearth/cmd/control"
	"hearth/cmd/home"
	"hearth/fs"
)

// leaver is a client that goes away at the first word of the daemon.
type leaver struct {
	http.ResponseWriter
	leave context.CancelFunc
}

func (l leaver) Write([]byte) (int, error) {
	l.leave()
	return 0, errors.New("nobody listens")
}

func (l leaver) Header() http.Header { return http.Header{} }

// TestPurgeIsWhole: when the client of a purge goes away, what it named is
// gone from the history as it is from the folder.
func TestPurgeIsWhole(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	h, err := home.Ensure(filepath.Join(t.TempDir(), "home"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDaemon(Options{Home: h, Logger: slog.New(slog.DiscardHandler), Memory: 64 << 20})
	if err == nil {
		_, err = d.create(ctx, control.CreateRequest{Name: "home"})
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		d.letGo()
		if err := d.end(ctx); err != nil {
			t.Error(err)
		}
	}()
	open, err := d.openDrive(ctx, "home")
	if err != nil {
		t.Fatal(err)
	}
	f, _, err := open.drive.Create(ctx, fs.Caller{}, fs.RootIno, "secret", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(ctx, []byte("secret"), 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := open.drive.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	before := open.drive.Newest()

	asked, leave := context.WithCancel(ctx)
	defer leave()
	out := newSink(leaver{leave: leave})
	target := control.Target{Drive: "home", Path: control.PathOf("/secret"), Now: time.Now()}
	if _, err := d.purge(asked, target, out); err != nil {
		t.Fatalf("purge: %v", err)
	}
	if asked.Err() == nil {
		t.Fatal("the client is still there: nothing was tested")
	}
	if _, err := open.drive.Resolve(ctx, "/secret"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("in the folder: %v", err)
	}
	s, err := open.drive.At(ctx, before)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve(ctx, "/secret"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("in the history: %v", err)
	}
}
