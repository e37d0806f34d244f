package relayside

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// Summary is a contract as its operator sees it.
type Summary struct {
	Payer  protocol.PublicKey       `json:"payer"`
	Opened protocol.Timestamp       `json:"opened"`
	Status *protocol.ContractStatus `json:"status"` // what its payer is told, too
	Settle bool                     `json:"settle"` // a settlement is wanted, whatever the height
	Net    btcutil.Amount           `json:"net"`    // what the relay has from it on the chain: its outputs less its bond; 0 until then
}

// Contracts is every contract that was signed, newest first, live ones only or all of them.
func (m *Manager) Contracts(ctx context.Context, all bool) (list []Summary, err error) {
	err = m.db.Snapshot(ctx, func(tx pgx.Tx) error {
		list = []Summary{}
		rows, err := tx.Query(ctx, `SELECT `+recordColumns+` FROM contracts WHERE $1 OR look_at IS NOT NULL ORDER BY opened DESC`, all)
		if err != nil {
			return err
		}
		records, err := pgx.CollectRows(rows, scanRecord)
		if err != nil {
			return err
		}
		for _, r := range records {
			s, err := m.summary(ctx, tx, r)
			if err != nil {
				return err
			}
			list = append(list, s)
		}
		return nil
	})
	return list, wrap(err, "list contracts")
}

func (m *Manager) summary(ctx context.Context, q querier, r *record) (Summary, error) {
	status, err := m.statusOf(ctx, q, r)
	if err != nil {
		return Summary{}, err
	}
	net, err := net(ctx, q, r)
	return Summary{Payer: r.terms.User, Opened: r.opened, Status: status, Settle: r.settle, Net: net}, err
}

// net is what a contract brought: what the transaction that ended it pays to the relay, less the bond. Fees are paid
// from it. A renewal's funding pays in its one relay output also what is the successor's bond.
func net(ctx context.Context, q querier, r *record) (btcutil.Amount, error) {
	var raw []byte
	err := q.QueryRow(ctx, `SELECT tx FROM contract_spends WHERE outpoint = $1 AND contract = $2`, outpointKey(r.outpoint()), r.terms.ID[:]).Scan(&raw)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	t, err := readTx(raw)
	if err != nil {
		return 0, err
	}
	if r.renewedBy != nil {
		next, err := read(ctx, q, *r.renewedBy)
		if err != nil {
			return 0, err
		}
		if next.funding == t.TxHash() {
			return *next.renewsPaid, nil // with the bond given back or taken over
		}
	}
	got := -r.terms.Bond
	for _, out := range t.TxOut {
		if bytes.Equal(out.PkScript, r.terms.RelayScript) {
			got += btcutil.Amount(out.Value)
		}
	}
	return got, nil
}

// Attempt is a transaction of the relay's making, and how it fares.
type Attempt struct {
	Kind    string             `json:"kind"`
	TxID    protocol.TxID      `json:"txid"`
	Fee     btcutil.Amount     `json:"fee"`
	Feerate escrow.Feerate     `json:"feerate"`          // sat per 1000 vB
	Made    protocol.Timestamp `json:"made"`             //
	Sent    protocol.Timestamp `json:"sent"`             // last; 0: never
	Told    string             `json:"told,omitempty"`   // why the node did not take it
	Height  *uint32            `json:"height,omitempty"` // of its block
	Wanted  bool               `json:"wanted"`           // it is sent until it is in a block
}

// Details is everything about one contract.
type Details struct {
	Summary
	Contract   escrow.Contract `json:"contract"`
	Descriptor string          `json:"descriptor"`
	Attempts   []Attempt       `json:"transactions"`
}

// Show is everything about one contract. The error has code [protocol.CodeNotFound].
func (m *Manager) Show(ctx context.Context, id escrow.ID) (d *Details, err error) {
	err = m.db.Snapshot(ctx, func(tx pgx.Tx) error {
		r, err := m.known(ctx, tx, id)
		if err != nil {
			return err
		}
		d = &Details{Contract: r.terms, Descriptor: r.terms.Descriptor()}
		if d.Summary, err = m.summary(ctx, tx, r); err != nil {
			return err
		}
		d.Attempts, err = attempts(ctx, tx, id)
		return err
	})
	return d, wrap(err, "show contract %s", id.Short())
}

func (m *Manager) known(ctx context.Context, q querier, id escrow.ID) (*record, error) {
	r, err := read(ctx, q, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, protocol.Errorf(protocol.CodeNotFound, "there is no contract %s: see the list", id)
	}
	return r, err
}

func attempts(ctx context.Context, q querier, id escrow.ID) ([]Attempt, error) {
	rows, err := q.Query(ctx, `SELECT kind, txid, fee, feerate, made, sent, told, height, wanted FROM contract_transactions WHERE contract = $1 ORDER BY made, feerate`, id[:])
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Attempt, error) {
		var a Attempt
		var txid []byte
		err := row.Scan(&a.Kind, &txid, &a.Fee, &a.Feerate, &a.Made, &a.Sent, &a.Told, &a.Height, &a.Wanted)
		if err == nil {
			a.TxID = escrow.WireTxID([32]byte(txid))
		}
		return a, err
	})
}

// Settle has the highest state held broadcast now, and the contract end. There is no way back. Repeated, it changes nothing.
// The error has code [protocol.CodeNotFound], or [protocol.CodeContractState] when there is nothing to settle.
func (m *Manager) Settle(ctx context.Context, id escrow.ID) error {
	err := m.db.Tx(ctx, func(tx pgx.Tx) error {
		r, err := lock(ctx, tx, id)
		if errors.Is(err, pgx.ErrNoRows) {
			return protocol.Errorf(protocol.CodeNotFound, "there is no contract %s: see the list", id)
		}
		if err != nil || r.settle {
			return err
		}
		f, err := readFacts(ctx, tx, r)
		if err != nil {
			return err
		}
		if f.fundingHeight == nil {
			return protocol.Errorf(protocol.CodeContractState, "the funding of contract %s is in no block: there is nothing to settle", id.Short())
		}
		if _, err := escrow.Next(r.state, escrow.SettlementStarted); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE contracts SET settle = true, look_at = 0 WHERE id = $1`, id[:])
		return err
	})
	m.nudge()
	if err != nil {
		return wrap(err, "settle contract %s", id.Short())
	}
	return m.reached("settle")
}

// RequestPayment stops a contract and signs the closing at what is due, its fee from the relay's part: the user adds his
// signature and broadcasts it, or the relay settles with what it holds when its patience ends. Repeated, it changes nothing.
// Codes are [protocol.CodeNotFound], [protocol.CodeContractState], and [protocol.CodeFeerate] when the fee is more than is due.
func (m *Manager) RequestPayment(ctx context.Context, id escrow.ID) error {
	rate, err := m.chain.Feerate(ctx, m.limits.BidBlocks)
	if err != nil {
		return wrap(err, "request payment of contract %s: a feerate is needed", id.Short())
	}
	err = m.db.Tx(ctx, func(tx pgx.Tx) error {
		r, err := lock(ctx, tx, id)
		if errors.Is(err, pgx.ErrNoRows) {
			return protocol.Errorf(protocol.CodeNotFound, "there is no contract %s: see the list", id)
		}
		if err != nil || r.state == escrow.PaymentRequested {
			return err
		}
		f, err := readFacts(ctx, tx, r)
		if err != nil {
			return err
		}
		if err := m.move(ctx, tx, r, escrow.RequestPayment); err != nil {
			return err
		}
		if err := m.stop(ctx, tx, r); err != nil {
			return err
		}
		due, err := m.amountOwed(ctx, tx, r)
		if err != nil {
			return err
		}
		closing, err := escrow.NewClosing(&r.terms, due, escrow.Relay, rate)
		if err != nil {
			return err
		}
		return m.releaseClosing(ctx, tx, r, closing, nil, f.tip)
	})
	m.nudge()
	if err != nil {
		return wrap(err, "request payment of contract %s", id.Short())
	}
	return m.reached("requested")
}

// Export is what the relay's money of one contract hangs on: with the relay's seed it is enough to settle elsewhere.
type Export struct {
	Contract   escrow.Contract            `json:"contract"`
	Descriptor string                     `json:"descriptor"`
	Funding    protocol.TxID              `json:"funding"` // output 0 is the escrow
	FundingTx  protocol.RawTx             `json:"fundingTx,omitempty"`
	Seq        int64                      `json:"seq"`
	Amount     btcutil.Amount             `json:"amount"`
	Signature  protocol.ContractSignature `json:"signature"` // the user's, of that state
	Settlement protocol.RawTx             `json:"settlement,omitempty"`
	Request    json.RawMessage            `json:"request"` // the payer's signed opening, with the consent of the writers
}

// Export is one contract as a document. The error has code [protocol.CodeNotFound].
func (m *Manager) Export(ctx context.Context, id escrow.ID) (e *Export, err error) {
	err = m.db.Snapshot(ctx, func(tx pgx.Tx) error {
		r, err := m.known(ctx, tx, id)
		if err != nil {
			return err
		}
		e = &Export{Contract: r.terms, Descriptor: r.terms.Descriptor(), Funding: escrow.WireTxID(r.funding),
			Seq: r.held.Seq, Amount: r.held.Amount, Signature: r.held.Signature}
		var request []byte
		err = tx.QueryRow(ctx, `SELECT request,
			(SELECT tx FROM contract_transactions WHERE txid = c.funding),
			(SELECT tx FROM contract_transactions t WHERE t.contract = c.id AND kind = $2 ORDER BY feerate DESC LIMIT 1)
			FROM contracts c WHERE id = $1`, id[:], protocol.TxSettlement).Scan(&request, (*[]byte)(&e.FundingTx), (*[]byte)(&e.Settlement))
		e.Request = request
		return err
	})
	return e, wrap(err, "export contract %s", id.Short())
}

// Revenue is what contracts brought and may bring, in satoshi.
type Revenue struct {
	Contracts int            `json:"contracts"` // that were signed
	Live      int            `json:"live"`      // of these, not ended on the chain
	Settled   btcutil.Amount `json:"settled"`   // in blocks: what the relay has, fees paid
	Held      btcutil.Amount `json:"held"`      // A of the live ones
	Unpaid    btcutil.Amount `json:"unpaid"`    // used under them and not paid
	Bonds     btcutil.Amount `json:"bonds"`     // locked in them
}

// Revenue adds up all contracts.
func (m *Manager) Revenue(ctx context.Context) (Revenue, error) {
	all, err := m.Contracts(ctx, true)
	if err != nil {
		return Revenue{}, err
	}
	var sum Revenue
	for _, c := range all {
		sum.Contracts++
		switch c.Status.State {
		case escrow.Closed, escrow.Archived, escrow.Abandoned:
			sum.Settled += c.Net
		default:
			sum.Live++
			sum.Held += c.Status.Amount
			sum.Unpaid += max(c.Status.Owed-c.Status.Amount, 0)
			sum.Bonds += c.Status.Bond
		}
	}
	return sum, nil
}
