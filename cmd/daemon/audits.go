package daemon

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"

	"hearth/cmd/control"
	"hearth/cmd/home"
	"hearth/log"
	"hearth/replicate"
)

// earlierAudits are the results that were recorded.
func earlierAudits(known *home.Network) []replicate.Audit {
	var all []replicate.Audit
	for _, a := range known.Audits {
		all = append(all, replicate.Audit{
			Drive: log.DriveID(a.Drive), Peer: a.Device, Time: a.Time,
			Sampled: a.Sampled, Passed: a.Passed, Gone: a.Gone, Lost: a.Lost, Problem: a.Problem,
		})
	}
	return all
}

// audited records the result of an audit.
func (n *network) audited(a replicate.Audit) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known.Audit(home.Audited{
		Device: a.Peer, Drive: home.Hex(a.Drive), Time: a.Time,
		Sampled: a.Sampled, Passed: a.Passed, Gone: a.Gone, Lost: a.Lost, Problem: a.Problem,
	})
	if err := n.home.SaveNetwork(n.known); err != nil { // the next one replaces it
		n.logger.Warn("the result of an audit may be forgotten", "err", err)
	}
}

// holders are the devices that hold a drive of this device, as their newest
// audits found them. Those that have none of it, as readers may, are left out.
func (n *network) holders(id log.DriveID, drive string) []control.HolderInfo {
	list := []control.HolderInfo{}
	n.mu.Lock()
	node := n.node
	n.mu.Unlock()
	if node == nil {
		return list
	}
	for _, a := range node.Audits(id) {
		if a.Passed > 0 || a.Lost > 0 || a.Problem != "" {
			list = append(list, n.holder(a, drive))
		}
	}
	slices.SortFunc(list, func(a, b control.HolderInfo) int { return cmp.Compare(a.Name+a.ID, b.Name+b.ID) })
	return list
}

func (n *network) holder(a replicate.Audit, drive string) control.HolderInfo {
	return control.HolderInfo{
		Name: n.nameOf(a.Peer), ID: hex.EncodeToString(a.Peer[:]), Drive: drive, Time: a.Time,
		Sampled: a.Sampled, Passed: a.Passed, Gone: a.Gone, Lost: a.Lost, Problem: a.Problem,
	}
}

// lost says, for people, which holders have lost blocks of a drive.
func lost(holders []control.HolderInfo) []string {
	var lines []string
	for i := range holders {
		if h := &holders[i]; h.Lost > 0 {
			lines = append(lines, fmt.Sprintf("device %s has LOST %d of %d sampled blocks of this drive: `hearth verify` there finds what else, and gets it again",
				h.Device(), h.Lost, h.Sampled))
		}
	}
	return lines
}

// audit audits the devices that are connected and hold a drive.
func (d *Daemon) audit(ctx context.Context, req control.AuditRequest) ([]control.HolderInfo, error) {
	h, err := d.openDrive(ctx, req.Drive)
	if err != nil {
		return nil, err
	}
	if h.store.Own() == nil {
		return nil, control.Failed("run it on the device that made the drive", "drive %s is not written by this device", req.Drive)
	}
	if err := d.network.start(d); err != nil {
		return nil, err
	}
	found, err := d.network.node.Audit(ctx, h.store.DriveID())
	if err != nil {
		return nil, err
	}
	list := []control.HolderInfo{}
	for _, a := range found {
		list = append(list, d.network.holder(a, req.Drive))
	}
	return list, nil
}

// verifyHeld checks what is here of a drive that is only held for others. What
// is damaged is forgotten, and got again from other devices.
func (d *Daemon) verifyHeld(ctx context.Context, h *held, out *sink) (done control.Verified, err error) {
	done.Held = true
	var failed error
	for _, l := range h.store.Logs() {
		err := l.Verify(ctx, func(v log.Damage) {
			done.Damaged++
			if failed == nil {
				failed = out.item(logDamage(v))
			}
		}, func(blocks, total int64) { out.progress("verify", blocks, total) })
		if err != nil {
			return done, err
		}
		for i := range l.Size() {
			if n, ok := l.StoredLength(i); ok {
				done.Blocks++
				done.Bytes += int64(n)
			}
		}
		done.Dropped += int64(l.Dropped().GetCardinality())
	}
	done.Forks = forks(h.store)
	return done, failed
}

// logDamage describes damage in a log.
func logDamage(v log.Damage) control.DamageInfo {
	info := control.DamageInfo{Problem: v.String()}
	if v.Index != log.NoEntry {
		info.Block = log.Ref{Writer: v.Writer, Index: v.Index}.String()
		info.Problem = v.Detail
		if v.File != "" {
			info.Problem += fmt.Sprintf(" (%s at %d)", v.File, v.Offset)
		}
	}
	return info
}

// forks is the evidence that logs of a drive have forked.
func forks(s *log.Store) []control.ForkInfo {
	var list []control.ForkInfo
	for _, f := range s.Forks() {
		list = append(list, control.ForkInfo{Log: f.Origin, Known: f.Known, Other: f.Other, Base: f.Base, Proof: f.Proof})
	}
	return list
}
