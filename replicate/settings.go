package replicate

import (
	"context"
	"errors"
	"fmt"

	"hearth/replicate/peer"
)

// SetRates limits what all connections carry, in bytes a second; 0 is no limit.
// What somebody waits for goes before the rest.
func (n *Node) SetRates(up, down int64) { n.ep.SetRates(up, down) }

// SetName gives the device another name, and tells those it shares a drive with.
func (n *Node) SetName(name string) {
	n.mu.Lock()
	n.name = name
	n.mu.Unlock()
	n.change()
}

// Name returns the name of the device.
func (n *Node) Name() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.name
}

// MaxBanned is how many devices are remembered that sent what did not verify.
const MaxBanned = 1024

// ErrBanned is matched by errors about devices that are not spoken to, since
// they once sent what did not verify. [Node.Forgive] ends that.
var ErrBanned = errors.New("it sent what did not verify, and is not spoken to")

// banText is what a banned device hears.
const banText = "what you sent did not verify"

// ban remembers a peer that sent what did not verify. When there are too many,
// any other makes room.
func (n *Node) ban(s *session, why error) {
	key := s.conn.Peer()
	s.mu.Lock()
	name := s.profile.name
	s.mu.Unlock()
	n.mu.Lock()
	_, before := n.banned[key]
	for other := range n.banned {
		if before || len(n.banned) < MaxBanned {
			break
		}
		delete(n.banned, other)
	}
	n.banned[key] = why.Error()
	n.mu.Unlock()
	n.logger.Warn("a peer sent what does not verify", "peer", key, "addr", s.conn.Remote(), "err", why)
	if !before && n.options.Ban != nil {
		n.options.Ban(key, name, why.Error())
	}
	for _, o := range n.allSessions() {
		if o.conn.Peer() == key {
			o.end(codeBroken, banText)
		}
	}
	s.end(codeBroken, banText) // also before it is one of them
}

func (n *Node) isBanned(key peer.Key) bool { return n.banError(key) != nil }

// banError says why a device is not spoken to; nil if it is.
func (n *Node) banError(key peer.Key) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if why, yes := n.banned[key]; yes {
		return fmt.Errorf("device %v: %w: %s", key, ErrBanned, why)
	}
	return nil
}

// dialOnce connects to a device that is not banned.
func (n *Node) dialOnce(ctx context.Context, addr string, expect *peer.Key) (*peer.Conn, error) {
	if expect != nil {
		if err := n.banError(*expect); err != nil {
			return nil, err
		}
	}
	c, err := n.ep.Dial(ctx, addr, expect)
	if err != nil {
		return nil, err
	}
	if err := n.banError(c.Peer()); err != nil {
		c.Close(codeBroken, banText)
		return nil, err
	}
	return c, nil
}

// MaxForgotten is how many devices are remembered that are not to be met by
// being introduced.
const MaxForgotten = 1024

// Forget has a device not be met again by being introduced. It may be met in any
// other way, and that ends it.
func (n *Node) Forget(key [32]byte) { n.contacts.forget(key) }

// Forgive speaks to a device again, and reports whether it was banned.
func (n *Node) Forgive(key [32]byte) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, yes := n.banned[key]
	delete(n.banned, key)
	return yes
}
