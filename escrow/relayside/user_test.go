package relayside_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/internal/regtest"
	"relaymarket/protocol"
)

// user is the other side, with plain keys and no storage: what package escrow computes, and requests.
type user struct {
	h     *house
	key   *protocol.PrivateKey
	coins *btcec.PrivateKey // of his P2WPKH coins
}

// deal is one contract as the user has it.
type deal struct {
	u        *user
	id       protocol.ContractID
	key      *btcec.PrivateKey // C
	asked    *protocol.ContractOpen
	part     escrow.Part
	terms    escrow.Contract
	funding  *escrow.Funding
	out      wire.OutPoint
	signed   *protocol.ContractClientSigned
	seq      int64
	amount   btcutil.Amount
	lastPaid *protocol.ContractPayment
}

func (h *house) user() *user {
	h.t.Helper()
	return &user{h: h, key: identity(h.t), coins: bitcoinKey(h.t)}
}

func bitcoinKey(t testing.TB) *btcec.PrivateKey {
	t.Helper()
	k, err := btcec.NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// p2wpkh is the output script of a key.
func p2wpkh(key *btcec.PrivateKey) []byte {
	return append([]byte{txscript.OP_0, txscript.OP_DATA_20}, address.Hash160(key.PubKey().SerializeCompressed())...)
}

// coin is a confirmed coin of the user's.
func (u *user) coin(amount btcutil.Amount) (escrow.Coin, *wire.MsgTx) {
	u.h.t.Helper()
	at, paid := u.h.node.PayScript(p2wpkh(u.coins), amount)
	u.h.mine(1)
	return escrow.Coin{OutPoint: at, Value: amount, PkScript: p2wpkh(u.coins)}, paid
}

// envelope signs a request to the relay.
func (u *user) envelope(r protocol.Request) *protocol.Envelope {
	u.h.t.Helper()
	e, err := protocol.Sign(u.key, u.h.key.Public(), u.h.now(), r)
	if err != nil {
		u.h.t.Fatal(err)
	}
	return e
}

// plan draws a contract: deposit P, expiry lifetime blocks from now, the user's coin.
func (u *user) plan(deposit btcutil.Amount, lifetime int, coins ...escrow.Coin) *deal {
	u.h.t.Helper()
	d := &deal{u: u, key: bitcoinKey(u.h.t)}
	_, _ = rand.Read(d.id[:])
	d.asked = &protocol.ContractOpen{Contract: d.id, Announcement: u.h.said.Hash(), Deposit: deposit, Expiry: int64(u.h.node.Height() + lifetime),
		Feerate: 2_000, UserKey: escrow.KeyOf(d.key), UserScript: p2wpkh(u.coins), Writers: []protocol.ContractWriter{}}
	d.part = escrow.Part{Coins: coins}
	return d
}

// offer computes the change and the PSBT of the opening. The relay's terms are known from the announcement.
func (d *deal) offer(renewal *escrow.Renewal) {
	t := d.u.h.t
	t.Helper()
	// The user's share does not depend on the relay's key and scripts, whose sizes are fixed.
	draft := d.contract(d.u.h.offer.Bond(d.asked.Deposit), escrow.KeyOf(bitcoinKey(t)), make(protocol.Script, 0))
	draft.RelayScript = append(protocol.Script{0x51, 0x20}, make([]byte, 32)...)
	f := &escrow.Funding{Contract: &draft, Feerate: escrow.Feerate(d.asked.Feerate), User: d.part, Renewal: renewal}
	if renewal != nil {
		if err := f.SetChange(escrow.Relay, draft.RelayScript); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.SetChange(escrow.User, p2wpkh(d.u.coins)); err != nil {
		t.Fatal(err)
	}
	d.part = f.User
	var err error
	if d.asked.PSBT, err = escrow.OfferPSBT(d.part); err != nil {
		t.Fatal(err)
	}
}

func (d *deal) contract(bond btcutil.Amount, relayKey protocol.ContractKey, relayScript protocol.Script) escrow.Contract {
	o := d.u.h.offer
	c := escrow.Contract{ID: d.id, Network: protocol.Regtest, User: d.u.key.Public(), Relay: d.u.h.key.Public(), UserKey: d.asked.UserKey,
		RelayKey: relayKey, UserScript: d.asked.UserScript, RelayScript: relayScript, Deposit: d.asked.Deposit, Bond: bond,
		OpeningPrice: o.OpeningPrice, CreditLimit: o.CreditLimit, Expiry: uint32(d.asked.Expiry), Announcement: d.asked.Announcement, Renews: d.asked.Renews,
		Prices: escrow.Prices{StorageMsatPerGBDay: o.StorageMsatPerGBDay, BandwidthMsatPerGB: o.BandwidthMsatPerGB}}
	for _, w := range d.asked.Writers {
		c.Writers = append(c.Writers, w.Key)
	}
	return c
}

// open sends the opening and checks the answer as a user does.
func (d *deal) open(renewal *escrow.Renewal) error {
	t := d.u.h.t
	t.Helper()
	answer, err := d.u.h.manager.Open(t.Context(), d.u.envelope(d.asked), d.asked)
	if err != nil {
		return err
	}
	if err := answer.Validate(); err != nil {
		t.Fatalf("the answer to contractOpen: %v", err)
	}
	d.terms = d.contract(answer.Bond, answer.RelayKey, answer.RelayScript)
	if d.funding, err = escrow.VerifyFunding(answer.PSBT, &d.terms, escrow.Feerate(d.asked.Feerate), d.part, renewal); err != nil {
		t.Fatalf("the relay's funding: %v", err)
	}
	d.out, err = d.funding.Outpoint()
	return err
}

// witness makes what the user signs: his inputs, and state 0.
func (d *deal) witness(oldKey *btcec.PrivateKey) {
	t := d.u.h.t
	t.Helper()
	packet, err := d.funding.Packet()
	if err != nil {
		t.Fatal(err)
	}
	tx, err := d.funding.Tx()
	if err != nil {
		t.Fatal(err)
	}
	coins := make(map[wire.OutPoint]*wire.TxOut)
	for i, in := range tx.TxIn {
		coins[in.PreviousOutPoint] = tx.Prev[i]
	}
	hashes := txscript.NewTxSigHashes(tx.MsgTx, txscript.NewMultiPrevOutFetcher(coins))
	for i := range tx.TxIn {
		if !bytes.Equal(tx.Prev[i].PkScript, p2wpkh(d.u.coins)) {
			continue
		}
		w, err := txscript.WitnessSignature(tx.MsgTx, hashes, i, tx.Prev[i].Value, tx.Prev[i].PkScript, txscript.SigHashAll, d.u.coins, true)
		if err != nil {
			t.Fatal(err)
		}
		packet.Inputs[i].FinalScriptWitness = escrow.EncodeWitness(w)
	}
	if oldKey != nil {
		if err := d.funding.AddRenewalSignature(packet, oldKey); err != nil {
			t.Fatal(err)
		}
	}
	d.signed = &protocol.ContractClientSigned{Contract: d.id, Amount: d.terms.OpeningPrice, Signature: d.state(d.terms.OpeningPrice)}
	d.amount = d.terms.OpeningPrice
	if d.signed.PSBT, err = escrow.EncodePSBT(packet); err != nil {
		t.Fatal(err)
	}
}

func (d *deal) state(amount btcutil.Amount) protocol.ContractSignature {
	d.u.h.t.Helper()
	sig, err := escrow.SignState(&d.terms, d.out, amount, d.key)
	if err != nil {
		d.u.h.t.Fatal(err)
	}
	return sig
}

func (d *deal) send() (*protocol.ContractStatus, error) {
	d.u.h.t.Helper()
	return d.u.h.manager.Signed(d.u.h.t.Context(), d.u.envelope(d.signed), d.signed)
}

// pay raises A.
func (d *deal) pay(amount btcutil.Amount, pending *protocol.PendingState) (*protocol.ContractStatus, error) {
	d.u.h.t.Helper()
	d.lastPaid = &protocol.ContractPayment{Contract: d.id, Seq: d.seq + 1, Amount: amount, Signature: d.state(amount), Pending: pending}
	s, err := d.repay()
	if err == nil {
		d.seq, d.amount = d.seq+1, amount
	}
	return s, err
}

// repay sends the last payment again.
func (d *deal) repay() (*protocol.ContractStatus, error) {
	return d.u.h.manager.Pay(d.u.h.t.Context(), d.u.envelope(d.lastPaid), d.lastPaid)
}

// refundRequest is a closing that the user asks for.
func (d *deal) refundRequest(amount, fee btcutil.Amount) *protocol.ContractRefund {
	d.u.h.t.Helper()
	sig, err := escrow.SignClosing(&d.terms, d.out, escrow.Closing{Amount: amount, Fee: fee, Asked: escrow.User}, d.key)
	if err != nil {
		d.u.h.t.Fatal(err)
	}
	return &protocol.ContractRefund{Contract: d.id, Amount: amount, Fee: fee, Signature: sig}
}

func (d *deal) refund(amount, fee btcutil.Amount) (*protocol.ContractStatus, error) {
	d.u.h.t.Helper()
	r := d.refundRequest(amount, fee)
	return d.u.h.manager.Refund(d.u.h.t.Context(), d.u.envelope(r), r)
}

func (d *deal) status() *protocol.ContractStatus {
	d.u.h.t.Helper()
	s, err := d.u.h.manager.Status(d.u.h.t.Context(), d.u.key.Public(), d.id)
	if err != nil {
		d.u.h.t.Fatal(err)
	}
	if err := s.Validate(); err != nil {
		d.u.h.t.Fatalf("the status: %v", err)
	}
	return s
}

func (d *deal) reaches(state protocol.ContractState) *protocol.ContractStatus {
	d.u.h.t.Helper()
	var s *protocol.ContractStatus
	d.u.h.eventually("state "+string(state), func() bool { s = d.status(); return s.State == state })
	return s
}

// opened is a contract whose funding was sent.
func (u *user) opened(deposit btcutil.Amount, lifetime int) *deal {
	u.h.t.Helper()
	coin, _ := u.coin(deposit + 50_000)
	d := u.plan(deposit, lifetime, coin)
	d.offer(nil)
	u.h.retry(func() error { return d.open(nil) })
	d.witness(nil)
	u.h.retry(func() error { _, err := d.send(); return err })
	u.h.inMempool(d.out.Hash)
	return d
}

// active is a contract with full credit.
func (u *user) active(deposit btcutil.Amount, lifetime int) *deal {
	u.h.t.Helper()
	d := u.opened(deposit, lifetime)
	u.h.mine(6)
	d.reaches(escrow.Active)
	return d
}

func (h *house) inMempool(id chainhash.Hash) {
	h.t.Helper()
	h.eventually("the transaction "+id.String()+" in the mempool", func() bool { return h.node.InMempool(id) })
}

// outpointKey is an outpoint as the tables have it.
func outpointKey(out wire.OutPoint) []byte {
	return binary.BigEndian.AppendUint32(bytes.Clone(out.Hash[:]), out.Index)
}

// spender is the transaction in a block that spends an outpoint.
func (h *house) spender(out wire.OutPoint) *wire.MsgTx {
	h.t.Helper()
	var raw []byte
	if err := h.db.Pool().QueryRow(h.t.Context(), `SELECT tx FROM contract_spends WHERE outpoint = $1`, outpointKey(out)).Scan(&raw); err != nil {
		h.t.Fatalf("what spent %v: %v", out, err)
	}
	tx := new(wire.MsgTx)
	if err := tx.Deserialize(bytes.NewReader(raw)); err != nil {
		h.t.Fatal(err)
	}
	return tx
}

// paid is what a transaction pays to a script.
func paid(tx *wire.MsgTx, script []byte) (sum btcutil.Amount) {
	for _, out := range tx.TxOut {
		if bytes.Equal(out.PkScript, script) {
			sum += btcutil.Amount(out.Value)
		}
	}
	return sum
}

// elsewhere spends a coin of the user's to himself.
func (u *user) elsewhere(coin escrow.Coin, fee btcutil.Amount) *wire.MsgTx {
	u.h.t.Helper()
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(&wire.TxIn{PreviousOutPoint: coin.OutPoint, Sequence: 0xfffffffd})
	tx.AddTxOut(wire.NewTxOut(int64(coin.Value-fee), p2wpkh(u.coins)))
	if err := regtest.Sign(tx, u.coins, map[wire.OutPoint]*wire.TxOut{coin.OutPoint: coin.Output()}); err != nil {
		u.h.t.Fatal(err)
	}
	return tx
}

func wantCode(t testing.TB, err error, code protocol.Code) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Errorf("got %v, want %s", err, code)
	}
}
