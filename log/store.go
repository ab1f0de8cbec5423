package log

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"hearth/log/disk"
	"hearth/log/seal"
)

// StoreOptions say where a store is and how it is used.
type StoreOptions struct {
	FS     disk.FS // nil: disk.OS
	Dir    string  // the drive's directory
	Logger *slog.Logger

	// For tests:
	Machine string           // instead of the machine's id
	Random  io.Reader        // instead of crypto/rand
	Now     func() time.Time // instead of time.Now
	Inline  bool             // see Options
	Tiny    bool             // see Options
}

func (o *StoreOptions) complete() {
	if o.FS == nil {
		o.FS = disk.OS{}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Machine == "" {
		o.Machine = machineID()
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// driveFile is the file drive.json: what the drive is. It is written last
// when a drive is created.
type driveFile struct {
	Format  uint16 `json:"format"`
	ID      string `json:"id"`
	Name    string `json:"name"`
	Genesis string `json:"genesis"` // the first entry, base64
}

// Store is a drive's directory: the logs of its writers, its keys and what
// this device remembers of them. It is safe for concurrent use.
//
//	drive.json   what the drive is
//	keys         secrets, mode 0600
//	heads        newest verified heads, evidence of forks
//	binding      the machine it is on
//	reserve      space kept back for a full disk
//	log-0000     the log of writer 0, and so on
//	index        not the store's
//
// That only one process has it open is the caller's matter.
type Store struct {
	disk    disk.FS
	dir     string
	slog    *slog.Logger
	machine string
	inline  bool
	tiny    bool
	name    string
	id      DriveID
	writer  Writer // see OwnWriter
	keys    *seal.Keyring

	mu         sync.Mutex
	keysFile   *secrets
	holds      atomic.Pointer[holdSecrets] // made from keysFile
	boxKeys    []*BoxKey                   // see recipientKeys
	recovery   *[32]byte
	heads      headsFile
	copied     bool
	membership *Membership
	logs       map[Writer]*Log
	source     Source
	overtaken  uint64 // see NoteOvertaken
	trouble    []Damage
	closed     bool
}

func newStore(o StoreOptions) *Store {
	return &Store{
		disk: o.FS, dir: o.Dir, slog: o.Logger, machine: o.Machine, inline: o.Inline, tiny: o.Tiny,
		keys: seal.NewKeyring(), logs: make(map[Writer]*Log),
		heads: headsFile{Heads: make(map[string]string)},
	}
}

// begin sets what the genesis says.
func (s *Store) begin(g *Genesis, name string) {
	s.id, s.name, s.membership = g.DriveID(), name, NewMembership(g)
	s.writer = s.keysFile.Writer
}

func (s *Store) takeKeys(k *secrets) {
	s.keysFile = k
	for epoch, key := range k.ReadKeys {
		s.keys.Add(epoch, key)
	}
	s.setHolds()
}

// OpenStore opens a drive's store. Errors match ErrForeign, ErrNewer,
// ErrDamaged, ErrRolledBack or ErrFork, or are a *PermissionError; then
// nothing was changed.
func OpenStore(o StoreOptions) (*Store, error) {
	o.complete()
	s := newStore(o)
	if err := s.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the drive %s: %w", o.Dir, err), s.closeLogs())
	}
	return s, nil
}

func (s *Store) open() error {
	// A file that was replaced just before a crash may be what is read and yet
	// not be durable: nothing may be built on it before it is.
	if err := s.disk.SyncDir(s.dir); err != nil {
		if errors.Is(err, iofs.ErrNotExist) {
			return fmt.Errorf("%w: %w", ErrForeign, err)
		}
		return err
	}
	g, name, err := s.readDrive()
	if err != nil {
		return err
	}
	keys, err := readSecrets(s.disk, s.path("keys"))
	if errors.Is(err, iofs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrForeign, err)
	}
	if err != nil {
		return err
	}
	s.takeKeys(keys)
	s.begin(g, name)
	if err := s.loadHeads(); err != nil {
		return err
	}
	if err := s.openLogs(g); err != nil {
		return err
	}
	for epoch := range s.keysFile.Made {
		s.beginEpoch(epoch)
	}
	if err := s.OpenBoxes(); err != nil {
		s.note(s.path("keys"), err)
	}
	if s.keysFile.Writer == NoWriter {
		return nil // a copy of it forgets nothing that it has signed
	}
	s.copied, err = s.checkBinding()
	return err
}

// readDrive reads drive.json.
func (s *Store) readDrive() (*Genesis, string, error) {
	path := s.path("drive.json")
	var raw json.RawMessage
	err := readChecked(s.disk, path, &raw)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, "", fmt.Errorf("%w: %w", ErrForeign, err)
	}
	if err != nil {
		return nil, "", err
	}
	if err := checkFormat(raw); err != nil {
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	var f driveFile
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, "", fmt.Errorf("%s: %w: %w", path, ErrDamaged, err)
	}
	entry, err := base64.StdEncoding.DecodeString(f.Genesis)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w: %w", path, ErrDamaged, err)
	}
	_, c, err := ParseEntry(entry)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	g, ok := c.(*Genesis)
	if !ok || g.DriveID().String() != f.ID {
		return nil, "", fmt.Errorf("%s: %w: its genesis is not that of drive %s", path, ErrDamaged, f.ID)
	}
	return g, f.Name, nil
}

// openLogs opens the logs that are here, as their keys become known from the
// control entries of those opened before.
func (s *Store) openLogs(g *Genesis) error {
	own := s.keysFile.Writer
	if err := s.openFirst(g); err != nil {
		return err
	}
	for opened := true; opened; {
		opened = false
		for _, m := range s.membership.Members() {
			if s.logs[m.Writer] != nil {
				continue
			}
			if _, err := s.disk.Stat(s.logDir(m.Writer)); errors.Is(err, iofs.ErrNotExist) {
				continue
			}
			l, err := s.openLog(m.Writer, NewVerifier(m.Log[:]))
			if err != nil && m.Writer == own {
				return err
			}
			if err != nil {
				s.note(s.logDir(m.Writer), err)
				continue
			}
			s.logs[m.Writer] = l
			s.applyControls(l)
			opened = true
		}
	}
	s.honourDrops()
	if own != NoWriter && s.logs[own] == nil {
		return fmt.Errorf("%w: the log of writer %d is missing from %s", ErrForeign, own, s.dir)
	}
	return nil
}

// openFirst opens the log of writer 0.
func (s *Store) openFirst(g *Genesis) error {
	if s.keysFile.Writer != 0 {
		if replica, err := isReplica(s.disk, s.logDir(0)); err != nil {
			return err
		} else if !replica {
			if _, err := s.disk.Stat(s.logDir(0)); errors.Is(err, iofs.ErrNotExist) {
				return nil
			}
		}
	}
	l, err := s.openLog(0, NewVerifier(g.Log[:]))
	if err != nil {
		return err
	}
	s.logs[0] = l
	if l.Size() == 0 && l.signer != nil {
		// Creating the drive was interrupted before its first commit.
		if _, err := l.AppendControl(g); err != nil {
			return err
		}
	}
	if l.Size() > 0 && (!l.replica || l.Holds(0)) {
		c, err := l.ReadControl(0)
		if err != nil {
			s.note(l.dir, err)
		} else if first, ok := c.(*Genesis); !ok || *first != *g {
			return fmt.Errorf("%w: %s is the log of another drive", ErrForeign, l.dir)
		}
	}
	s.applyControls(l)
	return nil
}

func (s *Store) openLog(w Writer, v *Verifier) (*Log, error) {
	o := s.logOptions(w)
	o.Verifier = v
	if replica, err := isReplica(s.disk, o.Dir); err != nil || replica {
		if err != nil {
			return nil, err
		}
		return openReplica(o)
	}
	if w == s.keysFile.Writer {
		o.Signer = NewSigner(s.keysFile.LogSeed)
		if o.Signer.Origin() != v.Origin() {
			return nil, fmt.Errorf("%w: the log key in %s is not that of writer %d", ErrForeign, s.path("keys"), w)
		}
	}
	o.Known, _ = s.Remembered(v)
	l, err := OpenLog(o)
	var fork *forkError
	if errors.As(err, &fork) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return nil, s.fork(fork)
	}
	return l, err
}

func (s *Store) logOptions(w Writer) Options {
	o := Options{FS: s.disk, Dir: s.logDir(w), Writer: w, Keys: s.keys, Logger: s.slog, Inline: s.inline, Tiny: s.tiny}
	if w == s.keysFile.Writer {
		o.Reserve = s.path("reserve")
	}
	return o
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Store) logDir(w Writer) string { return s.path(fmt.Sprintf("log-%04d", w)) }

// note remembers trouble with a file.
func (s *Store) note(file string, err error) {
	s.slog.Warn("a file of a drive is damaged", "file", file, "err", err)
	s.trouble = append(s.trouble, Damage{Index: NoEntry, File: file, Detail: err.Error()})
}

// ID returns the drive's id in hex.
func (s *Store) ID() string { return s.id.String() }

// DriveID returns the drive's id.
func (s *Store) DriveID() DriveID { return s.id }

// Name returns the name the drive was created with.
func (s *Store) Name() string { return s.name }

// Dir returns the drive's directory.
func (s *Store) Dir() string { return s.dir }

// FS returns the file system the store is on.
func (s *Store) FS() disk.FS { return s.disk }

// Keys returns the drive's read keys.
func (s *Store) Keys() *seal.Keyring { return s.keys }

// OwnWriter returns the number of the writer that this device is.
func (s *Store) OwnWriter() Writer { return s.writer }

// Own returns the log this device writes; nil if it writes none.
func (s *Store) Own() *Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logs[s.keysFile.Writer]
}

// Log returns the log of a writer. The error of one that is not here matches
// ErrAbsent.
func (s *Store) Log(w Writer) (*Log, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.logs[w]; l != nil {
		return l, nil
	}
	return nil, fmt.Errorf("the log of writer %d is not in %s: %w", w, s.dir, ErrAbsent)
}

// Logs returns all logs that are here, by writer.
func (s *Store) Logs() map[Writer]*Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[Writer]*Log, len(s.logs))
	for w, l := range s.logs {
		all[w] = l
	}
	return all
}

// ReadBlock appends the plaintext of a block to dst: see [Log.ReadBlock].
func (s *Store) ReadBlock(dst []byte, r Ref, kind seal.Kind) ([]byte, error) {
	l, err := s.Log(r.Writer)
	if err != nil {
		return dst, err
	}
	return l.ReadBlock(dst, r.Index, kind)
}

// ReadLocal is ReadBlock of a block on this device: one that is elsewhere is
// not asked for, and the error matches ErrMissing.
func (s *Store) ReadLocal(dst []byte, r Ref, kind seal.Kind) ([]byte, error) {
	l, err := s.Log(r.Writer)
	if err != nil {
		return dst, err
	}
	return l.readBlock(dst, r.Index, kind, false)
}

// RecoverySeed returns the seed of the key that signs successions: only of a
// store that was just created, for it is not kept on this device.
func (s *Store) RecoverySeed() (seed [32]byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.recovery == nil {
		return seed, false
	}
	return *s.recovery, true
}

// StoreHealth is the state of a store.
type StoreHealth struct {
	Damage []Damage // in files of the store and its logs
	Copied bool     // see Copied
	Forks  []Fork
	// Overtaken is the size of a head of the own log that others have and this
	// device has not; 0: none. See NoteOvertaken.
	Overtaken uint64
	Own       Health // of the log this device writes
}

// Health returns the state of the store and all its logs.
func (s *Store) Health() StoreHealth {
	h := StoreHealth{Copied: s.Copied(), Forks: s.Forks()}
	s.mu.Lock()
	h.Damage = append(h.Damage, s.trouble...)
	h.Overtaken = s.overtaken
	s.mu.Unlock()
	for w, l := range s.Logs() {
		lh := l.Health()
		h.Damage = append(h.Damage, lh.Damage...)
		if w == s.OwnWriter() {
			h.Own = lh
		}
	}
	return h
}

// Settle settles all logs, see [Log.Settle], and remembers their heads.
func (s *Store) Settle() error {
	var errs []error
	for _, l := range s.Logs() {
		errs = append(errs, l.Settle(), s.rememberLog(l))
	}
	return errors.Join(errs...)
}

func (s *Store) rememberLog(l *Log) error {
	head := l.Head()
	if head.Size == 0 {
		return nil
	}
	return s.Remember(l.verifier, head, l.Root)
}

// Close remembers the heads of the logs and closes them.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	var errs []error
	for _, l := range s.Logs() {
		if l.usable() == nil {
			errs = append(errs, s.rememberLog(l))
		}
	}
	return errors.Join(append(errs, s.closeLogs())...)
}

func (s *Store) closeLogs() error {
	var errs []error
	for _, l := range s.Logs() {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
