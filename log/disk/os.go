package disk

import (
	"errors"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
)

// OS is the host's file system. Files it makes have mode 0600, directories
// 0700: whatever is in a store is nobody else's business.
type OS struct{}

var _ FS = OS{}

// osFile is a file of the host.
type osFile struct{ f *os.File }

// Create implements [FS].
func (OS) Create(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &osFile{f}, nil
}

// Open implements [FS].
func (OS) Open(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &osFile{f}, nil
}

// OpenRead implements [FS].
func (OS) OpenRead(name string) (File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	return &osFile{f}, nil
}

// ReadFile implements [FS].
func (OS) ReadFile(name string) ([]byte, error) { return os.ReadFile(name) }

// WriteFile implements [FS]: a temporary file beside name is written, synced
// and renamed over it, and the directory is synced. What a crash leaves of
// the temporary file is overwritten by the next call.
func (o OS) WriteFile(name string, data []byte) error {
	temp := name + ".tmp"
	if err := writeSynced(temp, data); err != nil {
		return errors.Join(err, removeIfThere(temp))
	}
	if err := os.Rename(temp, name); err != nil {
		return errors.Join(err, removeIfThere(temp))
	}
	return o.SyncDir(filepath.Dir(name))
}

func writeSynced(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := datasync(f); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

func removeIfThere(name string) error {
	if err := os.Remove(name); !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	return nil
}

// Rename implements [FS].
func (OS) Rename(oldname, newname string) error { return os.Rename(oldname, newname) }

// Remove implements [FS].
func (OS) Remove(name string) error { return os.Remove(name) }

// RemoveAll implements [FS].
func (OS) RemoveAll(name string) error { return os.RemoveAll(name) }

// MkdirAll implements [FS].
func (OS) MkdirAll(name string) error { return os.MkdirAll(name, 0o700) }

// List implements [FS].
func (OS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// Stat implements [FS].
func (OS) Stat(name string) (iofs.FileInfo, error) { return os.Stat(name) }

// SyncDir implements [FS].
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Free implements [FS].
func (OS) Free(dir string) (free, total int64, err error) {
	if free, total, err = statfs(dir); err != nil {
		return 0, 0, &iofs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return free, total, nil
}

func (f *osFile) ReadAt(p []byte, off int64) (int, error)  { return f.f.ReadAt(p, off) }
func (f *osFile) WriteAt(p []byte, off int64) (int, error) { return f.f.WriteAt(p, off) }
func (f *osFile) Truncate(size int64) error                { return f.f.Truncate(size) }
func (f *osFile) Close() error                             { return f.f.Close() }

func (f *osFile) Datasync() error {
	if err := datasync(f.f); err != nil {
		return f.name("fdatasync", err)
	}
	return nil
}

func (f *osFile) WriteBack() { writeBack(f.f) }

func (f *osFile) Size() (int64, error) {
	info, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f *osFile) Allocate(off, n int64) error {
	if n <= 0 {
		return nil
	}
	err := allocate(f.f, off, n)
	if errors.Is(err, errors.ErrUnsupported) {
		err = f.allocateByWriting(off, n)
	}
	if err != nil {
		return f.name("fallocate", err)
	}
	return nil
}

// allocateByWriting writes zeros where the file has no bytes yet: the one way
// to have space that every file system knows. Holes inside the file stay.
func (f *osFile) allocateByWriting(off, n int64) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	return f.writeZeros(max(off, size), off+n)
}

func (f *osFile) PunchHole(off, n int64) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	n = min(n, size-off)
	if n <= 0 {
		return nil
	}
	err = punch(f.f, off, n)
	if errors.Is(err, errors.ErrUnsupported) {
		err = f.writeZeros(off, off+n) // frees nothing, but reads as it should
	}
	if err != nil {
		return f.name("punch hole", err)
	}
	return nil
}

func (f *osFile) writeZeros(from, to int64) error {
	zeros := make([]byte, min(max(to-from, 0), 1<<20))
	for from < to {
		n, err := f.f.WriteAt(zeros[:min(int64(len(zeros)), to-from)], from)
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrShortWrite
		}
		from += int64(n)
	}
	return nil
}

// name adds operation and path to the error of a system call.
func (f *osFile) name(op string, err error) error {
	var named *iofs.PathError
	if errors.As(err, &named) {
		return err
	}
	return &iofs.PathError{Op: op, Path: f.f.Name(), Err: err}
}
