package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hearth/cmd/control"
	"hearth/cmd/home"
)

// fake is a daemon that answers with what a test wants.
func fake(t testing.TB, version string, routes map[string]http.HandlerFunc) *Client {
	t.Helper()
	h, err := home.Ensure(filepath.Join(t.TempDir(), "h"))
	if err != nil {
		t.Fatal(err)
	}
	lock, err := h.Lock()
	if err != nil {
		t.Fatal(err)
	}
	l, err := h.Listen()
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc(control.Ping, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(control.Pong{PID: 1, Version: version})
	})
	for route, fn := range routes {
		// The body is read first, as the daemon does: until then the client
		// waits to be asked for it, and nobody notices that it went away.
		mux.HandleFunc(route, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			fn(w, r)
		})
	}
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); _ = lock.Release() })
	c, err := Connect(t.Context(), h, false)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestVersionMismatch(t *testing.T) {
	t.Parallel()
	err := fake(t, "v0.0.1", nil).CheckVersion()
	e := control.AsError(err)
	if err == nil || !strings.Contains(e.Message, "version v0.0.1") || !strings.Contains(e.Hint, "hearth stop") {
		t.Fatalf("%v", err)
	}
	if err := fake(t, control.BuildVersion(), nil).CheckVersion(); err != nil {
		t.Fatal(err)
	}
}

func TestNoDaemon(t *testing.T) {
	t.Parallel()
	h, err := home.Ensure(filepath.Join(t.TempDir(), "h"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Connect(t.Context(), h, false); control.AsError(err).Exit != control.ExitNoDaemon {
		t.Fatalf("%v", err)
	}
}

func TestRefusal(t *testing.T) {
	t.Parallel()
	c := fake(t, "", map[string]http.HandlerFunc{
		control.Sync: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(control.HintHeader, "50%25 of it")
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(control.Usage("a hint", "a message"))
		},
		control.Log: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "what?", http.StatusTeapot) },
	})
	var hint string
	c.Hint = func(s string) { hint = s }
	_, err := Call[struct{}](t.Context(), c, control.Sync, struct{}{})
	if e := control.AsError(err); e.Message != "a message" || e.Hint != "a hint" || e.Exit != control.ExitUsage {
		t.Errorf("%+v", e)
	}
	if hint != "50% of it" {
		t.Errorf("hint %q", hint)
	}
	if _, err := Call[struct{}](t.Context(), c, control.Log, struct{}{}); err == nil || !strings.Contains(err.Error(), "418") {
		t.Errorf("%v", err)
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body string
		items      int
		fails      string
	}{
		{"whole", `{"progress":{"what":"x","done":1}}` + "\n" + `{"item":1}` + "\n" + `{"item":2}` + "\n" + `{"done":"end"}` + "\n", 2, ""},
		{"refused", `{"error":{"message":"no","exit":3}}` + "\n", 0, "no"},
		{"failed later", `{"item":1}` + "\n" + `{"error":{"message":"broken","exit":1}}` + "\n", 1, "broken"},
		{"cut off", `{"item":1}` + "\n", 1, "went away"},
		{"cut off inside", `{"item":1}` + "\n" + `{"it`, 1, "went away"},
		{"no JSON", "what?\n", 0, "went away"},
		{"long", `{"item":` + strings.Repeat(" ", 200<<10) + `1}` + "\n" + `{"done":"end","progress":null}` + "\n", 1, "-"},
		{"nothing", ``, 0, "went away"},
		{"nonsense", `{"item":"x"}` + "\n", 0, "decode item"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := fake(t, "", map[string]http.HandlerFunc{control.Log: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, tt.body) }})
			n, progress := 0, 0
			done, err := Stream[int, string](t.Context(), c, control.Log, nil, func(int) error { n++; return nil }, func(control.Progress) { progress++ })
			if n != tt.items {
				t.Errorf("%d items", n)
			}
			if tt.fails == "" && (err != nil || done != "end" || progress != 1) {
				t.Errorf("%q, %v, %d", done, err, progress)
			}
			if tt.fails == "-" && err != nil {
				t.Errorf("%v", err)
			} else if tt.fails != "" && tt.fails != "-" && (err == nil || !strings.Contains(err.Error(), tt.fails)) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestStreamStops(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	c := fake(t, "", map[string]http.HandlerFunc{control.Changes: func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		_, _ = io.WriteString(w, `{"item":1}`+"\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}})
	enough := errors.New("enough")
	_, err := Stream[int, struct{}](t.Context(), c, control.Changes, nil, func(int) error { return enough }, nil)
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	<-gone
}

func TestCopy(t *testing.T) {
	t.Parallel()
	c := fake(t, "", map[string]http.HandlerFunc{
		control.Cat: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", control.ErrorTrailer)
			_, _ = io.WriteString(w, "half")
			w.Header().Set(control.ErrorTrailer, `{"message":"rotten","exit":1}`)
		},
		control.Export: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
	})
	var out bytes.Buffer
	if err := c.Copy(t.Context(), control.Cat, nil, &out); err == nil || err.Error() != "rotten" || out.String() != "half" {
		t.Errorf("%q, %v", out.String(), err)
	}
	if err := c.Copy(t.Context(), control.Export, nil, io.Discard); err == nil || !strings.Contains(err.Error(), "went away") {
		t.Errorf("%v", err)
	}
	if err := c.Copy(t.Context(), control.Cat, nil, broken{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v", err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestInterrupted(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	c := fake(t, "", map[string]http.HandlerFunc{control.Sync: func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the server notices that a client left only once it read the request
		close(arrived)
		<-r.Context().Done()
	}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	go func() { <-arrived; cancel() }()
	if _, err := Call[struct{}](ctx, c, control.Sync, struct{}{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
