//go:build linux || darwin

package keyagent

import "time"

// term is the time for which an agent serves.
type term struct {
	start  time.Time
	length time.Duration
}

// remaining is what is left of the term, never less than zero. The monotonic
// clock stops while a machine is suspended and the wall clock can be set back:
// whichever says that more time has passed is believed.
func (t term) remaining(now time.Time) time.Duration {
	return t.less(now.Sub(t.start), now.Round(0).Sub(t.start.Round(0)))
}

// less is the term without the time that each clock says has passed.
func (t term) less(monotonic, wall time.Duration) time.Duration {
	return max(t.length-max(monotonic, wall, 0), 0)
}
