package main

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestPercentFor(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		live, roots uint64
		want        int
	}{
		{1, 0, mostPercent}, // a larger one would raise Go's smallest heap above heapRoom
		{8 * mb, 0, 1100},
		{7 * mb, 1 * mb, 1110},
		{16 * mb, 0, 500},
		{47 * mb, 0, 100},
		{48 * mb, 0, 100},
		{40 * mb, 60 * mb, 100}, // many stacks
		{96 * mb, 0, 100},
		{4096 * mb, 0, 100},
	} {
		if got := percentFor(c.live, c.roots); got != c.want {
			t.Errorf("%d MB in use, %d MB of roots: %d %%, want %d", c.live/mb, c.roots/mb, got, c.want)
		}
	}
}

// sink keeps the compiler from dropping what is allocated.
var sink []byte

// collections is how often the heap is collected while a gigabyte of garbage is made, and the most it grew to.
func collections(t *testing.T) (times uint32, most uint64) {
	t.Helper()
	runtime.GC()
	var before, m runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range 1 << 14 {
		sink = make([]byte, 64<<10)
		if i%256 == 0 {
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}
	}
	runtime.ReadMemStats(&m)
	return m.NumGC - before.NumGC, most
}

func TestCollectorLeavesASmallHeapAlone(t *testing.T) {
	if debug.SetGCPercent(100) != 100 {
		t.Skip("GOGC is set")
	}
	plain, _ := collections(t)
	stop := roomyCollector([]string{"GOGC=100"})
	if set, _ := collections(t); set < plain/2 {
		t.Errorf("%d collections, %d without; the operator's own setting was not respected", set, plain)
	}
	stop()
	stop = roomyCollector([]string{"HOME=/"})
	defer stop()
	roomy, most := collections(t)
	if roomy < 5 || roomy > 40 || plain < 3*roomy {
		t.Errorf("a gigabyte of garbage was collected %d times, %d times without", roomy, plain)
	}
	// On a busy machine a collection begins long after it is due; without one this would be a gigabyte.
	if most > 8*heapRoom {
		t.Errorf("the heap grew to %d MB", most>>20)
	}
	kept := make([]byte, 2*heapRoom)
	runtime.GC()
	_, most = collections(t)
	if most > 8*heapRoom {
		t.Errorf("a heap of %d MB in use grew to %d MB", len(kept)>>20, most>>20)
	}
	runtime.KeepAlive(kept)
	stop()
	if after, _ := collections(t); after < plain/2 {
		t.Errorf("%d collections after the end, %d before the start", after, plain)
	}
}
