package peer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

func TestCertificate(t *testing.T) {
	t.Parallel()
	key := testKey("a")
	one, err := certificate(key)
	if err != nil {
		t.Fatal(err)
	}
	two, err := certificate(key)
	if err != nil {
		t.Fatal(err)
	}
	if string(one.Certificate[0]) != string(two.Certificate[0]) {
		t.Error("the certificate is not a function of the key")
	}
	cert, err := x509.ParseCertificate(one.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if cert.Subject.String() != "" || cert.Issuer.String() != "" || len(cert.Extensions) != 0 {
		t.Errorf("the certificate says more than the key: %v %v %v", cert.Subject, cert.Issuer, cert.Extensions)
	}
	if n := len(cert.Raw); n > 220 {
		t.Errorf("the certificate has %d bytes", n)
	}
}

func TestWrongKey(t *testing.T) {
	t.Parallel()
	a, b := listen(t, "a"), listen(t, "b")
	want := publicKey(testKey("c"))
	_, err := a.Dial(testContext(t), b.Addr().String(), &want)
	var wrong *WrongKeyError
	if !errors.As(err, &wrong) || !errors.Is(err, ErrWrongKey) || wrong.Want != want || wrong.Got != b.Self() {
		t.Fatalf("Dial: %v", err)
	}
	// The next one that b accepts is not a: it was never introduced.
	_, cb := connect(t, listen(t, "d"), b)
	if cb.Peer() != publicKey(testKey("d")) {
		t.Fatalf("b accepted %s", cb.Peer())
	}
}

func TestSelf(t *testing.T) {
	t.Parallel()
	a := listen(t, "a")
	if _, err := a.Dial(testContext(t), a.Addr().String(), nil); !errors.Is(err, ErrSelf) {
		t.Fatalf("Dial: %v", err)
	}
}

// Those who do not keep the rules of identity are refused in either role.
func TestStrangers(t *testing.T) {
	t.Parallel()
	good, err := certificate(testKey("stranger"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wrongKind := selfSigned(t, &x509.Certificate{SerialNumber: big.NewInt(1)}, other)
	large := selfSigned(t, &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{string(make([]byte, 2000))}}, testKey("stranger"))
	forged := good
	forged.Certificate = [][]byte{append([]byte(nil), good.Certificate[0]...)}
	forged.Certificate[0][len(forged.Certificate[0])-1] ^= 1 // the self-signature
	double := good
	double.Certificate = append(append([][]byte(nil), good.Certificate...), good.Certificate[0])
	stolen := good // the certificate of a, the key of somebody else
	stolen.PrivateKey = crypto.Signer(testKey("thief"))

	base := tls.Config{InsecureSkipVerify: true, NextProtos: []string{ALPN}, MinVersion: tls.VersionTLS13}
	tests := map[string]func(*tls.Config){
		"no certificate":         func(*tls.Config) {},
		"another kind of key":    func(c *tls.Config) { c.Certificates = []tls.Certificate{wrongKind} },
		"large certificate":      func(c *tls.Config) { c.Certificates = []tls.Certificate{large} },
		"forged signature":       func(c *tls.Config) { c.Certificates = []tls.Certificate{forged} },
		"two certificates":       func(c *tls.Config) { c.Certificates = []tls.Certificate{double} },
		"stolen certificate":     func(c *tls.Config) { c.Certificates = []tls.Certificate{stolen} },
		"another protocol":       func(c *tls.Config) { c.Certificates = []tls.Certificate{good}; c.NextProtos = []string{"h3"} },
		"a good one":             func(c *tls.Config) { c.Certificates = []tls.Certificate{good} },
		"a good one, by another": func(c *tls.Config) { c.Certificates = []tls.Certificate{good}; c.ServerName = "example.org" },
	}
	for name, change := range tests {
		welcome := name == "a good one" || name == "a good one, by another"
		t.Run("dials: "+name, func(t *testing.T) {
			t.Parallel()
			conf := base.Clone()
			change(conf)
			b := listen(t, "b")
			qc, err := quic.DialAddr(testContext(t), b.Addr().String(), conf, nil)
			if welcome {
				if err != nil {
					t.Fatal(err)
				}
				if c, err := b.Accept(testContext(t)); err != nil || c.Peer() != publicKey(testKey("stranger")) {
					t.Fatalf("Accept: %v", err)
				}
				return
			}
			if err == nil { // in TLS 1.3 the dialer is done before it is judged
				<-qc.Context().Done()
				err = context.Cause(qc.Context())
			}
			if err := failure(err); !errors.Is(err, ErrRefused) && name != "stolen certificate" {
				t.Errorf("it saw %v", err)
			}
			_, cb := connect(t, listen(t, "d"), b)
			if cb.Peer() != publicKey(testKey("d")) {
				t.Errorf("b accepted %s", cb.Peer())
			}
		})
		if name == "no certificate" || welcome {
			continue // a server without one cannot be
		}
		t.Run("listens: "+name, func(t *testing.T) {
			t.Parallel()
			conf := base.Clone()
			change(conf)
			l, err := quic.ListenAddr("127.0.0.1:0", conf, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			_, err = listen(t, "a").Dial(testContext(t), l.Addr().String(), nil)
			if err == nil {
				t.Fatal("Dial succeeded")
			}
			identity := name != "stolen certificate" && name != "another protocol"
			if identity && !errors.Is(err, ErrIdentity) {
				t.Errorf("Dial: %v", err)
			}
		})
	}
}

func selfSigned(t *testing.T, template *x509.Certificate, key crypto.Signer) tls.Certificate {
	t.Helper()
	template.NotAfter = time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// A device never asks its peers for, nor gives them, a way around a fresh
// handshake.
func TestNoResumption(t *testing.T) {
	t.Parallel()
	b := listen(t, "b")
	cert, err := certificate(testKey("a"))
	if err != nil {
		t.Fatal(err)
	}
	cache := &countingCache{}
	conf := tlsConfig(cert, publicKey(testKey("a")), nil)
	conf.ClientSessionCache, conf.SessionTicketsDisabled = cache, false
	qc, err := quic.DialAddr(testContext(t), b.Addr().String(), conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	cb, err := b.Accept(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	s, err := cb.OpenStream(testContext(t)) // a ticket would have come before this
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := qc.AcceptStream(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if cache.puts != 0 {
		t.Errorf("%d session tickets", cache.puts)
	}
	_ = qc.CloseWithError(0, "")
}

type countingCache struct{ puts int }

func (*countingCache) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (c *countingCache) Put(string, *tls.ClientSessionState)      { c.puts++ }

func TestGarbage(t *testing.T) {
	t.Parallel()
	b := listen(t, "b")
	c, err := net.Dial("udp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 300 {
		p := make([]byte, i*5%1400+1)
		_, _ = rand.Read(p)
		switch i % 3 {
		case 0:
			p[0] |= 0xc0 // looks like a handshake
		case 1:
			p[0] = p[0]&0x3f | 0x40 // looks like data
		}
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	ca, cb := connect(t, listen(t, "a"), b)
	streamPair(t, ca, cb)
}

func TestDialCancelled(t *testing.T) {
	t.Parallel()
	silent, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	cause := errors.New("the person went away")
	for what, cancelled := range map[string]bool{"context": true, "endpoint": false} {
		a := listen(t, "a")
		ctx, cancel := context.WithCancelCause(context.Background())
		result := make(chan error, 1)
		go func() {
			_, err := a.Dial(ctx, silent.LocalAddr().String(), nil)
			result <- err
		}()
		if _, _, err := silent.ReadFromUDP(make([]byte, 2000)); err != nil { // it dials
			t.Fatal(err)
		}
		begin, want := time.Now(), ErrClosed
		if cancelled {
			want = cause
			cancel(cause)
		} else if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-result; !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
		if took := time.Since(begin); took > patience {
			t.Errorf("%s: Dial ended after %v", what, took)
		}
		cancel(nil)
		a.Close()
		for { // what is left of the first round
			_ = silent.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, _, err := silent.ReadFromUDP(make([]byte, 2000)); err != nil {
				break
			}
		}
		_ = silent.SetReadDeadline(time.Time{})
	}
	a := listen(t, "a")
	for _, addr := range []string{"", "nowhere", "127.0.0.1:http", "127.0.0.1:70000"} {
		if _, err := a.Dial(testContext(t), addr, nil); err == nil {
			t.Errorf("dialed %q", addr)
		}
	}
}
