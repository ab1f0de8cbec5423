package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"net/url"
	"runtime/debug"
	"sync"
	"time"

	"hearth/cmd/control"
)

// maxBody bounds a request's body: paths and names, nothing larger.
const maxBody = 1 << 20

// routes is everything the daemon answers. Only Ping and Stop are for clients
// of any version: without them nobody could end a daemon of another one.
func (d *Daemon) routes() http.Handler {
	mux := http.NewServeMux()
	post := func(route string, h http.Handler) { mux.Handle("POST "+route, h) }
	post(control.Ping, d.whenReady(answer(d, d.ping)))
	post(control.Stop, d.whenReady(answer(d, d.stop)))

	same := func(route string, h http.Handler) { post(route, d.whenReady(sameVersion(h))) }
	same(control.Status, answer(d, d.status))
	same(control.Create, answer(d, d.create))
	same(control.Mount, answer(d, d.mount))
	same(control.Unmount, answer(d, d.unmount))
	same(control.Sync, answer(d, d.sync))
	same(control.Log, list(d, d.changes))
	same(control.Versions, list(d, d.versions))
	same(control.Diff, stream(d, d.diff))
	same(control.Cat, contents(d, d.cat))
	same(control.Restore, answer(d, d.restore))
	same(control.Undelete, answer(d, d.undelete))
	same(control.Undo, answer(d, d.undo))
	same(control.Redo, answer(d, d.redo))
	same(control.Tag, answer(d, d.tag))
	same(control.Tags, answer(d, d.tags))
	same(control.Untag, answer(d, d.untag))
	same(control.Changes, stream(d, d.feed))
	same(control.Retain, answer(d, d.retain))
	same(control.Sweep, stream(d, d.sweep))
	same(control.Purge, stream(d, d.purge))
	same(control.Verify, stream(d, d.verify))
	same(control.Audit, answer(d, d.audit))
	same(control.Export, stream(d, d.export))
	same(control.Share, answer(d, d.share))
	same(control.Links, answer(d, d.links))
	same(control.Unshare, answer(d, d.unshare))
	same(control.Join, answer(d, d.join))
	same(control.Leave, stream(d, d.leave))
	same(control.Peers, answer(d, d.peers))
	same(control.Connect, answer(d, d.connect))
	same(control.Nearby, answer(d, d.nearby))
	same(control.Fetch, stream(d, d.fetch))
	same(control.Evict, stream(d, d.evict))
	same(control.Where, answer(d, d.where))
	same(control.Send, stream(d, d.send))
	same(control.Receive, stream(d, d.receive))
	same(control.Answer, answer(d, d.answerOffer))
	same(control.Standing, answer(d, d.standing))
	same(control.Set, answer(d, d.set))

	// For developers: curl --unix-socket HOME/socket http://hearth/debug/pprof/heap
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// whenReady holds requests back until the daemon is ready, and survives what
// a request should not have done: other requests and the mounts go on.
func (d *Daemon) whenReady(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(control.VersionHeader, control.BuildVersion())
		select {
		case <-d.ready:
		case <-d.stopping:
		case <-r.Context().Done():
			return
		}
		select {
		default:
		case <-d.stopping:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(control.StatusEnding)
			_ = json.NewEncoder(w).Encode(control.NoDaemon("the next command starts it again", "the daemon ended"))
			return
		}
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(p)
				}
				d.logger.Error("a request failed badly", "route", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				panic(http.ErrAbortHandler) // cut the answer off: it may be half written
			}
		}()
		h.ServeHTTP(w, r)
	})
}

// sameVersion refuses clients of another build.
func sameVersion(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got, own := r.Header.Get(control.VersionHeader), control.BuildVersion(); got != own {
			refuse(w, control.Failed("run `hearth stop`; the next command starts the daemon of its own version",
				"the daemon is version %s and was asked by version %s", own, control.Show(got)))
			return
		}
		h.ServeHTTP(w, r)
	})
}

// refuse answers with an error alone.
func refuse(w http.ResponseWriter, e *control.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(e)
}

func decode(r *http.Request, into any) error {
	dec := json.NewDecoder(io.LimitReader(r.Body, maxBody))
	if err := dec.Decode(into); err != nil {
		return control.Usage("", "the request is not understood: %w", err)
	}
	return nil
}

// hintKey finds, in a request's context, the place for a hint.
type hintKey struct{}

// giveHint sends a hint along with a request's answer, if nothing of the
// answer was sent yet.
func giveHint(ctx context.Context, format string, args ...any) {
	if h, ok := ctx.Value(hintKey{}).(http.Header); ok {
		h.Set(control.HintHeader, url.PathEscape(fmt.Sprintf(format, args...)))
	}
}

func withHints(w http.ResponseWriter, r *http.Request) context.Context {
	return context.WithValue(r.Context(), hintKey{}, w.Header())
}

// answer serves a method that takes one body and returns one.
func answer[Request, Answer any](d *Daemon, method func(context.Context, Request) (Answer, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req Request
		if err := decode(r, &req); err != nil {
			refuse(w, control.AsError(err))
			return
		}
		a, err := method(withHints(w, r), req)
		if err != nil {
			refuse(w, d.explain(r, err))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a)
	})
}

// sink takes the items and the progress of a stream, from any goroutine.
type sink struct {
	mu      sync.Mutex
	w       io.Writer
	flush   func()
	buf     bytes.Buffer
	enc     *json.Encoder
	painted time.Time
}

func newSink(w http.ResponseWriter) *sink {
	s := &sink{w: w, flush: func() { _ = http.NewResponseController(w).Flush() }}
	s.enc = json.NewEncoder(&s.buf)
	s.enc.SetEscapeHTML(false)
	return s
}

// sinkBuffer is how much is gathered before it is sent.
const sinkBuffer = 64 << 10

// item sends one item. It may wait in the buffer until [sink.now].
func (s *sink) item(v any) error { return s.line("item", v) }

// line writes {"name":v}, a line as control.Line has them.
func (s *sink) line(name string, v any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf.WriteString(`{"` + name + `":`) // control.ItemPrefix, for items
	if err := s.enc.Encode(v); err != nil {
		return err
	}
	s.buf.Truncate(s.buf.Len() - 1) // the encoder's newline
	s.buf.WriteString("}\n")
	if s.buf.Len() >= sinkBuffer {
		return s.send()
	}
	return nil
}

func (s *sink) send() error {
	_, err := s.w.Write(s.buf.Bytes())
	s.buf.Reset()
	return err
}

// now sends what waits in the buffer.
func (s *sink) now() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.send(); err != nil {
		return err
	}
	s.flush()
	return nil
}

// progress sends how far the work is, a few times a second at most.
func (s *sink) progress(what string, done, total int64) {
	s.mu.Lock()
	due := time.Since(s.painted) >= 100*time.Millisecond
	if due {
		s.painted = time.Now()
	}
	s.mu.Unlock()
	if due && s.line("progress", control.Progress{What: what, Done: done, Total: total}) == nil {
		_ = s.now()
	}
}

// stream serves a method that sends items while it works. Its error is the
// last line, or refuses the request if nothing was sent yet.
func stream[Request, Done any](d *Daemon, method func(context.Context, Request, *sink) (Done, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req Request
		if err := decode(r, &req); err != nil {
			refuse(w, control.AsError(err))
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		s := newSink(w)
		done, err := method(withHints(w, r), req, s)
		if err != nil {
			_ = s.line("error", d.explain(r, err))
		} else {
			_ = s.line("done", done)
		}
		_ = s.now()
	})
}

// contents serves a method that sends raw bytes. Its error is in the trailer,
// or refuses the request if nothing was sent yet.
func contents[Request any](d *Daemon, method func(context.Context, Request, io.Writer) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req Request
		if err := decode(r, &req); err != nil {
			refuse(w, control.AsError(err))
			return
		}
		out := &started{w: w}
		err := method(withHints(w, r), req, out)
		switch {
		case err != nil && !out.yes:
			refuse(w, d.explain(r, err))
		case err != nil:
			b, _ := json.Marshal(d.explain(r, err))
			w.Header().Set(control.ErrorTrailer, string(b))
		}
	})
}

// list serves a method that lists things newest first, as JSON or as rows of
// text.
func list[Item interface{ Row() control.Row }](d *Daemon, method func(context.Context, control.LogRequest, func(Item) error) error) http.Handler {
	asRows := contents(d, func(ctx context.Context, req control.LogRequest, out io.Writer) error {
		var buf []byte
		err := method(ctx, req, func(it Item) error {
			if buf = it.Row().Append(buf); len(buf) < sinkBuffer {
				return nil
			}
			_, err := out.Write(buf)
			buf = buf[:0]
			return err
		})
		if len(buf) > 0 {
			if _, writeErr := out.Write(buf); err == nil {
				err = writeErr
			}
		}
		return err
	})
	asJSON := stream(d, func(ctx context.Context, req control.LogRequest, out *sink) (struct{}, error) {
		return struct{}{}, method(ctx, req, func(it Item) error { return out.item(it) })
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has(control.RowsQuery) {
			asRows.ServeHTTP(w, r)
			return
		}
		asJSON.ServeHTTP(w, r)
	})
}

// started notes whether anything was written.
type started struct {
	w   http.ResponseWriter
	yes bool
}

func (s *started) Write(p []byte) (int, error) {
	if !s.yes {
		s.yes = true
		s.w.Header().Set("Content-Type", "application/octet-stream")
		s.w.Header().Set("Trailer", control.ErrorTrailer)
	}
	return s.w.Write(p)
}
