package relayside

import (
	"context"
	"errors"
	"time"
)

// Run does the work that nobody asks for until ctx is done: it follows the chain, moves contracts on, signs fundings, sends
// and bids, and sweeps. Several processes may run it; one works at a time, and another takes over when it falls silent.
// A Bitcoin node or database that is away is waited for. Without a wallet it only waits for the end.
func (m *Manager) Run(ctx context.Context) error {
	if m.cfg.Wallet == nil {
		<-ctx.Done()
		return nil
	}
	w := &work{m: m}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			m.unlease()
			return nil
		case <-m.wake:
		case <-timer.C:
		}
		err := w.once(ctx)
		w.tell(err)
		if errors.Is(err, errCrash) {
			return err
		}
		timer.Reset(m.limits.Poll)
	}
}

// errCrash marks an error of the checkpoint: the work ends as if the process had.
var errCrash = errors.New("ended at a checkpoint")

// work is what a worker remembers between two rounds. None of it matters: another one begins without.
type work struct {
	m        *Manager
	walleted time.Time // when the wallet was last read
	height   uint32    // at the last round
	told     string    // the last trouble that was logged
}

// once is one round. What fails of it is tried again in the next; what needs the chain and what needs the wallet do not
// keep each other from going on.
func (w *work) once(ctx context.Context) error {
	m := w.m
	if err := m.lease(ctx); err != nil {
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
	read := w.readWallet(ctx, height)
	faults := []error{followed, read}
	for _, step := range []func() error{
		func() error { return m.advanceAll(ctx, height) },
		func() error {
			if followed != nil {
				return nil // what the newest blocks say of these fundings is not known
			}
			if err := m.chain.Stale(ctx); err != nil {
				return wrap(err, "sign fundings")
			}
			return m.signFundings(ctx, height)
		},
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

// fatal tells of an error whether the round is over: the work is another's, or this process ends.
func fatal(ctx context.Context, err error) bool {
	return err != nil && (errors.Is(err, errNotMine) || errors.Is(err, errCrash) || ctx.Err() != nil)
}

// readWallet looks at the wallet after each block, and now and then.
func (w *work) readWallet(ctx context.Context, height uint32) error {
	if now := w.m.clock(); height == w.height && now.Sub(w.walleted).Abs() < w.m.limits.Wallet {
		return w.m.freshPayout(ctx)
	} else if err := w.m.tellWallet(ctx, height); err != nil {
		return err
	} else {
		w.walleted, w.height = now, height
		return nil
	}
}

// tell logs trouble when it begins, changes and ends.
func (w *work) tell(err error) {
	said := ""
	if err != nil && !errors.Is(err, errNotMine) && !errors.Is(err, context.Canceled) {
		said = err.Error()
	}
	if said == w.told {
		return
	}
	w.told = said
	if said == "" {
		w.m.log.Info("the work of contracts goes on")
		return
	}
	w.m.log.Warn("the work of contracts is held up; it is tried again and again", "err", said)
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
