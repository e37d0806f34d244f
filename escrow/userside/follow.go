package userside

import (
	"context"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/protocol"
)

// batch is how many blocks that concern nobody are noted in one transaction.
const batch = 100

// ending are the kinds of transactions that spend an escrow.
var ending = []string{protocol.TxSettlement, protocol.TxClosing, protocol.TxRefund, protocol.TxRenewal}

// follow brings the contracts up to the node's best chain, block by block, and answers its height. Whatever a block says
// is written down together with the block.
func (m *Manager) follow(ctx context.Context) (tip uint32, err error) {
	for {
		tip, err = m.followOn(ctx)
		switch {
		case errors.Is(err, errMoved), errors.Is(err, errLookAgain):
			continue
		case errors.Is(err, chain.ErrTooDeep):
			// None of the blocks that we know is on the chain: begin before the oldest contract.
			m.Logger.Warn("the chain is looked at anew", "error", err)
			if err := m.rescan(ctx, 0); err != nil {
				return 0, err
			}
			continue
		}
		return tip, err
	}
}

// errLookAgain says that what is watched for has changed.
var errLookAgain = errors.New("look again")

func (m *Manager) followOn(ctx context.Context) (uint32, error) {
	known, err := m.Store.recent(ctx, m.Network)
	if err != nil {
		return 0, err
	}
	if len(known) == 0 {
		return m.begin(ctx)
	}
	watched, err := m.watchlist(ctx)
	if err != nil {
		return 0, err
	}
	stored := len(known) // those after it are not on disk yet
	for {
		event, err := m.Node.Next(ctx, known)
		if errors.Is(err, chain.ErrUpToDate) {
			tip := known[len(known)-1]
			return tip.Height, m.connect(ctx, known, stored, nil)
		}
		if err != nil {
			return 0, errors.Join(err, m.connect(ctx, known, stored, nil))
		}
		if event.Kind == chain.Disconnect {
			if stored < len(known) {
				return 0, errors.Join(errLookAgain, m.connect(ctx, known[:len(known)-1], stored, nil))
			}
			return 0, errors.Join(errLookAgain, m.disconnect(ctx, event.Block))
		}
		known = append(known, event.Block)
		seen := watched.look(event.Msg)
		if len(seen) > 0 || len(known)-stored >= batch {
			return 0, errors.Join(errLookAgain, m.connect(ctx, known, stored, seen))
		}
	}
}

// begin notes where the chain is now: what is opened from here on cannot have been in an earlier block.
func (m *Manager) begin(ctx context.Context) (uint32, error) {
	tip, err := m.Node.Tip(ctx)
	if err != nil {
		return 0, err
	}
	return tip.Height, m.Store.do(ctx, func(u *unit) error {
		if err := u.at(ctx, m.Network, chain.BlockID{}); err != nil {
			return err
		}
		return u.connect(ctx, m.Network, []chain.BlockID{tip.BlockID})
	})
}

// rescan has the chain followed again from a height on, or, if it is 0, from before any contract that still matters.
func (m *Manager) rescan(ctx context.Context, from uint32) error {
	records, err := m.Store.Contracts(ctx)
	if err != nil {
		return err
	}
	if from == 0 {
		tip, err := m.Node.Tip(ctx)
		if err != nil {
			return err
		}
		from = tip.Height
		for i := range records {
			if c, _, ok := records[i].Terms(); ok && !escrow.Final(records[i].State) {
				from = min(from, c.Expiry-min(c.Expiry, escrow.MaxLifetime))
			}
		}
	}
	block, err := m.Node.BlockAt(ctx, from)
	if err != nil {
		return err
	}
	return m.Store.do(ctx, func(u *unit) error {
		if err := u.exec(ctx, `DELETE FROM blocks WHERE network = ?`, m.Network); err != nil {
			return err
		}
		return u.connect(ctx, m.Network, []chain.BlockID{block})
	})
}

// watchlist is what a block may spend that matters, by contract.
type watchlist map[wire.OutPoint][]protocol.ContractID

func (m *Manager) watchlist(ctx context.Context) (watchlist, error) {
	records, err := m.Store.Contracts(ctx)
	if err != nil {
		return nil, err
	}
	w := watchlist{}
	for i := range records {
		r := &records[i]
		if r.Network != m.Network || escrow.Final(r.State) {
			continue
		}
		for _, at := range m.outpoints(r) {
			w[at] = append(w[at], r.ID)
		}
	}
	return w, nil
}

// outpoints are the inputs of a contract's funding, its escrow, and what a settlement left.
func (m *Manager) outpoints(r *Record) []wire.OutPoint {
	c, escrowAt, ok := r.Terms()
	if !ok {
		return nil
	}
	all := []wire.OutPoint{escrowAt}
	if packet, err := escrow.DecodePSBT(r.PSBT); err == nil {
		all = appendInputs(all, packet.UnsignedTx)
	} else if b, err := deal(r); err == nil && b.Tx != nil { // restored
		all = appendInputs(all, b.Tx)
	}
	for _, t := range r.Transactions {
		if tx, err := escrow.DecodeTx(t.Raw); err == nil && t.Kind == protocol.TxSettlement {
			if spend, ok := escrow.Identify(c, escrowAt, tx); ok && spend.State != nil {
				all = append(all, *spend.State)
			}
		}
	}
	return all
}

func appendInputs(all []wire.OutPoint, tx *wire.MsgTx) []wire.OutPoint {
	for _, in := range tx.TxIn {
		all = append(all, in.PreviousOutPoint)
	}
	return all
}

// sighting is a transaction in a block that concerns a contract.
type sighting struct {
	contract protocol.ContractID
	tx       *wire.MsgTx
}

// look finds what in a block concerns the contracts. A later transaction of the block may spend an earlier one.
func (w watchlist) look(block *wire.MsgBlock) (seen []sighting) {
	for _, tx := range block.Transactions {
		told := map[protocol.ContractID]bool{}
		for _, in := range tx.TxIn {
			for _, id := range w[in.PreviousOutPoint] {
				if !told[id] {
					told[id] = true
					seen = append(seen, sighting{contract: id, tx: tx})
				}
			}
		}
	}
	return seen
}

// connect writes new blocks down, and what the last of them means for contracts.
func (m *Manager) connect(ctx context.Context, known []chain.BlockID, stored int, seen []sighting) error {
	if stored == len(known) {
		return nil
	}
	tip := known[len(known)-1].Height
	return m.Store.do(ctx, func(u *unit) error {
		if err := u.at(ctx, m.Network, known[stored-1]); err != nil {
			return err
		}
		if err := u.connect(ctx, m.Network, known[stored:]); err != nil {
			return err
		}
		for _, s := range seen {
			if err := m.sight(ctx, u, s, tip); err != nil {
				return err
			}
		}
		return m.age(ctx, u, tip)
	})
}

// sight notes one transaction of a block.
func (m *Manager) sight(ctx context.Context, u *unit, s sighting, height uint32) error {
	r, err := u.contract(ctx, s.contract)
	if err != nil {
		return err
	}
	c, at, ok := r.Terms()
	if !ok {
		return nil
	}
	t := Transaction{TxID: escrow.WireTxID(s.tx.TxHash()), Raw: serialize(s.tx), Height: &height}
	if known := r.Transaction(t.TxID); known != nil {
		if known.Height != nil && *known.Height == height {
			return nil // the chain is looked at anew
		}
		t.Kind, t.Fee = known.Kind, known.Fee
	}
	spend, spends := escrow.Identify(c, at, s.tx)
	switch {
	case s.tx.TxHash() == at.Hash:
		t.Kind = protocol.TxFunding
		err = m.funded(ctx, u, r, s.tx)
	case spends:
		t.Kind = spend.Kind
		err = m.ended(ctx, u, r, s.tx, spend, &t)
	case r.Confirmed(protocol.TxSettlement) != nil:
		t.Kind = protocol.TxSweep
		err = u.note(ctx, r, "What the settlement left is yours: transaction %s.", s.tx.TxHash())
	default:
		t.Kind = protocol.TxCancel
		m.happened(r, escrow.InputSpent)
		if err := m.renewalEnded(ctx, u, c); err != nil {
			return err
		}
		err = u.note(ctx, r, "A coin of the funding was spent by %s: the contract can never be funded.", s.tx.TxHash())
	}
	if err != nil {
		return err
	}
	if err := u.track(ctx, r, t); err != nil {
		return err
	}
	return u.save(ctx, r)
}

// happened moves the state by news from the chain. News that the state has no place for is a fact all the same: it is
// logged, and the transaction is noted.
func (m *Manager) happened(r *Record, e escrow.Event) {
	if err := move(r, e); err != nil {
		m.Logger.Info("the state of a contract stays as it is", "contract", r.ID, "event", e, "error", err)
	}
}

func (m *Manager) funded(ctx context.Context, u *unit, r *Record, tx *wire.MsgTx) error {
	b, err := deal(r)
	if err != nil {
		return err
	}
	b.Tx = tx
	if r.Document, err = b.Encode(); err != nil {
		return err
	}
	if r.Step == StepSigned {
		r.Step = StepTaken // it cannot be in a block without the relay
	}
	r.Fault = ""
	m.happened(r, escrow.FundingConfirmed)
	return u.note(ctx, r, "The funding is in a block: the contract pays for what you write.")
}

// ended notes what spent the escrow.
func (m *Manager) ended(ctx context.Context, u *unit, r *Record, tx *wire.MsgTx, spend escrow.Spend, t *Transaction) error {
	m.happened(r, escrow.SpendSeen)
	switch {
	case spend.Kind == protocol.TxSettlement:
		text := fmt.Sprintf("The relay settled the contract: it took %d sat, %d sat are left for you.", int64(spend.Amount), int64(spend.Left))
		if last, ok := r.Last(); ok && spend.Amount > last.Amount {
			text += fmt.Sprintf(" The highest that was signed on this device is %d sat.", int64(last.Amount))
		}
		return u.note(ctx, r, "%s", text)
	case spend.Kind == protocol.TxRefund:
		return u.note(ctx, r, "Refunded: the whole escrow is yours, by transaction %s.", tx.TxHash())
	}
	if r.Renewed != nil {
		next, err := u.contract(ctx, *r.Renewed)
		if err != nil {
			return err
		}
		if _, at, ok := next.Terms(); ok && at.Hash == tx.TxHash() {
			t.Kind = protocol.TxRenewal
			return u.note(ctx, r, "Renewed: contract %s goes on.", next.ID.Short())
		}
	}
	return u.note(ctx, r, "Closed by transaction %s.", tx.TxHash())
}

// renewalEnded tells the old contract that its successor can never be funded.
func (m *Manager) renewalEnded(ctx context.Context, u *unit, successor *escrow.Contract) error {
	if successor.Renews == nil {
		return nil
	}
	old, err := u.contract(ctx, *successor.Renews)
	if errors.Is(err, ErrNoContract) {
		return nil
	}
	if err != nil {
		return err
	}
	m.happened(old, escrow.RenewalEnded)
	old.Renewed = nil
	return u.save(ctx, old)
}

// age closes and archives what is deep enough.
func (m *Manager) age(ctx context.Context, u *unit, tip uint32) error {
	records, err := load(ctx, u, `WHERE network = ? AND state <> ?`, m.Network, protocol.StateArchived)
	if err != nil {
		return err
	}
	for i := range records {
		r := &records[i]
		before := r.State
		if r.State == escrow.Settling && r.depth(tip, ending...) >= escrow.ClosedDepth {
			m.happened(r, escrow.SpendClosed)
			if err := u.note(ctx, r, "The contract is closed: what ended it has %d confirmations.", escrow.ClosedDepth); err != nil {
				return err
			}
		}
		if r.archivable(tip) {
			m.happened(r, escrow.SpendArchived)
		}
		if r.State == before {
			continue
		}
		if err := u.save(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// archivable tells whether nothing of a contract can change any more: what ended it is deep, and what a settlement
// left is with the user, as deep.
func (r *Record) archivable(tip uint32) bool {
	switch r.State {
	case escrow.Closed:
		if r.Confirmed(protocol.TxSettlement) != nil && r.depth(tip, protocol.TxSweep) < escrow.ArchiveDepth {
			return false
		}
		return r.depth(tip, ending...) >= escrow.ArchiveDepth
	case escrow.Abandoned:
		return r.depth(tip, protocol.TxCancel) >= escrow.ArchiveDepth
	}
	return false
}

// depth is how many confirmations a transaction of these kinds has, 0 if none is in a block.
func (r *Record) depth(tip uint32, kinds ...string) int64 {
	t := r.Confirmed(kinds...)
	if t == nil || *t.Height > tip {
		return 0
	}
	return int64(tip-*t.Height) + 1
}

// disconnect takes a block back, and what it said.
func (m *Manager) disconnect(ctx context.Context, b chain.BlockID) error {
	return m.Store.do(ctx, func(u *unit) error {
		if err := u.at(ctx, m.Network, b); err != nil {
			return err
		}
		if err := u.disconnect(ctx, m.Network, b); err != nil {
			return err
		}
		records, err := load(ctx, u, `WHERE network = ? AND id IN (SELECT contract FROM transactions WHERE height = ?)`, m.Network, b.Height)
		if err != nil {
			return err
		}
		for i := range records {
			if err := m.unsight(ctx, u, &records[i], b); err != nil {
				return err
			}
		}
		return nil
	})
}

func (m *Manager) unsight(ctx context.Context, u *unit, r *Record, b chain.BlockID) error {
	for _, t := range r.Transactions {
		if t.Height == nil || *t.Height != b.Height {
			continue
		}
		switch t.Kind {
		case protocol.TxFunding:
			m.happened(r, escrow.FundingReorged)
		case protocol.TxSettlement, protocol.TxClosing, protocol.TxRefund, protocol.TxRenewal:
			m.happened(r, escrow.SpendReorged)
		}
		t.Height = nil
		if err := u.track(ctx, r, t); err != nil {
			return err
		}
		if err := u.note(ctx, r, "Block %d was replaced: the %s %s is not in a block any more.", b.Height, t.Kind, t.TxID); err != nil {
			return err
		}
	}
	return u.save(ctx, r)
}
