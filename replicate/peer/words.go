package peer

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// wordsTimeout bounds the exchange of Conn.Words: no person takes part in it.
const wordsTimeout = 10 * time.Second

// wordBits is how many bits a word stands for; the list has 1 << wordBits.
const wordBits = 11

//go:embed words.txt
var wordText string

// Words is what two people compare when their devices meet: the same on both
// screens, unless somebody is in between.
type Words [4]string

// String returns the words with spaces between them.
func (w Words) String() string { return strings.Join(w[:], " ") }

// Words agrees with the other side on four words, 44 bits, over a stream that
// both sides know already and on which nothing else happens meanwhile; both
// sides call it. Whoever is in between with a connection to each side gets the
// same words on both with a chance of one in 2^44 a try, and each try is a
// failed meeting that people see.
//
// It ends with ctx, or after 10 s. Errors are those of ctx and of the stream,
// io.ErrUnexpectedEOF, and ErrCommitment: somebody tried. After an error the
// stream is good for nothing but Cancel. Afterwards the deadline of the stream
// is none.
func (c *Conn) Words(ctx context.Context, s *Stream) (Words, error) {
	ctx, cancel := context.WithTimeout(ctx, wordsTimeout)
	defer cancel()
	expired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = s.SetDeadline(time.Unix(1, 0)) // long ago: whatever waits stops waiting
		close(expired)
	})
	w, err := c.exchange(s)
	if !stop() {
		<-expired
		if err != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
	}
	if err != nil {
		return Words{}, fmt.Errorf("words: %w", err)
	}
	if err := s.SetDeadline(time.Time{}); err != nil {
		return Words{}, fmt.Errorf("words: %w", err)
	}
	return w, nil
}

// exchange is the protocol: the dialer commits to its nonce, the listener
// sends its own, the dialer reveals. Neither can choose with knowledge of the
// other's.
func (c *Conn) exchange(s io.ReadWriter) (Words, error) {
	own := random()
	if c.dialed {
		if err := send(s, commitment(own, c.parts)); err != nil {
			return Words{}, err
		}
		theirs, err := receive(s)
		if err != nil {
			return Words{}, err
		}
		if err := send(s, own); err != nil {
			return Words{}, err
		}
		return words(c.words, c.parts, own, theirs), nil
	}
	promised, err := receive(s)
	if err != nil {
		return Words{}, err
	}
	if err := send(s, own); err != nil {
		return Words{}, err
	}
	revealed, err := receive(s)
	if err != nil {
		return Words{}, err
	}
	if kept := commitment(revealed, c.parts); !hmac.Equal(kept[:], promised[:]) {
		return Words{}, ErrCommitment
	}
	return words(c.words, c.parts, revealed, own), nil
}

func send(w io.Writer, b [32]byte) error {
	_, err := w.Write(b[:])
	return err
}

func receive(r io.Reader) (b [32]byte, err error) {
	_, err = io.ReadFull(r, b[:])
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

// commitment binds the dialer to its nonce before it knows the listener's.
func commitment(nonce [32]byte, p parties) [32]byte {
	h := sha256.New()
	h.Write([]byte(labelCommit))
	h.Write(nonce[:])
	h.Write(p.dialer[:])
	h.Write(p.listener[:])
	return [32]byte(h.Sum(nil))
}

// words derives what is shown: the first 44 bits of the hash, most significant
// first, 11 for each word.
func words(exported [32]byte, p parties, dialer, listener [32]byte) Words {
	h := sha256.New()
	h.Write([]byte(labelSAS))
	h.Write(exported[:])
	h.Write(p.dialer[:])
	h.Write(p.listener[:])
	h.Write(dialer[:])
	h.Write(listener[:])
	bits := binary.BigEndian.Uint64(h.Sum(nil))
	list := strings.Fields(wordText)
	var w Words
	for i := range w {
		w[i] = list[bits>>(64-wordBits*(i+1))&(1<<wordBits-1)]
	}
	return w
}
