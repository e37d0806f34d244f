package userside

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/go-json-experiment/json"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/escrow/wallet"
	"relaymarket/protocol"
)

// Wish is what the user wants of a contract. Zero values stand for what is usual.
type Wish struct {
	ID           protocol.ContractID // zero: drawn. Given when writers had to consent to it first
	Announcement *protocol.Envelope  // of the relay, verified: the terms that are relied on
	Address      string              // of the relay
	Deposit      btcutil.Amount      // P
	Lifetime     uint32              // T − tip, in blocks; 0: escrow.DefaultLifetime
	Feerate      escrow.Feerate      // 0: as the node estimates
	Cushion      *btcutil.Amount     // nil: usualCushion
	Writers      []protocol.ContractWriter
	Renews       *protocol.ContractID
	Payout       protocol.Script // where the user's money goes in the end; nil: the wallet makes one
	// Coins are inputs of a wallet that is not ours to sign with, and Change is a script of it; without any the wallet
	// chooses.
	Coins  []escrow.Coin
	Change protocol.Script
}

// Draft is a contract as it would be asked for. Its coins are leased; nothing is signed, sent or written down.
type Draft struct {
	Record  *Record
	Request *protocol.ContractOpen
	Quote   Quote
	// Missing is what coins of the wallet have to bring beyond what they cost, as wallet.FundRequest has it; 0 if none are needed.
	Missing btcutil.Amount
	part    escrow.Part
	leased  bool
}

// Quote is what a contract means in money and time: what a person is told before anything is signed.
type Quote struct {
	Offer      *protocol.ContractOffer
	Deposit    btcutil.Amount
	Bond       btcutil.Amount
	Cushion    btcutil.Amount
	Tip        uint32
	Expiry     uint32 // T
	LastUsage  uint32 // T − M
	Feerate    escrow.Feerate
	FundingFee btcutil.Amount  // the user's share, exact
	Later      escrow.Estimate // of the transactions that may come, at the same feerate
	Bounds     escrow.Bounds   // the funding fee and one closing counted
	Renewed    *btcutil.Amount // A of the contract that this renews, paid out by the funding
}

// Draft prepares a contract: it asks the node for height and feerate, and leases coins. The caller shows the
// quote, and then calls Open or Discard.
func (m *Manager) Draft(ctx context.Context, w Wish, purse Wallet) (*Draft, error) {
	if err := m.Node.Stale(ctx); err != nil {
		return nil, err
	}
	offer, err := ReadOffer(w.Announcement, m.Network)
	if err != nil {
		return nil, err
	}
	id, err := m.drawID(w.ID)
	if err != nil {
		return nil, err
	}
	d := &Draft{Record: &Record{ID: id, Network: m.Network, Relay: w.Announcement.From, Address: w.Address,
		State: escrow.Opening, Step: StepDrawn, Foreign: len(w.Coins) > 0, Announced: w.Announcement.Bytes()}}
	q := &d.Quote
	q.Offer, q.Deposit, q.Cushion = offer, w.Deposit, usualCushion(offer.CreditLimit, offer.OpeningPrice, w.Deposit)
	if w.Cushion != nil {
		q.Cushion = *w.Cushion
	}
	const most = btcutil.MaxSatoshi / 2 // with bond and fees it is still an amount
	if w.Deposit < offer.MinPrepay || w.Deposit > most {
		return nil, protocol.Errorf(protocol.CodeWrongAmount, "a deposit of %d satoshi is too small or too large: the relay wants %d at least",
			int64(w.Deposit), int64(offer.MinPrepay))
	}
	q.Bond = offer.Bond(w.Deposit)
	tip, err := m.Node.Tip(ctx)
	if err != nil {
		return nil, err
	}
	if w.Lifetime == 0 {
		w.Lifetime = escrow.DefaultLifetime
	}
	q.Tip, q.Expiry = tip.Height, tip.Height+w.Lifetime
	if err := escrow.CheckExpiry(q.Expiry, q.Tip); err != nil {
		return nil, err
	}
	if q.Feerate, err = m.feerate(ctx, w.Feerate); err != nil {
		return nil, err
	}
	if err := m.request(ctx, d, w, purse); err != nil {
		return nil, errors.Join(err, m.Discard(ctx, d, purse))
	}
	return d, nil
}

// usualCushion is how far payments run ahead of accepted usage if the user does not say: as far as the relay in turn trusts him,
// but no more than he pays for opening, nor a hundredth of his deposit. The relay names the first two: neither alone may say
// what the user risks.
func usualCushion(credit, opening, deposit btcutil.Amount) btcutil.Amount {
	const hundredth = 100
	return min(credit, opening, deposit/hundredth)
}

// drawID takes the given id, or draws one.
func (m *Manager) drawID(given protocol.ContractID) (protocol.ContractID, error) {
	if given != (protocol.ContractID{}) {
		return given, nil
	}
	return NewID(m.Entropy)
}

// NewID draws the id of a contract.
func NewID(entropy io.Reader) (id protocol.ContractID, err error) {
	if _, err := io.ReadFull(entropy, id[:]); err != nil {
		return id, fmt.Errorf("draw a contract id: %w", err)
	}
	return id, nil
}

// request finds keys, scripts and coins, and makes of them what the relay is asked.
func (m *Manager) request(ctx context.Context, d *Draft, w Wish, purse Wallet) error {
	q := &d.Quote
	key, err := m.Keys.ContractKey(m.Network, d.Record.ID)
	if err != nil {
		return err
	}
	defer key.Zero()
	script := w.Payout
	if script == nil {
		if script, err = purse.NewScript(ctx, wallet.P2WPKH); err != nil {
			return err
		}
	}
	d.Request = &protocol.ContractOpen{Contract: d.Record.ID, Announcement: w.Announcement.Hash(), Deposit: q.Deposit,
		Expiry: int64(q.Expiry), Feerate: int64(q.Feerate), UserKey: escrow.KeyOf(key), UserScript: script,
		Writers: w.Writers, Renews: w.Renews}
	if d.Request.Writers == nil {
		d.Request.Writers = []protocol.ContractWriter{}
	}
	// The relay's key and script are not known yet; what they weigh is.
	c := &escrow.Contract{ID: d.Record.ID, Network: m.Network, User: m.Store.Owner(), Relay: d.Record.Relay, UserKey: d.Request.UserKey,
		UserScript: script, RelayScript: make(protocol.Script, 34), Deposit: q.Deposit, Bond: q.Bond, OpeningPrice: q.Offer.OpeningPrice,
		CreditLimit: q.Offer.CreditLimit, Prices: prices(q.Offer), Expiry: q.Expiry, Renews: w.Renews}
	if err := c.CheckAmount(c.OpeningPrice); err != nil {
		return err
	}
	q.LastUsage = c.LastUsage()
	f := &escrow.Funding{Contract: c, Feerate: q.Feerate}
	if err := m.spendOld(ctx, d, f); err != nil {
		return err
	}
	if err := m.bring(ctx, d, f, w, purse); err != nil {
		return err
	}
	if first := q.Offer.OpeningPrice + q.Cushion; f.Contract.CheckAmount(first) != nil {
		return protocol.Errorf(protocol.CodeWrongAmount, "opening price and cushion come to %d satoshi, which is more than the deposit of %d less %d: take a smaller cushion, or a larger deposit",
			int64(first), int64(q.Deposit), int64(escrow.MinUserRest))
	}
	if d.Request.PSBT, err = escrow.OfferPSBT(d.part); err != nil {
		return err
	}
	if err := d.Request.Validate(); err != nil {
		return err
	}
	if d.Record.Request, err = json.Marshal(d.Request); err != nil {
		return err
	}
	d.Record.Cushion = q.Cushion
	return m.reckon(f, q)
}

// spendOld puts the escrow of the contract that is renewed into the funding.
func (m *Manager) spendOld(ctx context.Context, d *Draft, f *escrow.Funding) error {
	if d.Request.Renews == nil {
		return nil
	}
	old, err := m.Store.Contract(ctx, *d.Request.Renews)
	if err != nil {
		return err
	}
	last, ok := old.Last()
	if !ok || old.Relay != d.Record.Relay {
		return fmt.Errorf("contract %s cannot be renewed: it is with another relay, or was never signed", old.ID.Short())
	}
	if old.Renewed != nil && old.State == escrow.Renewing {
		return protocol.Errorf(protocol.CodeContractState, "contract %s is being renewed already, by %s: relay contract show %s", old.ID.Short(), old.Renewed.Short(), old.Renewed.Short())
	}
	if _, err := escrow.Next(old.State, escrow.RenewalSigned); err != nil && old.State != escrow.FundingSent {
		return protocol.Errorf(protocol.CodeContractState, "contract %s is %s and cannot be renewed: open a new one", old.ID.Short(), old.State)
	}
	if err := m.settled(ctx, old); err != nil {
		return err
	}
	if _, err := escrow.Next(old.State, escrow.RenewalSigned); err != nil {
		return protocol.Errorf(protocol.CodeContractState, "the funding of contract %s is in a block that was not looked at here yet: relay contract watch --once", old.ID.Short())
	}
	d.Quote.Renewed = &last.Amount
	f.Renewal, err = m.renewal(ctx, d.Request, &last.Amount)
	return err
}

// settled refuses an escrow whose own funding may still be undone: the renewal would be undone with it, and the deposit that
// the user adds hang on a chain of two. The node is asked, whatever is known here; the relay asks its own.
func (m *Manager) settled(ctx context.Context, old *Record) error {
	_, at, ok := old.Terms()
	if !ok {
		return fmt.Errorf("contract %s was never funded: there is nothing to renew", old.ID.Short())
	}
	found, err := m.Node.Transaction(ctx, at.Hash)
	if err != nil && !errors.Is(err, chain.ErrNotFound) {
		return err
	}
	if err != nil {
		found.Confirmations = 0
	}
	if missing := escrow.FullCredit - found.Confirmations; missing > 0 {
		return protocol.Errorf(protocol.CodeContractState, "the contract's funding has %d of %d confirmations: renew it in %d blocks",
			found.Confirmations, escrow.FullCredit, missing)
	}
	return nil
}

// bring adds the user's coins and change.
func (m *Manager) bring(ctx context.Context, d *Draft, f *escrow.Funding, w Wish, purse Wallet) error {
	missing, err := f.Missing(escrow.User)
	if err != nil {
		return err
	}
	change := d.Request.UserScript
	switch {
	case len(w.Coins) > 0:
		f.User.Coins = w.Coins
		if w.Change != nil {
			change = w.Change
		}
	case missing > 0:
		d.Missing = missing
		funds, err := purse.Fund(ctx, wallet.FundRequest{Key: lease(d.Record.ID), Amount: missing, Feerate: d.Quote.Feerate, For: thinkingTime})
		if err != nil {
			return err
		}
		f.User, change, d.leased = funds.Part(), funds.Change, true
		if err := m.Store.pass("reserved"); err != nil {
			return err
		}
	}
	if err := f.SetChange(escrow.User, change); err != nil {
		return err
	}
	d.part = f.User
	return nil
}

// reckon completes the quote.
func (m *Manager) reckon(f *escrow.Funding, q *Quote) (err error) {
	fee, _ := f.Fees()
	missing, err := f.Missing(escrow.User)
	if err != nil {
		return err
	}
	q.FundingFee = fee - missing // what is too small for a change output goes to the fee, too
	if f.User.Change != nil {
		q.FundingFee -= btcutil.Amount(f.User.Change.Value)
	}
	if q.Later, err = escrow.EstimateFees(f.Contract, q.Feerate); err != nil {
		return err
	}
	q.Bounds, err = escrow.LossBounds(f.Contract, q.Offer.OpeningPrice, q.Cushion, escrow.Costs{
		User: q.FundingFee + max(q.Later.Closing, q.Later.Refund, q.Later.Sweep), Relay: q.Later.Settlement})
	return err
}

// Discard gives the coins of a draft back.
func (m *Manager) Discard(ctx context.Context, d *Draft, purse Wallet) error {
	if !d.leased {
		return nil
	}
	return purse.Release(context.WithoutCancel(ctx), lease(d.Record.ID))
}
