package replicate

import (
	"context"
	"fmt"

	"hearth/log"
)

// FetchTiles implements log.TileSource.
func (d *shared) FetchTiles(l *log.Log, index uint64) error {
	ctx, cancel := context.WithTimeout(d.node.life, findTime)
	defer cancel()
	asked := map[*session]bool{}
	for {
		changed := d.node.waitChange()
		for _, s := range d.node.sharing(d.id) {
			if asked[s] {
				continue
			}
			asked[s] = true
			if err := s.getTiles(ctx, l, index); err != nil {
				d.node.logger.Debug("asking a peer for tiles", "drive", d.id, "err", err)
			}
			if lacking, err := l.Lacking(nil, index); err != nil || len(lacking) == 0 {
				return err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("hash tiles of entry %v of drive %v: nobody here has them: %w", log.Ref{Writer: l.Writer(), Index: index}, d.id, log.ErrMissing)
		}
	}
}

func (s *session) getTiles(ctx context.Context, l *log.Log, index uint64) error {
	lacking, err := l.Lacking(nil, index)
	if err != nil {
		return err
	}
	q := &request{typ: msgGet, log: s.nameOf(l), tiles: lacking}
	return s.urgent().do(ctx, q, func(p part) error { return s.takeIfRoom(q.log, l, p) })
}
