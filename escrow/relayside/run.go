package relayside

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
)

// Run does the work that nobody asks for until ctx is done: it follows the chain, moves contracts on, signs fundings, sends
// and bids, and sweeps. Several processes may run it; one works at a time, and another takes over when it falls silent.
// A Bitcoin node or database that is away is waited for. Without a wallet it only waits for the end.
//
// What needs the wallet has a loop of its own. A wallet that derives keys, recovers or hangs keeps new fundings waiting,
// and no block, payment or settlement: those have a date, and need no wallet.
func (m *Manager) Run(ctx context.Context) error {
	if m.cfg.Wallet == nil {
		<-ctx.Done()
		return nil
	}
	w := &work{m: m, looks: make(chan look, 1)}
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := w.run(running)
		if ctx.Err() != nil { // an end by request, not as by a crash
			m.unlease()
		}
		return err
	})
	group.Go(func() error { return (&purse{m: m}).run(running, w.looks) })
	group.Go(func() error { return m.measure(running) })
	return group.Wait()
}

// errCrash marks an error of the checkpoint: the work ends as if the process had.
var errCrash = errors.New("ended at a checkpoint")

// work is what a worker remembers between two rounds. None of it matters: another one begins without.
type work struct {
	m       *Manager
	looks   chan look // to the wallet's loop, one place: only the newest matters
	trouble trouble
}

// look is what a round saw of the chain.
type look struct {
	height uint32
	newest bool // the node's newest block was seen
}

func (w *work) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.m.wake:
		case <-timer.C:
		}
		err := w.once(ctx)
		w.trouble.tell(w.m, "the work of contracts", err)
		if errors.Is(err, errCrash) {
			return err
		}
		timer.Reset(w.m.limits.Poll)
	}
}

// once is one round. What fails of it is tried again in the next; its parts do not keep each other from going on.
func (w *work) once(ctx context.Context) error {
	m := w.m
	err := m.lease(ctx)
	m.working.Store(err == nil)
	if err != nil {
		return err
	}
	followed := m.follow(ctx)
	if fatal(ctx, followed) {
		return followed
	}
	height, err := tip(ctx, m.db.Pool())
	if err != nil {
		return err
	}
	w.show(look{height: height, newest: followed == nil})
	faults := []error{followed}
	for _, step := range []func() error{
		func() error { return m.advanceAll(ctx, height) },
		func() error { return m.sendAll(ctx) },
		func() error { return m.sweep(ctx) },
	} {
		err := step()
		if fatal(ctx, err) {
			return err
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// show hands the wallet's loop what was seen, in the place of what it has not taken yet.
func (w *work) show(seen look) {
	select {
	case <-w.looks:
	default:
	}
	w.looks <- seen // nobody else fills the one place
}

// fatal tells of an error whether the round is over: the work is another's, or this process ends.
func fatal(ctx context.Context, err error) bool {
	return err != nil && (errors.Is(err, errNotMine) || errors.Is(err, errCrash) || ctx.Err() != nil)
}

// purse does what needs the wallet, after each round of the work that had the lease.
type purse struct {
	m       *Manager
	read    time.Time // when the wallet was last read
	height  uint32    // at that time
	trouble trouble
}

func (p *purse) run(ctx context.Context, looks <-chan look) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case seen := <-looks:
			err := p.once(ctx, seen)
			p.trouble.tell(p.m, "what contracts need of the wallet", err)
			if errors.Is(err, errCrash) {
				return err
			}
		}
	}
}

func (p *purse) once(ctx context.Context, seen look) error {
	read := p.readWallet(ctx, seen.height)
	if fatal(ctx, read) || !seen.newest { // what the newest blocks say of the fundings to sign is not known
		return read
	}
	if err := p.m.chain.Stale(ctx); err != nil {
		return errors.Join(read, wrap(err, "sign fundings"))
	}
	return errors.Join(read, p.m.signFundings(ctx, seen.height))
}

// readWallet looks at the wallet after each block, and now and then.
func (p *purse) readWallet(ctx context.Context, height uint32) error {
	now := p.m.clock()
	if height == p.height && now.Sub(p.read).Abs() < p.m.limits.Wallet {
		return p.m.freshPayout(ctx)
	}
	if err := p.m.tellWallet(ctx, height); err != nil {
		return err
	}
	p.read, p.height = now, height
	p.m.walletRead.Store(&now)
	return nil
}

// trouble is the last that was logged of a loop.
type trouble struct{ told string }

// tell logs trouble when it begins, changes and ends.
func (t *trouble) tell(m *Manager, what string, err error) {
	said := ""
	if err != nil && !errors.Is(err, errNotMine) && !errors.Is(err, context.Canceled) {
		said = err.Error()
	}
	if said == t.told {
		return
	}
	t.told = said
	if said == "" {
		m.log.Info(what + " goes on")
		return
	}
	m.log.Warn(what+" is held up; it is tried again and again", "err", said)
}

// sweep deletes offers that are over and announcements that are valid no more.
func (m *Manager) sweep(ctx context.Context) error {
	for _, sql := range []string{
		`DELETE FROM contract_openings WHERE reserved_until < $1`,
		`DELETE FROM contract_announcements WHERE valid_until < $1`,
	} {
		if _, err := m.db.Pool().Exec(ctx, sql, m.now()); err != nil {
			return wrap(err, "sweep offers of contracts")
		}
	}
	return nil
}
