package userside

import (
	"context"
	"errors"

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
			m.Logger.Warn("the chain is looked at anew", "error", err)
			if err := m.startOver(ctx); err != nil {
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

// rescan has the chain followed again from a height on. What is known of later blocks stays, and is seen again.
func (m *Manager) rescan(ctx context.Context, from uint32) error {
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

// startOver is for a chain that has none of the blocks that are known: everything that they said is taken back, and the
// chain followed from before the first of it.
func (m *Manager) startOver(ctx context.Context) error {
	open, err := m.unfinished(ctx)
	if err != nil {
		return err
	}
	tip, err := m.Node.Tip(ctx)
	if err != nil {
		return err
	}
	from := tip.Height
	for _, r := range open {
		for _, t := range r.Transactions {
			if t.Height != nil {
				from = min(from, *t.Height)
			}
		}
	}
	err = m.Store.do(ctx, func(u *unit) error {
		for i := range open {
			for _, t := range open[i].Transactions {
				if t.Height == nil {
					continue
				}
				if err := m.unsight(ctx, u, &open[i], chain.BlockID{Height: *t.Height}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return m.rescan(ctx, from-min(from, chain.Depth))
}

// watchlist is what a block may spend that matters, by contract.
type watchlist map[wire.OutPoint][]protocol.ContractID

func (m *Manager) watchlist(ctx context.Context) (watchlist, error) {
	records, err := m.unfinished(ctx)
	if err != nil {
		return nil, err
	}
	w := watchlist{}
	for i := range records {
		r := &records[i]
		for _, at := range m.outpoints(r) {
			w[at] = append(w[at], r.ID)
		}
	}
	return w, nil
}

// outpoints are the inputs of a contract's funding, its escrow, what a settlement left, and the output of a closing that was bumped.
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
		} else if err == nil && t.Kind == TxBump {
			all = appendInputs(all, tx)
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
