package crashfs

import (
	"bytes"
	"slices"
	"strings"
	"sync"

	"hearth/log/disk"
)

// Mutant is a file system that breaks promises of the one under it, for
// testing tests: a harness that stays green over a Mutant proves nothing.
type Mutant struct {
	disk.FS
	// NoDatasync: Datasync does nothing and says nil.
	NoDatasync bool
	// LateDatasync: Datasync says nil and happens at the next Datasync of any
	// file, or never if the file is closed before, as if something were
	// acknowledged, or another file made to name it, before it is durable.
	LateDatasync bool
	// NoSyncDir: SyncDir does nothing and says nil.
	NoSyncDir bool
	// TornWriteFile: WriteFile writes in place and does not sync.
	TornWriteFile bool
	// NoRewrite: WriteAt of bytes that the file already shows does nothing,
	// so that it does not bring to the disk what only the cache has.
	NoRewrite bool
	// Only limits all this to paths that contain one of these; nil: all paths.
	Only []string

	mu   sync.Mutex
	late []disk.File
}

func (m *Mutant) hit(path string) bool {
	if m.Only == nil {
		return true
	}
	for _, s := range m.Only {
		if strings.Contains(path, s) {
			return true
		}
	}
	return false
}

// Create implements disk.FS.
func (m *Mutant) Create(name string) (disk.File, error) { return m.wrap(name)(m.FS.Create(name)) }

// Open implements disk.FS.
func (m *Mutant) Open(name string) (disk.File, error) { return m.wrap(name)(m.FS.Open(name)) }

func (m *Mutant) wrap(name string) func(disk.File, error) (disk.File, error) {
	return func(f disk.File, err error) (disk.File, error) {
		if err != nil || !m.hit(name) {
			return f, err
		}
		return &mutantFile{File: f, m: m}, nil
	}
}

// SyncDir implements disk.FS.
func (m *Mutant) SyncDir(dir string) error {
	if m.NoSyncDir && m.hit(dir) {
		return nil
	}
	return m.FS.SyncDir(dir)
}

// WriteFile implements disk.FS.
func (m *Mutant) WriteFile(name string, data []byte) error {
	if !m.TornWriteFile || !m.hit(name) {
		return m.FS.WriteFile(name, data)
	}
	f, err := m.FS.Open(name)
	if err != nil {
		f, err = m.FS.Create(name)
	}
	if err != nil {
		return err
	}
	if err = f.Truncate(int64(len(data))); err == nil {
		_, err = f.WriteAt(data, 0)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

type mutantFile struct {
	disk.File
	m *Mutant
}

func (f *mutantFile) WriteAt(p []byte, off int64) (int, error) {
	if f.m.NoRewrite {
		has := make([]byte, len(p))
		if n, _ := f.File.ReadAt(has, off); n == len(p) && bytes.Equal(has, p) {
			return len(p), nil
		}
	}
	return f.File.WriteAt(p, off)
}

func (f *mutantFile) Close() error {
	f.m.mu.Lock()
	f.m.late = slices.DeleteFunc(f.m.late, func(late disk.File) bool { return late == f.File })
	f.m.mu.Unlock()
	return f.File.Close()
}

func (f *mutantFile) Datasync() error {
	switch {
	case f.m.NoDatasync:
		return nil
	case f.m.LateDatasync:
		f.m.mu.Lock()
		due := f.m.late
		f.m.late = []disk.File{f.File}
		f.m.mu.Unlock()
		for _, d := range due {
			if err := d.Datasync(); err != nil {
				return err
			}
		}
		return nil
	}
	return f.File.Datasync()
}
