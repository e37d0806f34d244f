package relayside_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/chain"
	"relaymarket/protocol"
)

// What a user signs wrongly is refused with its code, whatever it is, and holds no coin; right, it is taken afterwards.
func TestSignedRefuses(t *testing.T) {
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
	right := *d.signed
	sighash := append(protocol.ContractSignature(nil), right.Signature...)
	sighash[len(sighash)-1] = byte(txscript.SigHashAll)
	stranger := *d
	stranger.key = bitcoinKey(t)
	packet, err := d.funding.Packet()
	if err != nil {
		t.Fatal(err)
	}
	unsigned, err := escrow.EncodePSBT(packet)
	if err != nil {
		t.Fatal(err)
	}
	packet.UnsignedTx.TxOut[0].Value--
	altered, err := escrow.EncodePSBT(packet)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		code  protocol.Code
		spoil func(*protocol.ContractClientSigned)
	}{
		"another contract's id":   {protocol.CodeNotFound, func(r *protocol.ContractClientSigned) { r.Contract[0] ^= 1 }},
		"not signed":              {protocol.CodeContractSignature, func(r *protocol.ContractClientSigned) { r.PSBT = unsigned }},
		"another transaction":     {protocol.CodeWrongOutput, func(r *protocol.ContractClientSigned) { r.PSBT = altered }},
		"state of another amount": {protocol.CodeContractSignature, func(r *protocol.ContractClientSigned) { r.Signature = d.state(5_001) }},
		"less than c0":            {protocol.CodeWrongAmount, func(r *protocol.ContractClientSigned) { r.Amount-- }},
		"sighash all":             {protocol.CodeWrongSighash, func(r *protocol.ContractClientSigned) { r.Signature = sighash }},
		"another key": {protocol.CodeContractSignature, func(r *protocol.ContractClientSigned) {
			r.Signature = stranger.state(5_000)
		}},
		"no PSBT": {protocol.CodeBadPSBT, func(r *protocol.ContractClientSigned) { r.PSBT = "AAAA" }},
	} {
		wrong := right
		c.spoil(&wrong)
		_, err := h.manager.Signed(t.Context(), u.envelope(&wrong), &wrong)
		if wantCode(t, err, c.code); t.Failed() {
			t.Fatal(name)
		}
	}
	if n := h.count(`SELECT (SELECT count(*) FROM contracts) + (SELECT count(*) FROM contract_coins WHERE contract IS NOT NULL) + (SELECT count(*) FROM accounts)`); n != 0 {
		t.Fatalf("refused signatures left %d rows", n)
	}
	thief := h.user()
	_, err = h.manager.Signed(t.Context(), thief.envelope(&right), &right)
	wantCode(t, err, protocol.CodeNotFound)
	h.node.Send(u.elsewhere(coin, 1_000))
	h.mine(1)
	_, err = d.send()
	wantCode(t, err, protocol.CodeInputSpent)
	other, _ := u.coin(150_000)
	again := u.plan(100_000, 1500, other)
	again.offer(nil)
	if err := again.open(nil); err != nil {
		t.Fatal(err)
	}
	again.witness(nil)
	if _, err := again.send(); err != nil {
		t.Fatal(err)
	}
	h.inMempool(again.out.Hash)
}

// Payments and closings that are not as they must be are refused, and change nothing.
func TestPayRefuses(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	u, v := h.user(), h.user()
	d, other := u.active(100_000, 1500), v.active(100_000, 1500)
	sign := func(d *deal, seq int64, amount btcutil.Amount, sig protocol.ContractSignature) *protocol.ContractPayment {
		return &protocol.ContractPayment{Contract: d.id, Seq: seq, Amount: amount, Signature: sig}
	}
	pend := sign(d, 1, 6_000, d.state(6_000))
	pend.Pending = &protocol.PendingState{Contract: other.id, Seq: 1, Amount: 6_000, Signature: other.state(6_000)}
	closing := d.refundRequest(6_000, 400).Signature
	for name, c := range map[string]struct {
		code protocol.Code
		p    *protocol.ContractPayment
	}{
		"another contract's":     {protocol.CodeContractSignature, sign(d, 1, 6_000, other.state(6_000))},
		"another amount's":       {protocol.CodeContractSignature, sign(d, 1, 7_000, d.state(6_000))},
		"a closing's":            {protocol.CodeWrongSighash, sign(d, 1, 6_000, closing)},
		"above the escrow":       {protocol.CodeWrongAmount, sign(d, 1, 99_001, d.state(99_000))},
		"less than c0":           {protocol.CodeWrongAmount, sign(d, 1, 4_999, d.state(5_000))},
		"somebody's":             {protocol.CodeNotFound, sign(other, 1, 6_000, other.state(6_000))},
		"pending without a need": {protocol.CodeContractState, pend},
	} {
		_, err := h.manager.Pay(t.Context(), u.envelope(c.p), c.p)
		if wantCode(t, err, c.code); t.Failed() {
			t.Fatal(name)
		}
	}
	refund := func(r *protocol.ContractRefund) error {
		_, err := h.manager.Refund(t.Context(), u.envelope(r), r)
		return err
	}
	wrong := d.refundRequest(6_000, 400)
	wrong.Fee++
	wantCode(t, refund(wrong), protocol.CodeContractSignature)
	wrong = d.refundRequest(6_000, 400)
	wrong.Signature = d.state(6_000)
	wantCode(t, refund(wrong), protocol.CodeWrongSighash)
	wrong = d.refundRequest(6_000, 400)
	wrong.Fee = 1
	wantCode(t, refund(wrong), protocol.CodeFeerate)
	if s := d.status(); s.State != escrow.Active || s.Seq != 0 || s.Amount != 5_000 {
		t.Fatalf("refused messages changed it to %+v", s)
	}
	if s, err := d.pay(99_000, nil); err != nil || s.Amount != 99_000 { // all that there is
		t.Fatalf("%+v, %v", s, err)
	}
}

// Ten thousand half-opened contracts that are offered the relay's only coin hold nothing: an honest user opens and signs
// as before, and they are swept when their offers end.
func TestTenThousandHalfOpened(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bondOffer())
	h.fundWallet(200_000)
	crowd := h.user()
	coin, _ := crowd.coin(150_000)
	half := crowd.plan(100_000, 1500, coin)
	half.offer(nil)
	if err := half.open(nil); err != nil {
		t.Fatal(err)
	}
	_, err := h.db.Pool().Exec(t.Context(), `INSERT INTO contract_openings (id, payer, input, request_hash, request, terms, psbt, renews_amount, relay_coin, made, reserved_until)
		SELECT sha256(('id' || n)::bytea), sha256(('payer' || n)::bytea), sha256(('input' || n)::bytea) || '\x00000000', request_hash, request, terms, psbt, renews_amount, relay_coin, made, reserved_until
		FROM contract_openings, generate_series(1, 10000) n`)
	if err != nil {
		t.Fatal(err)
	}
	u := h.user()
	mine, _ := u.coin(150_000)
	d := u.plan(100_000, 1500, mine)
	d.offer(nil)
	began := time.Now()
	if err := d.open(nil); err != nil {
		t.Fatal(err)
	}
	d.witness(nil)
	if _, err := d.send(); err != nil {
		t.Fatal(err)
	}
	t.Logf("beside 10,000 half-opened contracts one was opened and signed in %v", time.Since(began))
	h.inMempool(d.out.Hash)
	h.advance(h.limits.Reservation + time.Minute)
	h.eventually("the end of the offers", func() bool { return h.count(`SELECT count(*) FROM contract_openings`) == 0 })
}

// slow is a node that takes its time, and notes what it is sent and who has the work meanwhile.
type slow struct {
	*chain.Client
	h      *house
	mu     sync.Mutex
	sent   []chainhash.Hash
	lapsed int            // how often the lease was over
	seen   map[uint32]int // how many were sent when a block was told
}

// Next implements relayside.Follower.
func (s *slow) Next(ctx context.Context, recent []chain.BlockID) (chain.Event, error) {
	e, err := s.Client.Next(ctx, recent)
	if err == nil && e.Kind == chain.Connect {
		s.mu.Lock()
		s.seen[e.Block.Height] = len(s.sent)
		s.mu.Unlock()
	}
	return e, err
}

// Broadcast implements relayside.Node.
func (s *slow) Broadcast(ctx context.Context, tx *wire.MsgTx) error {
	s.h.advance(time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, tx.TxHash())
	var lapsed int // the test may be over: then there is no answer, and nothing to fail
	if s.h.db.Pool().QueryRow(ctx, `SELECT count(*) FROM contract_work WHERE until < $1`, s.h.now()).Scan(&lapsed) == nil {
		s.lapsed += lapsed
	}
	return s.Client.Broadcast(ctx, tx)
}

// A crowd of transactions that are all to be sent keeps no settlement waiting, nor the work from its lease, nor a block.
func TestCrowdOfTransactions(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	crowd, d := h.user().active(100_000, 1500), h.user().active(100_000, 1500)
	h.crash()
	// By the node's time, of which a batch takes 200 s: the machine's own is little beside it.
	h.limits.Lease, h.limits.Resend = 150*time.Second, 10*time.Hour
	node := &slow{Client: h.chain, h: h, seen: make(map[uint32]int)}
	h.contractChain = node
	_, err := h.db.Pool().Exec(t.Context(), `INSERT INTO contract_transactions (txid, contract, kind, tx, fee, feerate, made, bid_at, wanted)
		SELECT sha256(('closing' || n)::bytea), contract, 'closing', tx, fee, feerate, made, bid_at, true FROM contract_transactions, generate_series(1, 1200) n
		WHERE contract = $1 AND kind = 'funding'`, crowd.id[:])
	if err != nil {
		t.Fatal(err)
	}
	if err := h.manager.Settle(t.Context(), d.id); err != nil {
		t.Fatal(err)
	}
	h.start()
	settlement := h.latest(d.id, protocol.TxSettlement).TxHash()
	h.inMempool(settlement)
	h.node.Mine(1)
	node.mu.Lock()
	mined := len(node.sent)
	node.mu.Unlock()
	h.eventually("the block", func() bool {
		return h.count(`SELECT count(*) FROM contract_blocks WHERE height = $1`, h.node.Height()) == 1
	})
	node.mu.Lock()
	defer node.mu.Unlock()
	if at := slices.Index(node.sent, settlement); at != 0 {
		t.Errorf("%d transactions went before the settlement", at)
	}
	if n := node.seen[uint32(h.node.Height())] - mined; n > 400 {
		t.Errorf("a block waited for %d transactions", n)
	}
	if node.lapsed > 0 {
		t.Errorf("the lease was over %d times", node.lapsed)
	}
}

// quick is a node that is asked about a coin a moment before a block spends it.
type quick struct {
	*chain.Client
	h     *house
	spend atomic.Pointer[wire.MsgTx]
}

// Output implements relayside.Node.
func (q *quick) Output(ctx context.Context, coin wire.OutPoint) (chain.Output, error) {
	out, err := q.Client.Output(ctx, coin)
	if tx := q.spend.Swap(nil); tx != nil {
		q.h.node.MineWith(tx)
		height := q.h.node.Height()
		for range 50 { // the work stores that block, if it may
			if q.h.count(`SELECT count(*) FROM contract_blocks WHERE height = $1`, height) == 1 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return out, err
}

// The user's coin is spent between the look at it and the contract: no block is missed.
func TestCoinIsSpentWhileSigning(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	node := &quick{Client: h.chain, h: h}
	h.crash()
	h.contractChain = node
	h.start()
	u := h.user()
	coin, _ := u.coin(150_000)
	d := u.plan(100_000, 1500, coin)
	d.offer(nil)
	if err := d.open(nil); err != nil {
		t.Fatal(err)
	}
	d.witness(nil)
	node.spend.Store(u.elsewhere(coin, 5_000))
	if _, err := d.send(); err != nil {
		t.Fatal(err)
	}
	d.reaches(escrow.Abandoned)
}
