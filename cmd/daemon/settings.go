package daemon

import (
	"context"
	"slices"
	"sync"

	"hearth/cmd/control"
	"hearth/cmd/home"
)

// settings are what the user may set.
type settings struct {
	mu     sync.Mutex
	device home.Device
	config home.Config
	// began is what those settings were that a running daemon does not heed, when
	// they were used.
	began home.Config
	// listening: the network has begun with its settings.
	listening bool
}

func (s *settings) name() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.device.Name
}

// begin returns the settings for the network, which begins with them.
func (s *settings) begin() (home.Device, home.Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listening = true
	s.began.Listen, s.began.Interfaces = s.config.Listen, s.config.Interfaces
	return s.device, s.config
}

// read reads the settings anew.
func (s *settings) read(h *home.Home) (home.Device, home.Config, error) {
	config, err := h.Config()
	if err != nil {
		return home.Device{}, home.Config{}, err
	}
	device, err := h.Device()
	if err != nil {
		return home.Device{}, home.Config{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.device, s.config = device, config
	if !s.listening {
		s.began.Listen, s.began.Interfaces = config.Listen, config.Interfaces
	}
	return device, config, nil
}

func (s *settings) pending() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return home.Pending(s.began, s.config)
}

// set changes settings, and lists them.
func (d *Daemon) set(_ context.Context, req control.SetRequest) ([]control.Setting, error) {
	d.setMu.Lock()
	defer d.setMu.Unlock()
	if len(req.Set) > 0 {
		if err := d.home.Set(req.Set); err != nil {
			return nil, err
		}
	}
	// Also what was written into the files by hand.
	device, config, err := d.settings.read(d.home)
	if err != nil {
		return nil, control.Failed("mend or remove the file config.json in "+d.home.Dir(), "settings: %w", err)
	}
	d.network.set(device, config)
	d.show()
	list, err := d.home.Settings()
	if err != nil {
		return nil, err
	}
	pending := d.settings.pending()
	for i := range list {
		list[i].Pending = slices.Contains(pending, list[i].Key)
	}
	return list, nil
}

// set gives a network that has begun the settings that it heeds at once.
func (n *network) set(device home.Device, config home.Config) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.node == nil {
		return
	}
	n.node.SetRates(int64(config.Up), int64(config.Down))
	n.node.SetName(device.Name)
	n.node.SetIntroductions(!config.Introduce.Off)
}
