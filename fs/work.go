package fs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

// How operations become changes: the processes of one program run are one
// session; a session's work without a pause is one change.
const (
	changePause  = 2 * time.Second        // a pause this long ends a change
	changeLength = 10 * time.Minute       // a change is never longer
	savePause    = 300 * time.Millisecond // saving the same document again after this is a new change
	sessionTTL   = 5 * time.Second        // how long a process's identity is believed
)

// session is one run of one program: a process, with those of its ancestors
// in the same process group that run the same executable (git and its helpers,
// the processes of a database).
type session struct {
	program string
	uid     uint32
	leader  int

	// Of the change it is making; guarded by Drive.mu.
	id       uint64
	started  time.Time
	last     time.Time
	saved    map[Ino]time.Time // documents it closed after writing, in this change
	handover handover
}

// sessions finds the session of a process.
type sessions struct {
	mu    sync.Mutex
	byPid map[uint32]sessionEntry
	lead  map[int]*session
	own   session // work without a process: the daemon's own
}

type sessionEntry struct {
	s    *session
	seen time.Time
}

// of returns the session of a caller. It may read /proc, so it is called
// before the drive's lock is taken.
func (t *sessions) of(c Caller, now time.Time) *session {
	if c.Pid == 0 {
		return &t.own
	}
	t.mu.Lock()
	e, ok := t.byPid[c.Pid]
	if ok && now.Sub(e.seen) < sessionTTL {
		t.mu.Unlock()
		return e.s
	}
	t.mu.Unlock()

	leader, program := identify(int(c.Pid))
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byPid == nil || len(t.byPid) > 4096 {
		t.byPid, t.lead = map[uint32]sessionEntry{}, map[int]*session{}
	}
	s := t.lead[leader]
	if s == nil || s.program != program || s.uid != c.Uid {
		s = &session{program: program, uid: c.Uid, leader: leader}
		t.lead[leader] = s
	}
	t.byPid[c.Pid] = sessionEntry{s, now}
	return s
}

// identify returns the process that leads pid's program run and the program's
// name. A process that is gone, or a system without /proc, leads itself.
func identify(pid int) (leader int, program string) {
	leader = pid
	comm, ppid, pgrp, ok := procStat(pid)
	if !ok {
		return pid, ""
	}
	program = comm
	exe, _ := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
	for depth := 0; depth < 32 && exe != "" && ppid > 1; depth++ {
		_, grandparent, group, ok := procStat(ppid)
		if !ok || group != pgrp {
			break
		}
		up, _ := os.Readlink(filepath.Join("/proc", strconv.Itoa(ppid), "exe"))
		if up != exe {
			break
		}
		leader, ppid = ppid, grandparent
	}
	return leader, program
}

// procStat reads what we need of /proc/PID/stat (proc(5)). The command name
// stands in parentheses and may itself hold parentheses.
func procStat(pid int) (comm string, ppid, pgrp int, ok bool) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", 0, 0, false
	}
	i, j := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if i < 0 || j < i {
		return "", 0, 0, false
	}
	var state byte
	if _, err := fmt.Sscanf(string(b[j+1:]), " %c %d %d", &state, &ppid, &pgrp); err != nil {
		return "", 0, 0, false
	}
	return string(b[i+1 : j]), ppid, pgrp, true
}

// work collects who did what in one layer.
type work struct {
	reason  Reason
	undoes  uint64
	actors  []actor
	index   map[uint64]int // actor id to index
	changes []change
	byKey   map[workKey]int  // to join what one actor does to one inode
	closed  map[Ino]struct{} // files whose writer closed them: versions people mean
	writer  map[Ino]uint64   // which actor wrote an inode's contents
	maker   map[Ino]uint64   // which actor made an inode
}

type workKey struct {
	actor  int
	ino    Ino
	parent Ino
	name   string
}

func newWork() *work {
	return &work{index: map[uint64]int{}, byKey: map[workKey]int{}, closed: map[Ino]struct{}{}, writer: map[Ino]uint64{}, maker: map[Ino]uint64{}}
}

// actor returns the index of a session's present change, beginning a new one
// after a pause. Under Drive.mu.
func (d *Drive) actor(s *session) int {
	now := d.clock()
	pause := changePause
	if s.hasSaved() {
		pause = savePause // what comes is the next save
	}
	if s.id == 0 || now.Sub(s.last) > pause || now.Sub(s.started) > changeLength {
		d.newChange(s, now)
	}
	s.last = now
	w := d.work
	i, ok := w.index[s.id]
	if !ok {
		i = len(w.actors)
		w.index[s.id] = i
		program := s.program
		if len(program) > maxProgram {
			program = program[:maxProgram]
		}
		w.actors = append(w.actors, actor{id: s.id, since: s.started.UnixNano(), uid: s.uid, program: program})
	}
	return i
}

// newChange makes what a session does from now on a change of its own.
func (d *Drive) newChange(s *session, now time.Time) {
	s.id = d.openSeq<<8 | uint64(len(d.work.actors)&0xff)
	for { // ids of one layer differ
		if _, taken := d.work.index[s.id]; !taken {
			break
		}
		s.id++
	}
	s.started, s.saved = now, nil
}

// note records that a session did something. Under Drive.mu.
func (d *Drive) note(s *session, c change) {
	c.actor = d.actor(s)
	w := d.work
	k := workKey{actor: c.actor, ino: c.ino}
	if c.what&(didLink|didUnlink|didTag|didReplace) != 0 {
		k.parent, k.name = c.parent, c.name
	}
	if i, ok := w.byKey[k]; ok {
		w.changes[i].what |= c.what
		w.changes[i].delta += c.delta
		if c.what&didWrite != 0 {
			w.changes[i].size = c.size
		}
	} else {
		w.byKey[k] = len(w.changes)
		w.changes = append(w.changes, c)
	}
	if c.what&didCreate != 0 {
		w.maker[c.ino] = s.id
	}
	if c.what&didWrite != 0 {
		w.writer[c.ino] = s.id
		delete(w.closed, c.ino)
	}
}

// grow makes room for n more changes.
func (w *work) grow(n int) {
	w.changes = slices.Grow(w.changes, n)
	if len(w.byKey) == 0 {
		w.byKey = make(map[workKey]int, n)
	}
}

// cutBefore reports whether a version must be kept before s changes the
// contents of ino, or takes its name: somebody finished writing it, or another
// program wrote it, since the last commit. Under Drive.mu.
func (d *Drive) cutBefore(s *session, ino Ino) bool {
	if _, ok := d.work.closed[ino]; ok {
		return d.cuts.take(d.clock())
	}
	if id, ok := d.work.writer[ino]; ok && id != s.id {
		return d.cuts.take(d.clock())
	}
	return false
}

// lostBy reports whether a version must be kept before s removes ino: another
// program made or wrote it since the last commit, so that no version has it.
// What a program makes and removes itself is its own matter. Under Drive.mu.
func (d *Drive) lostBy(s *session, ino Ino) bool {
	for _, by := range []map[Ino]uint64{d.work.writer, d.work.maker} {
		if id, ok := by[ino]; ok && id != s.id {
			return d.cuts.take(d.clock())
		}
	}
	return false
}

// saving begins a new change if s saved this document before in its present
// one and has paused since: a person pressed save twice. Under Drive.mu.
func (d *Drive) saving(s *session, ino Ino) {
	if at, ok := s.saved[ino]; ok {
		if now := d.clock(); now.Sub(at) > savePause {
			d.newChange(s, now)
		}
	}
}

// budget limits how often something may happen: a token bucket.
type budget struct {
	burst, perSecond float64
	tokens           float64
	at               time.Time
}

func (b *budget) take(now time.Time) bool {
	if b.at.IsZero() {
		b.tokens = b.burst
	} else if gone := now.Sub(b.at).Seconds(); gone > 0 {
		b.tokens = min(b.burst, b.tokens+gone*b.perSecond)
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
