package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	codec "hearth/log/wire"
	"hearth/replicate"
	"hearth/replicate/peer"
)

// liar is a device that knows a share link and speaks docs/protocol.md by itself:
// liar LINK HOST:PORT [lie]. With lie it shows a head that nobody signed. It says
// when it is let in, and at the end why the connection ended.
func liar() {
	if err := visit(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "liar:", err)
		os.Exit(1)
	}
}

func visit(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: liar LINK HOST:PORT [lie]")
	}
	link, err := replicate.ParseLink(args[0])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	seed := bytes.Repeat([]byte{7}, ed25519.SeedSize)
	ep, err := peer.Listen(peer.Options{Key: ed25519.NewKeyFromSeed(seed), Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer ep.Close()
	c, err := ep.Dial(ctx, args[1], nil)
	if err != nil {
		return err
	}
	st, err := c.OpenStream(ctx)
	if err != nil { // it is not spoken to, and heard that already
		fmt.Println(c.Err())
		return nil
	}
	tokens := c.OfferTokens(map[peer.ID]peer.Secret{peer.ID(link.Drive): link.Hold})
	said := []byte{0} // a control stream
	said = say(said, 1, func(w *codec.Writer) {
		w.Uvarint(uint64(len(tokens)))
		for _, t := range tokens {
			w.Raw(t[:])
		}
	})
	said = say(said, 2, func(w *codec.Writer) {
		w.String("mallory")
		w.Raw(make([]byte, 32))
	})
	if len(args) > 2 {
		said = say(said, 3, func(w *codec.Writer) {
			w.Raw(link.Drive[:])
			w.U16(0)
			w.Bytes([]byte("hearth.invalid/x\n9\nAAAA\n"))
			w.U64(0)
			for range 5 { // neither leaves, edges, a proof, a base nor controls
				w.Uvarint(0)
			}
		})
	}
	if _, err := st.Write(said); err != nil {
		fmt.Println(c.Err())
		return nil
	}
	for {
		var head [5]byte
		_, err := io.ReadFull(st, head[:])
		if err == nil {
			_, err = io.CopyN(io.Discard, st, int64(binary.BigEndian.Uint32(head[:4]))-1)
		}
		if err != nil {
			break // the connection has ended
		}
		if head[4] == 2 { // NAME is for who shares a drive
			fmt.Println("let in")
		}
	}
	select {
	case <-c.Context().Done():
	case <-ctx.Done():
	}
	fmt.Println(c.Err())
	return nil
}

// say appends a message.
func say(b []byte, typ byte, body func(*codec.Writer)) []byte {
	var w codec.Writer
	body(&w)
	b = binary.BigEndian.AppendUint32(b, uint32(len(w.B)+1))
	return append(append(b, typ), w.B...)
}
