package main

import (
	"sync/atomic"
	"time"
)

// tally counts what a run did.
type tally struct {
	rounds       [faults]atomic.Int64
	acknowledged atomic.Int64 // writes
	unknown      atomic.Int64 // requests of all kinds that were not answered the first time
	repeats      atomic.Int64 // of writes that were acknowledged
	races        atomic.Int64 // one write, or two under one path, on two connections at once
	conflicts    atomic.Int64 // writes refused because the path is taken
	deletes      atomic.Int64
	pages        atomic.Int64 // with records
	served       atomic.Int64 // records of pages
	heard        atomic.Int64 // records told to listeners
	reconnects   atomic.Int64 // of listeners
	forgeries    atomic.Int64 // refused
	looked       atomic.Int64 // records looked at in the database
	slowest      atomic.Int64 // ns from a fault's end to the relay's being back, at most
}

func (t *tally) back(took time.Duration) {
	for {
		most := t.slowest.Load()
		if int64(took) <= most || t.slowest.CompareAndSwap(most, int64(took)) {
			return
		}
	}
}
