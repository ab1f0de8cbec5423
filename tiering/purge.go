package tiering

import (
	"context"

	"hearth/fs"
)

// Purge removes a path from the present and from every version of a drive, for
// good. The notes say what it could not reach: see fs.Drive.Purge.
func Purge(ctx context.Context, d *fs.Drive, path string) (SweepResult, error) {
	r, err := d.Purge(ctx, path, nil)
	return SweepResult{Versions: r.Versions, Blocks: r.Blocks, Bytes: r.Bytes, Freed: r.Freed, Notes: r.Left}, err
}
