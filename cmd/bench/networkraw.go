//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	bignum "math/big"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/quic-go/quic-go"
)

// The raw connection is quic-go's alone, over a plain socket, and has an end in
// each of two processes, which are this program: one says where it listens, takes
// in one stream and says how many seconds that took; the other sends.
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
	switch {
	case args[0] == rawReceiveVerb && len(args) == 2:
		return rawReceive(ctx, size, stdout)
	case args[0] == rawSendVerb && len(args) == 3:
		return rawSend(ctx, size, args[2])
	}
	return fmt.Errorf("%s takes another number of arguments", args[0])
}

// rawConfig has windows as large as Hearth's become.
func rawConfig() *quic.Config {
	return &quic.Config{InitialStreamReceiveWindow: 8 * mib, MaxStreamReceiveWindow: 8 * mib, InitialConnectionReceiveWindow: 16 * mib, MaxConnectionReceiveWindow: 16 * mib}
}

// rawTLS is a certificate of today, and a side that asks for none.
func rawTLS() (*tls.Config, error) {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: bignum.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates:       []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}},
		NextProtos:         []string{"raw"},
		InsecureSkipVerify: true,
	}, nil
}

func rawReceive(ctx context.Context, size int, stdout io.Writer) error {
	tlsConfig, err := rawTLS()
	if err != nil {
		return err
	}
	l, err := quic.ListenAddr("127.0.0.1:0", tlsConfig, rawConfig())
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Fprintln(stdout, l.Addr())
	c, err := l.Accept(ctx)
	if err != nil {
		return err
	}
	st, err := c.AcceptStream(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	// Into the void, in large pieces.
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{st}, make([]byte, 256*kib))
	took := time.Since(start)
	if err != nil {
		return err
	}
	if n != int64(size) {
		return fmt.Errorf("%d of %d bytes arrived", n, size)
	}
	fmt.Fprintln(stdout, took.Seconds())
	if err := st.Close(); err != nil { // says that all arrived
		return err
	}
	<-c.Context().Done()
	return nil
}

func rawSend(ctx context.Context, size int, addr string) error {
	tlsConfig, err := rawTLS()
	if err != nil {
		return err
	}
	c, err := quic.DialAddr(ctx, addr, tlsConfig, rawConfig())
	if err != nil {
		return err
	}
	st, err := c.OpenStreamSync(ctx)
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
	if err := st.Close(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, st)
	return errors.Join(err, c.CloseWithError(0, ""))
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
