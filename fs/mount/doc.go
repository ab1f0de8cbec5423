// Package mount shows a drive to the kernel: it translates FUSE requests into
// methods of [fs.Drive] and errors into errno values, and decides nothing.
//
// It owns the mount point, the table of open files and directories, offsets
// in directory streams, the kernel's caches (how long answers stay valid, and
// telling the kernel when they no longer do), POSIX ACLs as Linux encodes and
// inherits them, and the node ids of .history. It may import hearth/fs,
// hearth/log (for errors) and go-fuse, and nothing of Hearth imports it but
// the daemon.
//
// # Nodes
//
// The kernel's node id of a live file is its inode number: the root is 1 in
// both worlds, and inode numbers are never used twice, so there is no second
// inode tree to keep in step and no generation to count. Node ids with the top
// bit set are virtual: names inside .history (history.go). A drive with more
// than 32,767 writers cannot be mounted by this scheme.
//
// # Caching
//
// All changes come through the kernel that caches, or are announced through
// [fs.Notifier]. So entries (also the absence of a name), attributes and pages
// stay valid for an hour, and opening a file keeps its pages. An announcement
// that is not delivered yet makes answers expire at once instead. The kernel's
// writeback cache is off: it would own size and mtime.
//
// # Permissions
//
// Every mount has default_permissions: the kernel checks modes, owners and
// ACLs before it asks. What the kernel leaves to file systems is done here:
// applying umask and default ACLs to what is created, and keeping an ACL and
// the mode it mirrors in step.
//
// # Interrupts
//
// A request that may have to wait for a block from far away (lookups and
// reads) is canceled when its process gets a signal. Requests that change
// something, and fsync, are not: on a disk they never fail with EINTR, and
// programs such as databases do not expect it.
//
// # What it is not
//
// No policy, no history, no merging: fs. No command line and no daemon:
// cmd/hearth, which also sets the process's umask to 0.
package mount
