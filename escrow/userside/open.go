package userside

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/protocol"
)

// Open writes a draft down. From then on the contract is brought forward by Advance, also after the program ended.
func (m *Manager) Open(ctx context.Context, d *Draft) (*Record, error) {
	records, err := m.OpenAll(ctx, []*Draft{d})
	if err != nil {
		return nil, err
	}
	return records[0], nil
}

// OpenAll writes several drafts down, all of them or none: who dies while they are opened finds every one again.
func (m *Manager) OpenAll(ctx context.Context, drafts []*Draft) ([]*Record, error) {
	// The chain is followed from before the fundings on. Where nothing was followed for long, nothing has to be caught up.
	others, err := m.unfinished(ctx)
	if err != nil {
		return nil, err
	}
	if len(others) == 0 && len(drafts) > 0 {
		if err := m.rescan(ctx, drafts[0].Quote.Tip); err != nil {
			return nil, err
		}
	}
	err = m.Store.do(ctx, func(u *unit) error {
		for _, d := range drafts {
			if err := u.open(ctx, d); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	records := make([]*Record, len(drafts))
	for i, d := range drafts {
		if records[i], err = m.Store.Contract(ctx, d.Record.ID); err != nil {
			return nil, err
		}
	}
	return records, nil
}

func (u *unit) open(ctx context.Context, d *Draft) error {
	fresh, err := u.insert(ctx, d.Record)
	if err != nil {
		return err
	}
	if !fresh {
		return fmt.Errorf("contract %s is there already", d.Record.ID.Short())
	}
	return u.note(ctx, d.Record, "Asked %s for a contract of %d sat until block %d.", d.Record.Address, int64(d.Request.Deposit), d.Request.Expiry)
}

// Opening tells whether Advance has something left to do. A contract that was given up is not opened any more.
func (r *Record) Opening() bool {
	if r.has(protocol.TxCancel) {
		return false
	}
	switch r.Step {
	case StepDrawn, StepAnswered, StepKept, StepSigned:
		return true
	}
	return false
}

// Advance takes the next step of the exchange that opens a contract, and returns the contract as it is then. Each step
// is on disk before the next relies on it: whoever died in between calls Advance again. An error that is not final
// leaves the contract where it is. A final one, a refusal or a wrong answer, ends the exchange: the coins are given
// back, or, if the relay may have our signatures, one of them is spent elsewhere (see Cancel). The wallet may be nil where
// nothing has to be signed, from StepSigned on, unless the relay refuses.
func (m *Manager) Advance(ctx context.Context, id protocol.ContractID, purse Wallet) (*Record, error) {
	r, err := m.Store.Contract(ctx, id)
	if err != nil {
		return nil, err
	}
	if !r.Opening() {
		return r, nil
	}
	var next *Record
	switch r.Step {
	case StepDrawn:
		next, err = m.ask(ctx, r)
	case StepAnswered:
		next, err = m.keep(ctx, r)
	case StepKept:
		next, err = m.sign(ctx, r, purse)
	case StepSigned:
		next, err = m.hand(ctx, r, m.Patience)
	}
	if err == nil || !final(err) {
		return next, err
	}
	ended, endErr := m.fail(ctx, r, err, purse)
	return ended, errors.Join(err, endErr)
}

// fail ends an exchange that can come to nothing any more.
func (m *Manager) fail(ctx context.Context, r *Record, reason error, purse Wallet) (*Record, error) {
	ctx = context.WithoutCancel(ctx)
	r, err := m.Store.update(ctx, r.ID, func(u *unit, r *Record) error {
		r.Fault = reason.Error()
		return u.note(ctx, r, "The contract does not come about: %v.", reason)
	})
	if err != nil {
		return nil, err
	}
	return m.Cancel(ctx, r.ID, purse, 0)
}

// ask has the relay name its part, and checks all of it.
func (m *Manager) ask(ctx context.Context, r *Record) (*Record, error) {
	relay, err := m.relay(r)
	if err != nil {
		return r, err
	}
	open, err := asked(r)
	if err != nil {
		return r, err
	}
	e, err := relay.OpenContract(ctx, open)
	if err != nil {
		return r, err
	}
	b, answer, err := m.judge(ctx, r, open, e)
	if err != nil {
		return r, err
	}
	document, err := b.Encode()
	if err != nil {
		return r, err
	}
	return m.Store.update(ctx, r.ID, func(u *unit, r *Record) error {
		if r.Step != StepDrawn {
			return nil // another process was faster
		}
		r.Step, r.Answer, r.Document, r.PSBT = StepAnswered, e.Bytes(), document, answer.PSBT
		return nil
	})
}

// judge checks the relay's part: the terms are the announced ones, the transaction is the one asked for, its coins are on
// the chain. Faults of the relay are an *AnswerError.
func (m *Manager) judge(ctx context.Context, r *Record, open *protocol.ContractOpen, e *protocol.Envelope) (*escrow.Backup, *protocol.ContractServerInputs, error) {
	var answer protocol.ContractServerInputs
	if err := e.Decode(&answer); err != nil {
		return nil, nil, &AnswerError{r.Relay, err}
	}
	c, err := m.agreed(r, open, &answer)
	if err != nil {
		return nil, nil, &AnswerError{r.Relay, err}
	}
	f, err := m.readFunding(ctx, r, c, &answer)
	if err != nil {
		return nil, nil, wrongAnswer(r, err)
	}
	if err := m.checkCoins(ctx, f.Relay.Coins); err != nil {
		return nil, nil, wrongAnswer(r, err)
	}
	funding, err := f.Outpoint()
	if err != nil {
		return nil, nil, err
	}
	return &escrow.Backup{Contract: *c, Funding: funding}, &answer, nil
}

// wrongAnswer says that an error with a code is the relay's; one without is this side's.
func wrongAnswer(r *Record, err error) error {
	var code protocol.Code
	if errors.As(err, &code) {
		return &AnswerError{r.Relay, err}
	}
	return err
}

// agreed is the contract that the relay's answer and our request make, if the answer is what was announced and asked.
func (m *Manager) agreed(r *Record, open *protocol.ContractOpen, answer *protocol.ContractServerInputs) (*escrow.Contract, error) {
	announcement, err := protocol.ParseEnvelope(r.Announced)
	if err != nil {
		return nil, err
	}
	offer, err := ReadOffer(announcement, r.Network)
	if err != nil {
		return nil, err
	}
	bond := offer.Bond(open.Deposit)
	agreed := escrow.Prices{StorageMsatPerGBDay: answer.StorageMsatPerGBDay, BandwidthMsatPerGB: answer.BandwidthMsatPerGB}
	switch {
	case answer.Contract != open.Contract:
		return nil, protocol.Errorf(protocol.CodeMismatch, "it answers about the contract %s", answer.Contract.Short())
	case answer.Expiry != open.Expiry:
		return nil, protocol.Errorf(protocol.CodeContractExpiry, "the expiry is %d, %d was asked for", answer.Expiry, open.Expiry)
	case answer.OpeningPrice != offer.OpeningPrice || answer.CreditLimit != offer.CreditLimit || agreed != prices(offer):
		return nil, protocol.Errorf(protocol.CodeTerms, "its prices or its credit limit are not those that it announced")
	case answer.Bond != bond:
		return nil, protocol.Errorf(protocol.CodeTerms, "its bond is %d satoshi, it announced %d", int64(answer.Bond), int64(bond))
	}
	c := &escrow.Contract{ID: open.Contract, Network: r.Network, User: m.Store.Owner(), Relay: r.Relay,
		UserKey: open.UserKey, RelayKey: answer.RelayKey, UserScript: open.UserScript, RelayScript: answer.RelayScript,
		Deposit: open.Deposit, Bond: answer.Bond, OpeningPrice: answer.OpeningPrice, CreditLimit: answer.CreditLimit,
		Prices: agreed, Expiry: uint32(open.Expiry), Announcement: open.Announcement, Renews: open.Renews}
	for _, w := range open.Writers {
		c.Writers = append(c.Writers, w.Key)
	}
	return c, c.Validate()
}

// checkCoins asks the chain for the coins that the relay brings.
func (m *Manager) checkCoins(ctx context.Context, coins []escrow.Coin) error {
	found := map[wire.OutPoint]escrow.Coin{}
	for _, coin := range coins {
		out, err := m.Node.Output(ctx, coin.OutPoint)
		if errors.Is(err, chain.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		found[coin.OutPoint] = escrow.Coin{OutPoint: coin.OutPoint, Value: out.Amount, PkScript: out.Script,
			Confirmations: out.Confirmations, Coinbase: out.Coinbase}
	}
	return escrow.CheckCoins(coins, found)
}

const (
	// keptFor is how long after T a backup document stays on another relay.
	keptFor = 60 * 24 * time.Hour
	// blockTime is how long a block takes, as the heights of a contract reckon.
	blockTime = 10 * time.Minute
)

// keepFor is how long a backup document stays on another relay. T is a height: blocks that come a fifth more slowly than
// they are meant to must not outlive it.
func keepFor(expiry, tip uint32) time.Duration {
	return time.Duration(expiry-min(tip, expiry))*blockTime*6/5 + keptFor
}

// keep puts the descriptor where the loss of this disk does not reach, before anything is signed on it.
func (m *Manager) keep(ctx context.Context, r *Record) (*Record, error) {
	if _, err := m.Store.ExportBackup(ctx, m.BackupFile); err != nil {
		return r, fmt.Errorf("write the backup of contracts: %w", err)
	}
	b, err := deal(r)
	if err != nil {
		return r, err
	}
	kept := "It is in " + m.BackupFile + " alone: copy that file to another disk."
	switch err := m.leave(ctx, r, b); {
	case err == nil:
		kept = "It is in " + m.BackupFile + ", and sealed on another relay of yours."
	case !errors.Is(err, ErrNoOther):
		return r, err
	}
	return m.Store.update(ctx, r.ID, func(u *unit, r *Record) error {
		if r.Step != StepAnswered {
			return nil
		}
		r.Step = StepKept
		return u.note(ctx, r, "Backed up what a refund needs. %s", kept)
	})
}

// leave puts the descriptor on another relay, sealed. ErrNoOther.
func (m *Manager) leave(ctx context.Context, r *Record, b *escrow.Backup) error {
	if m.Keeper == nil {
		return ErrNoOther
	}
	tip, err := m.Node.Tip(ctx)
	if err != nil {
		return err
	}
	until := m.Clock().Add(keepFor(b.Contract.Expiry, tip.Height))
	if err := m.Keeper.KeepContract(ctx, r.Document, until, b.Contract.Relay); err != nil {
		if errors.Is(err, ErrNoOther) || ctx.Err() != nil {
			return err
		}
		return fmt.Errorf("%w: %w", ErrNotKept, err)
	}
	return nil
}

// KeepElsewhere leaves the descriptor of a contract on another relay, where there was none when it was opened: of contracts that are
// opened together no relay takes anything yet. ErrNoOther.
func (m *Manager) KeepElsewhere(ctx context.Context, id protocol.ContractID) error {
	r, err := m.Store.Contract(ctx, id)
	if err != nil {
		return err
	}
	b, err := deal(r)
	if err != nil {
		return err
	}
	if err := m.leave(ctx, r, b); err != nil {
		return err
	}
	_, err = m.Store.update(ctx, id, func(u *unit, r *Record) error {
		return u.note(ctx, r, "Left a sealed backup of it on another relay of yours.")
	})
	return err
}
