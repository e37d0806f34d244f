package relayside

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/protocol"
)

// opening is a contract in the making: a row of contract_openings.
type opening struct {
	terms      escrow.Contract
	request    *protocol.Envelope
	asked      *protocol.ContractOpen
	funding    *escrow.Funding
	psbt       protocol.PSBT
	renewsPaid *btcutil.Amount
	until      protocol.Timestamp
}

// Open answers a contractOpen: the relay's part and the whole unsigned funding. Nothing is held for it but a place among the
// offers. The same request again has the same answer while the offer stands, and the same coin of the relay's if it is still
// there afterwards. Codes are those of package escrow, and
//
//   - conflict: another request under this id, or the payer has a contract here already
//   - terms, consent, contract_expiry, wrong_amount: judged by the announcement and the chain
//   - input_spent, input_amount, input_unconfirmed: the user's coins on the chain
//   - contracts_full: too many half-opened contracts of the payer, or on this coin, or in all
//   - feerate: it is below half of the node's estimate, and the funding needs a coin of the relay's
//   - chain_stale: nothing is opened while the chain cannot be seen
//   - denied: the operator makes no contract with the payer
//   - no_coins: the relay cannot provide its bond, or has no wallet yet
func (m *Manager) Open(ctx context.Context, e *protocol.Envelope, r *protocol.ContractOpen) (_ *protocol.ContractServerInputs, err error) {
	defer func() { m.metrics.refuse(stepOpen, err) }()
	if answer, err := m.openedBefore(ctx, e, r); answer != nil || err != nil {
		return answer, err
	}
	if err := m.serves(ctx, e.From); err != nil {
		return nil, err
	}
	height, err := m.fresh(ctx)
	if err != nil {
		return nil, err
	}
	o := &opening{request: e, asked: r, until: m.now().Add(m.limits.Reservation)}
	if err := m.agree(ctx, o, height); err != nil {
		return nil, err
	}
	part, err := escrow.ParseOffer(r.PSBT)
	if err != nil {
		return nil, err
	}
	o.funding = &escrow.Funding{Contract: &o.terms, Feerate: escrow.Feerate(r.Feerate), User: part}
	if err := m.addRenewal(ctx, o, height); err != nil {
		return nil, err
	}
	// Room before the chain: a crowd of offers must not become a crowd of questions to the node.
	if err := m.room(ctx, m.db.Pool(), o); err != nil {
		return nil, err
	}
	if err := m.payable(ctx, o.funding); err != nil {
		return nil, err
	}
	if err := m.checkCoins(ctx, part.Coins); err != nil {
		return nil, err
	}
	err = m.db.Tx(ctx, func(tx pgx.Tx) error { return m.insertOpening(ctx, tx, o) })
	if err != nil {
		return nil, wrap(err, "open contract %s", r.Contract.Short())
	}
	if err := m.reached("offered"); err != nil {
		return nil, err
	}
	return o.answer(), nil
}

// serves refuses a payer whom the operator denies.
func (m *Manager) serves(ctx context.Context, payer protocol.PublicKey) error {
	if m.cfg.Denies == nil {
		return nil
	}
	denied, err := m.cfg.Denies(ctx, payer)
	if err == nil && denied {
		return protocol.Errorf(protocol.CodeDenied, "this relay makes no contract with %s: use another relay", payer.Bech32())
	}
	return err
}

// openedBefore answers a request that is known. Nil, nil is one that is not, or whose offer is over.
func (m *Manager) openedBefore(ctx context.Context, e *protocol.Envelope, r *protocol.ContractOpen) (*protocol.ContractServerInputs, error) {
	var hash, offer []byte
	var psbt string
	var paid *int64
	var until protocol.Timestamp
	err := m.db.Pool().QueryRow(ctx, `
		SELECT request_hash, offer, '', NULL::bigint, 0::bigint FROM contracts WHERE id = $1
		UNION ALL SELECT request_hash, terms, psbt, renews_amount, reserved_until FROM contract_openings WHERE id = $1 LIMIT 1`, r.Contract[:]).
		Scan(&hash, &offer, &psbt, &paid, &until)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap(err, "look for contract %s", r.Contract.Short())
	}
	if protocol.Hash(hash) != e.RequestHash() {
		return nil, protocol.Errorf(protocol.CodeConflict, "another request was made under the contract id %s: draw a new one", r.Contract.Short())
	}
	if psbt == "" {
		answer := new(protocol.ContractServerInputs)
		return answer, json.Unmarshal(offer, answer)
	}
	if until < m.now() {
		return nil, nil
	}
	o := &opening{psbt: protocol.PSBT(psbt), renewsPaid: (*btcutil.Amount)(paid), until: until}
	if err := json.Unmarshal(offer, &o.terms); err != nil {
		return nil, err
	}
	return o.answer(), nil
}

// answer is what the user is told.
func (o *opening) answer() *protocol.ContractServerInputs {
	c := &o.terms
	return &protocol.ContractServerInputs{
		Type: protocol.TypeContractServerInputs, Contract: c.ID, RelayKey: c.RelayKey, RelayScript: c.RelayScript, Bond: c.Bond,
		OpeningPrice: c.OpeningPrice, CreditLimit: c.CreditLimit, StorageMsatPerGBDay: c.Prices.StorageMsatPerGBDay,
		BandwidthMsatPerGB: c.Prices.BandwidthMsatPerGB, Expiry: int64(c.Expiry), PSBT: o.psbt, ReservedUntil: o.until, RenewsAmount: o.renewsPaid,
	}
}

// fresh refuses anything new while the chain is not seen as it is, and answers the height that it is judged at.
func (m *Manager) fresh(ctx context.Context) (uint32, error) {
	stale := func(err error) error {
		m.seldom.Do(func() { m.log.Warn("no new contract: the chain is not seen", "err", err) })
		return protocol.Errorf(protocol.CodeChainStale, "this relay does not see the Bitcoin chain as it is now, so it opens no contract: try again later; all else is served")
	}
	if err := m.chain.Stale(ctx); err != nil {
		return 0, stale(err)
	}
	newest, err := m.chain.Tip(ctx)
	if err != nil {
		return 0, stale(err)
	}
	for waited := time.Duration(0); ; waited += workLook {
		known, err := tip(ctx, m.db.Pool())
		if err != nil {
			return 0, wrap(err, "read the known height")
		}
		if newest.Height+workBehind < known {
			return 0, stale(fmt.Errorf("the node is at block %d, %d is known", newest.Height, known))
		}
		if known+workBehind >= newest.Height {
			return max(known, newest.Height), nil
		}
		if waited >= m.limits.Patience {
			return 0, stale(fmt.Errorf("the work of contracts is at block %d, the node at %d", known, newest.Height))
		}
		m.nudge()
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(workLook):
		}
	}
}

const (
	workBehind = 2 // blocks that the work may be behind the node when a contract is opened
	workLook   = 100 * time.Millisecond
)

// agree makes the contract of what was asked and what the relay announced.
func (m *Manager) agree(ctx context.Context, o *opening, height uint32) error {
	r := o.asked
	offer, err := m.offered(ctx, r.Announcement)
	if err != nil {
		return err
	}
	if r.Deposit < offer.MinPrepay {
		return protocol.Errorf(protocol.CodeWrongAmount, "a deposit here is at least %d satoshi", int64(offer.MinPrepay))
	}
	if err := m.checkLifetime(uint32(r.Expiry), height); err != nil {
		return err
	}
	o.terms = escrow.Contract{
		ID: r.Contract, Network: m.cfg.Network, User: o.request.From, Relay: m.cfg.Relay, UserKey: r.UserKey, UserScript: r.UserScript,
		Deposit: r.Deposit, Bond: offer.Bond(r.Deposit), OpeningPrice: offer.OpeningPrice, CreditLimit: offer.CreditLimit,
		Prices: escrow.Prices{StorageMsatPerGBDay: offer.StorageMsatPerGBDay, BandwidthMsatPerGB: offer.BandwidthMsatPerGB},
		Expiry: uint32(r.Expiry), Announcement: r.Announcement, Renews: r.Renews,
	}
	for _, w := range r.Writers {
		if w.Key == o.terms.User {
			continue // the payer's own signature says it
		}
		if err := protocol.CheckConsent(w, m.cfg.Relay, r.Contract, o.terms.User); err != nil {
			return err
		}
		o.terms.Writers = append(o.terms.Writers, w.Key)
	}
	key, err := m.cfg.Key(r.Contract)
	if err != nil {
		return wrap(err, "derive the key of contract %s", r.Contract.Short())
	}
	o.terms.RelayKey = escrow.KeyOf(key)
	if o.terms.RelayScript, err = m.payout(ctx); err != nil {
		return err
	}
	return o.terms.Validate()
}

// checkLifetime judges how long a new contract is to live, by the protocol's bounds and this relay's. Once it is offered, only the
// protocol's count: blocks go by until it is signed.
func (m *Manager) checkLifetime(expiry, height uint32) error {
	if err := escrow.CheckExpiry(expiry, height); err != nil {
		return err
	}
	if life := expiry - height; life < m.limits.Shortest || life > m.limits.Longest {
		return protocol.Errorf(protocol.CodeContractExpiry, "the expiry %d is %d blocks above the tip %d: this relay takes contracts of %d to %d blocks",
			expiry, life, height, m.limits.Shortest, m.limits.Longest)
	}
	return nil
}

// addRenewal puts the old escrow into the funding, or sees to it that the payer has no other contract.
func (m *Manager) addRenewal(ctx context.Context, o *opening, height uint32) error {
	r := o.asked
	if r.Renews == nil {
		return alone(ctx, m.db.Pool(), o)
	}
	old, err := read(ctx, m.db.Pool(), *r.Renews)
	if old, err = ofPayer(old, err, o.terms.User, *r.Renews); err != nil {
		return wrap(err, "read the contract to renew")
	}
	if err := m.renewable(ctx, m.db.Pool(), old, height); err != nil {
		return err
	}
	paid := old.held.Amount
	o.renewsPaid = &paid
	o.funding.Renewal = &escrow.Renewal{Contract: &old.terms, Funding: old.outpoint(), Amount: paid}
	return nil
}

// alone refuses a contract of a payer who has another one here that this one does not renew.
func alone(ctx context.Context, q queryRower, o *opening) error {
	if o.terms.Renews != nil {
		return nil
	}
	var other []byte
	err := q.QueryRow(ctx, `SELECT id FROM contracts WHERE payer = $1 AND state = ANY($2) AND id <> $3 LIMIT 1`,
		o.terms.User[:], liveStates, o.terms.ID[:]).Scan(&other)
	if err == nil {
		return protocol.Errorf(protocol.CodeConflict, "you have the contract %x here already: renew it, or close it first", other)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	return wrap(err, "look for other contracts")
}

// liveStates are those in which a payer may have no second contract but a renewal.
var liveStates = []string{string(escrow.FundingSent), string(escrow.Active), string(escrow.PaymentRequested), string(escrow.RefundRequested), string(escrow.Renewing)}

// renewable refuses to renew a contract that is not in its calm middle: it could be settled meanwhile.
func (m *Manager) renewable(ctx context.Context, q querier, old *record, height uint32) error {
	if old.state != escrow.Active || !old.terms.TakesUsage(height) {
		return protocol.Errorf(protocol.CodeContractState, "a contract is renewed while it is active and before block %d; this one is %s: open a new one when it is settled",
			old.terms.LastUsage(), old.state)
	}
	if old.settle {
		return protocol.Errorf(protocol.CodeContractState, "the contract is about to be settled: open a new one afterwards")
	}
	f, err := readFacts(ctx, q, old)
	if err != nil {
		return wrap(err, "read the transactions of contract %s", old.terms.ID.Short())
	}
	// A renewal has the whole credit at once, as the old escrow stands for it: so that one must be beyond being undone.
	if n := f.confirmations(f.fundingHeight); n < escrow.FullCredit {
		return protocol.Errorf(protocol.CodeContractState, "the contract's funding has %d of %d confirmations: renew it in %d blocks", n, escrow.FullCredit, escrow.FullCredit-n)
	}
	if f.spent != nil {
		return protocol.Errorf(protocol.CodeContractState, "the contract's escrow is spent in block %d: open a new one when it is settled", f.spent.height)
	}
	return nil
}

// checkCoins asks the chain about the user's coins, one after the other: the first false one ends it.
func (m *Manager) checkCoins(ctx context.Context, coins []escrow.Coin) error {
	for _, coin := range coins {
		found := make(map[wire.OutPoint]escrow.Coin, 1)
		switch out, err := m.chain.Output(ctx, coin.OutPoint); {
		case err == nil:
			found[coin.OutPoint] = escrow.Coin{OutPoint: coin.OutPoint, Value: out.Amount, PkScript: out.Script,
				Confirmations: out.Confirmations, Coinbase: out.Coinbase}
		case !errors.Is(err, chain.ErrNotFound):
			m.seldom.Do(func() { m.log.Warn("no new contract: a coin cannot be looked up", "err", err) })
			return protocol.Errorf(protocol.CodeChainStale, "the Bitcoin node did not tell about the input %s: try again later", coin.OutPoint)
		}
		if err := escrow.CheckCoins([]escrow.Coin{coin}, found); err != nil {
			return err
		}
	}
	return nil
}

// room refuses an opening beyond the bounds. One's own earlier row under this id does not count: it is replaced.
func (m *Manager) room(ctx context.Context, q queryRower, o *opening) error {
	var byPayer, byInput, all int
	id := o.terms.ID
	input := o.firstInput()
	err := q.QueryRow(ctx, `SELECT
		(SELECT count(*) FROM contract_openings WHERE payer = $1 AND id <> $3 AND reserved_until >= $4),
		(SELECT count(*) FROM contract_openings WHERE input = $2 AND id <> $3 AND reserved_until >= $4),
		(SELECT count(*) FROM contract_openings)`,
		o.terms.User[:], input, id[:], m.now()).Scan(&byPayer, &byInput, &all)
	switch {
	case err != nil:
		return wrap(err, "count half-opened contracts")
	case byPayer >= m.limits.OpeningsByPayer:
		return protocol.Errorf(protocol.CodeContractsFull, "you have %d half-opened contracts here: sign one, or wait until their offers end", byPayer)
	case byInput >= m.limits.OpeningsByInput:
		return protocol.Errorf(protocol.CodeContractsFull, "the first input is offered for %d half-opened contracts here: wait until their offers end, or put another coin first", byInput)
	case all >= m.limits.Openings:
		return protocol.Errorf(protocol.CodeContractsFull, "%d contracts are half open on this relay: try again in a minute", all)
	}
	return untaken(ctx, q, o)
}

// untaken refuses coins of the user that are in the funding of another contract.
func untaken(ctx context.Context, q queryRower, o *opening) error {
	var taken bool
	err := q.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM contract_watches w JOIN contracts c ON c.id = w.contract
		WHERE w.outpoint = ANY($1) AND NOT w.escrow AND c.state = ANY($2) AND c.id <> $3)`, o.userInputs(), liveStates, o.terms.ID[:]).Scan(&taken)
	if err == nil && taken {
		return protocol.Errorf(protocol.CodeInputSpent, "an input is in the funding of another contract: offer another coin")
	}
	return wrap(err, "look for the inputs of contract %s", o.terms.ID.Short())
}

// firstInput is what the bound by coin goes by: the first coin of the user, or the escrow that is renewed.
func (o *opening) firstInput() []byte {
	if r := o.funding.Renewal; r != nil {
		return outpointKey(r.Funding)
	}
	return outpointKey(o.funding.User.Coins[0].OutPoint)
}

func (o *opening) userInputs() [][]byte {
	keys := make([][]byte, 0, len(o.funding.User.Coins))
	for _, coin := range o.funding.User.Coins {
		keys = append(keys, outpointKey(coin.OutPoint))
	}
	return keys
}

// openingLock makes openings count one another: a constant for pg_advisory_xact_lock.
const openingLock = 0x6f70656e

// insertOpening finds the relay's coin, builds the funding and stores the offer.
func (m *Manager) insertOpening(ctx context.Context, tx pgx.Tx, o *opening) error {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, openingLock); err != nil {
		return err
	}
	if err := m.room(ctx, tx, o); err != nil {
		return err
	}
	coin, err := m.addRelayPart(ctx, tx, o)
	if err != nil {
		return err
	}
	if err := o.funding.Validate(); err != nil {
		return err
	}
	if o.psbt, err = o.funding.PSBT(); err != nil {
		return err
	}
	terms, err := json.Marshal(o.terms)
	if err != nil {
		return err
	}
	hash := o.request.RequestHash()
	_, err = tx.Exec(ctx, `
		INSERT INTO contract_openings (id, payer, input, request_hash, request, terms, psbt, renews_amount, relay_coin, made, reserved_until)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
		ON CONFLICT (id) DO UPDATE SET request = $5, terms = $6, psbt = $7, renews_amount = $8, relay_coin = $9, reserved_until = $11
		WHERE contract_openings.request_hash = $4`,
		o.terms.ID[:], o.terms.User[:], o.firstInput(), hash[:], o.request.Bytes(), terms, string(o.psbt), (*int64)(o.renewsPaid), coin, m.now(), o.until)
	return err
}
