package peer

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// bothWords runs the exchange at both ends of a stream.
func bothWords(t *testing.T, c1 *Conn, s1 *Stream, c2 *Conn, s2 *Stream) (w1, w2 Words, err1, err2 error) {
	t.Helper()
	ctx := testContext(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w1, err1 = c1.Words(ctx, s1)
	}()
	w2, err2 = c2.Words(ctx, s2)
	<-done
	return w1, w2, err1, err2
}

func TestWords(t *testing.T) {
	t.Parallel()
	ca, cb := connect(t, listen(t, "a"), listen(t, "b"))
	sa, sb := streamPair(t, cb, ca) // whoever opens the stream, roles are those of the connection
	var last Words
	for range 3 { // a stream is good for more than one exchange
		wa, wb, ea, eb := bothWords(t, cb, sa, ca, sb)
		if ea != nil || eb != nil || wa != wb {
			t.Fatalf("%q, %v and %q, %v", wa, ea, wb, eb)
		}
		if wa == last || slices.Contains(wa[:], "") {
			t.Fatalf("words %q", wa)
		}
		last = wa
	}
}

func TestWordsInBetween(t *testing.T) {
	t.Parallel()
	a, b, m := listen(t, "a"), listen(t, "b"), listen(t, "m")
	ca, ma := connect(t, a, m)
	mb, cb := connect(t, m, b)
	sa, sma := streamPair(t, ca, ma)
	smb, sb := streamPair(t, mb, cb)

	// One that plays by the rules on both sides is seen on the screens.
	wa, wma, e1, e2 := bothWords(t, ca, sa, ma, sma)
	wmb, wb, e3, e4 := bothWords(t, mb, smb, cb, sb)
	if err := errors.Join(e1, e2, e3, e4); err != nil {
		t.Fatal(err)
	}
	if wa != wma || wmb != wb {
		t.Fatal("words of one connection differ")
	}
	if wa == wb {
		t.Fatal("a and b see the same words with somebody in between")
	}

	// One that passes messages on is found out by b.
	go io.Copy(smb, sma)
	go io.Copy(sma, smb)
	_, _, ea, eb := bothWords(t, ca, sa, cb, sb)
	if !errors.Is(eb, ErrCommitment) {
		t.Errorf("a's words: %v; b's words: %v", ea, eb)
	}
}

func TestWordsBroken(t *testing.T) {
	t.Parallel()
	ca, cb := connect(t, listen(t, "a"), listen(t, "b"))
	exact := bytes.Repeat([]byte{7}, 32)
	tests := map[string]struct {
		send []byte
		end  bool
		ctx  time.Duration
		want error
	}{
		"another nonce": {send: append(slices.Clone(exact), exact...), want: ErrCommitment},
		"endless":       {send: make([]byte, 1<<16), want: ErrCommitment},
		"short":         {send: exact[:31], end: true, want: io.ErrUnexpectedEOF},
		"half":          {send: exact, end: true, want: io.ErrUnexpectedEOF},
		"nothing":       {end: true, want: io.ErrUnexpectedEOF},
		"silence":       {send: exact, ctx: 50 * time.Millisecond, want: context.DeadlineExceeded},
	}
	for name, tt := range tests {
		s, r := streamPair(t, ca, cb)
		if _, err := s.Write(tt.send); err != nil {
			t.Fatal(err)
		}
		if tt.end {
			if err := s.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := testContext(t), context.CancelFunc(func() {})
		if tt.ctx != 0 {
			ctx, cancel = context.WithTimeout(ctx, tt.ctx)
		}
		w, err := cb.Words(ctx, r)
		cancel()
		if !errors.Is(err, tt.want) || w != (Words{}) {
			t.Errorf("%s: %q, %v", name, w, err)
		}
		r.Cancel(CodeDone)
		s.Cancel(CodeDone)
	}
}

// FuzzWords: nothing that a dialer says gets words out of a listener, but the
// opening of its commitment.
func FuzzWords(f *testing.F) {
	p := parties{dialer: publicKey(testKey("a")), listener: publicKey(testKey("b"))}
	nonce := [32]byte{1}
	kept := commitment(nonce, p)
	f.Add(append(kept[:], nonce[:]...))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		c := &Conn{parts: p}
		var out bytes.Buffer
		w, err := c.exchange(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(in), &out})
		good := false
		if len(in) >= 64 {
			want := commitment([32]byte(in[32:64]), p)
			good = bytes.Equal(in[:32], want[:])
		}
		if good != (err == nil) || (err != nil && w != Words{}) || out.Len() > 32 {
			t.Fatalf("%q, %v after %x", w, err, in)
		}
	})
}

func TestWordList(t *testing.T) {
	t.Parallel()
	list := strings.Split(strings.TrimSuffix(wordText, "\n"), "\n")
	if len(list) != 1<<wordBits {
		t.Fatalf("%d words", len(list))
	}
	if !slices.IsSorted(list) {
		t.Error("not sorted")
	}
	form := regexp.MustCompile(`^[a-z]{3,8}$`)
	prefixes := map[string]string{}
	for i, w := range list {
		if !form.MatchString(w) {
			t.Errorf("%q is no word of 3 to 8 small letters", w)
		}
		prefix := w[:min(4, len(w))]
		if other, ok := prefixes[prefix]; ok {
			t.Errorf("%s and %s begin alike", other, w)
		}
		prefixes[prefix] = w
		for _, other := range list[:i] {
			if near(w, other) {
				t.Errorf("%s and %s differ in one letter", other, w)
			}
		}
	}
}

// near says whether one replaced, added or dropped letter makes b of a.
func near(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	if len(b)-len(a) > 1 {
		return false
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	if len(a) == len(b) {
		return a[min(i+1, len(a)):] == b[min(i+1, len(b)):]
	}
	return a[i:] == b[i+1:]
}

// vectors are what a second implementation can check itself against. They are
// never changed: other bytes need another label.
type vectors struct {
	Exported, Dialer, Listener, Drive, Secret string
	NonceDialer, NonceListener                string
	TokenDialer, TokenListener                string
	Commitment                                string
	Words                                     string
}

func TestVectors(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	in := func(s string) [32]byte {
		b, err := hex.DecodeString(s)
		if err != nil || len(b) != 32 {
			t.Fatalf("vector %q: %v", s, err)
		}
		return [32]byte(b)
	}
	exported, p := in(v.Exported), parties{in(v.Dialer), in(v.Listener)}
	kept := commitment(in(v.NonceDialer), p)
	dialer := token(exported, p, roleDialer, in(v.Drive), in(v.Secret))
	listener := token(exported, p, roleListener, in(v.Drive), in(v.Secret))
	for what, pair := range map[string][2]string{
		"token of the dialer":   {hex.EncodeToString(dialer[:]), v.TokenDialer},
		"token of the listener": {hex.EncodeToString(listener[:]), v.TokenListener},
		"commitment":            {hex.EncodeToString(kept[:]), v.Commitment},
		"words":                 {words(exported, p, in(v.NonceDialer), in(v.NonceListener)).String(), v.Words},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %s, want %s", what, pair[0], pair[1])
		}
	}
}
