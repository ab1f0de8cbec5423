package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"hearth/fs"
	"hearth/log"
)

func TestErrno(t *testing.T) {
	for _, tt := range []struct {
		err   error
		want  syscall.Errno
		known bool
	}{
		{fs.ErrNotExist, syscall.ENOENT, true},
		{fs.ErrExist, syscall.EEXIST, true},
		{fs.ErrNotDir, syscall.ENOTDIR, true},
		{fs.ErrIsDir, syscall.EISDIR, true},
		{fs.ErrNotEmpty, syscall.ENOTEMPTY, true},
		{fs.ErrInvalid, syscall.EINVAL, true},
		{fs.ErrNameTooLong, syscall.ENAMETOOLONG, true},
		{fs.ErrNoSpace, syscall.ENOSPC, true},
		{fs.ErrNoAttr, syscall.Errno(fuse.ENOATTR), true},
		{fs.ErrTooBig, syscall.EFBIG, true},
		{fs.ErrAttrTooBig, syscall.E2BIG, true},
		{fs.ErrReadOnly, syscall.EROFS, true},
		{fs.ErrPerm, syscall.EPERM, true},
		{fs.ErrTooManyLinks, syscall.EMLINK, true},
		{fs.ErrNotSupported, syscall.EOPNOTSUPP, true},
		{fs.ErrNoData, syscall.ENXIO, true},
		{fs.ErrStale, syscall.ESTALE, true},
		{fs.ErrBadHandle, syscall.EBADF, true},
		{fs.ErrDamaged, syscall.EIO, true},
		{fs.ErrNoVersion, syscall.ENOENT, true},
		{fs.ErrConflict, syscall.EBUSY, true},
		{fs.ErrNothing, syscall.EINVAL, true},
		{log.ErrAbsent, syscall.ENETUNREACH, true},
		{log.ErrDamaged, syscall.EIO, true},
		{log.ErrDropped, syscall.EIO, true},
		{log.ErrPoisoned, syscall.EIO, true},
		{log.ErrClosed, syscall.EIO, true},
		{log.ErrReadOnly, syscall.EROFS, true},
		{context.Canceled, syscall.EINTR, true},
		{context.DeadlineExceeded, syscall.ETIMEDOUT, true},
		{fmt.Errorf("write seg/00000001: %w", syscall.ENOSPC), syscall.ENOSPC, true},
		{fmt.Errorf("write: %w", syscall.EDQUOT), syscall.ENOSPC, true},
		{fmt.Errorf("write: %w", syscall.ENOENT), syscall.EIO, false},
		{errors.New("never heard of"), syscall.EIO, false},
		{fmt.Errorf("inode 7: %w", fs.ErrNotExist), syscall.ENOENT, true},
		// Damage is never taken for absence.
		{errors.Join(fs.ErrNotExist, log.ErrDamaged), syscall.EIO, true},
		{errors.Join(fs.ErrNotExist, log.ErrAbsent), syscall.ENETUNREACH, true},
	} {
		if got, known := errnoOf(tt.err); got != tt.want || known != tt.known {
			t.Errorf("%v: %v %v, want %v %v", tt.err, got, known, tt.want, tt.known)
		}
	}
	var s server
	if s.fail("x", nil) != fuse.OK || s.fail("x", io.EOF) != fuse.OK {
		t.Error("no error is one")
	}
}

func TestComplaints(t *testing.T) {
	var b bytes.Buffer
	s := &server{logger: slog.New(slog.NewTextHandler(&b, nil))}
	for range 100 {
		s.fail("read", log.ErrDamaged)
		s.fail("lookup", fs.ErrNotExist)
	}
	s.fail("write", errors.New("never heard of"))
	if n := strings.Count(b.String(), "\n"); n != 2 {
		t.Errorf("%d messages, want 2:\n%s", n, b.String())
	}
}
