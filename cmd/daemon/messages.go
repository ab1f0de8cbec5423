package daemon

import (
	"fmt"
	"os"
	"sync"
)

// messagesLimit is how large daemon.log grows before it becomes daemon.log.1.
const messagesLimit = 4 << 20

// Messages is the file that a background daemon writes its messages to. It
// takes over the process's stdout and stderr, so that the trace of a panic is
// in it too.
type Messages struct {
	path string
	mu   sync.Mutex
	f    *os.File
	size int64
}

// OpenMessages opens the file for appending.
func OpenMessages(path string) (*Messages, error) {
	m := &Messages{path: path}
	if err := m.open(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Messages) open() error {
	f, err := os.OpenFile(m.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("messages: %w", err)
	}
	st, err := f.Stat()
	if err == nil {
		err = takeOver(f)
	}
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("messages: %w", err)
	}
	m.f, m.size = f, st.Size()
	return nil
}

// Write appends one message. When the file is full, it makes room first;
// a failure to do so is no reason to lose a message.
func (m *Messages) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.size > 0 && m.size+int64(len(p)) > messagesLimit && os.Rename(m.path, m.path+".1") == nil {
		full := m.f
		if m.open() == nil {
			_ = full.Close()
		}
	}
	n, err := m.f.Write(p)
	m.size += int64(n)
	return n, err
}

// Close closes the file; stdout and stderr stay with it.
func (m *Messages) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.f.Close()
}
