package log

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"path/filepath"
)

// CreateStore creates a drive in an empty or absent directory and returns its
// store. Its log holds the genesis, which becomes durable with the first
// commit.
func CreateStore(o StoreOptions, name string) (*Store, error) {
	o.complete()
	s := newStore(o)
	if err := s.checkEmpty(); err != nil {
		return nil, fmt.Errorf("creating the drive %s: %w", o.Dir, err)
	}
	if err := s.create(o, name); err != nil {
		return nil, errors.Join(fmt.Errorf("creating the drive %s: %w", o.Dir, err), s.closeLogs(), s.disk.RemoveAll(s.dir))
	}
	return s, nil
}

// checkEmpty makes sure that there is nothing in the store's directory.
func (s *Store) checkEmpty() error {
	names, err := s.disk.List(s.dir)
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	if len(names) > 0 {
		return fmt.Errorf("%s is not empty: %w", s.dir, iofs.ErrExist)
	}
	return nil
}

func (s *Store) create(o StoreOptions, name string) error {
	keys, recovery, err := newSecrets(o.Random)
	if err != nil {
		return err
	}
	g := &Genesis{
		Format: FormatVersion, Owner: publicOf(*keys.OwnerSeed), Recovery: keys.Recovery,
		Log: publicOf(keys.LogSeed), Created: uint64(o.Now().Unix()),
	}
	if _, err := io.ReadFull(o.Random, g.Nonce[:]); err != nil {
		return err
	}
	if err := s.disk.MkdirAll(s.dir); err != nil {
		return err
	}
	if err := writeChecked(s.disk, s.path("keys"), keys); err != nil {
		return err
	}
	s.takeKeys(keys)
	s.recovery = &recovery
	lo := s.logOptions(0)
	lo.Signer = NewSigner(keys.LogSeed)
	own, err := CreateLog(lo)
	if err != nil {
		return err
	}
	s.logs[0] = own
	if err := s.Bind(); err != nil {
		return err
	}
	entry, err := EncodeControl(g)
	if err != nil {
		return err
	}
	s.begin(g, name)
	if err := s.disk.SyncDir(filepath.Dir(s.dir)); err != nil {
		return err
	}
	err = writeChecked(s.disk, s.path("drive.json"), driveFile{
		Format: FormatVersion, ID: s.id.String(), Name: name, Genesis: base64.StdEncoding.EncodeToString(entry),
	})
	if err != nil {
		return err
	}
	_, err = own.AppendControl(g)
	return err
}
