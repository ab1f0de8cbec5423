package fs

// taggedVersions returns the versions that have a tag.
func taggedVersions(v *view) (map[Version]struct{}, error) {
	out := map[Version]struct{}{}
	it := v.scan(kindRange(0, kindTag))
	for it.next() {
		t, err := decodeTag(it.value)
		if err != nil {
			return nil, err
		}
		out[t.version] = struct{}{}
	}
	return out, it.err
}
