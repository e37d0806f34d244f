package status

import (
	"testing"
	"time"
)

func TestForecast(t *testing.T) {
	const gb = int64(1e9)
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		hours  int
		free   func(hour float64) int64
		perDay int64 // GB; −1: not told
		fullIn time.Duration
		never  bool
	}{
		"a day, evenly":      {24, func(h float64) int64 { return 100*gb - int64(h*1e9) }, 24, 75 * time.Hour, false},
		"growing":            {24, func(h float64) int64 { return 10*gb + int64(h*1e9) }, -24, 0, true},
		"nothing happens":    {24, func(float64) int64 { return 10 * gb }, 0, 0, true},
		"a few minutes":      {0, func(float64) int64 { return 10 * gb }, -1, 0, true},
		"too slow to matter": {24, func(h float64) int64 { return 1000*gb - int64(h*1e6) }, 0, 0, true},
		"days ago":           {72, func(h float64) int64 { return 100*gb - int64(max(h-48, 0)*1e9) - int64(min(h, 48)*5e8) }, 24, 51 * time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := &Forecast{}
			end := begin.Add(time.Duration(test.hours) * time.Hour)
			for at := begin; !at.After(end); at = at.Add(time.Minute) {
				f.Look(at, test.free(at.Sub(begin).Hours()))
			}
			d := f.Tell(end, test.free(float64(test.hours)), gb)
			if test.perDay < 0 && test.hours == 0 {
				if d.PerDay != nil || d.FullIn != nil {
					t.Errorf("it knows after a minute: %+v", d)
				}
				return
			}
			if d.PerDay == nil || *d.PerDay < (test.perDay-1)*gb || *d.PerDay > (test.perDay+1)*gb {
				t.Errorf("a day takes %v, want %d GB", d.PerDay, test.perDay)
			}
			if test.never != (d.FullIn == nil) {
				t.Fatalf("it is full in %v s", d.FullIn)
			}
			if !test.never && (time.Duration(*d.FullIn)*time.Second-test.fullIn).Abs() > time.Hour {
				t.Errorf("it is full in %s, want %s", time.Duration(*d.FullIn)*time.Second, test.fullIn)
			}
			if len(f.points) > int(window/lookEvery)+2 {
				t.Errorf("it remembers %d points", len(f.points))
			}
		})
	}
}

// A disk below what is kept is full now, and a clock that went back begins again.
func TestForecastEdges(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f := &Forecast{}
	for i := range 10 {
		f.Look(begin.Add(time.Duration(i)*10*time.Minute), int64(1000-i*100))
	}
	d := f.Tell(begin.Add(90*time.Minute), 100, 500)
	if d.FullIn == nil || *d.FullIn != 0 {
		t.Errorf("%+v", d)
	}
	f.Look(begin.Add(-time.Hour), 1)
	if d := f.Tell(begin, 1, 0); d.PerDay != nil || len(f.points) != 1 {
		t.Errorf("%+v", d)
	}
	if d := (&Forecast{}).Tell(begin, 5, 1); d.Free != 5 || d.PerDay != nil {
		t.Errorf("%+v", d)
	}
}
