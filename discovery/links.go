package discovery

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// follow calls changed after each message, until ctx ends or the socket fails.
func follow(ctx context.Context, f *os.File, changed func()) error {
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	defer f.Close()
	buf := make([]byte, 1<<16)
	for {
		_, err := f.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // messages were lost, which is a change too
		case err != nil:
			return fmt.Errorf("watch network interfaces: %w", err)
		}
		changed()
	}
}
