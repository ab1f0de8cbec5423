package log

import (
	iofs "io/fs"
	"sync"
	"syscall"
)

// healthKeep bounds how much damage is remembered.
const healthKeep = 1000

// health collects what was found wrong.
type health struct {
	mu     sync.Mutex
	damage []Damage
	more   int
}

func (h *health) note(d Damage) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.damage) < healthKeep {
		h.damage = append(h.damage, d)
	} else {
		h.more++
	}
}

// Health is the state of a log.
type Health struct {
	// Damage was found when the log was opened, files of the index that were
	// rebuilt included; at most a thousand of them.
	Damage []Damage
	// Poisoned is why the log must be reopened; nil if it need not.
	Poisoned error
	// Low says that only the reserve is left on the disk.
	Low bool
}

// Health returns the state of the log.
func (l *Log) Health() Health {
	l.health.mu.Lock()
	defer l.health.mu.Unlock()
	l.mu.RLock()
	defer l.mu.RUnlock()
	return Health{
		Damage:   append([]Damage(nil), l.health.damage...),
		Poisoned: l.poison,
		Low:      l.reserve != nil && l.reserve.released.Load(),
	}
}

// allocated returns the space a file takes on disk.
func allocated(info iofs.FileInfo) int64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Blocks * 512
	}
	return info.Size()
}
