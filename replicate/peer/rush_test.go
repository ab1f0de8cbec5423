package peer

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestRush(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var told []bool
		e := &Endpoint{ctx: ctx, cancel: cancel}
		e.rush.told = func(on bool) { told = append(told, on) }
		send := func(rate int, d time.Duration) {
			const step = time.Millisecond
			for range d / step {
				e.carry(rate / int(time.Second/step))
				time.Sleep(step)
			}
			synctest.Wait()
		}
		expect := func(what string, want ...bool) {
			t.Helper()
			if len(told) != len(want) {
				t.Fatalf("%s: told %v", what, told)
			}
			for i := range want {
				if told[i] != want[i] {
					t.Fatalf("%s: told %v", what, told)
				}
			}
		}
		send(30<<20, 5*time.Second)
		expect("30 MiB/s")
		send(200<<20, time.Second)
		expect("200 MiB/s", true)
		send(30<<20, time.Second) // a pause of the disk ends nothing
		expect("then 30 MiB/s", true)
		send(2<<20, time.Second)
		expect("then 2 MiB/s", true, false)
		send(200<<20, time.Second)
		expect("200 MiB/s again", true, false, true)
		cancel()
		e.working.Wait()
		expect("at the end", true, false, true, false)
		send(200<<20, time.Second)
		expect("after the end", true, false, true, false)
	})
}
