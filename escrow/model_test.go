package escrow

import (
	"fmt"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// rules are what the honest relay of the model keeps. Broken ones are the controls of the test.
type rules struct {
	margin            uint32 // M
	creditBeforeDisk  bool   // gives credit on a payment before it is durable (against rule 2)
	creditUnconfirmed bool   // gives full credit whatever the funding's depth (against rule 3)
	serveAfterClosing bool   // serves on after it released a closing signature (against rule 2)
	takesFalling      bool   // takes any payment that is validly signed
	serveWithoutLimit bool   // serves whatever is owed (against rule 3)
}

var goodRules = rules{margin: SettlementMargin}

// world is one contract between two sides, and the chain they are on.
type world struct {
	rules
	*deal
	chain
	at       wire.OutPoint // the escrow
	refundTx *Tx           // the user's, which nodes take from T on
	double   *Tx           // spends the user's coin elsewhere
	deep     bool          // the funding has been six blocks deep

	userHonest, relayHonest bool
	offline                 bool // the relay is gone for good
	cushion                 btcutil.Amount

	// The relay's: what is durable, and what is in memory.
	state   State
	durable Payment
	memory  Payment
	closing *Closing
	served  int64 // msat of usage in all

	// The user's.
	sent     Payment
	released []*Tx // closings that the other side can broadcast at any time

	faults []string
}

func (w *world) fault(format string, args ...any) {
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

// must ends a story at what cannot happen.
func (w *world) must(what string, err error) bool {
	if err != nil {
		w.fault("%s: %v", what, err)
	}
	return err == nil
}

// event moves the relay's state. An event that the table refuses is a fault of the table.
func (w *world) event(e Event) {
	next, err := Next(w.state, e)
	if w.must("table", err) {
		w.state = next
	}
}

// walletTx spends a coin of a wallet to itself.
func walletTx(from Coin, key *btcec.PrivateKey) *Tx {
	tx := spend(from.OutPoint, from.Output(), sequenceReplaceable, 0)
	tx.addOutput(p2wpkh(key), from.Value-5_000)
	script := from.PkScript
	w, err := txscript.WitnessSignature(tx.MsgTx, txscript.NewTxSigHashes(tx.MsgTx, tx.fetcher()), 0, int64(from.Value), script, sighashAll, key, true)
	if err == nil {
		tx.TxIn[0].Witness = w
	}
	return tx
}

// newWorld has a signed funding, which the relay broadcast, and state 0.
func newWorld(p prepared, r rules) *world {
	d, first := p.deal, p.first
	w := &world{rules: r, deal: d, refundTx: p.refund, state: Opening, userHonest: true, relayHonest: true}
	w.at = wire.OutPoint{Hash: p.tx.TxHash()}
	w.chain = chain{tip: d.contract.Expiry - 900, valid: p.valid, coins: map[wire.OutPoint]*wire.TxOut{}}
	for _, part := range []Part{d.funding.User, d.funding.Relay} {
		for _, c := range part.Coins {
			w.coins[c.OutPoint] = c.Output()
		}
	}
	w.double = walletTx(d.funding.User.Coins[0], d.userCoin)
	w.must("state 0", VerifyOpening(d.contract, w.at, first))
	w.durable, w.memory, w.sent = first, first, first
	w.event(Signed)
	w.broadcast(Relay, "funding", p.tx)
	return w
}

// owed is c₀ and the usage in satoshi, rounded down once.
func (w *world) owed() btcutil.Amount { return w.contract.OpeningPrice + btcutil.Amount(w.served/1000) }

// serve is the relay taking usage, if its rules let it. A false one serves too, until it takes what it
// has and goes.
func (w *world) serve(msat int64) {
	confirmations := w.confirmations(w.at.Hash)
	taking := TakesUsage(w.state) || w.serveAfterClosing && w.state == PaymentRequested
	if w.offline || !taking || !(w.tip < w.contract.Expiry-w.margin) || w.closing != nil && !w.serveAfterClosing {
		return
	}
	allowance := w.contract.Allowance(w.memory.Amount, confirmations)
	if w.creditUnconfirmed {
		allowance = w.contract.Allowance(w.memory.Amount, FullCredit)
	}
	if next := btcutil.Amount((w.served + msat + 999) / 1000); next <= allowance || w.serveWithoutLimit {
		w.served += msat
	}
}

// accepted is what the honest user pays for at most: c₀, what he was served, and his cushion.
func (w *world) accepted() btcutil.Amount {
	return min(w.owed()+w.cushion, w.contract.Deposit-MinUserRest)
}

// pay sends a state. The relay may die before or after it is durable; the user then repeats it.
func (w *world) pay(amount btcutil.Amount, crash string) {
	if w.userHonest {
		amount = max(w.accepted(), w.sent.Amount)
	}
	sig, err := SignState(w.contract, w.at, amount, w.userKey)
	if err != nil {
		return // below c₀ or above P − 1000: nobody can sign that
	}
	w.sent = Payment{w.sent.Seq + 1, amount, sig}
	if crash == "before it arrives" {
		w.restart()
		return
	}
	w.deliver(crash == "before it is durable")
	if crash == "after it is durable" {
		w.restart()
		w.deliver(false)
	}
}

// deliver is the relay's part of a payment.
func (w *world) deliver(crash bool) {
	if w.offline || !TakesPayments(w.state) && !(w.serveAfterClosing && w.state == PaymentRequested) {
		return
	}
	if w.memory.Seq == w.sent.Seq && w.memory.Amount == w.sent.Amount {
		return // a repetition
	}
	err := VerifyPayment(w.contract, w.at, w.memory, w.sent)
	if w.takesFalling {
		err = VerifyState(w.contract, w.at, w.sent.Amount, w.sent.Signature)
	}
	if err != nil {
		if w.userHonest {
			w.fault("the honest user's payment is refused: %v", err)
		}
		w.sent.Seq = max(w.sent.Seq, w.memory.Seq)
		return
	}
	w.memory = w.sent
	if w.creditBeforeDisk {
		for range 10 {
			w.serve(1_000_000) // if the memory goes, so does what pays for it
		}
	}
	if crash {
		w.restart()
		if w.userHonest {
			w.deliver(false)
		}
		return
	}
	w.durable = w.memory
}

// restart is SIGKILL: what is not durable is gone.
func (w *world) restart() { w.memory = w.durable }

// requestPayment is the relay releasing a closing signature at what is due.
func (w *world) requestPayment() {
	if w.offline || w.state != Active || !w.relayHonest {
		return
	}
	amount := min(w.owed(), w.contract.Deposit-MinUserRest)
	closing, err := NewClosing(w.contract, max(amount, w.durable.Amount), Relay, testFeerate)
	if !w.must("closing", err) {
		return
	}
	w.closing = &closing
	w.event(RequestPayment)
	tx := w.bothClose(closing)
	w.released = append(w.released, tx)
	if w.userHonest && closing.Amount <= w.accepted() {
		w.broadcast(User, "closing", tx)
	}
}

// requestRefund is the user releasing a closing signature; the relay co-signs what is not less than
// it is owed.
func (w *world) requestRefund(amount btcutil.Amount) {
	if w.offline || w.state != Active && w.state != PaymentRequested {
		return
	}
	if w.userHonest {
		amount = max(w.sent.Amount, w.owed())
	}
	closing, err := NewClosing(w.contract, amount, User, testFeerate)
	if err != nil {
		return
	}
	if w.relayHonest && amount < max(w.durable.Amount, w.owed()) {
		return
	}
	w.closing = &closing
	w.event(RequestRefund)
	w.broadcast(Relay, "closing", w.bothClose(closing))
}

func (w *world) bothClose(closing Closing) *Tx {
	user, err := SignClosing(w.contract, w.at, closing, w.userKey)
	w.must("user's closing", err)
	relay, err := SignClosing(w.contract, w.at, closing, w.relayKey)
	w.must("relay's closing", err)
	tx, err := FinishClosing(w.contract, w.at, closing, user, relay)
	w.must("closing", err)
	return tx
}

// settle broadcasts the state that is durable; repeated, it bids a little more.
func (w *world) settle(feerate Feerate) {
	u := Unsettled{w.contract, w.at, w.durable}
	tx, err := Settle([]Unsettled{u}, nil, w.contract.RelayScript, feerate)
	if w.must("settlement", err) && w.must("settlement", SignSettlement(tx, 0, u, w.relayKey)) {
		w.broadcast(Relay, "settlement", tx)
	}
}

// refund is the user's way out.
func (w *world) refund() { w.broadcast(User, "refund", w.refundTx) }

// escrowOpen tells whether the escrow is on the chain and unspent.
func (w *world) escrowOpen() bool {
	spent, _ := w.spender(w.at)
	funding, _ := w.find(w.at.Hash)
	return funding != nil && spent == nil
}

// step mines one block and lets both sides react to it.
func (w *world) step(delay uint32, first Side) {
	for _, tx := range w.mine(delay, first) {
		w.connected(tx)
	}
	if w.confirmations(w.at.Hash) >= FullCredit {
		w.deep = true
	}
	w.depths()
	if w.relayHonest && !w.offline && w.tip >= w.contract.Expiry-w.margin && w.escrowOpen() && w.tip%36 == 0 {
		w.event(SettlementStarted)
		w.settle(testFeerate + Feerate(w.tip%500))
	}
	if w.userHonest && w.contract.RefundDue(w.tip) && w.tip%12 == 0 && w.escrowOpen() {
		w.refund()
	}
}

func (w *world) connected(tx *Tx) {
	for _, in := range tx.TxIn {
		switch {
		case in.PreviousOutPoint == w.at:
			if s, ok := Identify(w.contract, w.at, tx.MsgTx); !ok || s.Kind == "" {
				w.fault("a spend is not known for what it is")
			}
			w.event(SpendSeen)
		case in.PreviousOutPoint == w.funding.User.Coins[0].OutPoint && tx.TxHash() != w.at.Hash:
			w.event(InputSpent)
		}
	}
	if tx.TxHash() == w.at.Hash {
		w.event(FundingConfirmed)
	}
}

// depths tells the table how deep the end is.
func (w *world) depths() {
	end, at := w.spender(w.at)
	if w.state == Abandoned {
		end, at = w.spender(w.funding.User.Coins[0].OutPoint)
	}
	if end == nil {
		return
	}
	depth := int64(w.tip-at) + 1
	if depth >= ClosedDepth && w.state == Settling {
		w.event(SpendClosed)
	}
	if depth >= ArchiveDepth && (w.state == Closed || w.state == Abandoned) {
		w.event(SpendArchived)
	}
}

// reorganize takes blocks off. A funding that was six blocks deep is not double spent.
func (w *world) reorganize(depth int) {
	if w.deep {
		w.double = nil
		kept := w.pool[:0]
		for _, p := range w.pool {
			if p.purpose != "double spend" {
				kept = append(kept, p)
			}
		}
		w.pool = kept
	}
	for range depth {
		for _, tx := range w.disconnect() {
			w.disconnected(tx)
		}
	}
}

func (w *world) disconnected(tx *Tx) {
	if w.state == Archived {
		w.fault("a reorganization of less than %d blocks undid what is archived", ArchiveDepth)
		return
	}
	for _, in := range tx.TxIn {
		if in.PreviousOutPoint == w.at {
			w.event(SpendReorged)
		}
	}
	if tx.TxHash() == w.at.Hash {
		w.event(FundingReorged)
	}
}

// doubleSpend is a dishonest user taking the coin of his funding elsewhere.
func (w *world) doubleSpend() {
	if !w.userHonest && w.double != nil && !w.deep {
		w.broadcast(User, "double spend", w.double)
	}
}

// scripts are where a side's money may be.
func (w *world) scripts(s Side) [][]byte {
	if s == Relay {
		return [][]byte{w.contract.RelayScript, p2wpkh(w.relayCoin)}
	}
	state, err := w.contract.StatePkScript()
	w.must("state script", err)
	return [][]byte{w.contract.UserScript, p2wpkh(w.userCoin), state}
}
