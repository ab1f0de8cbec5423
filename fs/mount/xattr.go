package mount

import (
	"context"
	"errors"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"hearth/fs"
)

// storable reports whether files keep attributes of this name: the namespaces
// other file systems keep. Who may read and write which is the kernel's to say.
func storable(name string) bool {
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.") ||
		strings.HasPrefix(name, "security.") || name == xattrAccess || name == xattrDefault ||
		foreignXattrs
}

// GetXAttr copies an attribute's value to dest; an empty dest asks for its size.
func (s *server) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if !storable(name) {
		return 0, statusNotSupported
	}
	ctx := requestContext(cancel)
	var value []byte
	var err error
	if isVirtual(h.NodeId) {
		n := s.virtual.get(h.NodeId)
		if n == nil {
			return 0, statusStale
		}
		value, err = n.Getxattr(ctx, name)
	} else {
		value, err = s.src.Getxattr(ctx, fs.Ino(h.NodeId), name)
	}
	if err != nil {
		return 0, s.fail("getxattr", err)
	}
	if len(value) > len(dest) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

// ListXAttr copies the names to dest, each ended by a zero byte; an empty dest
// asks for the size. trusted.* is not shown to ordinary users.
func (s *server) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	ctx := requestContext(cancel)
	var names []string
	var err error
	if isVirtual(h.NodeId) {
		n := s.virtual.get(h.NodeId)
		if n == nil {
			return 0, statusStale
		}
		names, err = n.Listxattr(ctx)
	} else {
		names, err = s.src.Listxattr(ctx, fs.Ino(h.NodeId))
	}
	if err != nil {
		return 0, s.fail("listxattr", err)
	}
	size, fits := 0, true
	for _, name := range names {
		if h.Uid != 0 && strings.HasPrefix(name, "trusted.") {
			continue
		}
		if size+len(name)+1 <= len(dest) {
			copy(dest[size:], name)
			dest[size+len(name)] = 0
		} else {
			fits = false
		}
		size += len(name) + 1
	}
	if !fits {
		return uint32(size), fuse.ERANGE
	}
	return uint32(size), fuse.OK
}

// SetXAttr stores an attribute. ACLs are checked and mirrored in the mode.
func (s *server) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, value []byte) fuse.Status {
	switch {
	case s.drive == nil || isVirtual(in.NodeId):
		return fuse.EROFS
	case !storable(name):
		return statusNotSupported
	}
	ctx, c, ino := uninterrupted(), caller(&in.InHeader), fs.Ino(in.NodeId)
	switch name {
	case xattrAccess:
		return s.fail("set ACL", s.setAccessACL(ctx, c, ino, value, killsSetgid(in)))
	case xattrDefault:
		if _, err := parseACL(value); err != nil {
			return s.fail("set ACL", err)
		}
	}
	return s.fail("setxattr", s.drive.Setxattr(ctx, c, ino, name, value, in.Flags))
}

// RemoveXAttr removes an attribute.
func (s *server) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	switch {
	case s.drive == nil || isVirtual(h.NodeId):
		return fuse.EROFS
	case !storable(name):
		return statusNotSupported
	}
	return s.fail("removexattr", s.drive.Removexattr(uninterrupted(), caller(h), fs.Ino(h.NodeId), name))
}

// getACL returns a stored ACL, or nil.
func (s *server) getACL(ctx context.Context, ino fs.Ino, name string) ([]byte, error) {
	raw, err := s.drive.Getxattr(ctx, ino, name)
	if errors.Is(err, fs.ErrNoAttr) {
		return nil, nil
	}
	return raw, err
}

// setAccessACL stores an access ACL and the permissions that mirror it; an ACL
// that says no more than they do is not stored.
func (s *server) setAccessACL(ctx context.Context, c fs.Caller, ino fs.Ino, value []byte, killSetgid bool) error {
	a, err := parseACL(value)
	if err != nil {
		return err
	}
	now, err := s.drive.Getattr(ctx, ino)
	if err != nil {
		return err
	}
	perm, extended := a.mode()
	if extended {
		err = s.drive.Setxattr(ctx, c, ino, xattrAccess, a.encode(), 0)
	} else if err = s.drive.Removexattr(ctx, c, ino, xattrAccess); errors.Is(err, fs.ErrNoAttr) {
		err = nil
	}
	if err != nil {
		return err
	}
	mode := now.Mode&0o7000 | perm
	if killSetgid {
		mode &^= syscall.S_ISGID
	}
	if mode == now.Mode&0o7777 {
		return nil
	}
	_, err = s.drive.Setattr(ctx, c, ino, fs.SetAttr{Mode: &mode})
	return err
}

// chmodACL makes an access ACL follow a new mode.
func (s *server) chmodACL(ctx context.Context, c fs.Caller, ino fs.Ino, mode uint32) error {
	raw, err := s.getACL(ctx, ino, xattrAccess)
	if raw == nil || err != nil {
		return err
	}
	a, err := parseACL(raw)
	if err != nil {
		return err
	}
	a.chmod(mode)
	return s.drive.Setxattr(ctx, c, ino, xattrAccess, a.encode(), 0)
}
