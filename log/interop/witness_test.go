package interop

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"hearth/log"
)

const witnessName = "witness.example/hearth"

// witness is a litewitness in a process of its own.
type witness struct {
	url  string
	vkey string
}

// startWitness builds and starts a litewitness that knows one log.
func startWitness(t *testing.T, pub ed25519.PublicKey) *witness {
	t.Helper()
	dir := t.TempDir()
	exe, db := filepath.Join(dir, "litewitness"), filepath.Join(dir, "witness.db")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", exe, "filippo.io/torchwood/cmd/litewitness")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("litewitness: %v\n%s", err, out)
	}
	socket, key := startAgent(t, dir)
	address := freeAddress(t)
	cmd := exec.Command(exe, "-name", witnessName, "-db", db, "-listen", address,
		"-ssh-agent", socket, "-key", ssh.FingerprintSHA256(key))
	var messages bytes.Buffer
	cmd.Stderr = &messages
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("litewitness said:\n%s", messages.String())
		}
	})
	public := key.(ssh.CryptoPublicKey).CryptoPublicKey().(ed25519.PublicKey)
	v, err := torchwood.NewCosignatureVerifierFromKey(witnessName, public)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, address)
	introduce(t, db, pub)
	return &witness{url: "http://" + address, vkey: v.String()}
}

// introduce tells the witness of a log, as witnessctl's add-log and add-key
// do: that program cannot be built here, as one of its dependencies cannot be
// had.
func introduce(t *testing.T, db string, pub ed25519.PublicKey) {
	t.Helper()
	conn, err := sqlite.OpenConn(db, sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetBlockOnBusy()
	origin, empty := log.Origin(pub), sha256.Sum256(nil)
	for _, x := range []struct {
		query string
		args  []any
	}{
		{"INSERT INTO log (origin, tree_size, tree_hash) VALUES (?, 0, ?)", []any{origin, base64.StdEncoding.EncodeToString(empty[:])}},
		{"INSERT INTO key (origin, key) VALUES (?, ?)", []any{origin, verifierKey(t, pub)}},
	} {
		if err := sqlitex.Execute(conn, x.query, &sqlitex.ExecOptions{Args: x.args}); err != nil {
			t.Fatal(err)
		}
	}
}

// startAgent serves an ssh-agent with one new key, which is where litewitness
// has its key from.
func startAgent(t *testing.T, dir string) (socket string, key ssh.PublicKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: private}); err != nil {
		t.Fatal(err)
	}
	if key, err = ssh.NewPublicKey(public); err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "agent")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			go func() {
				_ = agent.ServeAgent(ring, conn) // ends with the witness
				_ = conn.Close()
			}()
		}
	}()
	return socket, key
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func waitFor(t *testing.T, address string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the witness does not answer: %v", err)
		}
		time.Sleep(10 * time.Millisecond) // between attempts to connect to another process
	}
}

// add asks the witness to cosign a checkpoint (https://c2sp.org/tlog-witness):
// proof shows that it extends the log of the given older size.
func (w *witness) add(t *testing.T, older uint64, proof tlog.TreeProof, checkpoint []byte) (status int, answer string) {
	t.Helper()
	var body strings.Builder
	fmt.Fprintf(&body, "old %d\n", older)
	for _, h := range proof {
		fmt.Fprintf(&body, "%s\n", h)
	}
	fmt.Fprintf(&body, "\n%s", checkpoint)
	resp, err := http.Post(w.url+"/add-checkpoint", "text/plain", strings.NewReader(body.String()))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// A witness cosigns the heads of a growing log, each with a proof made from the
// exported tiles, and a reader that asks for the cosignature accepts it. It
// refuses a head of the same size with another root, one that does not extend
// what it saw, and one that is not signed by the log.
func TestWitness(t *testing.T) {
	l, keys := newLog(t)
	pub := l.Verifier().Public()
	w := startWitness(t, pub)

	var seen log.Head
	for _, size := range []uint64{1, 200, 256, 700} {
		head := grow(t, l, keys, size, "block")
		dir := export(t, l)
		status, answer := w.add(t, seen.Size, consistency(t, dir, seen, head), head.Note)
		if status != http.StatusOK {
			t.Fatalf("size %d: %d %s", size, status, answer)
		}
		cosigned := append(bytes.Clone(head.Note), answer...)
		if _, err := note.Open(cosigned, note.VerifierList(cosigner(t, w.vkey))); err != nil {
			t.Errorf("size %d: the cosignature: %v", size, err)
		}
		again, err := l.Verifier().Verify(cosigned)
		if err != nil || again.Root != head.Root {
			t.Errorf("size %d: Hearth does not read the cosigned head: %v", size, err)
		}
		seen = head
	}

	// The same key, the same first 256 entries, then other ones.
	fork, forkKeys := newLog(t)
	grow(t, fork, forkKeys, 1, "block")
	grow(t, fork, forkKeys, 200, "block")
	common := grow(t, fork, forkKeys, 256, "block")
	same := grow(t, fork, forkKeys, 700, "other")
	if status, answer := w.add(t, 700, nil, same.Note); status == http.StatusOK {
		t.Errorf("the witness cosigns another root of the same size: %s", answer)
	}
	longer := grow(t, fork, forkKeys, 900, "other")
	dir := export(t, fork)
	if status, answer := w.add(t, 700, consistency(t, dir, same, longer), longer.Note); status != http.StatusUnprocessableEntity {
		t.Errorf("a longer fork: %d %s", status, answer)
	}
	if status, answer := w.add(t, 256, consistency(t, dir, common, longer), longer.Note); status != http.StatusConflict || strings.TrimSpace(answer) != "700" {
		t.Errorf("a fork that pretends not to know the newest head: %d %s", status, answer)
	}
	if status, _ := w.add(t, 700, nil, stranger(t, seen).Note); status != http.StatusForbidden && status != http.StatusNotFound {
		t.Errorf("a head signed by a stranger: %d", status)
	}

	// What it refused has not changed what it knows.
	head := grow(t, l, keys, 1000, "block")
	if status, answer := w.add(t, 700, consistency(t, export(t, l), seen, head), head.Note); status != http.StatusOK {
		t.Errorf("after the fork: %d %s", status, answer)
	}
}

func cosigner(t *testing.T, vkey string) note.Verifier {
	t.Helper()
	v, err := torchwood.NewCosignatureVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// stranger is a head with the right origin and a signature by another key.
func stranger(t *testing.T, h log.Head) log.Head {
	t.Helper()
	signed, err := log.NewSigner([32]byte{9}).Sign(h.Size+1, h.Root)
	if err != nil {
		t.Fatal(err)
	}
	signed.Note = bytes.ReplaceAll(signed.Note, []byte(signed.Origin), []byte(h.Origin))
	return signed
}
