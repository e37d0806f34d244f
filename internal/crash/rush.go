package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"relaymarket/api"
	"relaymarket/internal/db"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// rushers is how many connections want the same at once.
const rushers = 64

// rushesAtOnce is how many rounds go on together: their people have nothing to do with each other.
const rushesAtOnce = 4

// rushes are the rounds of a relay, over wires that are cut all the time.
func (r *ordeal) rushes(ctx context.Context) error {
	r.world.setWires(true)
	random := newRandom(r.segment.seed)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(rushesAtOnce)
	for number := range r.segment.rounds {
		plan := newPlan(random, number, len(r.world.relays))
		group.Go(func() error {
			if err := r.rush(ctx, plan); err != nil {
				return r.explain(err, plan)
			}
			r.done()
			return nil
		})
	}
	return group.Wait()
}

// rush is a round in which 64 connections write into an account that has room for some of it, and then pull one record
// that allows a few pulls, over wires that are cut. Exactly as many succeed as may.
func (r *ordeal) rush(ctx context.Context, p plan) error {
	c, err := newCohort(p.number, r.world.key, r.counts)
	if err != nil {
		return err
	}
	random := p.random(0)
	g := &gate{ordeal: r, cohort: c, plan: p, room: 1 + random.IntN(rushers-1), pulls: 1 + random.Int64N(8), byMoved: random.IntN(2) == 0}
	g.spare = random.Int64N(400) // less than a record
	if err := g.compose(); err != nil {
		return err
	}
	if err := g.grant(ctx); err != nil {
		return err
	}
	if err := g.writeAll(ctx); err != nil {
		return errors.Join(err, c.verdict())
	}
	if err := g.pullAll(ctx); err != nil {
		return errors.Join(err, c.verdict())
	}
	if err := g.check(ctx); err != nil {
		return errors.Join(err, c.verdict())
	}
	return errors.Join(c.verdict(), r.world.died())
}

// gate is what the rush is for.
type gate struct {
	*ordeal
	cohort  *cohort
	plan    plan
	room    int   // records that fit
	pulls   int64 // that each allows
	spare   int64 // bytes of the quota that no record fits in
	byMoved bool  // not the bytes stored at once are short, but those moved in a month
	lines   [rushers]*written
	size    int64 // of each

	whole, spent atomic.Int64 // pages that arrived, and that never did
}

// compose makes 64 writes of one size.
func (g *gate) compose() error {
	c := g.cohort
	for i := range g.lines {
		w := &writer{caller: &caller{world: g.world, cohort: c}, key: c.senders[0]}
		x, err := w.sign(c.readers[0].Public(), &protocol.Write{Relay: c.relay, RecordID: protocol.RecordID(fmt.Sprintf("rush-%02d", i)),
			Expires: now() + recordLifetime, MaxPulls: g.pulls, Content: strings.Repeat("cnVz", 100+g.plan.after)})
		if err != nil {
			return err
		}
		if g.size = x.envelope.Size(); g.size != g.lines[0].size(x) {
			return fmt.Errorf("writes of %d and %d bytes: they should be of one size", g.size, g.lines[0].size(x))
		}
		g.lines[i] = x
	}
	return nil
}

// size is that of the first write, if there is one before x.
func (x *written) size(other *written) int64 {
	if x == nil {
		return other.envelope.Size()
	}
	return x.envelope.Size()
}

func (g *gate) grant(ctx context.Context) error {
	grant := books.Grant{Key: g.cohort.senders[0].Public(), QuotaStored: 1e15, QuotaMoved: 1e15, LastDay: "9999-12-31"}
	if g.byMoved {
		grant.QuotaMoved = int64(g.room)*g.size*(1+g.pulls) + g.spare
	} else {
		grant.QuotaStored = int64(g.room)*g.size + g.spare
	}
	return g.world.withDB(ctx, func(ctx context.Context, d *db.DB) error {
		return books.New(books.Config{DB: d, Clock: time.Now}).Put(ctx, grant)
	})
}

// each runs something on 64 connections at once.
func (g *gate) each(ctx context.Context, do func(context.Context, *caller, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range rushers {
		group.Go(func() error {
			c := newCaller(g.world, g.cohort, g.plan.random(1+i))
			defer c.close()
			return do(ctx, c, i)
		})
	}
	return group.Wait()
}

func (g *gate) writeAll(ctx context.Context) error {
	var stored atomic.Int64
	err := g.each(ctx, func(ctx context.Context, c *caller, i int) error {
		w, x := &writer{caller: c, key: g.cohort.senders[0]}, g.lines[i]
		answer, _, err := w.settled(ctx, func(int) (message, error) { return x.put(), nil })
		if err != nil || answer == nil {
			return err
		}
		var s api.Stored
		code := answer.problem().Code
		switch {
		case answer.status < 300 && json.Unmarshal(answer.body, &s) == nil:
			g.cohort.acknowledged(x.record, x.envelope.RequestHash(), s.Hash, s.Cursor)
			stored.Add(1)
		case code != protocol.CodeQuotaStored && code != protocol.CodeQuotaMoved:
			g.cohort.fault(promiseRefuse, "%s: a write is answered with %s", x.record.path, answer)
		}
		return nil
	})
	if n := int(stored.Load()); n != g.room && err == nil {
		g.cohort.fault(promiseLimit, "%d writes of %d bytes were acknowledged in an account of %s, which has room for %d", n, g.size, g.cohort.senders[0].Public(), g.room)
	}
	return err
}

// target is one of the records that are there.
func (g *gate) target() *written {
	g.cohort.mu.Lock()
	defer g.cohort.mu.Unlock()
	for _, x := range g.lines {
		if x.record.stored != nil {
			return x
		}
	}
	return nil
}

// pullAll has all connections pull one record, each a page of its own, until it has ended.
func (g *gate) pullAll(ctx context.Context) error {
	x := g.target()
	if x == nil {
		return nil // found already
	}
	err := g.each(ctx, func(ctx context.Context, c *caller, i int) error { return g.pull(ctx, c, x, i) })
	if whole, spent := g.whole.Load(), g.spent.Load(); err == nil && whole+spent != g.pulls {
		g.cohort.fault(promiseLimit, "%s allows %d pulls, and was served in %d pages, and in %d that never arrived", x.record.path, g.pulls, whole, spent)
	}
	return err
}

func (g *gate) pull(ctx context.Context, c *caller, x *written, i int) error {
	r := newReader(c, g.cohort.readers[0])
	p := &page{id: protocol.PageID(fmt.Sprintf("rush-%02d", i)), gots: map[string]bool{}}
	m, err := r.targeted(r.key, protocol.TypeRead, http.MethodGet, x.record.path.String()+"?pageId="+string(p.id))
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(g.world.patience); ; {
		answer, _, err := r.settled(ctx, func(int) (message, error) { return m, nil })
		if err != nil || answer == nil {
			return err
		}
		problem := answer.problem()
		switch {
		case answer.status == http.StatusOK:
			e, err := protocol.ParseEnvelope(answer.body)
			if err != nil || g.cohort.served(e, r.key.Public()) != x.record {
				g.cohort.fault(promiseGenuine, "%s is served as %s", x.record.path, answer)
				return nil
			}
			g.whole.Add(1)
			g.counts.pages.Add(1)
			g.counts.served.Add(1)
			p.root = e.Hash()
			r.pending = p
			return r.acknowledge(ctx)
		case problem.Code == protocol.CodePageSpent && problem.Root != nil:
			g.spent.Add(1)
			p.root = *problem.Root
			r.pending = p
			return r.acknowledge(ctx)
		case problem.Code == protocol.CodeGone:
			return nil
		case problem.Code != protocol.CodePageOpen:
			g.cohort.fault(promiseRefuse, "%s is answered with %s", x.record.path, answer)
			return nil
		case time.Now().After(deadline):
			g.cohort.fault(promiseSettle, "%s: another page was open for %s", x.record.path, g.world.patience)
			return nil
		}
		// Somebody else's page is open: his acknowledgement is on its way.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(5+c.random.IntN(60)) * time.Millisecond):
		}
	}
}

// check looks at what is stored and counted.
func (g *gate) check(ctx context.Context) error {
	c, target := g.cohort, g.target()
	if c.isBroken() {
		return nil
	}
	return g.world.withDB(ctx, func(ctx context.Context, d *db.DB) error {
		rows, err := rowsOf(ctx, d, raw(c.senders), raw(c.readers))
		if err != nil {
			return err
		}
		g.counts.looked.Add(int64(len(rows)))
		c.mu.Lock()
		target.record.pages = int(g.pulls)
		c.mu.Unlock()
		c.checkRows(rows)
		a, err := books.New(books.Config{DB: d, Clock: time.Now}).Get(ctx, c.senders[0].Public())
		if err != nil {
			return err
		}
		if want := int64(g.room) * g.size; a.Stored != want || a.Month == c.month && a.Moved != want*(1+g.pulls) {
			c.fault(promiseCount, "the account of %s counts %d bytes stored and %d moved, and there are %d with %d pulls each", a.Key, a.Stored, a.Moved, want, g.pulls)
		}
		return nil
	})
}
