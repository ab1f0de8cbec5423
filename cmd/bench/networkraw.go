//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"

	"hearth/replicate/peer"
)

// The raw connection has an end in each of two processes, which are this
// program: one says where it listens, takes in one stream and says how many
// seconds that took; the other sends.
const (
	rawReceiveVerb = "-raw-receive" // SIZE
	rawSendVerb    = "-raw-send"    // SIZE ADDRESS
)

// rawEnd is such a process.
func rawEnd(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) < 2 {
		return errors.New("a size is missing")
	}
	size, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	ep, err := peer.Listen(peer.Options{Key: key, Listen: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	switch {
	case args[0] == rawReceiveVerb && len(args) == 2:
		err = rawReceive(ctx, ep, size, stdout)
	case args[0] == rawSendVerb && len(args) == 3:
		err = rawSend(ctx, ep, size, args[2])
	default:
		err = fmt.Errorf("%s takes another number of arguments", args[0])
	}
	return errors.Join(err, ep.Close())
}

func rawReceive(ctx context.Context, ep *peer.Endpoint, size int, stdout io.Writer) error {
	fmt.Fprintln(stdout, ep.Addr())
	c, err := ep.Accept(ctx)
	if err != nil {
		return err
	}
	st, err := c.AcceptStream(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	// Into the void, in pieces as large as Hearth reads at a time.
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{st}, make([]byte, 256*kib))
	took := time.Since(start)
	if err != nil {
		return err
	}
	if n != int64(size) {
		return fmt.Errorf("%d of %d bytes arrived", n, size)
	}
	fmt.Fprintln(stdout, took.Seconds())
	if err := st.CloseWrite(); err != nil { // says that all arrived
		return err
	}
	<-c.Context().Done()
	return nil
}

func rawSend(ctx context.Context, ep *peer.Endpoint, size int, addr string) error {
	c, err := ep.Dial(ctx, addr, nil)
	if err != nil {
		return err
	}
	st, err := c.OpenStream(ctx)
	if err != nil {
		return err
	}
	piece := fresh(block)
	for left := size; left > 0; left -= len(piece) {
		piece = piece[:min(left, len(piece))]
		if _, err := st.Write(piece); err != nil {
			return err
		}
	}
	if err := st.CloseWrite(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, st)
	c.Close(peer.CodeDone, "")
	return err
}

// raw measures one connection, in MB/s, for the row beside it.
func (n *network) raw(ctx context.Context, row string) error {
	size := n.size(gib)
	rate, err := rawRate(ctx, size)
	if err != nil {
		return fmt.Errorf("the raw connection: %w", err)
	}
	n.recordAs(rawQUIC, row, rate)
	return nil
}

func rawRate(ctx context.Context, size int) (float64, error) {
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	end := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, exe, args...)
		cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=0") // as a daemon is
		cmd.Stderr = os.Stderr
		return cmd
	}
	receiver := end(rawReceiveVerb, strconv.Itoa(size))
	out, err := receiver.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := receiver.Start(); err != nil {
		return 0, err
	}
	said := bufio.NewScanner(out)
	if !said.Scan() {
		return 0, errors.Join(errors.New("the receiver does not listen"), said.Err(), receiver.Wait())
	}
	if err := end(rawSendVerb, strconv.Itoa(size), said.Text()).Run(); err != nil {
		cancel() // or the receiver waits for ever
		return 0, errors.Join(err, receiver.Wait())
	}
	seconds := 0.0
	if said.Scan() {
		seconds, err = strconv.ParseFloat(said.Text(), 64)
	}
	if err := errors.Join(err, said.Err(), receiver.Wait()); err != nil {
		return 0, err
	}
	if seconds <= 0 {
		return 0, errors.New("the receiver does not say how long it took")
	}
	return float64(size) / 1e6 / seconds, nil
}
