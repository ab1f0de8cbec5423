package tiering

import (
	"slices"
	"time"

	"hearth/fs"
)

const (
	// settled is how old commits are when those of one change become one.
	settled = 5 * time.Minute
	// lived is how old a file has to be when it is deleted for anybody to want
	// it back.
	lived = 10 * time.Minute
)

// history is what a plan is made of: fs.Upkeep, or a test's.
type history interface {
	Versions() []fs.KeptVersion
	Policies() []string
	Deed(i int) (fs.Deed, error)
	DeletedNext(i, next, before int, classes fs.Classes, minAge time.Duration) (fs.Classes, error)
	Keep(i int, c fs.Classes)
	Kept(i int) fs.Classes
}

// plan says which versions keep what. It returns the time before which
// versions stand for more than one change.
func plan(u history, now time.Time) (fold time.Time, err error) {
	p := &planner{history: u, now: now}
	for _, policy := range u.Policies() {
		p.ladders = append(p.ladders, ladderOf(policy))
	}
	all := u.Versions()
	for i, v := range all {
		if !v.Hidden {
			p.visible = append(p.visible, i)
			p.times = append(p.times, v.Time)
		}
	}
	every := time.Duration(0)
	for _, l := range p.ladders {
		every = max(every, l.every())
	}
	if err := p.changes(every); err != nil {
		return time.Time{}, err
	}
	for c, l := range p.ladders {
		p.climb(1<<c, l)
	}
	p.standAlone()
	for c, l := range p.ladders {
		if err := p.undelete(1<<c, l); err != nil {
			return time.Time{}, err
		}
	}
	return now.Add(-every), nil
}

// planner is a plan being made. Its slices are of the visible versions, oldest
// first.
type planner struct {
	history
	now     time.Time
	ladders []Ladder
	visible []int // numbers in the history
	times   []time.Time
	part    []bool // of a change that goes on in a later version, or of none
	alone   []bool
}

func (p *planner) age(i int) time.Duration { return max(0, p.now.Sub(p.times[i])) }

// changes finds the versions that do not end a change, as far back as every
// change is kept.
func (p *planner) changes(every time.Duration) error {
	p.part, p.alone = make([]bool, len(p.visible)), make([]bool, len(p.visible))
	later := map[uint64]struct{}{}
	for i := len(p.visible) - 1; i >= 0 && p.age(i) < every; i-- {
		deed, err := p.Deed(p.visible[i])
		if err != nil {
			return err
		}
		ends := deed.Alone
		for _, id := range deed.Changes {
			if _, ok := later[id]; !ok {
				later[id] = struct{}{}
				ends = true
			}
		}
		p.part[i] = !ends && p.age(i) >= settled && i < len(p.visible)-1
		p.alone[i] = deed.Alone
	}
	return nil
}

// climb keeps what a ladder keeps.
func (p *planner) climb(class fs.Classes, l Ladder) {
	for r, rung := range l.Rungs {
		from := time.Duration(0)
		if r > 0 {
			from = l.Rungs[r-1].Keep
		}
		// The newest of each step, of all that is not a part of a later version:
		// also if that is on the rung before, so that what is the newest now is
		// still that when it is older.
		taken := int64(0)
		for i := len(p.visible) - 1; i >= 0 && p.age(i) < rung.Keep; i-- {
			if p.part[i] {
				continue
			}
			if rung.Step > 0 {
				step := floorDiv(p.times[i].UnixNano(), int64(rung.Step))
				if i < len(p.visible)-1 && step == taken {
					continue
				}
				taken = step
			}
			if p.age(i) >= from {
				p.Keep(p.visible[i], class)
			}
		}
	}
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// standAlone keeps what would become part of an undo, a restore or a tag.
func (p *planner) standAlone() {
	alone := false
	for i, number := range slices.Backward(p.visible) {
		if p.Kept(number) == 0 && p.part[i] && alone {
			for c, l := range p.ladders {
				if p.age(i) < l.every() {
					p.Keep(number, 1<<c)
				}
			}
		}
		if p.Kept(number) != 0 {
			alone = p.alone[i]
		}
	}
}

// undelete keeps what was deleted.
func (p *planner) undelete(class fs.Classes, l Ladder) error {
	before := -1
	for i, number := range p.visible {
		if p.Kept(number)&class == 0 && i < len(p.visible)-1 && p.age(i+1) < l.Undelete {
			found, err := p.DeletedNext(number, p.visible[i+1], before, class, lived)
			if err != nil {
				return err
			}
			p.Keep(number, found)
		}
		if p.Kept(number)&class != 0 {
			before = number
		}
	}
	return nil
}
