package peer

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"time"
)

// ALPN is the application protocol of TLS; its number changes with anything
// that an older device could misunderstand.
const ALPN = "hearth/1"

// maxCertificate bounds a certificate of the other side, in bytes. Those made
// here have about 190.
const maxCertificate = 1024

// Key is the public device key of a device: its name for other devices.
type Key [ed25519.PublicKeySize]byte

// String returns the key in hex.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// publicKey returns the public half of a private device key.
func publicKey(private ed25519.PrivateKey) Key { return Key(private.Public().(ed25519.PublicKey)) }

// certificate wraps a device key for TLS. It is a function of the key: whoever
// sees it twice learns nothing more than whoever sees the key twice.
func certificate(private ed25519.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 section 4.1.2.5: no expiry
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate of the device key: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: crypto.Signer(private)}, nil
}

// identify returns the device key of the other side. That it has the private
// half is what TLS verified; of X.509 nothing is believed.
func identify(state *tls.ConnectionState) (Key, error) {
	if state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != ALPN || state.DidResume {
		return Key{}, fmt.Errorf("%w: it does not speak %s", ErrIdentity, ALPN)
	}
	if n := len(state.PeerCertificates); n != 1 {
		return Key{}, fmt.Errorf("%w: %d certificates, want 1", ErrIdentity, n)
	}
	cert := state.PeerCertificates[0]
	public, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok || len(public) != ed25519.PublicKeySize {
		return Key{}, fmt.Errorf("%w: the key of its certificate is %s", ErrIdentity, cert.PublicKeyAlgorithm)
	}
	if len(cert.Raw) > maxCertificate {
		return Key{}, fmt.Errorf("%w: its certificate has %d bytes", ErrIdentity, len(cert.Raw))
	}
	if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return Key{}, fmt.Errorf("%w: its certificate: %w", ErrIdentity, err)
	}
	return Key(public), nil
}

// tlsConfig returns the settings of TLS for both roles. A dialer that expects
// a key aborts before it sends its own certificate.
func tlsConfig(cert tls.Certificate, self Key, expect *Key) *tls.Config {
	return &tls.Config{
		Certificates:           []tls.Certificate{cert},
		NextProtos:             []string{ALPN},
		MinVersion:             tls.VersionTLS13,
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // no authorities: VerifyConnection has the whole rule
		SessionTicketsDisabled: true, // a resumed session would have no fresh proof of the key
		VerifyConnection: func(state tls.ConnectionState) error {
			got, err := identify(&state)
			switch {
			case err != nil:
				return err
			case expect != nil && got != *expect:
				return &WrongKeyError{Want: *expect, Got: got}
			case got == self:
				return ErrSelf
			}
			return nil
		},
	}
}
