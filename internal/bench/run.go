package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"
)

// bench is one run.
type bench struct {
	opts     options
	relay    *relay
	author   *author
	postgres *barePostgres
}

// endPatience bounds cleaning up, also when the run was interrupted.
const endPatience = 2 * time.Minute

func run(ctx context.Context, o options, out io.Writer, say *progress) (err error) {
	if o.keys {
		return printKeys(out)
	}
	if len(o.tables) > 0 {
		return runTables(ctx, o, out, say)
	}
	chosen, err := choose(o.points)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "relaymarket-bench-*")
	if err != nil {
		return err
	}
	// Root's Postgres is another user, who has to get through.
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	b := &bench{opts: o}
	defer func() { err = errors.Join(err, b.end(context.WithoutCancel(ctx), dir, say)) }()
	if b.postgres, err = startPostgres(ctx, dir); err != nil {
		b.postgres = nil
		return fmt.Errorf("bare Postgres: %w", err)
	}
	r := newReport(out, o)
	fixed := map[string][]result{} // of points that do not depend on the size
	for i, size := range o.sizes {
		if err := b.start(ctx, filepath.Join(dir, fmt.Sprintf("relay-%d", size))); err != nil {
			return err
		}
		todo := chosen
		if i > 0 {
			todo = others(chosen, len(o.points) > 0)
		}
		results, err := b.rounds(ctx, todo, size, say)
		if err != nil {
			return advice(err, o.url == "")
		}
		for _, p := range todo {
			if p.sizeless {
				fixed[p.id()] = results[p.id()]
			}
		}
		say.clear()
		if err := r.add(chosen, size, results, fixed, i == 0); err != nil {
			return err
		}
		if i < len(o.sizes)-1 {
			if err := b.stopRelay(context.WithoutCancel(ctx)); err != nil {
				return err
			}
		}
	}
	return r.table()
}

// start starts a fresh relay, so that each size begins with an empty table; or finds the one that runs.
func (b *bench) start(ctx context.Context, dir string) (err error) {
	if b.opts.url != "" {
		b.relay, err = findRelay(ctx, b.opts.url)
	} else {
		b.relay, err = startRelay(ctx, b.opts, dir)
	}
	if err == nil {
		b.author = newAuthor(b.relay.key)
	}
	return err
}

// stopRelay ends the relay and removes what it stored.
func (b *bench) stopRelay(ctx context.Context) error {
	r := b.relay
	b.relay = nil
	if r == nil {
		return nil
	}
	err := r.stop()
	if r.dir == "" || b.opts.keep {
		return err
	}
	return errors.Join(err, r.remove(ctx))
}

func (b *bench) end(ctx context.Context, dir string, say *progress) error {
	say.clear()
	ctx, cancel := context.WithTimeout(ctx, endPatience)
	defer cancel()
	err := b.stopRelay(ctx)
	if b.postgres != nil {
		err = errors.Join(err, b.postgres.stop(ctx))
	}
	if b.opts.keep {
		say.tell("the relay's folders are in " + dir)
		return err
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// mostOthers is the share of the machine that other programs may use before it is worth a word. The kernel's own work
// for a point is among it.
const mostOthers = 0.1

// rounds measures every point once, then again, as often as there are repeats.
func (b *bench) rounds(ctx context.Context, points []point, size int, say *progress) (map[string][]result, error) {
	results := map[string][]result{}
	for repeat := range b.opts.repeats {
		for i, p := range points {
			say.step(fmt.Sprintf("%d bytes, repeat %d of %d, point %d of %d: %s", size, repeat+1, b.opts.repeats, i+1, len(points), p.id()))
			r, err := b.once(ctx, p, size, repeat)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.id(), err)
			}
			if short := b.opts.duration * 3 / 4; r.elapsed < short {
				say.tell(fmt.Sprintf("%s: what was signed lasted only %.1f s", p.id(), r.elapsed.Seconds()))
			}
			if others := r.cpu.othersShare(); others > mostOthers && r.elapsed > time.Second {
				say.tell(fmt.Sprintf("%s: other programs used %.0f%% of the machine, the figures are too low", p.id(), 100*others))
			}
			results[p.id()] = append(results[p.id()], r)
		}
	}
	return results, nil
}

// once measures a point.
func (b *bench) once(ctx context.Context, p point, size, repeat int) (r result, err error) {
	w, err := p.open(ctx, b, p, size)
	if w != nil {
		defer func() { err = errors.Join(err, w.close()) }()
	}
	if err != nil {
		return result{}, err
	}
	return measure(ctx, p, w, b.opts.warmUp(), b.opts.duration, func() (func() error, error) {
		if p.isLimit() || repeat < b.opts.repeats-1 {
			return func() error { return nil }, nil
		}
		return b.profile(fmt.Sprintf("%s-%d.pprof", p.id(), size))
	})
}

// profile writes a CPU profile until the returned function is called, if profiles are wanted.
func (b *bench) profile(name string) (func() error, error) {
	if b.opts.cpuProfile == "" {
		return func() error { return nil }, nil
	}
	if err := os.MkdirAll(b.opts.cpuProfile, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(b.opts.cpuProfile, name))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error { pprof.StopCPUProfile(); return f.Close() }, nil
}

func printKeys(out io.Writer) error {
	senders, err := people(roleSender, manyConns)
	if err != nil {
		return err
	}
	for _, k := range senders {
		if _, err := fmt.Fprintln(out, k.Public().Bech32()); err != nil {
			return err
		}
	}
	return nil
}
