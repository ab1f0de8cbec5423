package mount

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"hearth/fs"
	"hearth/log"
)

// errnos is the one table from errors to errno values. The first match wins:
// damage and absence come first, so that neither is ever taken for ENOENT.
var errnos = []struct {
	err   error
	errno syscall.Errno
}{
	{fs.ErrDamaged, syscall.EIO},
	{log.ErrDamaged, syscall.EIO},
	{log.ErrDropped, syscall.EIO},
	{log.ErrPoisoned, syscall.EIO},
	{log.ErrClosed, syscall.EIO},
	{log.ErrAbsent, syscall.ENETUNREACH},
	{log.ErrReadOnly, syscall.EROFS},
	{context.DeadlineExceeded, syscall.ETIMEDOUT},
	{context.Canceled, syscall.EINTR},
	{fs.ErrNotExist, syscall.ENOENT},
	{fs.ErrExist, syscall.EEXIST},
	{fs.ErrNotDir, syscall.ENOTDIR},
	{fs.ErrIsDir, syscall.EISDIR},
	{fs.ErrNotEmpty, syscall.ENOTEMPTY},
	{fs.ErrInvalid, syscall.EINVAL},
	{fs.ErrNameTooLong, syscall.ENAMETOOLONG},
	{fs.ErrNoSpace, syscall.ENOSPC},
	{fs.ErrNoAttr, syscall.Errno(fuse.ENOATTR)},
	{fs.ErrTooBig, syscall.EFBIG},
	{fs.ErrAttrTooBig, syscall.E2BIG},
	{fs.ErrReadOnly, syscall.EROFS},
	{fs.ErrPerm, syscall.EPERM},
	{fs.ErrTooManyLinks, syscall.EMLINK},
	{fs.ErrNotSupported, syscall.EOPNOTSUPP},
	{fs.ErrNoData, syscall.ENXIO},
	{fs.ErrStale, syscall.ESTALE},
	{fs.ErrBadHandle, syscall.EBADF},
	{fs.ErrNoVersion, syscall.ENOENT},
	{fs.ErrConflict, syscall.EBUSY},
	{fs.ErrNothing, syscall.EINVAL},
}

// Statuses that go-fuse has no names for.
const (
	statusNotTTY       = fuse.Status(syscall.ENOTTY)
	statusStale        = fuse.Status(syscall.ESTALE)
	statusNameTooLong  = fuse.Status(syscall.ENAMETOOLONG)
	statusNotSupported = fuse.Status(syscall.EOPNOTSUPP)
	statusExist        = fuse.Status(syscall.EEXIST)
)

// errnoOf maps an error to what the kernel is told. known is false for an
// error the table does not hold, which is EIO.
func errnoOf(err error) (errno syscall.Errno, known bool) {
	for i := range errnos {
		if errors.Is(err, errnos[i].err) {
			return errnos[i].errno, true
		}
	}
	// A full disk below may show as the errno itself.
	var e syscall.Errno
	if errors.As(err, &e) && (e == syscall.ENOSPC || e == syscall.EDQUOT) {
		return syscall.ENOSPC, true
	}
	return syscall.EIO, false
}

// fail returns the status for an error and reports what a person should hear
// of: damage, and errors nobody thought of.
func (s *server) fail(op string, err error) fuse.Status {
	if err == nil || err == io.EOF {
		return fuse.OK
	}
	errno, known := errnoOf(err)
	if errno == syscall.EIO || !known {
		s.complaints.report(s.logger, op, errno, err)
	}
	return fuse.Status(errno)
}

// complainEvery is how often one kind of error is reported at most: a program
// that reads a damaged file in a loop must not fill the disk with messages.
const complainEvery = time.Minute

// complaints limits messages to one a minute for each operation and errno.
type complaints struct {
	mu   sync.Mutex
	last map[complaint]time.Time
}

type complaint struct {
	op    string
	errno syscall.Errno
}

func (c *complaints) report(logger *slog.Logger, op string, errno syscall.Errno, err error) {
	k, now := complaint{op, errno}, time.Now()
	c.mu.Lock()
	if c.last == nil {
		c.last = map[complaint]time.Time{}
	}
	at, said := c.last[k]
	if said && now.Sub(at) < complainEvery {
		c.mu.Unlock()
		return
	}
	c.last[k] = now
	c.mu.Unlock()
	logger.Error("request failed", "op", op, "errno", errno.Error(), "err", err)
}
