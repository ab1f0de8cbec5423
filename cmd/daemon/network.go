package daemon

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"hearth/cmd/control"
	"hearth/cmd/home"
	"hearth/discovery"
	"hearth/fs"
	"hearth/log"
	"hearth/replicate"
)

// network is this device among others. It starts with the first command that
// needs it, and from then on with the daemon. Its methods do nothing before.
type network struct {
	mu      sync.Mutex
	home    *home.Home
	logger  *slog.Logger
	node    *replicate.Node
	lan     *discovery.Service
	listen  string
	beacon  home.Hex
	known   home.Network
	refused map[string]control.RefusedInfo // by the address at which another device answered
	life    context.Context                // ends with the daemon
	stop    context.CancelFunc
	running sync.WaitGroup
	// drives that were opened before the network was started
	waiting map[*log.Store]*fs.Drive
}

// start begins to listen, and to look for the devices that are known.
func (n *network) start(d *Daemon) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.node != nil {
		return nil
	}
	id, err := d.home.Identity()
	if err != nil {
		return control.Failed("see what is wrong with the state folder", "the device's key: %w", err)
	}
	known, err := d.home.Network()
	if err != nil {
		return control.Failed("mend or remove the file peers.json in "+d.home.Dir(), "known devices: %w", err)
	}
	device, config := d.settings.begin()
	options := replicate.Options{
		Key: ed25519.NewKeyFromSeed(id.Seed[:]), Listen: config.Listen, Name: device.Name, Beacon: id.Beacon,
		Up: int64(config.Up), Down: int64(config.Down), Banned: bans(known),
		Logger: d.logger, Met: n.met, Shares: n.shares, Ban: n.ban, WrongKey: n.wrongKey, Stream: d.stream, Rush: rush(),
		Audits: earlierAudits(&known), Audited: n.audited,
		Introduce: !config.Introduce.Off, Contacts: contacts(&known), Introduced: n.introduced, Forgotten: forgotten(&known),
	}
	node, err := replicate.New(options)
	if errors.Is(err, syscall.EADDRINUSE) {
		// Another home on this machine has the port.
		host, _, _ := net.SplitHostPort(config.Listen)
		options.Listen = net.JoinHostPort(host, "0")
		node, err = replicate.New(options)
	}
	if err != nil {
		return fmt.Errorf("listening for other devices: %w", err)
	}
	lan, err := discovery.New(discovery.Options{
		Secret: id.Beacon, Port: node.Port(), Interfaces: config.Interfaces, Logger: d.logger,
	})
	if err != nil {
		return errors.Join(err, node.Close())
	}
	n.home, n.logger, n.node, n.lan, n.listen, n.beacon, n.known = d.home, d.logger, node, lan, config.Listen, id.Beacon, known
	ctx, stop := context.WithCancel(context.Background())
	n.life, n.stop = ctx, stop
	lan.SetVisible(d.shownAs())
	lan.SetKnown(n.secrets())
	n.running.Go(func() {
		if err := lan.Run(ctx); err != nil {
			d.logger.Error("devices on the LAN are not looked for", "err", err)
		}
	})
	n.running.Go(func() { n.reach(ctx) })
	for _, a := range known.Devices {
		for _, id := range a.Drives {
			node.Expect(a.Key, id)
		}
		for _, addr := range a.Addresses {
			n.dial(ctx, addr, a.Key)
		}
	}
	for _, addr := range known.Addresses {
		n.dial(ctx, addr, known.Pins[addr])
	}
	for store, drive := range n.waiting {
		n.put(store, drive)
	}
	n.waiting = nil
	d.logger.Info("listening for other devices", "port", node.Port())
	return nil
}

func (n *network) secrets() map[discovery.Key][32]byte {
	all := map[discovery.Key][32]byte{}
	for _, a := range n.known.Devices {
		if a.Beacon != (home.Hex{}) {
			all[discovery.Key(a.Key)] = a.Beacon
		}
	}
	return all
}

// dial keeps trying an address, in the background.
func (n *network) dial(ctx context.Context, addr string, key home.Hex) {
	n.running.Go(func() {
		expect := (*[32]byte)(&key)
		if key == (home.Hex{}) {
			expect = nil
		}
		_ = n.node.Connect(ctx, addr, expect) // it goes on after a failure
	})
}

// reach connects to the devices that are known and were found on the LAN.
func (n *network) reach(ctx context.Context) {
	dialed := map[netip.AddrPort]bool{}
	for range n.lan.Watch(ctx) {
		now := map[netip.AddrPort]bool{}
		for _, dev := range n.lan.Devices() {
			if !dev.Known {
				continue
			}
			for _, addr := range dev.Addrs {
				now[addr] = true
				if !dialed[addr] {
					n.dial(ctx, addr.String(), home.Hex(dev.Key))
				}
			}
		}
		for addr := range dialed {
			if !now[addr] {
				n.node.Disconnect(addr.String())
			}
		}
		dialed = now
	}
}

// met remembers a device that shares a drive.
func (n *network) met(key [32]byte, name string, beacon [32]byte) {
	n.remember(home.Acquaintance{Key: key, Name: clean(name), Beacon: beacon, Seen: time.Now()})
}

// shares remembers the marks of drives of which a device does walks: it is asked
// for them at once when it is connected again.
func (n *network) shares(key [32]byte, marks [][32]byte) {
	a := home.Acquaintance{Key: key, Seen: time.Now()}
	for _, m := range marks {
		a.Drives = append(a.Drives, m)
	}
	n.remember(a)
}

func (n *network) remember(a home.Acquaintance) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known.Meet(a) {
		n.lan.SetKnown(n.secrets())
		if err := n.home.SaveNetwork(n.known); err != nil { // it is learned again
			n.logger.Warn("a device that was met may be forgotten", "err", err)
		}
	}
}

// add shares a drive; drive is nil while it cannot be read.
func (n *network) add(store *log.Store, drive *fs.Drive) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.node == nil {
		if n.waiting == nil {
			n.waiting = map[*log.Store]*fs.Drive{}
		}
		n.waiting[store] = drive
		return
	}
	n.put(store, drive)
}

func (n *network) put(store *log.Store, drive *fs.Drive) {
	keep := !store.CanRead()
	if drive == nil {
		n.node.Add(store, nil, keep)
		return
	}
	n.node.Add(store, drive, keep)
	drive.SetWalker(n.node.Walker(store.DriveID()))
}

func (n *network) remove(store *log.Store) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.waiting, store)
	if n.node != nil {
		n.node.Remove(store.DriveID())
	}
}

func (n *network) end() error {
	n.mu.Lock()
	node := n.node
	if node != nil {
		n.stop()
	}
	n.mu.Unlock()
	if node == nil {
		return nil
	}
	err := node.Close()
	n.running.Wait()
	return err
}

// addresses are where others may reach this device: those of its interfaces,
// and loopback if there are none.
func (n *network) addresses() []string {
	port := strconv.Itoa(n.node.Port())
	if host, _, _ := net.SplitHostPort(n.listen); host != "" {
		return []string{net.JoinHostPort(host, port)}
	}
	var out, local []string
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		ip, ok := a.(*net.IPNet)
		switch {
		case !ok || ip.IP.IsLinkLocalUnicast():
		case ip.IP.IsLoopback():
			local = append(local, net.JoinHostPort(ip.IP.String(), port))
		default:
			out = append(out, net.JoinHostPort(ip.IP.String(), port))
		}
	}
	if len(out) == 0 {
		out = local
	}
	return out[:min(len(out), 8)]
}

// joinTime is how long a join waits for somebody who has the drive.
const joinTime = 30 * time.Second

// join makes another device's drive one of this device.
func (d *Daemon) join(ctx context.Context, req control.JoinRequest) (control.Joined, error) {
	link, point, err := replicate.SplitLink(req.Link)
	if err != nil {
		return control.Joined{}, control.Usage("paste the whole line that `hearth share` printed", "%w", err)
	}
	if point != nil {
		return control.Joined{}, control.Usage("`hearth mount LINK DIR` shows that version; to join the drive leave out the @ and what follows",
			"that link names version %v of a drive", point.Version)
	}
	name := req.As
	if name == "" {
		name = nameOfLink(link)
	}
	if err := home.CheckName(name); err != nil {
		return control.Joined{}, control.Usage("choose a name with --as NAME", "%w", err)
	}
	if here, err := d.knownAs(ctx, link.Drive); err != nil {
		return control.Joined{}, err
	} else if here != "" {
		return control.Joined{}, control.Failed("`hearth mount "+here+" DIR` shows it", "that drive is here already, as %s", here)
	}
	return d.joinLink(ctx, link, name)
}

func nameOfLink(link *replicate.Link) string {
	if link.Name != "" {
		return link.Name
	}
	return "held-" + link.Drive.String()[:8]
}

func (d *Daemon) joinLink(ctx context.Context, link *replicate.Link, name string) (control.Joined, error) {
	if err := home.CheckName(name); err != nil {
		return control.Joined{}, control.Usage("join it with `hearth join LINK --as NAME`", "%w", err)
	}
	h := d.lockDrive(name)
	defer h.mu.Unlock()
	if h.closed {
		return control.Joined{}, control.NoDaemon("", "the daemon ends")
	}
	final := d.home.DriveDir(name)
	if _, err := os.Lstat(final); err == nil {
		return control.Joined{}, control.Failed("choose another name with --as NAME", "there is a drive %s already", name)
	}
	if err := d.network.start(d); err != nil {
		return control.Joined{}, err
	}
	dir := filepath.Join(d.home.DrivesDir(), unfinished+name)
	if err := os.RemoveAll(dir); err != nil {
		return control.Joined{}, err
	}
	if err := d.fetchDrive(ctx, link, name, dir); err != nil {
		return control.Joined{}, errors.Join(err, os.RemoveAll(dir))
	}
	if err := publish(dir, final); err != nil {
		return control.Joined{}, errors.Join(err, os.RemoveAll(dir))
	}
	done := control.Joined{Name: name, ID: link.Drive.String(), Hold: link.Seed == nil}
	h.store, h.drive, h.problem = d.load(ctx, name, 1)
	if h.drive != nil {
		done.Version = h.drive.Newest().Seq
	} else if h.store == nil {
		return done, h.problem
	}
	d.logger.Info("joined a drive", "drive", name, "id", done.ID)
	return done, nil
}

// knownAs returns the name of a drive here; empty if it is not.
func (d *Daemon) knownAs(ctx context.Context, id log.DriveID) (string, error) {
	names, err := d.home.Drives()
	if err != nil {
		return "", err
	}
	for _, name := range names {
		_, _ = d.openDrive(ctx, name)
		h := d.lockDrive(name)
		same := h.store != nil && h.store.DriveID() == id
		h.mu.Unlock()
		if same {
			return name, nil
		}
	}
	return "", nil
}

// fetchDrive makes the store of a drive that is joined, with its newest head
// and what is needed to read it.
func (d *Daemon) fetchDrive(ctx context.Context, link *replicate.Link, name, dir string) (err error) {
	n := &d.network
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	n.node.Expect(link.Device, replicate.Mark(link.Hold, link.Drive))
	n.node.Want(link.Drive, link.Hold)
	defer n.node.Remove(link.Drive)
	n.remember(home.Acquaintance{Key: link.Device, Beacon: link.Beacon, Addresses: link.Addresses, Seen: time.Now()})
	for _, addr := range link.Addresses {
		n.dial(ctx, addr, link.Device)
	}
	nobody := func(err error) error {
		if errors.Is(err, context.DeadlineExceeded) {
			return control.Failed("see that the device that made the link is on, and that both are in one network; `hearth nearby` and `hearth connect HOST:PORT` help",
				"nobody who has the drive could be reached in %v", joinTime)
		}
		if errors.Is(err, log.ErrRevoked) {
			return control.Failed("ask the drive's owner for another one", "that link was revoked by the drive's owner")
		}
		return err
	}
	genesis, err := n.node.Genesis(ctx, link.Drive)
	if err != nil {
		return nobody(err)
	}
	store, err := log.JoinStore(log.StoreOptions{Dir: dir, Logger: d.logger}, link.Joined(genesis, name))
	if err != nil {
		return err
	}
	n.node.Add(store, nil, false)
	err = nobody(n.node.AwaitHead(ctx, store, link.Seed != nil))
	n.node.Remove(link.Drive)
	return errors.Join(err, store.Close())
}

// peers lists who is connected.
func (d *Daemon) peers(ctx context.Context, req control.PeersRequest) (control.PeersAnswer, error) {
	if err := d.network.start(d); err != nil {
		return control.PeersAnswer{}, err
	}
	if err := d.network.amend(req); err != nil {
		return control.PeersAnswer{}, err
	}
	names := map[log.DriveID]string{}
	d.drives.mu.Lock()
	open := make([]*held, 0, len(d.drives.open))
	for _, h := range d.drives.open {
		open = append(open, h)
	}
	d.drives.mu.Unlock()
	for _, h := range open {
		h.mu.Lock()
		if h.store != nil {
			names[h.store.DriveID()] = h.name
		}
		h.mu.Unlock()
	}
	list := []control.PeerInfo{}
	for _, p := range d.network.node.Peers() {
		info := control.PeerInfo{
			Name: d.network.nameOr(p.Key, p.Name), ID: hex.EncodeToString(p.Key[:]), Address: p.Addr, Dialed: p.Dialed,
			RTT: float64(p.RTT.Microseconds()) / 1000, Up: p.SentRate, Down: p.ReceivedRate, Sent: p.Sent, Received: p.Received, Since: p.Since, Drives: []string{}, Holds: []control.PeerHolds{},
		}
		if p.By != ([32]byte{}) {
			info.By, info.ByName = hex.EncodeToString(p.By[:]), d.network.nameOf(p.By)
		}
		for _, id := range p.Drives {
			if name := names[id]; name != "" {
				info.Drives = append(info.Drives, name)
				info.Holds = append(info.Holds, holds(name, p.Holds[id]))
				if a, ok := d.network.node.Audits(id)[p.Key]; ok {
					info.Audits = append(info.Audits, d.network.holder(a, name))
				}
			}
		}
		slices.Sort(info.Drives)
		slices.SortFunc(info.Holds, func(a, b control.PeerHolds) int { return strings.Compare(a.Drive, b.Drive) })
		list = append(list, info)
	}
	banned, refused := d.network.unwelcome()
	return control.PeersAnswer{Peers: list, Banned: banned, Refused: refused}, nil
}

// holds describes how much of a drive a device says that it has.
func holds(drive string, h replicate.Held) control.PeerHolds {
	out := control.PeerHolds{Drive: drive, Entries: h.Entries, Of: h.Of}
	if h.Of > 0 {
		out.Percent = math.Round(1000*float64(h.Entries)/float64(h.Of)) / 10
	}
	return out
}

// connect keeps a connection to an address.
func (d *Daemon) connect(ctx context.Context, req control.ConnectRequest) (struct{}, error) {
	host, port, err := net.SplitHostPort(req.Address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || host == "" {
		return struct{}{}, control.Usage("`hearth nearby` prints the port of a device", "%s is not HOST:PORT", control.Show(req.Address))
	}
	if err := d.network.start(d); err != nil {
		return struct{}{}, err
	}
	n := &d.network
	key, err := n.node.Reach(ctx, req.Address, n.expected(req.Address))
	if err != nil {
		return struct{}{}, n.unreachable(req.Address, "see that a Hearth daemon runs there, and that UDP gets through", err)
	}
	n.dial(n.life, req.Address, key)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known.Pin(req.Address, key)
	delete(n.refused, req.Address)
	if !slices.Contains(n.known.Addresses, req.Address) {
		n.known.Addresses = append(n.known.Addresses, req.Address)
	}
	return struct{}{}, n.home.SaveNetwork(n.known)
}

// nearby lists the devices on the LAN.
func (d *Daemon) nearby(ctx context.Context, _ struct{}) (control.NearbyAnswer, error) {
	begun := d.network.idle()
	if err := d.network.start(d); err != nil {
		return control.NearbyAnswer{}, err
	}
	lan := d.network.lan
	if begun { // first sight takes a moment
		watch, cancel := context.WithTimeout(ctx, 2*time.Second)
		for range lan.Watch(watch) {
		}
		cancel()
	}
	answer := control.NearbyAnswer{Devices: []control.NearbyInfo{}, Tried: []control.Attempt{}, Port: d.network.node.Port()}
	for _, dev := range lan.Devices() {
		info := control.NearbyInfo{Name: dev.Name, ID: dev.ID, Known: dev.Known, Addresses: []string{}, Via: dev.Via, First: dev.First, Last: dev.Last}
		if dev.Known {
			info.ID = hex.EncodeToString(dev.Key[:8])
			info.Name = d.network.nameOf(home.Hex(dev.Key))
		}
		for _, a := range dev.Addrs {
			info.Addresses = append(info.Addresses, a.String())
		}
		answer.Devices = append(answer.Devices, info)
	}
	for _, t := range lan.Tried() {
		answer.Tried = append(answer.Tried, control.Attempt{Method: t.Method, Interface: t.Interface, Found: t.Found, Error: t.Error, When: t.When})
	}
	return answer, nil
}

// idle reports whether the network was not started.
func (n *network) idle() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.node == nil
}

func (n *network) nameOf(key home.Hex) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range n.known.Devices {
		if a.Key == key {
			return a.Name
		}
	}
	return ""
}
