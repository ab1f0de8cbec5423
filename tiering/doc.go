// Package tiering decides what a drive keeps, for how long and where.
//
// It owns retention: the ladder that says how the history of a folder thins
// out with age, which versions go at a sweep, and the sweep itself. It imports
// fs, which knows how versions and blocks go without anything else going with
// them, and log. It promises that what it decides depends on the versions and
// the time it is given alone, so that the same drive at the same time is swept
// the same way.
//
// # What is kept
//
// The newest version, versions with a tag, and versions that are pinned or were
// opened within the last ten minutes are kept whole. Of the others, each
// folder's ladder says which keep its contents; the default is
//
//	all:1d 1h:7d 1d:90d 1w:2y undelete:30d
//
// "all:1d": of a day every change is kept. A change is what one run of a program
// did; the commits it is made of, one for each fsync perhaps, become one after
// five minutes. "1h:7d": of a week the newest version of each hour, and so on,
// hours, days and weeks by UTC. "undelete:30d": what was deleted can be brought
// back for a month, even if it came and went between two versions of the ladder;
// but not what was younger than ten minutes, such as temporary files, nor what
// was replaced by something else under its name. "none" keeps the present
// alone.
//
// A version that goes leaves its part in the list of changes to the one after
// it. It is not a cold store, and knows nothing of what blocks hold.
package tiering
