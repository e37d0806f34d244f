package status

import (
	"math"
	"sync"
	"time"
)

const (
	// lookEvery is between two points of a forecast, and window what it looks back on: a day, as people write by day and sleep by night.
	lookEvery = 5 * time.Minute
	window    = 24 * time.Hour
	// leastSeen is what must have been seen before anything is said.
	leastSeen = 30 * time.Minute
	// farthest is what is not told any more: beyond it, a straight line says nothing.
	farthest = 10 * 365 * 24 * time.Hour
)

// Forecast remembers how much was free, and tells when nothing will be. The zero value remembers nothing. It is safe for concurrent use.
type Forecast struct {
	mu     sync.Mutex
	points []point // in order, at most window back: some 290
}

type point struct {
	at   time.Time
	free int64
}

// Look notes what is free, at most once in five minutes.
func (f *Forecast) Look(now time.Time, free int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.points); n > 0 {
		switch last := f.points[n-1].at; {
		case now.Before(last):
			f.points = nil // the clock went back: begin again
		case now.Sub(last) < lookEvery:
			return
		}
	}
	old := 0
	for old < len(f.points) && now.Sub(f.points[old].at) > window {
		old++
	}
	f.points = append(f.points[old:], point{now, free})
}

// Tell is the disk as it is now, with what follows from how it was.
func (f *Forecast) Tell(now time.Time, free, keep int64) *Disk {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := &Disk{Free: free, Keep: keep}
	if len(f.points) == 0 {
		return d
	}
	first := f.points[0].at
	seen := now.Sub(first)
	d.Seen = seen.Seconds()
	if seen < leastSeen || len(f.points) < 3 {
		return d
	}
	perSecond := slope(f.points, first)
	perDay := int64(-perSecond * (24 * time.Hour).Seconds())
	d.PerDay = &perDay
	if left := float64(free - keep); perSecond < 0 {
		if seconds := max(left, 0) / -perSecond; seconds < farthest.Seconds() {
			whole := int64(math.Round(seconds))
			d.FullIn = &whole
		}
	}
	return d
}

// slope is that of the straight line nearest to all points, in bytes a second: single large files and checkpoints weigh less in it than
// in the first and the last.
func slope(points []point, from time.Time) float64 {
	n := float64(len(points))
	var sx, sy, sxx, sxy float64
	for _, p := range points {
		x, y := p.at.Sub(from).Seconds(), float64(p.free)
		sx, sy, sxx, sxy = sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	if spread := n*sxx - sx*sx; spread > 0 {
		return (n*sxy - sx*sy) / spread
	}
	return 0
}
