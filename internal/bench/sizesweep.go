package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sweptMetric is the relay's count of rows that it removed.
const sweptMetric = "relaymarket_records_swept_total"

// sweepPatience is how long the sweeper may take to remove anything.
const sweepPatience = 2 * time.Minute

// sweepFigures are what is seen of a sweep.
type sweepFigures struct {
	without, during result // write@64 before it and beside it
	swept           int64  // rows, beside writes
	sweptIn         time.Duration
	rest            int64 // rows, beside nothing
	restTook        time.Duration
	logged          int64 // bytes of write-ahead log while nothing was written
	reusable        time.Duration
	before, after   sizes // the table full before the sweep, and as full again after it
	refilled        int
}

// sweep lets the relay remove what has expired, beside writes, waits for vacuum and fills the table again.
func (r *tables) sweep(ctx context.Context, t table) (err error) {
	g := r.full
	var f sweepFigures
	p := slices.IndexFunc(points(), func(p point) bool { return p.id() == "write@64" })
	w, err := openWrites(1)(ctx, &g.bench, points()[p], max(t.bytes, minSize))
	if w != nil {
		defer func() { err = errors.Join(err, w.close()) }()
	}
	if err != nil {
		return err
	}
	r.say.step(fmt.Sprintf("%d rows of %d bytes: writes without a sweep", t.rows, t.bytes))
	if f.without, err = measure(ctx, points()[p], w, r.opts.warmUp(), r.opts.duration, noProfile); err != nil {
		return err
	}
	if f.before, err = g.sizes(ctx); err != nil {
		return err
	}
	at, err := g.logged(ctx)
	if err != nil {
		return err
	}
	done, err := g.swept(ctx)
	if err != nil {
		return err
	}
	target := done + int64(g.due)
	if err := r.sweepBesideWrites(ctx, t, w, target, &f); err != nil {
		return err
	}
	if err := r.sweepAlone(ctx, t, target, &f); err != nil {
		return err
	}
	if f.reusable, err = r.settle(ctx, t); err != nil {
		return err
	}
	wrote, err := g.logged(ctx)
	if err != nil {
		return err
	}
	// As many rows as before: what was written meanwhile counts.
	f.refilled = g.due - int(wrote.cursor-at.cursor)
	g.loaded, g.due = g.loaded-g.due, 0
	if f.refilled > 0 {
		if err := r.load(ctx, t, f.refilled, false); err != nil {
			return fmt.Errorf("fill it again: %w", err)
		}
	}
	if f.after, err = g.sizes(ctx); err != nil {
		return err
	}
	g.loaded = t.rows // with what was written
	r.say.clear()
	return r.report.sweep(t, &f)
}

func noProfile() (func() error, error) { return func() error { return nil }, nil }

// sweepBesideWrites writes while the sweeper works, as often as there are repeats or until it is done.
func (r *tables) sweepBesideWrites(ctx context.Context, t table, w workload, target int64, f *sweepFigures) error {
	g := r.full
	speed := f.without.perSecond()
	if err := w.prepare(ctx, int(speed*r.opts.duration.Seconds()*margin)); err != nil {
		return err
	}
	begin, err := g.swept(ctx)
	if err != nil {
		return err
	}
	if err := g.holdSweeper(ctx, false); err != nil {
		return err
	}
	// It looks every ten seconds.
	for deadline, done := time.Now().Add(sweepPatience), begin; done == begin; {
		r.say.step(fmt.Sprintf("%d rows of %d bytes: waiting for the sweeper", t.rows, t.bytes))
		if time.Now().After(deadline) {
			return fmt.Errorf("the relay has swept nothing for %s", sweepPatience)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
		if done, err = g.swept(ctx); err != nil {
			return err
		}
	}
	for repeat := range r.opts.repeats {
		first, err := g.swept(ctx)
		if err != nil {
			return err
		}
		if first >= target {
			break
		}
		r.say.step(fmt.Sprintf("%d rows of %d bytes: writes beside the sweep, repeat %d of %d, %d of %d swept", t.rows, t.bytes, repeat+1, r.opts.repeats, first-begin, target-begin))
		watched := g.watchSwept(ctx, target)
		one, err := phase(ctx, w, r.opts.duration)
		last, took, watchErr := watched()
		if err := errors.Join(err, watchErr); err != nil {
			return err
		}
		f.swept, f.sweptIn = f.swept+last-first, f.sweptIn+took
		f.during.merge(one)
		if repeat < r.opts.repeats-1 && last < target {
			if err := w.prepare(ctx, int(speed*r.opts.duration.Seconds()*margin)); err != nil {
				return err
			}
		}
	}
	if f.during.requests == 0 {
		return errors.New("the sweep was over before a write could be measured beside it: take more -rows")
	}
	slices.Sort(f.during.latencies)
	return nil
}

// watchSwept looks at how far the sweep is until the returned function is called, which tells how far that was and how
// long it went on: until target at most.
func (g *grown) watchSwept(ctx context.Context, target int64) func() (int64, time.Duration, error) {
	type seen struct {
		n    int64
		took time.Duration
		err  error
	}
	stop, told := make(chan struct{}), make(chan seen, 1)
	began := time.Now()
	go func() {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for over := false; ; {
			n, err := g.swept(ctx)
			if err != nil || over || n >= target {
				told <- seen{n, time.Since(began), err}
				return
			}
			select {
			case <-stop:
				over = true
			case <-ticker.C:
			}
		}
	}()
	return func() (int64, time.Duration, error) { close(stop); s := <-told; return s.n, s.took, s.err }
}

// merge adds another phase of the same.
func (r *result) merge(o result) {
	r.records, r.requests, r.elapsed = r.records+o.records, r.requests+o.requests, r.elapsed+o.elapsed
	r.latencies = append(r.latencies, o.latencies...)
	r.rss = max(r.rss, o.rss)
}

// sweepAlone waits until all is swept.
func (r *tables) sweepAlone(ctx context.Context, t table, target int64, f *sweepFigures) error {
	first, err := r.full.swept(ctx)
	if err != nil {
		return err
	}
	before, err := r.full.logged(ctx)
	if err != nil {
		return err
	}
	began, last := time.Now(), first
	for moved := began; last < target; {
		r.say.step(fmt.Sprintf("%d rows of %d bytes: the sweep alone, %d rows left", t.rows, t.bytes, target-last))
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		done, err := r.full.swept(ctx)
		if err != nil {
			return err
		}
		if done > last {
			moved = time.Now()
		} else if time.Since(moved) > sweepPatience {
			return fmt.Errorf("the sweep stands still, %d rows before its end", target-last)
		}
		last = done
	}
	after, err := r.full.logged(ctx)
	f.rest, f.restTook, f.logged = last-first, time.Since(began), after.log-before.log
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// swept is how many rows the relay has removed.
func (g *grown) swept(ctx context.Context) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.relay.operator+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	reply, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("the relay's metrics: %w", err)
	}
	defer func() { _ = reply.Body.Close() }()
	lines := bufio.NewScanner(io.LimitReader(reply.Body, 1<<20))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), sweptMetric+" "); ok {
			n, err := strconv.ParseFloat(value, 64)
			return int64(n), err
		}
	}
	return 0, fmt.Errorf("the relay's metrics have no %s", sweptMetric)
}
