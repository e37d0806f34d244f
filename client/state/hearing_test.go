package state_test

import (
	"testing"
	"time"

	"relaymarket/client/devices"
)

// Two devices that took each other off the list have nothing to answer each other.
func TestDevicesThatRemovedEachOther(t *testing.T) {
	w := newWorld(t, t.Context(), t.TempDir(), 2)
	defer w.close()
	heard := []int{0, 0}
	rounds := func(n int) (written int) {
		before := len(w.written)
		for range n {
			for _, s := range w.devices {
				w.tell(s)
			}
			for i, s := range w.devices {
				for ; heard[i] < len(w.written); heard[i]++ {
					w.hear(s, heard[i])
				}
			}
			w.now = w.now.Add(15 * time.Minute)
		}
		return len(w.written) - before
	}
	for _, s := range w.devices {
		w.ok(s.SayHello(w.ctx))
	}
	rounds(5)
	for i, s := range w.devices {
		w.ok(s.ChangeDevice(w.ctx, devices.ID(w.devices[1-i].Device()), func(d *devices.Device) { d.Removed = true }))
	}
	rounds(3)
	if n := rounds(8); n != 0 {
		t.Errorf("nothing happened, and they wrote %d batches", n)
	}
	// One takes the other back: there is company again, and it is told everything.
	w.ok(w.devices[0].SetLabel(w.ctx, "new"))
	w.ok(w.devices[1].ChangeDevice(w.ctx, devices.ID(w.devices[0].Device()), func(d *devices.Device) { d.Removed = false }))
	rounds(3)
	if label, _, err := w.devices[1].Profile(w.ctx); err != nil || label != "new" {
		t.Errorf("it is not heard: %q, %v", label, err)
	}
}
