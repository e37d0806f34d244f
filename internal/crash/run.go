package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// folderPattern names the folders of runs, which sweep knows them by.
const folderPattern = "relaymarket-crash-*"

// run goes through all segments, some at a time, until one is found broken. The summary is nil when it did not begin.
func run(ctx context.Context, o options, p *progress) (_ *summary, err error) {
	began := time.Now()
	p.tell("seed %d", o.seed)
	program := o.relayd
	if program == "" {
		if program, err = build(ctx, o.broken); err != nil {
			return nil, err
		}
	}
	if program, err = filepath.Abs(program); err != nil {
		return nil, err
	}
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("there is no relayd at %s: name it with -relayd, or leave that out to have it built", program)
	}
	dir, release, err := makeFolder(ctx, o)
	if err != nil {
		return nil, err
	}
	counts := &tally{}
	var mu sync.Mutex
	var found []promise
	group, running := errgroup.WithContext(ctx)
	group.SetLimit(o.parallel)
	for i, s := range interleaved(segments(o)) {
		group.Go(func() error {
			if running.Err() != nil {
				return nil
			}
			r := &ordeal{options: o, segment: s, dir: filepath.Join(dir, fmt.Sprint(i)), counts: counts, progress: p}
			err := r.run(running, program)
			mu.Lock()
			defer mu.Unlock()
			found = append(found, promisesOf(err)...)
			return err
		})
	}
	err = group.Wait()
	kept := o.keep && err != nil
	if kept {
		p.tell("kept %s", dir)
	}
	err = errors.Join(err, release(kept))
	if ctx.Err() != nil && len(found) == 0 {
		err = fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	if err != nil && len(found) == 0 {
		return nil, err
	}
	slices.Sort(found)
	return counts.summary(o, time.Since(began), slices.Compact(found)), err
}

// interleaved puts the first segments of all faults first, so that none waits for the end of another.
func interleaved(all []segment) []segment {
	slices.SortStableFunc(all, func(a, b segment) int { return int(a.seed[1]&0xffffffff) - int(b.seed[1]&0xffffffff) })
	return all
}

// promisesOf are the broken promises in an error.
func promisesOf(err error) (found []promise) {
	var many brokenErrors
	var one *brokenError
	switch {
	case errors.As(err, &many):
		for _, b := range many {
			found = append(found, b.promise)
		}
	case errors.As(err, &one):
		found = append(found, one.promise)
	}
	return found
}

// ordeal is one segment under way.
type ordeal struct {
	options  options
	segment  segment
	dir      string
	counts   *tally
	progress *progress

	world *world
	kept  []*settledCohort
}

// run makes a relay, takes it through all rounds, and looks once more at all that was ever written.
func (r *ordeal) run(ctx context.Context, program string) (err error) {
	if r.world, err = newWorld(ctx, r.options, r.segment, program, r.dir); err != nil {
		return fmt.Errorf("set up %s, %s: %w", r.segment.fault, r.segment.layout, err)
	}
	defer func() {
		// Without the processes, for what failed is looked at as it is.
		err = errors.Join(err, r.world.close(context.WithoutCancel(ctx)))
	}()
	if r.segment.fault == faultRush {
		if err := r.rushes(ctx); err != nil {
			return err
		}
		return r.world.stop(ctx)
	}
	random := newRandom(r.segment.seed)
	for number := range r.segment.rounds {
		plan := newPlan(random, number, len(r.world.relays))
		if err := r.round(ctx, plan); err != nil {
			return r.explain(err, plan)
		}
		r.done()
	}
	for _, k := range r.kept {
		if err := k.checkStill(ctx, r.world, r.counts); err != nil {
			return fmt.Errorf("seed %d, %s with %s, after all rounds: %w", r.options.seed, r.segment.fault, r.segment.layout, err)
		}
	}
	return r.world.stop(ctx)
}

// done counts a round.
func (r *ordeal) done() {
	r.counts.rounds[r.segment.fault].Add(1)
	r.progress.step(r.options, r.counts)
}

// explain says which round it was and what the relays said.
func (r *ordeal) explain(err error, p plan) error {
	if len(promisesOf(err)) == 0 {
		return fmt.Errorf("seed %d, %s with %s, round %d: %w", r.options.seed, r.segment.fault, r.segment.layout, p.number, err)
	}
	return fmt.Errorf("seed %d, %s with %s, round %d (fault after %d acknowledgements and %s, twice %t): %w\n%s",
		r.options.seed, r.segment.fault, r.segment.layout, p.number, p.after, p.jitter, p.twice, err, strings.TrimSpace(r.world.logs()))
}

// round is people at work, a fault among it, and the reckoning.
func (r *ordeal) round(ctx context.Context, p plan) error {
	c, err := newCohort(p.number, r.world.key, r.counts)
	if err != nil {
		return err
	}
	if err := c.grant(ctx, r.world); err != nil {
		return err
	}
	crowd := gather(r.world, c, p)
	if err := crowd.live(ctx, func(ctx context.Context) error { return r.breakIt(ctx, c, p) }); err != nil {
		return errors.Join(err, c.verdict())
	}
	for _, reader := range crowd.readers {
		reader.checkOrder()
	}
	c.checkCommitOrder()
	kept, err := c.checkInside(ctx, r.world, crowd.readers)
	if err != nil {
		return errors.Join(err, c.verdict())
	}
	if c.isBroken() {
		return c.verdict()
	}
	if err := newCaller(r.world, c, p.random(99)).checkOutside(ctx); err != nil {
		return errors.Join(err, c.verdict())
	}
	if err := errors.Join(c.verdict(), r.world.died()); err != nil {
		return err
	}
	return r.lookBack(ctx, kept, p)
}

// lookBack checks the cohort before this one, and any other.
func (r *ordeal) lookBack(ctx context.Context, kept *settledCohort, p plan) error {
	earlier := r.kept
	r.kept = append(r.kept, kept)
	if len(earlier) == 0 {
		return nil
	}
	for _, k := range []*settledCohort{earlier[len(earlier)-1], earlier[p.random(98).IntN(len(earlier))]} {
		if err := k.checkStill(ctx, r.world, r.counts); err != nil {
			return err
		}
	}
	return nil
}

// breakIt waits for its moment, strikes, starts again what does not come back by itself, and sees that the relay works.
func (r *ordeal) breakIt(ctx context.Context, c *cohort, p plan) error {
	if err := r.awaitAcks(ctx, c, int64(p.after), "the relay works before the fault"); err != nil {
		return err
	}
	select {
	case <-time.After(p.jitter):
	case <-ctx.Done():
		return ctx.Err()
	}
	if r.segment.fault == faultWire {
		return r.cutWires(ctx, c, p)
	}
	if err := r.world.strike(r.segment.fault, p); err != nil {
		return err
	}
	if p.twice {
		if err := r.world.strikeAgain(ctx, r.segment.fault, p); err != nil {
			return err
		}
	}
	struck, before := time.Now(), c.acks.Load()
	if err := r.world.start(ctx); err != nil {
		return err
	}
	if err := r.awaitAcks(ctx, c, before+1, "the relay is back"); err != nil {
		return err
	}
	r.counts.back(time.Since(struck))
	return r.awaitAcks(ctx, c, before+int64(p.later), "the relay works after the fault")
}

// cutsOfRound is how many requests of a round lose their answer, or never arrive whole.
const cutsOfRound = 50

// cutWires cuts connections until so many requests had an unknown outcome, and then mends the wires.
func (r *ordeal) cutWires(ctx context.Context, c *cohort, p plan) error {
	r.world.setWires(true)
	defer r.world.setWires(false)
	return r.await(ctx, c, func() bool { return c.unknown.Load() >= cutsOfRound && c.acks.Load() >= int64(p.after+p.later) }, func() string {
		return fmt.Sprintf("%d outcomes were unknown and %d requests acknowledged", c.unknown.Load(), c.acks.Load())
	})
}

// awaitAcks waits until so many requests were acknowledged.
func (r *ordeal) awaitAcks(ctx context.Context, c *cohort, want int64, what string) error {
	return r.await(ctx, c, func() bool { return c.acks.Load() >= want }, func() string {
		return fmt.Sprintf("%d of %d requests were acknowledged, waiting until %s", c.acks.Load(), want, what)
	})
}

// await waits for a condition, or until something was found broken.
func (r *ordeal) await(ctx context.Context, c *cohort, condition func() bool, state func() string) error {
	for deadline := time.Now().Add(r.options.patience); !condition() && !c.isBroken(); {
		if time.Now().After(deadline) {
			return &brokenError{promiseBack, fmt.Sprintf("within %s %s", r.options.patience, state())}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}
