package relayside

import (
	"context"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// A funding that the relay put a coin into binds that coin until it is in a block, and one that comes after T − M comes with a bond
// that the user may take at T. So the relay asks for a feerate that gets it into a block, and when that does not come it
// spends its coin itself. The transactions that do so are signed and stored together with the funding.
const (
	cancelAfter = 144 // blocks that a funding with a coin of the relay's may take; [escrow.MinLifetime] leaves 432
	cancelStep  = 36  // blocks until the next of the cancellations is sent
	cancelSteps = 4   // each pays twice what the one before paid
)

// leastFeerate is below what the relay signs nothing that waits for a block: half of what the node estimates. The user's node may
// estimate less than this one, and a block within hours will do.
func (m *Manager) leastFeerate(ctx context.Context) (escrow.Feerate, error) {
	rate, err := m.chain.Feerate(ctx, m.limits.BidBlocks)
	return (rate / 2).Clamp(), err
}

// payable refuses a feerate that is too low for a funding that needs a coin of the relay's.
func (m *Manager) payable(ctx context.Context, f *escrow.Funding) error {
	missing, err := f.Missing(escrow.Relay)
	if err != nil || missing <= 0 {
		return err
	}
	least, err := m.leastFeerate(ctx)
	if err != nil {
		m.seldom.Do(func() { m.log.Warn("no new contract: the node tells no feerate", "err", err) })
		return protocol.Errorf(protocol.CodeChainStale, "the Bitcoin node did not tell a feerate: try again later")
	}
	if f.Feerate < least {
		return protocol.Errorf(protocol.CodeFeerate, "the relay puts a coin into this funding, and %d satoshi per 1000 vB may keep it out of blocks: take %d at least", f.Feerate, least)
	}
	return nil
}

// cancellations are the transactions that spend the relay's coins of a funding back to it, the cheapest first; the wallet
// has signed them. The first pays more than the funding does, so nodes take it in the funding's place (BIP125).
func (m *Manager) cancellations(ctx context.Context, id escrow.ID, f *escrow.Funding, script protocol.Script) ([]*escrow.Tx, error) {
	whole, err := f.Tx()
	if err != nil {
		return nil, err
	}
	fee := whole.Fee()
	var all []*escrow.Tx
	for range cancelSteps {
		fee += max(fee, f.Feerate.Fee(f.Weight()))
		t := &escrow.Tx{MsgTx: wire.NewMsgTx(2)}
		left := -fee
		for _, coin := range f.Relay.Coins {
			t.AddTxIn(&wire.TxIn{PreviousOutPoint: coin.OutPoint, Sequence: wire.MaxTxInSequenceNum - 2})
			t.Prev = append(t.Prev, coin.Output())
			left += coin.Value
		}
		if left < minCancelled {
			break // the coins cannot pay more
		}
		t.AddTxOut(wire.NewTxOut(int64(left), script))
		if err := m.signCancellation(ctx, id, t); err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// minCancelled is what a cancellation leaves the relay at least: no dust.
const minCancelled btcutil.Amount = 330

func (m *Manager) signCancellation(ctx context.Context, id escrow.ID, t *escrow.Tx) error {
	packet, err := psbt.NewFromUnsignedTx(t.MsgTx)
	if err != nil {
		return err
	}
	for i := range packet.Inputs {
		packet.Inputs[i].WitnessUtxo = t.Prev[i]
	}
	if err := m.cfg.Wallet.SignFunding(ctx, id.String(), packet); err != nil {
		return err
	}
	t.MsgTx, err = psbt.Extract(packet)
	if err != nil {
		return err
	}
	return t.Verify()
}

// cancels is the cancellation that is to be sent now in the place of the funding; nil if none is. Once something was used
// under the contract its funding was in a block: then it is waited for.
func (a *advancing) cancels() (*chainhash.Hash, error) {
	r, f := a.r, &a.f
	if r.state != escrow.FundingSent || f.fundingHeight != nil {
		return nil, nil
	}
	rows, err := a.tx.Query(a.ctx, `SELECT txid, bid_at FROM contract_transactions WHERE contract = $1 AND kind = $2 ORDER BY fee`, r.terms.ID[:], protocol.TxCancel)
	if err != nil {
		return nil, err
	}
	type step struct {
		TxID   []byte
		Signed int32 // height
	}
	steps, err := pgx.CollectRows(rows, pgx.RowToStructByPos[step])
	if err != nil || len(steps) == 0 {
		return nil, err
	}
	late := int64(f.tip) - int64(steps[0].Signed) - cancelAfter
	if late < 0 {
		return nil, nil
	}
	if used, err := a.m.usage(a.ctx, a.tx, r); used > 0 || err != nil {
		return nil, err
	}
	id := chainhash.Hash(steps[min(late/cancelStep, int64(len(steps))-1)].TxID)
	return &id, nil
}
