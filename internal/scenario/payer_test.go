package scenario_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/internal/regtest"
	"relaymarket/internal/relaynode"
	"relaymarket/internal/scenario"
	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

// chainPatience bounds each wait for what the chain brings about: a wallet looks ahead for a hundred addresses, which takes
// long with the race detector.
const chainPatience = 4 * time.Minute

// market is a relay that sells, and the Bitcoin node that it and its users look at.
type market struct {
	t     *testing.T
	coins *regtest.Test
	relay *testnode.Node
	setup func(*relaynode.Config)
}

func newMarket(t *testing.T, offer protocol.ContractOffer) *market {
	t.Helper()
	m := &market{t: t, coins: regtest.Start(t, regtest.Plain)}
	contracts := testnode.Contracts(t, m.coins.Node)
	m.setup = func(cfg *relaynode.Config) {
		contracts(cfg)
		cfg.Bitcoin.Offer = &offer
	}
	m.relay = testnode.Start(t, testnode.Options{Setup: m.setup})
	return m
}

// beside is another process of the relay on the same database, without the wallet.
func (m *market) beside() *market {
	m.t.Helper()
	other := *m
	other.relay = testnode.Start(m.t, testnode.Options{DSN: m.relay.DSN, Key: m.relay.Secret, Setup: func(cfg *relaynode.Config) {
		m.setup(cfg)
		cfg.Bitcoin.Wallet = ""
	}})
	return &other
}

// payer opens contracts with plain keys, by package escrow and HTTP alone.
type payer struct {
	*scenario.Person
	m     *market
	coins *btcec.PrivateKey // of his P2WPKH coins
	key   *btcec.PrivateKey // C
	asked *protocol.ContractOpen
	part  escrow.Part
	terms escrow.Contract
	out   wire.OutPoint // the escrow
	seq   int64
}

func (m *market) payer() *payer {
	return &payer{Person: scenario.NewPerson(m.t, m.relay.Key), m: m, coins: m.bitcoinKey(), key: m.bitcoinKey()}
}

func (m *market) bitcoinKey() *btcec.PrivateKey {
	m.t.Helper()
	k, err := btcec.NewPrivateKey()
	if err != nil {
		m.t.Fatal(err)
	}
	return k
}

func (p *payer) script() protocol.Script {
	return append(protocol.Script{txscript.OP_0, txscript.OP_DATA_20}, address.Hash160(p.coins.PubKey().SerializeCompressed())...)
}

// call sends one request.
func (m *market) call(by *scenario.Person, c scenario.Call) *scenario.Reply {
	m.t.Helper()
	reply, err := by.Send(m.t.Context(), m.relay.URL, c)
	if err != nil {
		m.t.Fatal(err)
	}
	return reply
}

// post is a step of a contract.
func (p *payer) post(path string, request protocol.Request) *scenario.Reply {
	p.m.t.Helper()
	return p.m.call(p.Person, scenario.Call{Method: http.MethodPost, Path: path, Body: []protocol.Request{request}, To: []protocol.PublicKey{p.m.relay.Key}})
}

// open asks for the contract, again while the relay has not seen the newest block yet.
func (p *payer) open() *scenario.Reply {
	p.m.t.Helper()
	for deadline := time.Now().Add(chainPatience); ; time.Sleep(50 * time.Millisecond) {
		reply := p.post("/contracts", p.asked)
		if reply.Status != protocol.CodeChainStale.Status() || time.Now().After(deadline) {
			return reply
		}
	}
}

// read is a question about contracts.
func (p *payer) read(path string) *scenario.Reply {
	p.m.t.Helper()
	return p.m.call(p.Person, scenario.Call{Method: http.MethodGet, Path: path, Type: protocol.TypeContractRead})
}

// answer reads what the relay signed to the payer.
func (p *payer) answer(reply *scenario.Reply, into protocol.Request) *protocol.Envelope {
	t := p.m.t
	t.Helper()
	if reply.Status != http.StatusOK {
		t.Fatalf("%d %s", reply.Status, reply.Body)
	}
	e, err := protocol.ParseEnvelope(reply.Body)
	if err != nil {
		t.Fatalf("%v in %s", err, reply.Body)
	}
	if err := e.Decode(into); err != nil {
		t.Fatalf("%v in %s", err, reply.Body)
	}
	if err := e.Verify(); err != nil || e.From != p.m.relay.Key || e.To != p.Key.Public() {
		t.Fatalf("not the relay's word to the payer: %v", err)
	}
	return e
}

func (p *payer) status() *protocol.ContractStatus {
	p.m.t.Helper()
	var s protocol.ContractStatus
	p.answer(p.read("/contracts/"+p.asked.Contract.String()), &s)
	return &s
}

// reaches waits for a state.
func (p *payer) reaches(state protocol.ContractState) *protocol.ContractStatus {
	p.m.t.Helper()
	for deadline := time.Now().Add(chainPatience); ; time.Sleep(50 * time.Millisecond) {
		s := p.status()
		if s.State == state {
			return s
		}
		if time.Now().After(deadline) {
			p.m.t.Fatalf("the contract is %s, not %s, at height %d of %d: %+v", s.State, state, s.Height, p.m.coins.Height(), s)
		}
	}
}

// problem reads a refusal.
func (m *market) problem(reply *scenario.Reply, code protocol.Code) (p struct {
	Code         protocol.Code   `json:"code"`
	Detail       string          `json:"detail"`
	Announcement json.RawMessage `json:"announcement"`
}) {
	m.t.Helper()
	if err := json.Unmarshal(reply.Body, &p); err != nil || p.Code != code || reply.Status != code.Status() {
		m.t.Fatalf("%d %s, want %s", reply.Status, reply.Body, code)
	}
	return p
}

// plan asks for a contract on an announcement: deposit P, for so many blocks, with a coin of the payer's.
func (p *payer) plan(announcement []byte, deposit btcutil.Amount, blocks int, writers ...*scenario.Person) {
	t := p.m.t
	t.Helper()
	e, said, err := protocol.ParseAnnouncement(announcement, protocol.TimestampOf(time.Now()))
	if err != nil || said.Contracts == nil {
		t.Fatalf("%v %+v", err, said)
	}
	at, _ := p.m.coins.PayScript(p.script(), deposit+50_000)
	p.m.coins.Mine(1)
	p.asked = &protocol.ContractOpen{Announcement: e.Hash(), Deposit: deposit, Expiry: int64(p.m.coins.Height() + blocks), Feerate: 2_000,
		UserKey: escrow.KeyOf(p.key), UserScript: p.script(), Writers: []protocol.ContractWriter{}}
	_, _ = rand.Read(p.asked.Contract[:])
	p.terms = escrow.Contract{ID: p.asked.Contract, Network: said.Network, User: p.Key.Public(), Relay: p.m.relay.Key, UserKey: p.asked.UserKey,
		UserScript: p.asked.UserScript, Deposit: deposit, Bond: said.Contracts.Bond(deposit), OpeningPrice: said.Contracts.OpeningPrice,
		CreditLimit: said.Contracts.CreditLimit, Expiry: uint32(p.asked.Expiry), Announcement: e.Hash(),
		Prices: escrow.Prices{StorageMsatPerGBDay: said.Contracts.StorageMsatPerGBDay, BandwidthMsatPerGB: said.Contracts.BandwidthMsatPerGB}}
	for _, w := range writers {
		consent, err := protocol.Sign(w.Key, p.m.relay.Key, protocol.TimestampOf(time.Now()), &protocol.ContractConsent{Contract: p.asked.Contract, Payer: p.Key.Public()})
		if err != nil {
			t.Fatal(err)
		}
		p.asked.Writers = append(p.asked.Writers, protocol.ContractWriter{Key: w.Key.Public(), Consent: consent.Bytes()})
		p.terms.Writers = append(p.terms.Writers, w.Key.Public())
	}
	p.part = escrow.Part{Coins: []escrow.Coin{{OutPoint: at, Value: deposit + 50_000, PkScript: p.script()}}}
	// What the payer's share costs does not depend on the relay's key and script, whose sizes are fixed.
	draft := p.terms
	draft.RelayKey, draft.RelayScript = escrow.KeyOf(p.m.bitcoinKey()), append(protocol.Script{0x51, 0x20}, make([]byte, 32)...)
	f := &escrow.Funding{Contract: &draft, Feerate: escrow.Feerate(p.asked.Feerate), User: p.part}
	if err := f.SetChange(escrow.User, p.script()); err != nil {
		t.Fatal(err)
	}
	p.part = f.User
	if p.asked.PSBT, err = escrow.OfferPSBT(p.part); err != nil {
		t.Fatal(err)
	}
}

// agree checks what the relay answered, as a user does before he signs, and makes what he signs.
func (p *payer) agree(offer *protocol.ContractServerInputs) *protocol.ContractClientSigned {
	t := p.m.t
	t.Helper()
	p.terms.RelayKey, p.terms.RelayScript = offer.RelayKey, offer.RelayScript
	funding, err := escrow.VerifyFunding(offer.PSBT, &p.terms, escrow.Feerate(p.asked.Feerate), p.part, nil)
	if err != nil {
		t.Fatalf("the relay's funding: %v", err)
	}
	packet, err := funding.Packet()
	if err != nil {
		t.Fatal(err)
	}
	tx, err := funding.Tx()
	if err != nil {
		t.Fatal(err)
	}
	coins := make(map[wire.OutPoint]*wire.TxOut)
	for i, in := range tx.TxIn {
		coins[in.PreviousOutPoint] = tx.Prev[i]
	}
	hashes := txscript.NewTxSigHashes(tx.MsgTx, txscript.NewMultiPrevOutFetcher(coins))
	for i := range tx.TxIn {
		if !bytes.Equal(tx.Prev[i].PkScript, p.script()) {
			continue
		}
		w, err := txscript.WitnessSignature(tx.MsgTx, hashes, i, tx.Prev[i].Value, tx.Prev[i].PkScript, txscript.SigHashAll, p.coins, true)
		if err != nil {
			t.Fatal(err)
		}
		packet.Inputs[i].FinalScriptWitness = escrow.EncodeWitness(w)
	}
	if p.out, err = funding.Outpoint(); err != nil {
		t.Fatal(err)
	}
	signed := &protocol.ContractClientSigned{Contract: p.asked.Contract, Amount: p.terms.OpeningPrice, Signature: p.state(p.terms.OpeningPrice)}
	if signed.PSBT, err = escrow.EncodePSBT(packet); err != nil {
		t.Fatal(err)
	}
	return signed
}

func (p *payer) state(amount btcutil.Amount) protocol.ContractSignature {
	p.m.t.Helper()
	sig, err := escrow.SignState(&p.terms, p.out, amount, p.key)
	if err != nil {
		p.m.t.Fatal(err)
	}
	return sig
}

// payment raises the relay's amount.
func (p *payer) payment(amount btcutil.Amount) *protocol.ContractPayment {
	p.seq++
	return &protocol.ContractPayment{Contract: p.asked.Contract, Seq: p.seq, Amount: amount, Signature: p.state(amount)}
}

// closing asks for the end of the contract at an amount.
func (p *payer) closing(amount, fee btcutil.Amount) *protocol.ContractRefund {
	p.m.t.Helper()
	sig, err := escrow.SignClosing(&p.terms, p.out, escrow.Closing{Amount: amount, Fee: fee, Asked: escrow.User}, p.key)
	if err != nil {
		p.m.t.Fatal(err)
	}
	return &protocol.ContractRefund{Contract: p.asked.Contract, Amount: amount, Fee: fee, Signature: sig}
}
