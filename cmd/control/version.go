package control

import "runtime/debug"

// BuildVersion names this build: the module's version, which carries the
// commit and whether the tree was modified, as the Go toolchain stamped it.
func BuildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}
