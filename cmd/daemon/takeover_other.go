//go:build !linux

package daemon

import (
	"os"

	"golang.org/x/sys/unix"
)

// takeOver makes f the process's stdout and stderr.
func takeOver(f *os.File) error {
	for _, fd := range []int{unix.Stdout, unix.Stderr} {
		if err := unix.Dup2(int(f.Fd()), fd); err != nil {
			return err
		}
	}
	return nil
}
