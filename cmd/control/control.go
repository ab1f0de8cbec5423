// Package control is what the command line and the daemon say to each other:
// the routes of the control socket, the bodies of requests and answers, the
// lines of streams, and errors with the exit code they end in. It owns the
// names of the JSON fields that `--json` shows, so a change here is a change
// of Hearth's interface to scripts. It does no I/O and imports no other
// package of Hearth.
//
// # Transport
//
// HTTP over a unix socket of mode 0600, one POST with a JSON body per command
// (GET for pprof). Both sides name their build in the header [VersionHeader];
// the daemon refuses a client of another build, except where a route says it
// may not ([Stop], [Ping]), because both are one binary and nobody should debug a
// mixture of two.
//
// # Names
//
// A path is bytes, JSON strings are Unicode. A field such as "path" holds the
// text; when the bytes are not UTF-8, invalid ones appear in it as U+FFFD and
// a second field, "path_bytes", holds all bytes in base64. Whoever needs
// exact names uses the second when it is there. Lists of paths follow the
// same rule as a whole: "paths" and, if any is not UTF-8, "paths_bytes".
//
// # Streams
//
// A streaming route answers with one JSON object per line ([ItemPrefix],
// [Line]): items, progress, and last either "done" or "error". A stream that ends without one
// of these was cut off. Contents of files, and rows of text ([Row]), are raw
// bytes; their error, if any, comes in the trailer [ErrorTrailer].
package control

import (
	"encoding/json"
	"unicode/utf8"
)

// Headers and trailers.
const (
	VersionHeader = "Hearth-Version"
	ErrorTrailer  = "Hearth-Error" // a control.Error as JSON
	HintHeader    = "Hearth-Hint"  // a hint beside an answer, percent-encoded
)

// Routes.
const (
	Ping     = "/v1/ping"
	Stop     = "/v1/stop"
	Status   = "/v1/status"
	Create   = "/v1/create"
	Mount    = "/v1/mount"
	Unmount  = "/v1/unmount"
	Sync     = "/v1/sync"
	Log      = "/v1/log"
	Versions = "/v1/versions"
	Diff     = "/v1/diff"
	Cat      = "/v1/cat"
	Restore  = "/v1/restore"
	Undelete = "/v1/undelete"
	Undo     = "/v1/undo"
	Redo     = "/v1/redo"
	Tag      = "/v1/tag"
	Tags     = "/v1/tags"
	Untag    = "/v1/untag"
	Changes  = "/v1/changes"
	Retain   = "/v1/retain"
	Sweep    = "/v1/sweep"
	Purge    = "/v1/purge"
	Verify   = "/v1/verify"
	Audit    = "/v1/audit"
	Export   = "/v1/export"
	Share    = "/v1/share"
	Links    = "/v1/links"
	Unshare  = "/v1/unshare"
	Join     = "/v1/join"
	Leave    = "/v1/leave"
	Peers    = "/v1/peers"
	Connect  = "/v1/connect"
	Nearby   = "/v1/nearby"
	Send     = "/v1/send"
	Receive  = "/v1/receive"
	Answer   = "/v1/answer"
	Fetch    = "/v1/fetch"
	Evict    = "/v1/evict"
	Where    = "/v1/where"
	Standing = "/v1/standing"
	Set      = "/v1/set"
)

// Path is a name or path that need not be UTF-8.
type Path struct {
	Path      string `json:"path"`
	PathBytes []byte `json:"path_bytes,omitempty"`
}

// PathOf wraps the bytes of a path.
func PathOf(s string) Path {
	if utf8.ValidString(s) {
		return Path{Path: s}
	}
	return Path{Path: s, PathBytes: []byte(s)}
}

// Raw returns the bytes of the path.
func (p Path) Raw() string {
	if p.PathBytes != nil {
		return string(p.PathBytes)
	}
	return p.Path
}

// OldPath is where something was before; empty if nowhere else.
type OldPath struct {
	OldPath      string `json:"old_path,omitempty"`
	OldPathBytes []byte `json:"old_path_bytes,omitempty"`
}

// OldPathOf wraps the bytes of a path.
func OldPathOf(s string) OldPath {
	p := PathOf(s)
	return OldPath{OldPath: p.Path, OldPathBytes: p.PathBytes}
}

// Raw returns the bytes of the path.
func (p OldPath) Raw() string { return Path{p.OldPath, p.OldPathBytes}.Raw() }

// Paths is a list of paths.
type Paths struct {
	Paths      []string `json:"paths"`
	PathsBytes [][]byte `json:"paths_bytes,omitempty"`
}

// PathsOf wraps the bytes of paths.
func PathsOf(s []string) Paths {
	p := Paths{Paths: s}
	if p.Paths == nil {
		p.Paths = []string{}
	}
	for _, name := range s {
		if !utf8.ValidString(name) {
			for _, n := range s {
				p.PathsBytes = append(p.PathsBytes, []byte(n))
			}
			break
		}
	}
	return p
}

// Raw returns the bytes of the paths.
func (p Paths) Raw() []string {
	if p.PathsBytes == nil {
		return p.Paths
	}
	out := make([]string, len(p.PathsBytes))
	for i, b := range p.PathsBytes {
		out[i] = string(b)
	}
	return out
}

// ItemPrefix begins the line of an item, which ends with a brace of its own:
// {"item":...}. Items are written and read without parsing them twice.
const ItemPrefix = `{"item":`

// Line is one line of a stream that is no item. Exactly one field is set; Done
// and Error are last.
type Line struct {
	Progress *Progress       `json:"progress,omitempty"`
	Done     json.RawMessage `json:"done,omitempty"`
	Error    *Error          `json:"error,omitempty"`
}

// Progress says how far long work is. Total is 0 where it is not known.
type Progress struct {
	What  string `json:"what"`
	Done  int64  `json:"done"`
	Total int64  `json:"total,omitempty"`
}
