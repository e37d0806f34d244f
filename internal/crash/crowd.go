package main

import (
	"context"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sync/errgroup"
)

func newRandom(seed [2]uint64) *rand.Rand { return rand.New(rand.NewPCG(seed[0], seed[1])) }

// crowd is the people of a round at work.
type crowd struct {
	writers  []*writer
	readers  []*reader
	listener *listener
	forger   *forger
}

// gather gives each of them a connection and draws of his own.
func gather(w *world, c *cohort, p plan) *crowd {
	worker := 0
	next := func() *caller {
		worker++
		return newCaller(w, c, p.random(worker))
	}
	crowd := &crowd{}
	for i, k := range c.writers() {
		for j := range writersOfSender {
			crowd.writers = append(crowd.writers, &writer{caller: next(), key: k, name: fmt.Sprintf("w%d-%d", i, j)})
		}
	}
	for _, k := range c.readers {
		crowd.readers = append(crowd.readers, newReader(next(), k))
	}
	crowd.listener = newListener(next(), crowd.readers[0])
	crowd.forger = &forger{caller: next()}
	return crowd
}

// live sets them to work, lets happen what happens, and then has all finish what they have begun: first those who
// write, then those who read what was written.
func (g *crowd) live(ctx context.Context, happens func(context.Context) error) error {
	enough, written := make(chan struct{}), make(chan struct{})
	group, ctx := errgroup.WithContext(ctx)
	writing, writingCtx := errgroup.WithContext(ctx)
	for _, w := range g.writers {
		writing.Go(func() error { return w.run(writingCtx, enough) })
	}
	writing.Go(func() error { return g.forger.run(writingCtx, enough) })
	group.Go(func() error {
		err := writing.Wait()
		close(written)
		return err
	})
	for _, r := range g.readers {
		group.Go(func() error { return r.run(ctx, written) })
	}
	group.Go(func() error { return g.listener.run(ctx, written) })
	group.Go(func() error {
		err := happens(ctx)
		close(enough)
		return err
	})
	return group.Wait()
}
