package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) peersCommand() *cli.Command {
	return &cli.Command{
		Name: "peers", Usage: "list the devices that are connected",
		Description: describe("Lists the devices that this one is connected to: name, address, round-trip time,\nwhat was sent and received, the drives that are shared, and what it proved to\nhold of those that are written here, when it was last audited.",
			"hearth peers"),
		Flags:  []cli.Flag{jsonFlag()},
		Action: a.peers,
	}
}

func (a *app) peers(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	d, err := a.begin(c.Context)
	if err != nil {
		return err
	}
	defer d.Close()
	list, err := client.Call[[]control.PeerInfo](c.Context, d, control.Peers, struct{}{})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.json(list)
	}
	if len(list) == 0 {
		if a.errTerm {
			a.hint("nobody is connected; `hearth nearby` shows the devices on this network")
		}
		return nil
	}
	rows := [][]string{{"NAME", "ID", "ADDRESS", "RTT", "SENT", "RECEIVED", "DRIVES"}}
	for _, p := range list {
		name := p.Name
		if name == "" {
			name = "-"
		}
		rows = append(rows, []string{control.Show(name), p.ID[:min(12, len(p.ID))], p.Address, fmt.Sprintf("%.1fms", p.RTT),
			size(int64(p.Sent)), size(int64(p.Received)), strings.Join(p.Drives, ", ")})
	}
	if err := a.table(rows); err != nil {
		return err
	}
	for _, p := range list {
		for i := range p.Audits {
			h := &p.Audits[i]
			a.printf("audited  %s: %s %s, %s\n", h.Device(), h.Drive, h.Found(), ago(h.Time))
		}
	}
	return nil
}

func (a *app) connectCommand() *cli.Command {
	return &cli.Command{
		Name: "connect", Usage: "reach a device by its address", ArgsUsage: "HOST:PORT",
		Description: describe(`Connects to the device at an address, and again whenever the connection is lost,
also after a restart. On a LAN devices find each other without.`,
			"hearth connect 192.0.2.7:29443"),
		Action: a.connectPeer,
	}
}

func (a *app) connectPeer(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	d, err := a.begin(c.Context)
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = client.Call[struct{}](c.Context, d, control.Connect, control.ConnectRequest{Address: args[0]})
	return err
}

func (a *app) nearbyCommand() *cli.Command {
	return &cli.Command{
		Name: "nearby", Usage: "list the devices on this network",
		Description: describe(`Lists the Hearth devices on this LAN: those that share a drive with this one by
their names, others by a number that changes by the hour, unless they wait for
something to be sent. Below it says in which ways devices are looked for.`,
			"hearth nearby"),
		Flags:  []cli.Flag{jsonFlag()},
		Action: a.nearby,
	}
}

func (a *app) nearby(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	d, err := a.begin(c.Context)
	if err != nil {
		return err
	}
	defer d.Close()
	answer, err := client.Call[control.NearbyAnswer](c.Context, d, control.Nearby, struct{}{})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.json(answer)
	}
	rows := [][]string{{"NAME", "ID", "SEEN FOR", "ADDRESS", "BY"}}
	for _, dev := range answer.Devices {
		name := dev.Name
		if name == "" {
			name = "(stranger)"
		}
		addr := "-"
		if len(dev.Addresses) > 0 {
			addr = dev.Addresses[0]
		}
		rows = append(rows, []string{control.Show(name), dev.ID, dev.Last.Sub(dev.First).Round(1e9).String(), addr, strings.Join(dev.Via, ", ")})
	}
	if err := a.table(rows); err != nil {
		return err
	}
	a.printf("\nlistening on UDP port %d; looked for with\n", answer.Port)
	for _, t := range answer.Tried {
		method := t.Method
		if method == "" {
			method = "nothing"
		}
		line := "  " + method
		if t.Interface != "" {
			line += " on " + t.Interface
		}
		if t.Error != "" {
			line += ": " + oneLine(t.Error)
		} else {
			line += fmt.Sprintf(": %d found", t.Found)
		}
		a.printf("%s\n", line)
	}
	return nil
}
