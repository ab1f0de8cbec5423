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
		Description: describe(`Lists the devices that this one is connected to: name, address, round-trip time,
what is sent and received a second and was in all, the drives that are shared,
each with how much of it the device says it has, by which other device it was
introduced, if it was, and what it proved to hold of those that are written here,
when it was last audited.
Below it lists who is banned, as it sent what does not verify, and where another
device answered than the one that is known.`,
			"hearth peers --forgive 1f6ab2c8"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "forgive", Usage: "speak again to the `DEVICE` that was banned: its name, or the beginning of its id"},
			&cli.StringFlag{Name: "forget", Usage: "forget a `DEVICE`, so that the next contact is a first one"},
			jsonFlag(),
		},
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
	req := control.PeersRequest{Forgive: c.String("forgive"), Forget: c.String("forget")}
	answer, err := client.Call[control.PeersAnswer](c.Context, d, control.Peers, req)
	if err != nil {
		return err
	}
	switch {
	case c.Bool("json"):
		return a.json(answer)
	case req != control.PeersRequest{}:
		return nil
	}
	if len(answer.Peers) == 0 && a.errTerm {
		a.hint("nobody is connected; `hearth nearby` shows the devices on this network")
	}
	if err := a.peerTable(answer.Peers); err != nil {
		return err
	}
	for _, b := range answer.Banned {
		a.printf("banned   %s %s since %s: %s\n", nameOr(b.Name), short(b.ID), a.when(b.When), oneLine(b.Why))
	}
	for _, r := range answer.Refused {
		a.printf("refused  at %s %s was expected, %s answered\n", control.Show(r.Address), strings.TrimSpace(control.Show(r.Name)+" "+short(r.Expected)), short(r.Found))
	}
	return nil
}

func (a *app) peerTable(list []control.PeerInfo) error {
	if len(list) == 0 {
		return nil
	}
	rows := [][]string{{"NAME", "ID", "ADDRESS", "RTT", "UP", "DOWN", "SENT", "RECEIVED", "DRIVES"}}
	for _, p := range list {
		drives := make([]string, len(p.Holds))
		for i, h := range p.Holds {
			if drives[i] = h.Drive; h.Of > 0 {
				drives[i] += " " + percent(h.Entries, h.Of)
			}
		}
		rows = append(rows, []string{nameOr(p.Name), short(p.ID), p.Address, fmt.Sprintf("%.1fms", p.RTT),
			size(int64(p.Up)) + "/s", size(int64(p.Down)) + "/s",
			size(int64(p.Sent)), size(int64(p.Received)), strings.Join(drives, ", ")})
	}
	if err := a.table(rows); err != nil {
		return err
	}
	for _, p := range list {
		if p.By != "" {
			a.printf("met      %s %s by %s %s\n", nameOr(p.Name), short(p.ID), nameOr(p.ByName), short(p.By))
		}
	}
	for _, p := range list {
		for i := range p.Audits {
			h := &p.Audits[i]
			a.printf("audited  %s: %s %s, %s\n", h.Device(), h.Drive, h.Found(), ago(h.Time))
		}
	}
	return nil
}

// nameOr shows the name that a device has, if any.
func nameOr(name string) string {
	if name == "" {
		return "-"
	}
	return control.Show(name)
}

// short is as much of a device's key as people compare.
func short(id string) string { return id[:min(12, len(id))] }

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
