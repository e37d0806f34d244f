package relayside

import (
	"context"
	"errors"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/escrow/wallet"
	"relaymarket/protocol"
)

// sendBatch is how many transactions are sent in one round: more wait for the next, so that a crowd of them keeps no block, and
// no settlement, waiting for long.
const sendBatch = 200

type outgoing struct {
	TxID     []byte
	Contract []byte
	Tx       []byte
	Kind     string
}

// sendAll sends what is wanted and in no block: what was never tried, and again what was tried a while ago, for nodes forget
// their mempools; settlements first, for they have a date. A transaction that the node refuses is tried again as well, the
// reason beside it: what it depends on may come back with the next reorganization. Only a node that cannot be asked ends the
// round.
func (m *Manager) sendAll(ctx context.Context) error {
	return m.send(ctx, m.lease, `sent < $1`, m.now().Add(-m.limits.Resend))
}

// sendStored sends what was just stored of one contract. That the node does not take it is no error: the work goes on
// sending.
func (m *Manager) sendStored(ctx context.Context, id escrow.ID) error {
	err := m.send(ctx, nil, `sent = 0 AND contract = $1`, id[:])
	if errors.Is(err, errCrash) {
		return err
	}
	if err != nil {
		m.log.Warn("a transaction is not sent yet", "contract", id.Short(), "err", err)
	}
	return nil
}

// send sends a batch. lease, if it is the work that sends, keeps the work this process's meanwhile.
func (m *Manager) send(ctx context.Context, lease func(context.Context) error, which string, arg any) error {
	rows, err := m.db.Pool().Query(ctx, `SELECT txid, contract, tx, kind FROM contract_transactions
		WHERE wanted AND height IS NULL AND `+which+` ORDER BY kind <> $3, sent, made LIMIT $2`, arg, sendBatch, protocol.TxSettlement)
	if err != nil {
		return wrap(err, "read what is to be sent")
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[outgoing])
	if err != nil {
		return wrap(err, "read what is to be sent")
	}
	leased := m.clock()
	for _, o := range all {
		// A slow node must not let the lease run out.
		if now := m.clock(); lease != nil && now.Sub(leased).Abs() > m.limits.Lease/4 {
			if err := lease(ctx); err != nil {
				return err
			}
			leased = now
		}
		if err := m.sendOne(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) sendOne(ctx context.Context, o outgoing) error {
	t, err := readTx(o.Tx)
	if err != nil {
		return wrap(err, "read transaction %v", chainhash.Hash(o.TxID))
	}
	refusal := m.chain.Broadcast(ctx, t)
	told := ""
	if refusal != nil {
		if errors.Is(refusal, chain.ErrUnreachable) || ctx.Err() != nil {
			return refusal
		}
		told = refusal.Error()
	}
	if err := m.reached("sent"); err != nil {
		return err
	}
	before, err := m.noteSent(ctx, o.TxID, told)
	if err != nil {
		return wrap(err, "note that a transaction was sent")
	}
	switch {
	case refusal == nil && (before.Sent == 0 || before.Told != ""):
		m.metrics.transaction(o.Kind, eventSent)
	case refusal != nil && told != before.Told:
		m.metrics.transaction(o.Kind, eventRefused)
		m.log.Warn("the Bitcoin node does not take a transaction", "contract", escrow.ID(o.Contract).Short(), "txid", t.TxHash(), "err", refusal)
	}
	return nil
}

// noted is how a transaction had fared before.
type noted struct {
	Sent protocol.Timestamp // 0: never
	Told string
}

// noteSent notes that a transaction was sent, and answers what was noted before: a handler and the work may send the same one at a
// time, and it is news for one of them.
func (m *Manager) noteSent(ctx context.Context, txid []byte, told string) (before noted, err error) {
	err = m.db.Pool().QueryRow(ctx, `UPDATE contract_transactions t SET sent = $2, told = $3
		FROM (SELECT txid, sent, told FROM contract_transactions WHERE txid = $1 FOR UPDATE) b WHERE t.txid = b.txid
		RETURNING b.sent, b.told`, txid, max(m.now(), 1), told).Scan(&before.Sent, &before.Told)
	return before, err
}

// signFundings has the wallet sign the fundings that spend its coins. State 0 is on disk since the contract is.
func (m *Manager) signFundings(ctx context.Context, height uint32) error {
	rows, err := m.db.Pool().Query(ctx, `SELECT c.id, c.request, c.psbt FROM contracts c
		WHERE c.look_at IS NOT NULL AND c.state = $1 AND NOT EXISTS (SELECT 1 FROM contract_transactions t WHERE t.txid = c.funding)`, string(escrow.FundingSent))
	if err != nil {
		return wrap(err, "look for fundings to sign")
	}
	type unsigned struct {
		ID, Request []byte
		PSBT        string
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[unsigned])
	if err != nil {
		return wrap(err, "look for fundings to sign")
	}
	var faults []error
	for _, u := range all {
		id := escrow.ID(u.ID)
		err := m.signFunding(ctx, id, height, u.Request, protocol.PSBT(u.PSBT))
		switch {
		case fatal(ctx, err):
			return err
		case errors.Is(err, wallet.ErrSpent), errors.Is(err, wallet.ErrNotLeased), errors.Is(err, protocol.CodeContractExpiry):
			m.log.Warn("a contract is given up before its funding was signed", "contract", id.Short(), "err", err)
			err = m.giveUp(ctx, id)
		}
		faults = append(faults, wrap(err, "sign the funding of contract %s", id.Short()))
	}
	return errors.Join(faults...)
}

// giveUp ends a contract whose funding the relay has not signed and never will: without that the funding cannot happen, as if
// an input were spent.
func (m *Manager) giveUp(ctx context.Context, id escrow.ID) error {
	return m.workTx(ctx, func(tx pgx.Tx) error {
		r, err := lock(ctx, tx, id)
		if err != nil || r.state != escrow.FundingSent {
			return err // it came to its end meanwhile
		}
		f, err := readFacts(ctx, tx, r)
		if err != nil {
			return err
		}
		if err := m.move(ctx, tx, r, escrow.InputSpent); err != nil {
			return err
		}
		a := &advancing{m: m, ctx: ctx, tx: tx, r: r, f: f}
		return a.abandon()
	})
}

func (m *Manager) signFunding(ctx context.Context, id escrow.ID, height uint32, request []byte, signed protocol.PSBT) error {
	r, err := read(ctx, m.db.Pool(), id)
	if err != nil {
		return err
	}
	// The work may have been away for long since the user signed.
	if err := escrow.CheckExpiry(r.terms.Expiry, height); err != nil {
		return err
	}
	o := &opening{terms: r.terms, psbt: signed, renewsPaid: r.renewsPaid}
	if err := m.rebuild(ctx, m.db.Pool(), o, request); err != nil {
		return err
	}
	packet, err := escrow.DecodePSBT(signed)
	if err != nil {
		return err
	}
	key := id.String()
	coins := make([]wire.OutPoint, 0, len(o.funding.Relay.Coins))
	for _, coin := range o.funding.Relay.Coins {
		coins = append(coins, coin.OutPoint)
	}
	if err := m.cfg.Wallet.Keep(ctx, key, coins, keptFor); err != nil {
		return err
	}
	if err := m.reached("kept"); err != nil {
		return err
	}
	if err := m.cfg.Wallet.SignFunding(ctx, key, packet); err != nil {
		return err
	}
	cancellations, err := m.cancellations(ctx, id, o.funding, r.terms.RelayScript)
	if err != nil {
		return err
	}
	err = m.workTx(ctx, func(tx pgx.Tx) error {
		// While the wallet signed, a block may have ended it: then the signatures are not let out.
		if now, err := lock(ctx, tx, id); err != nil || now.state != escrow.FundingSent {
			return err
		}
		for _, t := range cancellations {
			if err := m.store(ctx, tx, id, transaction{kind: protocol.TxCancel, tx: t, bidAt: height, later: true}); err != nil {
				return err
			}
		}
		return m.finishFunding(ctx, tx, r, o.funding, packet)
	})
	if err != nil {
		return err
	}
	m.nudge() // to send it
	return m.reached("funded")
}

// renewalKey is the relay's key of the contract that a funding renews; nil if it renews none.
func (m *Manager) renewalKey(f *escrow.Funding) (*btcec.PrivateKey, error) {
	if f.Renewal == nil {
		return nil, nil
	}
	return m.cfg.Key(f.Renewal.Contract.ID)
}
