package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// workload is one point at work.
type workload interface {
	// prepare makes ready what the connections send in the next phase, requests in all. It is not measured.
	prepare(ctx context.Context, requests int) error
	// step does the i-th request of connection c in this phase. It is called from one goroutine a worker.
	step(ctx context.Context, c, i int) (sample, error)
	// workers is how many goroutines call step.
	workers() int
	// servers are the processes whose processor time and memory count.
	servers() servers
	close() error
}

// sample is one request: the records it moved, and how long it took if that is not the time of the call.
type sample struct {
	records int
	took    time.Duration
	whole   time.Duration // of a fan-out: from the request on, not from the commit
}

// errSpent: all that was prepared is used up. The phase ends there.
var errSpent = errors.New("all prepared requests are used up")

// result is one phase.
type result struct {
	records   int
	requests  int
	elapsed   time.Duration
	latencies []time.Duration // sorted
	wholes    []time.Duration // sorted, of fan-outs
	rss       int64           // largest, bytes; 0: not known
	cpu       usage           // spent in the phase
}

func (r result) perSecond() float64 { return float64(r.records) / r.elapsed.Seconds() }

// quantile is the latency that a share of the requests did not pass.
func quantile(sorted []time.Duration, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}

// margin is how much more is prepared than the warm-up's speed asks for.
const margin = 1.4

// measure warms a workload up and measures it.
func measure(ctx context.Context, p point, w workload, warm, duration time.Duration, around func() (stop func() error, err error)) (result, error) {
	if err := w.prepare(ctx, max(int(float64(p.guess)*warm.Seconds()), 2*w.workers())); err != nil {
		return result{}, fmt.Errorf("prepare: %w", err)
	}
	warmed, err := phase(ctx, w, warm)
	if err != nil {
		return result{}, fmt.Errorf("warm-up: %w", err)
	}
	speed := float64(warmed.requests) / warmed.elapsed.Seconds()
	if err := w.prepare(ctx, max(int(speed*duration.Seconds()*margin), 4*w.workers())); err != nil {
		return result{}, fmt.Errorf("prepare: %w", err)
	}
	runtime.GC() // what signing left must not be collected during the measurement
	stop, err := around()
	if err != nil {
		return result{}, err
	}
	r, err := phase(ctx, w, duration)
	return r, errors.Join(err, stop())
}

// phase runs the workers for a time, or until one has nothing left to send.
func phase(ctx context.Context, w workload, duration time.Duration) (result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	n := w.workers()
	parts := make([]result, n)
	before := w.servers().usage()
	watch := watchMemory(w.servers())
	var over atomic.Bool
	var all sync.WaitGroup
	began := time.Now()
	for c := range n {
		all.Go(func() {
			defer over.Store(true)
			if err := work(ctx, w, c, began.Add(duration), &over, &parts[c]); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	total := result{elapsed: time.Since(began), cpu: w.servers().usage().minus(before), rss: watch()}
	if err := context.Cause(ctx); err != nil {
		return total, err
	}
	for _, part := range parts {
		total.records += part.records
		total.requests += len(part.latencies)
		total.latencies = append(total.latencies, part.latencies...)
		total.wholes = append(total.wholes, part.wholes...)
	}
	if total.requests == 0 {
		return total, errors.New("not one request was finished in time: measure longer with -seconds")
	}
	slices.Sort(total.latencies)
	slices.Sort(total.wholes)
	return total, nil
}

// work is one worker of a phase.
func work(ctx context.Context, w workload, c int, until time.Time, over *atomic.Bool, into *result) error {
	at := time.Now()
	// One is sent even where all begin late, as on a busy machine, of a phase that is short: else there is nothing to tell.
	for i := 0; (i == 0 || !over.Load() && at.Before(until)) && ctx.Err() == nil; i++ {
		s, err := w.step(ctx, c, i)
		if errors.Is(err, errSpent) {
			return nil
		}
		if err != nil {
			return err
		}
		now := time.Now()
		if s.took == 0 {
			s.took = now.Sub(at)
		}
		at = now
		into.records += s.records
		into.latencies = append(into.latencies, s.took)
		if s.whole > 0 {
			into.wholes = append(into.wholes, s.whole)
		}
	}
	return nil
}
