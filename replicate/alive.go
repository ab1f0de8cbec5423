package replicate

import "time"

// aliveEvery is how often a device that dialed says that it is alive, at the
// times that are multiples of it since 1970. All its connections speak at once,
// and are answered at once, and so do those of others whose clocks are right: a
// device with twenty peers wakes a few times in that time and not forty. It is
// less than the time after which package peer says so on a connection by itself.
const aliveEvery = 1750 * time.Millisecond

// beat has the sessions that this device dialed show that it is alive, until the
// node is closed. While there are none it waits for one.
func (n *Node) beat() {
	timer := time.NewTimer(untilBeat(time.Now()))
	defer timer.Stop()
	for {
		changed := n.waitChange()
		dialed := n.dialedSessions()
		if len(dialed) == 0 {
			select {
			case <-changed:
				continue
			case <-n.life.Done():
				return
			}
		}
		timer.Reset(untilBeat(time.Now()))
		select {
		case <-timer.C:
		case <-n.life.Done():
			return
		}
		for _, s := range n.dialedSessions() {
			select {
			case s.beats <- struct{}{}:
			default:
			}
		}
	}
}

// untilBeat is how long it is to the next of the times at which devices say that
// they are alive.
func untilBeat(now time.Time) time.Duration {
	return aliveEvery - time.Duration(now.UnixNano())%aliveEvery
}

func (n *Node) dialedSessions() (all []*session) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := range n.sessions {
		if s.conn.Dialed() {
			all = append(all, s)
		}
	}
	return all
}

// encodeAlive is a message that says nothing, and that the other side
// acknowledges.
func encodeAlive() []byte {
	w := newMessage(nil, msgAlive)
	return seal(&w)
}
