//go:build linux || darwin

package keyagent

import (
	"testing"
	"time"
)

func TestTerm(t *testing.T) {
	tm := term{start: time.Now(), length: time.Hour}
	for name, c := range map[string]struct{ monotonic, wall, want time.Duration }{
		"start":                  {0, 0, time.Hour},
		"awake":                  {time.Minute, time.Minute, 59 * time.Minute},
		"suspended":              {time.Minute, 50 * time.Minute, 10 * time.Minute},
		"suspended for too long": {time.Minute, time.Hour, 0},
		"clock set back":         {40 * time.Minute, -24 * time.Hour, 20 * time.Minute},
		"set back and over":      {time.Hour, -24 * time.Hour, 0},
		"both back":              {-time.Minute, -time.Minute, time.Hour},
		"far":                    {1<<63 - 1, 1<<63 - 1, 0},
	} {
		if got := tm.less(c.monotonic, c.wall); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	// The clocks as they really come, and one without a monotonic reading.
	if got := tm.remaining(tm.start.Add(time.Minute)); got != 59*time.Minute {
		t.Errorf("time passes: %v", got)
	}
	if got := tm.remaining(tm.start.Round(0).Add(time.Minute)); got != 59*time.Minute {
		t.Errorf("wall clock alone: %v", got)
	}
}
