package log

// Missing returns how many entries of a replica are not on this device and
// were not dropped here: 0 when it is whole. What arrives meanwhile may be
// counted or not.
func (l *Log) Missing() (n uint64) {
	for page := uint64(0); ; page++ {
		// A page at a time: what arrives must not wait for the whole count.
		absent, more := l.missingOn(page)
		n += absent
		if !more {
			return n
		}
	}
}

// missingOn counts on one page of locations, and reports whether there is
// another one.
func (l *Log) missingOn(page uint64) (n uint64, more bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	first, end := page*locsPerPage, min((page+1)*locsPerPage, l.next)
	for i := first; i < end; i++ {
		if l.locs.get(i).kind() == locAbsent && !l.dropped.Contains(i) {
			n++
		}
	}
	return n, end < l.next
}
