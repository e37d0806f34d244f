package userside

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/escrow/wallet"
	"relaymarket/protocol"
)

// Open writes a draft down. From then on the contract is brought forward by Advance, also after the program ended.
func (m *Manager) Open(ctx context.Context, d *Draft) (*Record, error) {
	// The chain is followed from before the funding on. Where nothing was followed for long, nothing has to be caught up.
	others, err := m.unfinished(ctx)
	if err != nil {
		return nil, err
	}
	if len(others) == 0 {
		if err := m.rescan(ctx, d.Quote.Tip); err != nil {
			return nil, err
		}
	}
	err = m.Store.do(ctx, func(u *unit) error {
		fresh, err := u.insert(ctx, d.Record)
		if err != nil {
			return err
		}
		if !fresh {
			return fmt.Errorf("contract %s is there already", d.Record.ID.Short())
		}
		return u.note(ctx, d.Record, "Asked %s for a contract of %d sat until block %d.", d.Record.Address, int64(d.Request.Deposit), d.Request.Expiry)
	})
	if err != nil {
		return nil, err
	}
	return m.Store.Contract(ctx, d.Record.ID)
}

// Opening tells whether Advance has something left to do.
func (r *Record) Opening() bool {
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
	var next *Record
	switch r.Step {
	case StepDrawn:
		next, err = m.ask(ctx, r)
	case StepAnswered:
		next, err = m.keep(ctx, r)
	case StepKept:
		next, err = m.sign(ctx, r, purse)
	case StepSigned:
		next, err = m.hand(ctx, r)
	default:
		return r, nil
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

// keptFor is how long after T a backup document stays on another relay.
const keptFor = 60 * 24 * time.Hour

// blockTime is how long a block takes, as the heights of a contract reckon.
const blockTime = 10 * time.Minute

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
	if m.Keeper != nil {
		until := m.Clock().Add(time.Duration(escrow.MaxLifetime)*blockTime/2 + keptFor)
		err := m.Keeper.KeepContract(ctx, r.Document, until, b.Contract.Relay)
		if err != nil && !errors.Is(err, ErrNoOther) {
			return r, fmt.Errorf("leave the descriptor on another relay: %w", err)
		}
		if err == nil {
			kept = "It is in " + m.BackupFile + ", and sealed on another relay of yours."
		}
	}
	return m.Store.update(ctx, r.ID, func(u *unit, r *Record) error {
		if r.Step != StepAnswered {
			return nil
		}
		r.Step = StepKept
		return u.note(ctx, r, "Backed up what a refund needs. %s", kept)
	})
}

// sign makes our witnesses of the funding, and state 0. From here on the relay may have them.
func (m *Manager) sign(ctx context.Context, r *Record, purse Wallet) (*Record, error) {
	if r.Foreign {
		return r, ErrForeign
	}
	if purse == nil {
		return r, errors.New("the wallet is needed to sign the funding")
	}
	f, err := m.funding(ctx, r)
	if err != nil {
		return r, err
	}
	packet, err := f.Packet()
	if err != nil {
		return r, err
	}
	if len(f.User.Coins) > 0 {
		// From now on until it is funded or cancelled nothing else may spend them.
		hold := wallet.FundRequest{Key: lease(r.ID), Amount: 1, Feerate: f.Feerate, For: signedTime}
		if _, err := purse.Fund(ctx, hold); err != nil {
			return r, err
		}
		if err := purse.SignFunding(ctx, lease(r.ID), packet); err != nil {
			return r, err
		}
	}
	signed, err := escrow.EncodePSBT(packet)
	if err != nil {
		return r, err
	}
	return m.signed(ctx, r, f, signed)
}

// ErrForeign: the funding has to be signed by a wallet that is not this program's.
var ErrForeign = errors.New("the funding waits for the signatures of your own wallet")

// SignedElsewhere takes the funding that the user's own wallet has signed and finalized.
func (m *Manager) SignedElsewhere(ctx context.Context, id protocol.ContractID, signed protocol.PSBT) (*Record, error) {
	r, err := m.Store.Contract(ctx, id)
	if err != nil {
		return nil, err
	}
	if r.Step != StepKept {
		return r, fmt.Errorf("contract %s does not wait for a signed funding: it is at the step %q", r.ID.Short(), r.Step)
	}
	f, err := m.funding(ctx, r)
	if err != nil {
		return r, err
	}
	// Signing took its time. Only while the relay still stands by its part may it have the signatures.
	if err := m.askAgain(ctx, r); err != nil {
		return r, err
	}
	return m.signed(ctx, r, f, signed)
}

// askAgain asks the relay for its part once more: it has to be the same.
func (m *Manager) askAgain(ctx context.Context, r *Record) error {
	relay, err := m.relay(r)
	if err != nil {
		return err
	}
	open, err := asked(r)
	if err != nil {
		return err
	}
	e, err := relay.OpenContract(ctx, open)
	if err != nil {
		return err
	}
	_, answer, err := m.judge(ctx, r, open, e)
	if err != nil {
		return err
	}
	if answer.PSBT != r.PSBT {
		return &AnswerError{r.Relay, protocol.Errorf(protocol.CodeConflict, "its part of the funding is another than it was: nothing was given to it, open the contract anew")}
	}
	return nil
}

// signed writes our witnesses and state 0 down, once they are known to be good.
func (m *Manager) signed(ctx context.Context, r *Record, f *escrow.Funding, signed protocol.PSBT) (*Record, error) {
	tip, err := m.Node.Tip(ctx)
	if err != nil {
		return r, err
	}
	if err := escrow.CheckExpiry(f.Contract.Expiry, tip.Height); err != nil {
		return r, err
	}
	if f.Renewal != nil {
		if signed, err = m.signOld(f, signed); err != nil {
			return r, err
		}
	}
	if _, err := f.MergeUser(signed); err != nil {
		return r, err
	}
	key, err := m.Keys.ContractKey(r.Network, r.ID)
	if err != nil {
		return r, err
	}
	defer key.Zero()
	at, err := f.Outpoint()
	if err != nil {
		return r, err
	}
	signature, err := escrow.SignState(f.Contract, at, f.Contract.OpeningPrice, key)
	if err != nil {
		return r, err
	}
	return m.Store.update(ctx, r.ID, func(u *unit, r *Record) error {
		if r.Step != StepKept {
			return nil
		}
		if err := move(r, escrow.Signed); err != nil {
			return err
		}
		r.Step, r.PSBT = StepSigned, signed
		if err := m.renewing(ctx, u, f); err != nil {
			return err
		}
		return u.pay(ctx, r, Payment{Seq: 0, Amount: f.Contract.OpeningPrice, Signature: signature})
	})
}

// signOld adds our signature of the escrow that the funding spends.
func (m *Manager) signOld(f *escrow.Funding, signed protocol.PSBT) (protocol.PSBT, error) {
	packet, err := escrow.DecodePSBT(signed)
	if err != nil {
		return "", err
	}
	key, err := m.Keys.ContractKey(f.Renewal.Contract.Network, f.Renewal.Contract.ID)
	if err != nil {
		return "", err
	}
	defer key.Zero()
	if err := f.AddRenewalSignature(packet, key); err != nil {
		return "", err
	}
	return escrow.EncodePSBT(packet)
}

// renewing notes in the old contract that the funding of its successor has our signature.
func (m *Manager) renewing(ctx context.Context, u *unit, f *escrow.Funding) error {
	if f.Renewal == nil {
		return nil
	}
	old, err := u.contract(ctx, f.Renewal.Contract.ID)
	if err != nil {
		return err
	}
	if err := move(old, escrow.RenewalSigned); err != nil {
		return err
	}
	old.Renewed = &f.Contract.ID
	if err := u.note(ctx, old, "It is renewed by contract %s.", f.Contract.ID.Short()); err != nil {
		return err
	}
	return u.save(ctx, old)
}

// hand gives the relay our witnesses and state 0, which are on disk, and takes the whole funding back.
func (m *Manager) hand(ctx context.Context, r *Record) (*Record, error) {
	relay, err := m.relay(r)
	if err != nil {
		return r, err
	}
	if len(r.Payments) == 0 || r.Payments[0].Seq != 0 {
		return r, fmt.Errorf("contract %s: state 0 is missing", r.ID.Short())
	}
	first := r.Payments[0]
	e, err := relay.ContractSigned(ctx, &protocol.ContractClientSigned{Contract: r.ID, PSBT: r.PSBT, Amount: first.Amount, Signature: first.Signature})
	if err != nil {
		return r, err
	}
	s, err := status(r, e)
	for tries := 0; err == nil && s.Funding == nil && tries < fundingTries; tries++ {
		// A relay that puts in a coin may have its wallet in another process than the one that answers.
		if err := m.pause(ctx, fundingPause); err != nil {
			return r, err
		}
		if e, err = relay.Contract(ctx, r.ID); err == nil {
			s, err = status(r, e)
		}
	}
	if err != nil {
		return r, err
	}
	if s.Funding == nil {
		return r, ErrUnfunded
	}
	f, err := m.funding(ctx, r)
	if err != nil {
		return r, err
	}
	tx, err := wholeFunding(f, s)
	if err != nil {
		return r, wrongAnswer(r, err)
	}
	if r, err = m.took(ctx, r, e, tx, share(f)); err != nil {
		return r, err
	}
	if _, err := m.Store.ExportBackup(ctx, m.BackupFile); err != nil {
		return r, fmt.Errorf("write the backup of contracts: %w", err)
	}
	// The relay has sent it. That our node has it too costs nothing, and shows at once if something is amiss.
	if err := m.Node.Broadcast(ctx, tx); err != nil {
		m.Logger.Info("the funding was not taken by our node", "contract", r.ID, "error", err)
	}
	return r, nil
}

// ErrUnfunded: the relay has our signatures and has not signed yet. Asking again has one effect, and so has giving up.
var ErrUnfunded = errors.New("the relay has not signed the funding yet")

// How often, and how long in all, the relay is asked for the funding that it has still to sign.
const (
	fundingPause = 500 * time.Millisecond
	fundingTries = 120
)

// pause waits, unless ctx ends before.
func (m *Manager) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// wholeFunding is the funding that the relay says it has sent: ours, and validly signed by both.
func wholeFunding(f *escrow.Funding, s *protocol.ContractStatus) (*wire.MsgTx, error) {
	at, err := f.Outpoint()
	if err != nil {
		return nil, err
	}
	tx, err := escrow.DecodeTx(s.Funding.Tx)
	if err != nil {
		return nil, err
	}
	if err := escrow.CheckFundingTx(f.Contract, at, tx); err != nil {
		return nil, err
	}
	template, err := f.Tx()
	if err != nil {
		return nil, err
	}
	return tx, (&escrow.Tx{MsgTx: tx, Prev: template.Prev}).Verify()
}

// share is what the user pays of the funding's fee: what he brings, less his deposit and his change.
func share(f *escrow.Funding) btcutil.Amount {
	fee := -f.Contract.Deposit
	for _, coin := range f.User.Coins {
		fee += coin.Value
	}
	if f.User.Change != nil {
		fee -= btcutil.Amount(f.User.Change.Value)
	}
	if f.Renewal != nil {
		fee += f.Renewal.Contract.Deposit - f.Renewal.Amount
	}
	return fee
}

// took notes that the relay has everything, and the whole funding transaction in the backup.
func (m *Manager) took(ctx context.Context, r *Record, e *protocol.Envelope, tx *wire.MsgTx, fee btcutil.Amount) (*Record, error) {
	return m.Store.update(ctx, r.ID, func(u *unit, r *Record) error {
		b, err := deal(r)
		if err != nil {
			return err
		}
		b.Tx = tx
		if r.Document, err = b.Encode(); err != nil {
			return err
		}
		if r.Step == StepSigned {
			r.Step = StepTaken
		}
		r.Told, r.Fault = e.Bytes(), ""
		if err := u.taken(ctx, r, 0); err != nil {
			return err
		}
		if err := u.note(ctx, r, "The funding transaction %s is sent.", tx.TxHash()); err != nil {
			return err
		}
		funding := Transaction{TxID: escrow.WireTxID(tx.TxHash()), Kind: protocol.TxFunding, Raw: serialize(tx), Fee: fee, Ours: true}
		if known := r.Transaction(funding.TxID); known != nil {
			funding.Height = known.Height
		}
		return u.track(ctx, r, funding)
	})
}
