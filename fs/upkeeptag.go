package fs

import "hearth/log/wire"

// taggedVersions returns the versions that have a tag.
func taggedVersions(v *view) (map[Version]struct{}, error) {
	out := map[Version]struct{}{}
	it := v.scan(kindRange(0, kindTag))
	for it.next() {
		r := wire.NewReader(it.value)
		out[getVersion(r)] = struct{}{}
		if r.Err() != nil {
			return nil, r.Err()
		}
	}
	return out, it.err
}
