// Package daemon is the process that holds drives open: it owns the lock of a
// home, the drives' stores, the mounts and the control socket, and ends them
// in the right order.
//
// It imports home and control, and of Hearth's packages fs, fs/mount, log and
// tiering. Everything it knows of history is in history.go, of retention in
// upkeep.go.
//
// # Lifecycle
//
//	lock the home          a second daemon is refused (home.ErrLocked)
//	listen                 requests wait until the daemon is ready
//	mount what mounts.json records, replacing what a killed daemon left
//	ready
//	serve                  until SIGTERM, SIGINT or a stop request
//	end requests, unmount, commit and close the drives, release the lock
//
// A drive is opened at its first use, and by a pass over all of them soon
// after the start, so that status can speak of each. One that cannot be
// opened is a line in its status and never keeps the others from working.
//
// # Promises
//
// What mounts.json says is what is mounted after the next start: it is
// replaced atomically, after a mount is usable and before an unmount is
// answered. A request that was refused changed nothing. A request whose
// client goes away is canceled. A drive is there whole or not at all: it is made,
// joined and left by renaming its folder, and what a crash leaves of one that was
// not finished is removed at the next start.
//
// # What it is not
//
// It decides nothing about drives, and prints nothing: answers are data.
package daemon
