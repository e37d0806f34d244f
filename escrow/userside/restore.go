package userside

import (
	"context"
	"errors"
	"fmt"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/protocol"
)

// ErrSeed: a backup document is of another seed.
var ErrSeed = errors.New("the backup is of another seed: these words do not make its key")

// Restored is what became of one backup document.
type Restored struct {
	ID    protocol.ContractID
	Fresh bool  // it was not here yet
	Err   error // why it is not here now
}

// Restore takes backup documents in: from a file, from another relay, newest last or not. A contract that is here
// already is left alone. What became of each is answered; what the chain says of them, the next Step tells, which also refunds
// those whose T has come. address finds the relay's address by its key, empty for unknown: a refund at T needs no relay.
func (m *Manager) Restore(ctx context.Context, documents [][]byte, address func(protocol.PublicKey) string) ([]Restored, error) {
	var all []Restored
	for _, document := range documents {
		one, err := m.restore(ctx, document, address)
		if err != nil {
			return all, err
		}
		all = append(all, one)
	}
	if len(all) == 0 {
		return nil, nil
	}
	_, err := m.Store.ExportBackup(ctx, m.BackupFile)
	return all, err
}

// restore takes one document in. The error is this side's; what is wrong with the document is in the answer.
func (m *Manager) restore(ctx context.Context, document []byte, address func(protocol.PublicKey) string) (Restored, error) {
	b, err := escrow.ParseBackup(document)
	if err != nil {
		return Restored{Err: err}, nil
	}
	one := Restored{ID: b.Contract.ID}
	if one.Err = m.ours(b); one.Err != nil {
		return one, nil
	}
	if _, err := m.Store.Contract(ctx, one.ID); err == nil || !errors.Is(err, ErrNoContract) {
		return one, err
	}
	from, err := m.locate(ctx, b)
	var code protocol.Code
	if errors.As(err, &code) {
		one.Err = err
		return one, nil
	}
	if err != nil {
		return one, err
	}
	if document, err = b.Encode(); err != nil {
		return one, err
	}
	r := &Record{ID: one.ID, Network: b.Contract.Network, Relay: b.Contract.Relay, Address: address(b.Contract.Relay),
		State: escrow.FundingSent, Step: StepRestored, Document: document,
		Cushion: usualCushion(b.Contract.CreditLimit, b.Contract.OpeningPrice, b.Contract.Deposit)}
	err = m.Store.do(ctx, func(u *unit) error {
		if one.Fresh, err = u.insert(ctx, r); err != nil || !one.Fresh {
			return err
		}
		return u.note(ctx, r, "Restored from a backup: %d sat are locked until block %d at the latest.", int64(b.Contract.Deposit), b.Contract.Expiry)
	})
	if err != nil {
		return one, err
	}
	return one, m.lookFrom(ctx, from)
}

// ours checks that a document is of this user, this network and this seed.
func (m *Manager) ours(b *escrow.Backup) error {
	c := &b.Contract
	if c.User != m.Store.Owner() {
		return fmt.Errorf("%w, %s", ErrOwner, c.User.Bech32())
	}
	if c.Network != m.Network {
		return protocol.Errorf(protocol.CodeNetwork, "the contract is on %s, the node on %s", c.Network, m.Network)
	}
	key, err := m.Keys.ContractKey(c.Network, c.ID)
	if err != nil {
		return err
	}
	defer key.Zero()
	if escrow.KeyOf(key) != c.UserKey {
		return ErrSeed
	}
	return nil
}

// locate asks the chain for the funding, and answers the height of the block before the one that it is in; that of the
// tip if it is in none.
func (m *Manager) locate(ctx context.Context, b *escrow.Backup) (uint32, error) {
	tip, err := m.Node.Tip(ctx)
	if err != nil {
		return 0, err
	}
	found, err := m.Node.Transaction(ctx, b.Funding.Hash)
	if errors.Is(err, chain.ErrNotFound) {
		return tip.Height, nil
	}
	if err != nil {
		return 0, err
	}
	if err := escrow.CheckFundingTx(&b.Contract, b.Funding, found.Msg); err != nil {
		return 0, err
	}
	b.Tx = found.Msg
	return tip.Height - min(tip.Height, uint32(found.Confirmations)), nil
}

// lookFrom has the chain followed from a height on, unless it is from an earlier one already.
func (m *Manager) lookFrom(ctx context.Context, height uint32) error {
	known, err := m.Store.recent(ctx, m.Network)
	if err != nil {
		return err
	}
	if len(known) > 0 && known[len(known)-1].Height <= height {
		return nil
	}
	return m.rescan(ctx, height)
}
