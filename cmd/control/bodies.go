package control

import (
	"fmt"
	"strings"
	"time"
)

// Target is a path in a drive. Where Timed is set the path may end in @WHEN,
// which wins over When, the time of the mount the path was reached through;
// a file that has that very name wins over both. Now is the client's clock
// and time zone, which WHEN notation is read with.
type Target struct {
	Drive string `json:"drive"`
	Path
	Timed bool      `json:"timed,omitempty"`
	When  string    `json:"when,omitempty"`
	Now   time.Time `json:"now"`
}

// Version is a version of a drive: Version counts the commits of one writer,
// At is the notation that PATH@WHEN accepts.
type Version struct {
	Version uint64 `json:"version"`
	Writer  uint16 `json:"writer,omitempty"`
	At      string `json:"at"`
}

// CreateRequest makes a drive. Recovery asks for the recovery key, which
// exists at this moment only.
type CreateRequest struct {
	Name     string `json:"name"`
	Recovery bool   `json:"recovery,omitempty"`
}

// Created answers it.
type Created struct {
	Name        string `json:"name"`
	ID          string `json:"id"`
	RecoveryKey []byte `json:"recovery_key,omitempty"`
}

// MountRequest shows a drive at a directory, given by its absolute path
// without symlinks: live, or with Target.When as it was, read-only. With Link
// the drive is the one of a share link, which is joined if it is not here, and
// the time is the version that the link names, if any.
type MountRequest struct {
	Drive string `json:"drive"`
	Link  string `json:"link,omitempty"`
	Path
	When       string    `json:"when,omitempty"`
	Now        time.Time `json:"now"`
	AllowOther bool      `json:"allow_other,omitempty"`
	ReadOnly   bool      `json:"read_only,omitempty"`
}

// Mounted is one mount.
type Mounted struct {
	Drive string `json:"drive"`
	Path
	At         string `json:"at,omitempty"` // of a checkout
	ReadOnly   bool   `json:"read_only,omitempty"`
	AllowOther bool   `json:"allow_other,omitempty"`
	// Problem says why a recorded mount is not there.
	Problem string `json:"problem,omitempty"`
}

// UnmountRequest ends a mount.
type UnmountRequest struct {
	Path
	Force bool `json:"force,omitempty"` // even while programs use it
}

// StopRequest ends the daemon.
type StopRequest struct {
	Force bool `json:"force,omitempty"` // even while programs use its mounts
}

// Pong answers Ping, to any client.
type Pong struct {
	PID     int       `json:"pid"`
	Version string    `json:"version"`
	Mounts  []Mounted `json:"mounts"`
}

// StatusAnswer is the state of the daemon.
type StatusAnswer struct {
	PID     int           `json:"pid"`
	Version string        `json:"version"`
	Home    string        `json:"home"`
	Started time.Time     `json:"started"`
	Device  Device        `json:"device"`
	Memory  Memory        `json:"memory"`
	Receive *Receiving    `json:"receive,omitempty"` // what others send is taken
	Drives  []DriveStatus `json:"drives"`
	Mounts  []Mounted     `json:"mounts"`
}

// Device is the device a daemon runs on.
type Device struct {
	Name string `json:"name"`
}

// Memory is what the daemon may use and does use, in bytes.
type Memory struct {
	Limit int64 `json:"limit"`
	Used  int64 `json:"used"`
}

// DriveStatus is the state of one drive. Health is empty when all is well.
type DriveStatus struct {
	Name    string   `json:"name"`
	ID      string   `json:"id"`
	Version uint64   `json:"version"`
	Blocks  uint64   `json:"blocks"`         // of all versions that are known here
	Missing uint64   `json:"missing_blocks"` // of these, what other devices have and this one does not
	Mounts  []string `json:"mounts"`
	Bytes   int64    `json:"bytes"`         // on disk
	Logical int64    `json:"logical_bytes"` // contents of the newest version
	Files   uint64   `json:"files"`
	Unsaved int64    `json:"unsaved_bytes"`
	Health  []string `json:"health"`
	// Holders are the devices that hold the drive, as audits found them.
	Holders []HolderInfo `json:"holders,omitempty"`
}

// LogRequest asks for changes, or versions of a file, newest first; Limit 0
// means all. With RowsQuery in the URL the answer is text in place of JSON.
type LogRequest struct {
	Target
	Limit int `json:"limit,omitempty"`
}

// Change is what a person did in one go. Paths are the few that say it; one
// that ends in a slash stands for what is in it.
type Change struct {
	ID uint64 `json:"id"`
	Version
	First uint64    `json:"first_version"`
	Time  time.Time `json:"time"`
	Verb  string    `json:"what"`
	Paths
	Files     int    `json:"files"` // affected
	SizeDelta int64  `json:"size_change"`
	Program   string `json:"program,omitempty"`
	UID       uint32 `json:"uid"`
	Undone    bool   `json:"undone,omitempty"`
}

// What says in a few words what was done: "edited /letter.txt".
func (c Change) What() string {
	if c.Verb == "" {
		return ""
	}
	var b strings.Builder
	b.WriteString(c.Verb)
	paths := c.Paths.Raw()
	sep := " "
	if c.Verb == "renamed" || c.Verb == "moved" {
		sep = " -> "
	}
	for i, p := range paths {
		switch {
		case i == 0:
			b.WriteString(" ")
		case sep == " ":
			b.WriteString(", ")
		default:
			b.WriteString(sep)
		}
		b.WriteString(Show(p))
	}
	if len(paths) == 1 && strings.HasSuffix(paths[0], "/") {
		fmt.Fprintf(&b, " (%d files)", c.Files)
	}
	return b.String()
}

// FileVersion is one version of one document: a file, under whatever name and
// in whatever inode its editors saved it.
type FileVersion struct {
	Version
	Time    time.Time `json:"time"`
	Path              // its name then
	Size    uint64    `json:"size"`
	Program string    `json:"program,omitempty"`
	Reason  string    `json:"reason"` // work, undo, redo, restore, ...
}

// DiffRequest compares two times; an empty To is now.
type DiffRequest struct {
	Target
	To string `json:"to,omitempty"`
}

// DiffEntry is one difference.
type DiffEntry struct {
	Op string `json:"what"`
	Path
	OldPath
	Type       string `json:"type,omitempty"` // file, directory, symlink, fifo, socket, device
	SizeBefore uint64 `json:"size_before"`
	SizeAfter  uint64 `json:"size_after"`
}

// RestoreRequest brings back what was. To is a path inside the same drive.
type RestoreRequest struct {
	Target
	Exact  bool  `json:"exact,omitempty"`
	To     *Path `json:"to,omitempty"`
	DryRun bool  `json:"dry_run,omitempty"`
}

// UndeleteRequest brings back deleted things; the path may be a pattern.
type UndeleteRequest struct {
	Target
	DryRun bool `json:"dry_run,omitempty"`
}

// UndoRequest takes back, or does again, the newest change at a path. If it
// affects more than Limit files, the answer lists none; 0: it lists all.
type UndoRequest struct {
	Target
	DryRun bool `json:"dry_run,omitempty"`
	Force  bool `json:"force,omitempty"`
	Limit  int  `json:"limit,omitempty"`
}

// Result is what restore, undelete, undo and redo did, or would do.
type Result struct {
	Version
	Summary string      `json:"summary"`
	Entries []DiffEntry `json:"entries"`
	// Omitted is how many files were affected, when that is too many to list.
	Omitted int  `json:"omitted,omitempty"`
	DryRun  bool `json:"dry_run,omitempty"`
}

// TagRequest names a version of a path, or takes the name away.
type TagRequest struct {
	Target
	Name string `json:"name"`
}

// TagInfo is one tag.
type TagInfo struct {
	Name string `json:"name"`
	Version
	Path
	Time time.Time `json:"time"`
}

// FeedRequest asks for every change after a version, oldest first, and with
// Follow for those to come.
type FeedRequest struct {
	Drive  string    `json:"drive"`
	Since  string    `json:"since"`
	Now    time.Time `json:"now"`
	Follow bool      `json:"follow,omitempty"`
}

// FeedEntry is one line of the feed: what became of one file or directory in
// one version. Change is the id of the Change it belongs to, where that is
// kept.
type FeedEntry struct {
	Version
	Time time.Time `json:"time"`
	Op   string    `json:"what"`
	Path
	OldPath
	Type    string `json:"type,omitempty"`
	Ino     uint64 `json:"ino"`
	Size    uint64 `json:"size"`
	Change  uint64 `json:"change,omitempty"`
	Program string `json:"program,omitempty"`
	UID     uint32 `json:"uid"`
	Reason  string `json:"reason"` // work, undo, redo, restore, ...
}

// RetainRequest shows what is kept of a folder, or sets it when Set is true.
type RetainRequest struct {
	Target
	Set    bool   `json:"set,omitempty"`
	Ladder string `json:"ladder,omitempty"`
}

// Retained answers it.
type Retained struct {
	Path
	Ladder    string `json:"ladder"`
	Inherited bool   `json:"inherited,omitempty"` // from a folder above, or the default
}

// SweepRequest drops what no retained version needs.
type SweepRequest struct {
	Drive  string `json:"drive"`
	DryRun bool   `json:"dry_run,omitempty"`
}

// Swept says what a sweep or a purge freed, or would free.
type Swept struct {
	Versions int64    `json:"versions_dropped"`
	Blocks   int64    `json:"blocks_dropped"`
	Bytes    int64    `json:"bytes_freed"`
	Notes    []string `json:"notes,omitempty"`
	DryRun   bool     `json:"dry_run,omitempty"`
}

// VerifyRequest checks a whole drive.
type VerifyRequest struct {
	Drive string `json:"drive"`
}

// DamageInfo is one thing that verification found.
type DamageInfo struct {
	Path
	Version
	Block   string `json:"block"`
	Problem string `json:"problem"`
}

// Verified is the outcome of verification.
type Verified struct {
	Versions int64 `json:"versions"`
	Blocks   int64 `json:"blocks"`
	Bytes    int64 `json:"bytes"`
	Dropped  int64 `json:"dropped"` // on purpose; not damage
	Damaged  int64 `json:"damaged"`
	Held     bool  `json:"held,omitempty"` // for others: contents cannot be checked
	// Forks is not damage, but says that a log was written in two places.
	Forks []ForkInfo `json:"forks,omitempty"`
}

// ExportRequest writes the log as static files into a directory, given by its
// absolute path.
type ExportRequest struct {
	Drive string `json:"drive"`
	Path
}
