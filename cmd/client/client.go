// Package client is the command line's side of the control socket: it finds
// the daemon of a home, starts one where that is wanted, sends requests and
// reads answers, streams and file contents, and turns every failure into a
// *control.Error that a person can act on.
//
// It imports home and control. It knows no drive: everything about drives is
// asked of the daemon.
package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"

	"hearth/cmd/control"
	"hearth/cmd/home"
)

// Client talks to one daemon.
type Client struct {
	home  *home.Home
	http  *http.Client
	spawn bool // start a daemon if there is none
	pong  control.Pong
	// Hint, if set, is told what the daemon says beside an answer.
	Hint func(text string)
}

// New makes a client of the daemon of a home, without connecting.
func New(h *home.Home) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", h.SocketPath())
	}
	return &Client{home: h, http: &http.Client{Transport: &http.Transport{
		DialContext: dial, DisableCompression: true, MaxIdleConns: 1, ExpectContinueTimeout: patience,
	}}}
}

// Mounts returns the daemon's mounts as they were when the client connected.
func (c *Client) Mounts() []control.Mounted { return c.pong.Mounts }

// PID returns the daemon's process.
func (c *Client) PID() int { return c.pong.PID }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// ping asks who answers at the socket. Its errors are those of the transport.
func (c *Client) ping(ctx context.Context) error {
	resp, _, err := c.send(ctx, control.Ping, struct{}{})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(&c.pong)
}

// CheckVersion refuses a daemon of another build. Every route but Ping and
// Stop needs the check to pass.
func (c *Client) CheckVersion() error {
	if own := control.BuildVersion(); c.pong.Version != own {
		return control.Failed("run `hearth stop`; the next command starts the daemon of this version",
			"the daemon (pid %d) is version %s and this is version %s", c.pong.PID, c.pong.Version, own)
	}
	return nil
}

// send sends a request. The body goes out only when the daemon asks for it
// (Expect: 100-continue, RFC 9110 section 10.1.1), so that a connection which
// breaks before that has certainly done nothing: seen tells.
func (c *Client) send(ctx context.Context, route string, body any) (resp *http.Response, seen bool, err error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, false, fmt.Errorf("encode request: %w", err)
	}
	sent := &sentBody{r: bytes.NewReader(b)}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://hearth"+route, sent)
	if err != nil {
		return nil, false, err
	}
	req.ContentLength = int64(len(b))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Expect", "100-continue")
	req.Header.Set(control.VersionHeader, control.BuildVersion())
	resp, err = c.http.Do(req)
	return resp, sent.begun.Load(), err
}

// sentBody is the body of a request; begun tells whether the transport has
// started to send it.
type sentBody struct {
	r     *bytes.Reader
	begun atomic.Bool
}

func (b *sentBody) Read(p []byte) (int, error) {
	b.begun.Store(true)
	return b.r.Read(p)
}

func (b *sentBody) Close() error { return nil }

// do sends a request and returns the answer if it is not a refusal. When the
// daemon ended after we had connected, without having looked at the request,
// the next one is asked.
func (c *Client) do(ctx context.Context, route string, body any) (*http.Response, error) {
	resp, seen, err := c.send(ctx, route, body)
	for range daemonsTried {
		unseen := err != nil && !seen || resp != nil && resp.StatusCode == control.StatusEnding
		if !c.spawn || !unseen || ctx.Err() != nil {
			break
		}
		if resp != nil {
			_ = resp.Body.Close()
		}
		if err := c.connect(ctx); err != nil {
			return nil, err
		}
		if err := c.CheckVersion(); err != nil {
			return nil, err
		}
		resp, seen, err = c.send(ctx, route, body)
	}
	if err != nil {
		return nil, c.lost(ctx, err)
	}
	if h := resp.Header.Get(control.HintHeader); h != "" && c.Hint != nil {
		if text, err := url.PathUnescape(h); err == nil {
			c.Hint(text)
		}
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var refusal control.Error
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&refusal); err != nil || refusal.Message == "" {
		return nil, control.Failed("", "the daemon answered %s with %s", route, resp.Status)
	}
	return nil, &refusal
}

// daemonsTried bounds how many daemons may end under one request.
const daemonsTried = 10

// lost explains an answer that did not come.
func (c *Client) lost(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return control.Failed("its messages are in "+c.home.LogPath(),
		"the daemon went away before it had answered: %w", inner(err))
}

// inner strips the URL that net/http puts around errors: no person typed it.
func inner(err error) error {
	var op *net.OpError
	switch {
	case errors.As(err, &op):
		return op.Err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection was closed")
	}
	return err
}

// Call sends a request and decodes the answer.
func Call[Answer any](ctx context.Context, c *Client, route string, body any) (Answer, error) {
	var a Answer
	resp, err := c.do(ctx, route, body)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return a, c.lost(ctx, err)
	}
	return a, nil
}

// Stream sends a request and hands on each item of the answer as it arrives,
// and progress if anybody wants it. It returns what the last line says. When
// item fails, the stream ends and the daemon stops working on it.
func Stream[Item, Done any](ctx context.Context, c *Client, route string, body any,
	item func(Item) error, progress func(control.Progress)) (Done, error) {
	var done Done
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := c.do(ctx, route, body)
	if err != nil {
		return done, err
	}
	defer resp.Body.Close()
	lines := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		text, err := readLine(lines)
		if err != nil {
			return done, c.lost(ctx, err)
		}
		// Items may be many: they are cut out of their line unread, and decoded
		// once at most.
		if raw, ok := bytes.CutPrefix(text, []byte(control.ItemPrefix)); ok && len(raw) > 0 {
			it, err := decodeItem[Item](raw[:len(raw)-1])
			if err != nil {
				return done, fmt.Errorf("decode item: %w", err)
			}
			if err := item(it); err != nil {
				return done, err
			}
			continue
		}
		var line control.Line
		if err := json.Unmarshal(text, &line); err != nil {
			return done, c.lost(ctx, fmt.Errorf("decode answer: %w", err))
		}
		switch {
		case line.Error != nil:
			return done, line.Error
		case line.Done != nil:
			if err := json.Unmarshal(line.Done, &done); err != nil {
				return done, fmt.Errorf("decode answer: %w", err)
			}
			return done, nil
		case line.Progress != nil && progress != nil:
			progress(*line.Progress)
		}
	}
}

// readLine returns the next line without its end; it is valid until the next
// call. A line that was cut off is an error.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		long := bytes.Clone(line)
		line, err = r.ReadBytes('\n')
		line = append(long, line...)
	}
	if err == io.EOF && len(line) > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	return line[:len(line)-1], nil
}

// decodeItem decodes an item; a json.RawMessage is the item as it came, valid
// until the next one.
func decodeItem[Item any](raw []byte) (Item, error) {
	var it Item
	if as, ok := any(&it).(*json.RawMessage); ok {
		*as = raw
		return it, nil
	}
	return it, json.Unmarshal(raw, &it)
}

// Copy sends a request and writes the raw bytes of the answer to w.
func (c *Client) Copy(ctx context.Context, route string, body any, w io.Writer) error {
	resp, err := c.do(ctx, route, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	out := &writeErrors{w: w}
	if _, err := io.CopyBuffer(out, resp.Body, make([]byte, 1<<20)); err != nil {
		if out.err != nil {
			return out.err
		}
		return c.lost(ctx, err)
	}
	return trailing(resp)
}

// Rows sends a request and hands on each row of the answer as it arrives.
func (c *Client) Rows(ctx context.Context, route string, body any, fn func(control.Row) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := c.do(ctx, route+"?"+control.RowsQuery, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		line, err := readLine(lines)
		if err == io.EOF {
			return trailing(resp)
		}
		if err != nil {
			return c.lost(ctx, err)
		}
		row, err := control.ParseRow(string(line))
		if err != nil {
			return err
		}
		if err := fn(row); err != nil {
			return err
		}
	}
}

// trailing is the error that a raw answer ended with.
func trailing(resp *http.Response) error {
	t := resp.Trailer.Get(control.ErrorTrailer)
	if t == "" {
		return nil
	}
	var refusal control.Error
	if err := json.Unmarshal([]byte(t), &refusal); err != nil {
		return fmt.Errorf("decode error of the daemon: %w", err)
	}
	return &refusal
}

// writeErrors tells errors of the writer from those of the reader, and hides
// ReadFrom, so that CopyBuffer uses our buffer.
type writeErrors struct {
	w   io.Writer
	err error
}

func (w *writeErrors) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.err = err
	return n, err
}
