package relayside

import (
	"context"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

// figures are what an operator watches, at an instant.
type figures struct {
	at        time.Time
	height    uint32 // that contracts know
	states    map[escrow.State]int
	halfOpen  int
	paid      btcutil.Amount // A of the contracts that are not over and whose end is in no block
	unpaid    btcutil.Amount // used under them and not paid
	bonds     btcutil.Amount
	unsettled int
	toSettle  *int64 // blocks to the nearest T − M of a contract that is not to be settled yet; nil: there is none
	toExpiry  *int64 // blocks to the nearest T of one that is to be settled and is not; nil: there is none
	free      purseful
	reserved  purseful
	node      *chain.Tip // nil: it does not answer
}

// purseful is a number of coins.
type purseful struct {
	coins int
	sat   btcutil.Amount
}

// measure keeps the figures up to date while this process does the work.
func (m *Manager) measure(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var trouble trouble
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		var f *figures
		var err error
		if m.working.Load() {
			f, err = m.figures(ctx)
		}
		if err == nil { // else the last ones stay, and say how old they are
			m.measured.Store(f)
		}
		trouble.tell(m, "the measuring of contracts", err)
		wait := m.limits.Measure
		if f == nil { // the work may begin any moment
			wait = min(wait, m.limits.Poll)
		}
		timer.Reset(wait)
	}
}

func (m *Manager) figures(ctx context.Context) (*figures, error) {
	f := &figures{at: m.clock(), states: make(map[escrow.State]int)}
	if node, err := m.chain.Tip(ctx); err == nil {
		f.node = &node
	}
	err := m.db.Snapshot(ctx, func(tx pgx.Tx) (err error) {
		if f.height, err = tip(ctx, tx); err != nil {
			return err
		}
		// What is in a block is spent, even if the wallet has not been asked since.
		err = tx.QueryRow(ctx, `SELECT (SELECT count(*) FROM contract_openings),
			count(*) FILTER (WHERE k.contract IS NULL), coalesce(sum(k.value) FILTER (WHERE k.contract IS NULL), 0),
			count(*) FILTER (WHERE k.contract IS NOT NULL), coalesce(sum(k.value) FILTER (WHERE k.contract IS NOT NULL), 0)
			FROM contract_coins k WHERE NOT EXISTS (SELECT 1 FROM contract_spends s WHERE s.outpoint = k.outpoint)`).
			Scan(&f.halfOpen, &f.free.coins, (*int64)(&f.free.sat), &f.reserved.coins, (*int64)(&f.reserved.sat))
		if err != nil {
			return err
		}
		return m.addContracts(ctx, tx, f)
	})
	return f, wrap(err, "measure contracts")
}

// addContracts adds up the contracts that are not over: with three queries, however many they are.
func (m *Manager) addContracts(ctx context.Context, tx pgx.Tx, f *figures) error {
	rows, err := tx.Query(ctx, `SELECT s.contract FROM contract_spends s JOIN contract_watches w ON w.outpoint = s.outpoint AND w.contract = s.contract
		JOIN contracts c ON c.id = s.contract WHERE w.escrow AND c.look_at IS NOT NULL`)
	if err != nil {
		return err
	}
	ended := make(map[escrow.ID]bool)
	var raw []byte
	if _, err := pgx.ForEachRow(rows, []any{&raw}, func() error { ended[escrow.ID(raw)] = true; return nil }); err != nil {
		return err
	}
	costs, err := m.books.Costs(ctx, tx)
	if err != nil {
		return err
	}
	rows, err = tx.Query(ctx, `SELECT `+recordColumns+` FROM contracts WHERE look_at IS NOT NULL`)
	if err != nil {
		return err
	}
	live, err := pgx.CollectRows(rows, scanRecord)
	if err != nil {
		return err
	}
	for _, r := range live {
		f.states[r.state]++
		if !ended[r.terms.ID] && r.state != escrow.Abandoned {
			f.add(r, costs[r.terms.ID])
		}
	}
	return nil
}

// add adds a contract whose escrow no block spends.
func (f *figures) add(r *record, cost protocol.Msat) {
	f.paid += r.held.Amount
	f.bonds += r.terms.Bond
	used := max(cost+r.carried, 0)
	if r.finalOwed != nil {
		used = *r.finalOwed
	}
	f.unpaid += max(r.terms.OpeningPrice+ledger.Sat(max(used, 0))-r.held.Amount, 0)
	if r.state == escrow.Settling || r.settle || r.terms.SettlementDue(f.height) {
		f.unsettled++
		nearer(&f.toExpiry, int64(r.terms.Expiry)-int64(f.height))
		return
	}
	nearer(&f.toSettle, int64(r.terms.LastUsage())-int64(f.height))
}

func nearer(to **int64, blocks int64) {
	if *to == nil || blocks < **to {
		*to = &blocks
	}
}
