package relaycare

import (
	"log/slog"
	"testing"
	"time"

	"relaymarket/internal/db"
	"relaymarket/internal/testpg"
	"relaymarket/migrations"
)

func TestMain(m *testing.M) { testpg.Main(m) }

func sizeAt(at time.Time, bytes, free int64) Size { return Size{At: at, Bytes: bytes, Free: &free} }

func TestForecast(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	sizes := []Size{sizeAt(now.Add(-25*time.Hour), 0, 900e9), sizeAt(now.Add(-24*time.Hour), 0, 500e9), sizeAt(now.Add(-time.Hour), 0, 404e9), sizeAt(now.Add(-20*time.Minute), 0, 1)}
	current := sizeAt(now, 100e9, 400e9)
	day, ok := RateOver(sizes, 24*time.Hour, current)
	if left, ends := day.Until(300e9); !ok || day.PerDay != 100e9 || !ends || left != 72*time.Hour {
		t.Errorf("over a day: %+v %t, %s", day, ok, left)
	}
	hour, ok := RateOver(sizes, time.Hour, current)
	if left, ends := hour.Until(48e9); !ok || hour.PerDay != 96e9 || !ends || left != 12*time.Hour {
		t.Errorf("over an hour: %+v %t, %s", hour, ok, left)
	}
	if left, ends := hour.Until(-1); !ends || left != 0 {
		t.Errorf("without room: %s %t", left, ends)
	}
	if _, ok := RateOver(sizes[3:], time.Hour, current); ok {
		t.Error("twenty minutes tell a rate")
	}
	if _, ends := (Rate{PerDay: -1}).Until(1); ends {
		t.Error("room that grows ends")
	}
	if _, ends := (Rate{PerDay: 1}).Until(400e9); ends {
		t.Error("a million years end")
	}
	elsewhere := []Size{{At: now.Add(-time.Hour), Bytes: 90e9}}
	if r, ok := RateOver(elsewhere, time.Hour, Size{At: now, Bytes: 100e9}); !ok || r.PerDay != 240e9 {
		t.Errorf("of a database elsewhere: %+v %t", r, ok)
	}
}

// One size of ten minutes is kept, whoever looks how often, and none for longer than eight days.
func TestSizesAreKept(t *testing.T) {
	url := testpg.New(t)
	if err := migrations.Up(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	d, err := db.Open(t.Context(), url, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	now := time.Date(2026, 3, 1, 12, 3, 0, 0, time.UTC)
	keeper, err := New(Config{DB: d, Free: func() (int64, error) { return 7, nil }, Clock: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	looked := func(after time.Duration, want int) {
		t.Helper()
		now = now.Add(after)
		if err := keeper.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		sizes, err := Sizes(t.Context(), d.Pool(), time.Unix(0, 0))
		if err != nil || len(sizes) != want {
			t.Fatalf("after %s: %d sizes (%v), want %d", after, len(sizes), err, want)
		}
		if last := sizes[len(sizes)-1]; last.Bytes < 1<<20 || last.Free == nil || *last.Free != 7 {
			t.Errorf("kept is %+v", last)
		}
	}
	looked(0, 1)
	looked(time.Minute, 1)
	looked(10*time.Minute, 2)
	looked(7*24*time.Hour, 3)
	looked(24*time.Hour, 2)
}
