package disktest_test

import (
	"testing"

	"hearth/log/disk"
	"hearth/log/disk/disktest"
)

func TestOS(t *testing.T) {
	disktest.Run(t, func() disk.FS { return disk.OS{} }, t.TempDir())
}
