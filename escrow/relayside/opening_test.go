package relayside_test

import (
	"errors"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/escrow/relayside"
	"relaymarket/internal/regtest"
	"relaymarket/protocol"
)

// bondOffer is that of a relay which puts a tenth of the deposit beside it.
func bondOffer() protocol.ContractOffer {
	offer := standardOffer
	offer.BondPercent = 10
	return offer
}

// The relay's coin is offered to all who ask and held for none: the first to sign has it, the next is offered another.
func TestFirstSignatureTakesTheCoin(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bondOffer())
	h.fundWallet(200_000)
	first, second := h.user(), h.user()
	coin1, _ := first.coin(150_000)
	coin2, _ := second.coin(150_000)
	d1, d2 := first.plan(100_000, 1500, coin1), second.plan(100_000, 1500, coin2)
	for _, d := range []*deal{d1, d2} {
		d.offer(nil)
		if err := d.open(nil); err != nil {
			t.Fatal(err)
		}
		d.witness(nil)
	}
	if d1.funding.Relay.Coins[0].OutPoint != d2.funding.Relay.Coins[0].OutPoint {
		t.Fatal("the relay has one coin and offered two")
	}
	if _, err := d2.send(); err != nil {
		t.Fatal(err)
	}
	_, err := d1.send()
	wantCode(t, err, protocol.CodeFundingEnded)
	h.inMempool(d2.out.Hash)
	again := first.plan(100_000, 1500, coin1)
	again.offer(nil)
	wantCode(t, again.open(nil), protocol.CodeNoCoins)
	h.fundWallet(300_000) // and a block: the funding is confirmed
	if err := again.open(nil); err != nil {
		t.Fatal(err)
	}
	again.witness(nil)
	if _, err := again.send(); err != nil {
		t.Fatal(err)
	}
	h.inMempool(again.out.Hash)
	h.mine(6)
	d2.reaches(escrow.Active)
	again.reaches(escrow.Active)
	if s, err := d2.refund(5_000, 500); err != nil || s.State != escrow.RefundRequested {
		t.Fatalf("%+v, %v", s, err)
	}
	h.mine(1)
	if got := paid(h.spender(d2.out), d2.terms.RelayScript); got != 15_000 { // c₀ and the bond
		t.Errorf("the relay got %d", got)
	}
}

// A user who spends his coin elsewhere after he signed costs the relay nothing but time: its coin is free again at six
// confirmations.
func TestCoinComesBack(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bondOffer())
	h.fundWallet(200_000)
	u := h.user()
	coin, _ := u.coin(150_000)
	d := u.plan(100_000, 1500, coin)
	d.offer(nil)
	if err := d.open(nil); err != nil {
		t.Fatal(err)
	}
	d.witness(nil)
	if _, err := d.send(); err != nil {
		t.Fatal(err)
	}
	h.inMempool(d.out.Hash)
	h.node.MineWith(u.elsewhere(coin, 5_000))
	h.synced()
	d.reaches(escrow.Abandoned)
	h.mine(4)
	h.walletRead()
	if h.count(`SELECT count(*) FROM contract_coins WHERE contract IS NULL`) != 0 {
		t.Fatal("the coin is free at five confirmations")
	}
	h.mine(1)
	h.coinsAre(1)
	v := h.user()
	next := v.opened(100_000, 1500)
	h.mine(6)
	next.reaches(escrow.Active)
}

// A funding with a coin of the relay's that no block takes is cancelled after a day, and the relay has its coin back.
func TestFundingThatHangsIsCancelled(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bondOffer())
	node := &spiky{Client: h.chain}
	h.crash()
	h.contractChain = node
	h.start()
	h.fundWallet(200_000)
	u := h.user()
	coin, _ := u.coin(150_000)
	d := u.plan(100_000, 1500, coin)
	d.offer(nil)
	node.rate.Store(4_002)
	wantCode(t, d.open(nil), protocol.CodeFeerate)
	node.rate.Store(4_001)
	if err := d.open(nil); err != nil {
		t.Fatal(err)
	}
	other := h.user() // with the same coin
	other.coins = u.coins
	twice := other.plan(100_000, 1500, coin)
	twice.offer(nil)
	if err := twice.open(nil); err != nil {
		t.Fatal(err)
	}
	d.witness(nil)
	twice.witness(nil)
	if _, err := d.send(); err != nil {
		t.Fatal(err)
	}
	_, err := twice.send()
	wantCode(t, err, protocol.CodeInputSpent)
	h.inMempool(d.out.Hash)
	if _, err := d.pay(6_000, nil); err != nil { // it does not keep the coin
		t.Fatal(err)
	}
	for range 142 { // the wallet's part of the work may have signed at the height of the block before
		h.node.MineWith() // full of others
	}
	h.synced()
	if s := d.status(); !h.node.InMempool(d.out.Hash) || len(s.Transactions) != 1 {
		t.Fatalf("the funding was cancelled too early: %+v", s.Transactions)
	}
	for range 38 {
		h.node.MineWith()
	}
	h.synced()
	h.eventually("the cancellation", func() bool { return !h.node.InMempool(d.out.Hash) })
	h.mine(1)
	s := d.reaches(escrow.Abandoned)
	if first := s.Transactions[0]; first.Kind != protocol.TxCancel || first.Confirmations != 1 {
		t.Fatalf("the status begins with %+v", first)
	}
	h.mine(5)
	h.coinsAre(1)
	next := h.user().opened(100_000, 1500) // with what the coin came back as
	h.mine(6)
	next.reaches(escrow.Active)
}

// Asked often about one coin, the relay shows one of its own.
func TestSameInputSameCoin(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bondOffer())
	for range 3 {
		h.fundWallet(200_000)
	}
	u := h.user()
	coin, _ := u.coin(150_000)
	other, _ := u.coin(150_000)
	seen := make(map[wire.OutPoint]bool)
	for range 5 {
		d := u.plan(100_000, 1500, coin)
		d.offer(nil)
		if err := d.open(nil); err != nil {
			t.Fatal(err)
		}
		seen[d.funding.Relay.Coins[0].OutPoint] = true
	}
	if len(seen) != 1 {
		t.Fatalf("one input was shown %d coins", len(seen))
	}
	d := u.plan(100_000, 1500, other)
	d.offer(nil)
	if err := d.open(nil); err != nil {
		t.Fatal(err)
	}
	if seen[d.funding.Relay.Coins[0].OutPoint] {
		t.Error("another input was offered the coin that is offered most")
	}
}

// Each step again has the same answer; other content under its name is a conflict.
func TestStepsAreIdempotent(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	u := h.user()
	coin, _ := u.coin(150_000)
	d := u.plan(100_000, 1500, coin)
	d.offer(nil)
	for range 2 {
		if err := d.open(nil); err != nil {
			t.Fatal(err)
		}
	}
	other := *d.asked
	other.Feerate++
	_, err := h.manager.Open(t.Context(), u.envelope(&other), &other)
	wantCode(t, err, protocol.CodeConflict)
	d.witness(nil)
	for range 2 {
		if s, err := d.send(); err != nil || s.Seq != 0 {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	changed := *d.signed
	changed.Amount++
	_, err = h.manager.Signed(t.Context(), u.envelope(&changed), &changed)
	wantCode(t, err, protocol.CodeConflict)
	before := d.out
	if err := d.open(nil); err != nil || d.out != before { // the signed one's offer is still told
		t.Fatalf("opened again: %v", err)
	}
	h.mine(6)
	d.reaches(escrow.Active)
	for i := range 40 {
		if _, err := d.pay(6_000, nil); err != nil {
			t.Fatal(i, err)
		}
	}
	if s, err := d.repay(); err != nil || s.Seq != 40 {
		t.Fatalf("paid again: %+v, %v", s, err)
	}
	if n := h.count(`SELECT count(*) FROM contract_payments`); n > 33 {
		t.Errorf("%d payments are remembered", n)
	}
	d.seq--
	_, err = d.pay(7_000, nil)
	wantCode(t, err, protocol.CodeConflict)
	d.seq = 2 // long forgotten
	_, err = d.pay(7_000, nil)
	wantCode(t, err, protocol.CodeStateOrder)
	d.seq = 40
	_, err = d.pay(5_999, nil)
	wantCode(t, err, protocol.CodeWrongAmount)
	d.seq, d.amount = 40, 6_000
	r := d.refundRequest(6_000, 400)
	for range 2 {
		if s, err := h.manager.Refund(t.Context(), u.envelope(r), r); err != nil || s.State != escrow.RefundRequested {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	if s, err := d.refund(6_000, 900); err != nil || s.State != escrow.RefundRequested { // a higher fee
		t.Fatalf("%+v, %v", s, err)
	}
	for _, fee := range []btcutil.Amount{901, 899, 1_294} { // a quarter and 170 more are 1,295
		_, err = d.refund(6_000, fee)
		wantCode(t, err, protocol.CodeFeerate)
		_, err = d.refund(7_000, fee)
		wantCode(t, err, protocol.CodeFeerate)
	}
	closings, fee := 2, btcutil.Amount(1_295)
	for ; ; closings++ {
		if _, err := d.refund(6_000, fee); err != nil {
			break
		}
		if n := h.count(`SELECT count(*) FROM contract_transactions WHERE kind = 'closing' AND wanted`); n != 1 {
			t.Fatalf("%d closings are wanted", n)
		}
		fee += fee/4 + 170
	}
	if n := h.count(`SELECT count(*) FROM contract_transactions WHERE kind = 'closing'`); n != closings || n > 30 {
		t.Fatalf("%d closings were signed, %d are stored", closings, n)
	}
	if s, err := h.manager.Refund(t.Context(), u.envelope(r), r); err != nil || s.State != escrow.RefundRequested { // the first one again
		t.Fatalf("%+v, %v", s, err)
	}
	h.inMempool(h.latest(d.id, protocol.TxClosing).TxHash())
	stranger := h.user()
	_, err = h.manager.Status(t.Context(), stranger.key.Public(), d.id)
	wantCode(t, err, protocol.CodeNotFound)
	if list, err := h.manager.List(t.Context(), u.key.Public()); err != nil || len(list.Contracts) != 1 || list.Validate() != nil {
		t.Fatalf("%+v, %v", list, err)
	}
}

// Of many contracts a hundred are listed, the live one among them.
func TestListIsBounded(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	u := h.user()
	d := u.active(100_000, 1500)
	_, err := h.db.Pool().Exec(t.Context(), `INSERT INTO contracts (id, payer, state, terms, expiry, opened, request_hash, request, offer, signed_hash, psbt, funding, seq, amount, signature, final_owed)
		SELECT sha256(id || int4send(n)), payer, 'archived', terms, expiry, opened + n, request_hash, request, offer, signed_hash, psbt, sha256(funding || int4send(n)), seq, amount, signature, 0
		FROM contracts, generate_series(1, 150) n WHERE id = $1`, d.id[:])
	if err != nil {
		t.Fatal(err)
	}
	list, err := h.manager.List(t.Context(), u.key.Public())
	if err != nil || len(list.Contracts) != 100 || list.Validate() != nil {
		t.Fatalf("%d contracts are listed: %v", len(list.Contracts), err)
	}
	if last := list.Contracts[99]; last.State != escrow.Active {
		t.Errorf("the live one, the oldest of them, is not listed: %+v", last)
	}
}

// What is not as the chain or the announcement says is refused with its code, and holds nothing.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bondOffer())
	h.fundWallet(200_000)
	u := h.user()
	coin, _ := u.coin(150_000)
	spent, _ := u.coin(150_000)
	h.node.Send(u.elsewhere(spent, 1_000))
	h.mine(1)
	at, _ := h.node.PayScript(p2wpkh(u.coins), 150_000)
	fresh := escrow.Coin{OutPoint: at, Value: 150_000, PkScript: p2wpkh(u.coins)}
	rich := coin
	rich.Value += 1_000
	for name, c := range map[string]struct {
		code  protocol.Code
		coin  escrow.Coin
		spoil func(*deal)
	}{
		"spent":           {protocol.CodeInputSpent, spent, nil},
		"never was":       {protocol.CodeInputSpent, escrow.Coin{OutPoint: wire.OutPoint{Hash: chainhash.Hash{9}}, Value: 150_000, PkScript: p2wpkh(u.coins)}, nil},
		"unconfirmed":     {protocol.CodeInputUnconfirmed, fresh, nil},
		"other amount":    {protocol.CodeInputAmount, rich, nil},
		"announcement":    {protocol.CodeTerms, coin, func(d *deal) { d.asked.Announcement[0] ^= 1 }},
		"too near":        {protocol.CodeContractExpiry, coin, func(d *deal) { d.asked.Expiry -= 900 }},
		"too far":         {protocol.CodeContractExpiry, coin, func(d *deal) { d.asked.Expiry += 40_000 }},
		"too little":      {protocol.CodeWrongAmount, coin, func(d *deal) { d.asked.Deposit = 19_999 }},
		"not the payer's": {protocol.CodeNotFound, coin, func(d *deal) { id := protocol.ContractID{1}; d.asked.Renews = &id }},
	} {
		t.Run(name, func(t *testing.T) {
			d := u.plan(100_000, 1500, c.coin)
			d.offer(nil)
			if c.spoil != nil {
				c.spoil(d)
			}
			_, err := h.manager.Open(t.Context(), u.envelope(d.asked), d.asked)
			wantCode(t, err, c.code)
		})
	}
	if n := h.count(`SELECT count(*) FROM contract_openings`); n != 0 {
		t.Fatalf("%d refused openings are kept", n)
	}
	friend := identity(t)
	d := u.plan(100_000, 1500, coin)
	consent, err := protocol.Sign(friend, h.key.Public(), h.now(), &protocol.ContractConsent{Contract: d.id, Payer: u.key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	d.asked.Writers = []protocol.ContractWriter{{Key: friend.Public(), Consent: consent.Bytes()}}
	d.offer(nil)
	d.asked.Contract[0] ^= 1
	_, err = h.manager.Open(t.Context(), u.envelope(d.asked), d.asked)
	wantCode(t, err, protocol.CodeConsent)
	d.asked.Contract[0] ^= 1
	if err := d.open(nil); err != nil {
		t.Fatal(err)
	}
	d.witness(nil)
	if _, err := d.send(); err != nil {
		t.Fatal(err)
	}
	h.inMempool(d.out.Hash)
	h.mine(6)
	d.reaches(escrow.Active)
	if err := h.use(friend.Public(), 1_000_000); err != nil { // on the payer's cost
		t.Fatal(err)
	}
	if s := d.status(); s.Owed != 6_000 {
		t.Fatalf("with a writer's use %d are owed", s.Owed)
	}
	another := u.plan(100_000, 1500, coin)
	another.offer(nil)
	_, err = h.manager.Open(t.Context(), u.envelope(another.asked), another.asked)
	wantCode(t, err, protocol.CodeConflict)
}

// An operator may take shorter and longer contracts than others, within the protocol's bounds.
func TestLengthsAreTheOperators(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	h.crash()
	for _, wrong := range []relayside.Limits{{Shortest: escrow.MinLifetime - 1}, {Longest: escrow.MaxLifetime + 1}, {Shortest: 2_000, Longest: 1_999}} {
		cfg := h.config()
		cfg.Limits = wrong
		if _, err := relayside.New(cfg); err == nil {
			t.Errorf("a manager with the bounds %+v", wrong)
		}
	}
	h.limits.Shortest, h.limits.Longest = 1_000, 2_000
	h.start()
	u := h.user()
	coin, _ := u.coin(150_000)
	open := func(lifetime int) (*deal, error) {
		d := u.plan(100_000, lifetime, coin)
		d.offer(nil)
		return d, d.open(nil)
	}
	for _, lifetime := range []int{999, 2_001} {
		_, err := open(lifetime)
		wantCode(t, err, protocol.CodeContractExpiry)
	}
	if _, err := open(2_000); err != nil {
		t.Fatal(err)
	}
	d, err := open(1_000)
	if err != nil {
		t.Fatal(err)
	}
	d.witness(nil)
	h.mine(50) // it is shorter now, and was offered
	if _, err := d.send(); err != nil {
		t.Fatal(err)
	}
	h.inMempool(d.out.Hash)
}

// Half-opened contracts are bounded by payer, by coin and in all, end by themselves and hold nothing.
func TestHalfOpenedAreBounded(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bondOffer())
	h.fundWallet(200_000)
	h.crash()
	h.limits.OpeningsByPayer, h.limits.OpeningsByInput, h.limits.Openings = 2, 3, 5
	h.start()
	honest, hostile := h.user(), h.user()
	coin, _ := honest.coin(150_000)
	stolen, _ := hostile.coin(150_000)
	open := func(u *user, c escrow.Coin) error {
		d := u.plan(100_000, 1500, c)
		d.offer(nil)
		return d.open(nil)
	}
	for range 2 {
		if err := open(hostile, stolen); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, open(hostile, stolen), protocol.CodeContractsFull) // by payer
	crowd := h.user()
	crowd.coins = hostile.coins
	if err := open(crowd, stolen); err != nil {
		t.Fatal(err)
	}
	wantCode(t, open(crowd, stolen), protocol.CodeContractsFull) // by coin
	d := honest.plan(100_000, 1500, coin)
	d.offer(nil)
	if err := d.open(nil); err != nil { // the coin is offered to all of them
		t.Fatal(err)
	}
	last := h.user()
	lastCoin, _ := last.coin(150_000)
	if err := open(last, lastCoin); err != nil {
		t.Fatal(err)
	}
	wantCode(t, open(last, lastCoin), protocol.CodeContractsFull) // in all
	d.witness(nil)
	if _, err := d.send(); err != nil {
		t.Fatal(err)
	}
	h.advance(h.limits.Reservation + time.Minute)
	h.eventually("the end of the offers", func() bool { return h.count(`SELECT count(*) FROM contract_openings`) == 0 })
	h.inMempool(d.out.Hash)
	h.fundWallet(200_000)
	if err := open(last, lastCoin); err != nil {
		t.Fatal(err)
	}
}

// A node that answers, and whose newest block is hours old, is not relied on: nothing is opened, signed by the user or by the
// wallet; what is open is paid and served. With a fresh block all goes on.
func TestStaleTip(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bondOffer())
	h.fundWallet(50_000)
	h.fundWallet(60_000)
	node, err := chain.New(chain.Config{Network: protocol.Regtest, Host: h.node.Host(), User: regtest.User, Password: regtest.Password, Plain: true,
		Timeout: patience, StaleAfter: 2 * time.Hour, FeeCeiling: 2_000}, h.clock)
	if err != nil {
		t.Fatal(err)
	}
	h.crash()
	h.contractChain = node
	h.limits.Reservation = 24 * time.Hour
	h.start()
	u, v, w := h.user(), h.user(), h.user()
	d := u.active(100_000, 1500)
	coin, _ := v.coin(150_000)
	other, _ := w.coin(150_000)
	h.coinsAre(2) // one for each of them: with the change of the first contract's
	offered, signed := v.plan(100_000, 1500, coin), w.plan(100_000, 1500, other)
	for _, d := range []*deal{offered, signed} {
		d.offer(nil)
		if err := d.open(nil); err != nil {
			t.Fatal(err)
		}
		d.witness(nil)
	}
	h.crash() // what is signed now, the wallet has not seen
	if _, err := signed.send(); err != nil {
		t.Fatal(err)
	}
	h.advance(3 * time.Hour)
	h.start()
	h.walletRead()
	another := h.user().plan(100_000, 1500, coin)
	another.offer(nil)
	wantCode(t, another.open(nil), protocol.CodeChainStale)
	_, err = offered.send()
	wantCode(t, err, protocol.CodeChainStale)
	if s := signed.status(); s.Funding != nil {
		t.Fatalf("the wallet signed: %+v", s)
	}
	if err := h.use(u.key.Public(), 2_000_000); err != nil {
		t.Fatal(err)
	}
	if s, err := d.pay(9_000, nil); err != nil || s.Amount != 9_000 {
		t.Fatalf("%+v, %v", s, err)
	}
	h.eventually("the age of the tip", func() bool { return h.metric("chain_tip_age_seconds") > 2*3600 })

	h.advance(-3 * time.Hour)
	h.inMempool(signed.out.Hash)
	if _, err := offered.send(); err != nil {
		t.Fatal(err)
	}
	h.mine(1)
	signed.reaches(escrow.Active)
}

// While the node is away nothing is opened or signed, the refusal says so, and what is open is paid and served; when it is
// back, what was to be sent is sent.
func TestNodeDownAndBack(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	u, v := h.user(), h.user()
	d := u.active(100_000, 1500)
	coin, _ := v.coin(150_000)
	open, signed := v.plan(100_000, 1500, coin), v.plan(100_000, 1500, coin)
	signed.offer(nil)
	if err := signed.open(nil); err != nil {
		t.Fatal(err)
	}
	signed.witness(nil)
	open.offer(nil)
	h.node.Stop()
	wantCode(t, open.open(nil), protocol.CodeChainStale)
	_, err := signed.send()
	wantCode(t, err, protocol.CodeChainStale)
	if err := h.use(u.key.Public(), 2_000_000); err != nil {
		t.Fatal(err)
	}
	if s, err := d.pay(9_000, nil); err != nil || s.Amount != 9_000 {
		t.Fatalf("%+v, %v", s, err)
	}
	s, err := d.refund(9_000, 400)
	if err != nil || s.State != escrow.RefundRequested {
		t.Fatalf("%+v, %v", s, err)
	}
	h.restart()
	h.node.Restart()
	h.inMempool(h.latest(d.id, protocol.TxClosing).TxHash())
	h.mine(1)
	d.reaches(escrow.Settling)
	var refused *protocol.Error
	if _, err := signed.send(); errors.As(err, &refused) {
		t.Fatalf("with the node back: %v", err)
	}
	h.inMempool(signed.out.Hash)
}
