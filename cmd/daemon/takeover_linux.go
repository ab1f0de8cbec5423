package daemon

import (
	"os"

	"golang.org/x/sys/unix"
)

// takeOver makes f the process's stdout and stderr. Linux on arm64 has no
// dup2, every Linux has dup3.
func takeOver(f *os.File) error {
	for _, fd := range []int{unix.Stdout, unix.Stderr} {
		if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil {
			return err
		}
	}
	return nil
}
