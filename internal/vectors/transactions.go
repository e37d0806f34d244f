package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// transactionFile has every kind of transaction of a contract, final and signed, one a line, so that
// other implementations of Bitcoin can judge them. ECDSA signatures are those of RFC 6979, so it is
// the same on every run.
const transactionFile = "escrow/testdata/transactions.jsonl"

// finalTx is one line. Hashes are as people see them, values in satoshi.
type finalTx struct {
	Name string    `json:"name"`
	Hex  string    `json:"hex"`
	Prev []prevOut `json:"prev"`
}

type prevOut struct {
	Hash   string `json:"hash"`
	Index  uint32 `json:"index"`
	Value  int64  `json:"value"`
	Script string `json:"script"`
}

const txFeerate escrow.Feerate = 2_000

// txBuilder collects final transactions.
type txBuilder struct{ out bytes.Buffer }

func transactionLines() []byte {
	b := &txBuilder{}
	b.fundings()
	b.endings()
	b.renewal()
	return b.out.Bytes()
}

func (b *txBuilder) add(name string, tx *escrow.Tx) {
	done(tx.Verify())
	line := finalTx{Name: name, Hex: hex.EncodeToString(tx.Bytes())}
	for i, in := range tx.TxIn {
		line.Prev = append(line.Prev, prevOut{
			Hash: in.PreviousOutPoint.Hash.String(), Index: in.PreviousOutPoint.Index,
			Value: tx.Prev[i].Value, Script: hex.EncodeToString(tx.Prev[i].PkScript),
		})
	}
	b.out.Write(must(json.Marshal(line)))
	b.out.WriteByte('\n')
}

func bitcoinKey(name string) *btcec.PrivateKey {
	secret := sha256.Sum256([]byte("relaymarket test vector: bitcoin key: " + name))
	key, _ := btcec.PrivKeyFromBytes(secret[:])
	return key
}

// nativeScript is the P2WPKH script of a key.
func nativeScript(key *btcec.PrivateKey) protocol.Script {
	return append(protocol.Script{txscript.OP_0, txscript.OP_DATA_20}, address.Hash160(key.PubKey().SerializeCompressed())...)
}

// agreement is a contract of the vectors with the keys of both sides.
type agreement struct {
	name                               string
	contract                           *escrow.Contract
	user, relay, userCoins, relayCoins *btcec.PrivateKey
	funding                            *escrow.Funding
}

// agree makes a contract funded from so many coins of each side.
func agree(name string, userCoins, relayCoins int, change bool) *agreement {
	a := &agreement{
		name: name, user: bitcoinKey(name + " C"), relay: bitcoinKey(name + " S"),
		userCoins: bitcoinKey(name + " user's wallet"), relayCoins: bitcoinKey(name + " relay's wallet"),
	}
	c := newCast()
	a.contract = &escrow.Contract{
		ID: sha256.Sum256([]byte("relaymarket test vector: contract: " + name)), Network: protocol.Regtest,
		User: c.alice.Public, Relay: c.relay.Public, UserKey: escrow.KeyOf(a.user), RelayKey: escrow.KeyOf(a.relay),
		UserScript: nativeScript(bitcoinKey("alice's payout")), RelayScript: nativeScript(bitcoinKey("relay's payout")),
		Deposit: 100_000, OpeningPrice: 500, CreditLimit: 500, Expiry: 904_320,
	}
	a.funding = &escrow.Funding{Contract: a.contract, Feerate: txFeerate}
	for i := range userCoins {
		value := btcutil.Amount(150_000/userCoins + 1)
		if !change {
			value = btcutil.Amount((100_500 + 200*userCoins) / userCoins)
		}
		a.funding.User.Coins = append(a.funding.User.Coins, walletCoin(fmt.Sprint(name, " user ", i), a.userCoins, value))
	}
	for i := range relayCoins {
		a.contract.Bond = 10_000
		a.funding.Relay.Coins = append(a.funding.Relay.Coins, walletCoin(fmt.Sprint(name, " relay ", i), a.relayCoins, 20_000))
	}
	return a
}

func (a *agreement) makeChange() {
	done(a.funding.SetChange(escrow.User, nativeScript(a.userCoins)))
	if len(a.funding.Relay.Coins) > 0 || a.funding.Renewal != nil {
		done(a.funding.SetChange(escrow.Relay, nativeScript(a.relayCoins)))
	}
	done(a.funding.Validate())
}

func walletCoin(name string, key *btcec.PrivateKey, value btcutil.Amount) escrow.Coin {
	hash := sha256.Sum256([]byte("relaymarket test vector: coin: " + name))
	return escrow.Coin{OutPoint: wire.OutPoint{Hash: hash, Index: 1}, Value: value, PkScript: nativeScript(key), Confirmations: 6}
}

// sign signs the inputs of a transaction that a wallet's key can spend.
func sign(tx *escrow.Tx, key *btcec.PrivateKey) {
	outputs := make(map[wire.OutPoint]*wire.TxOut)
	for i, in := range tx.TxIn {
		outputs[in.PreviousOutPoint] = tx.Prev[i]
	}
	hashes := txscript.NewTxSigHashes(tx.MsgTx, txscript.NewMultiPrevOutFetcher(outputs))
	for i, in := range tx.TxIn {
		if bytes.Equal(tx.Prev[i].PkScript, nativeScript(key)) {
			in.Witness = must(txscript.WitnessSignature(tx.MsgTx, hashes, i, tx.Prev[i].Value, tx.Prev[i].PkScript, txscript.SigHashAll, key, true))
		}
	}
}

// fund signs the funding for both sides; old is the relay's key of a renewed contract.
func (a *agreement) fund(old *agreement) *escrow.Tx {
	packet := must(a.funding.Packet())
	tx := must(a.funding.Tx())
	sign(tx, a.userCoins)
	sign(tx, a.relayCoins)
	for i, in := range tx.TxIn {
		packet.Inputs[i].FinalScriptWitness = nil
		if len(in.Witness) > 0 {
			packet.Inputs[i].FinalScriptWitness = escrow.EncodeWitness(in.Witness)
		}
	}
	var relayKey *btcec.PrivateKey
	if old != nil {
		done(a.funding.AddRenewalSignature(packet, old.user))
		relayKey = old.relay
	}
	return must(a.funding.Finish(packet, relayKey))
}

func (b *txBuilder) fundings() {
	for _, change := range []bool{true, false} {
		for userCoins := 1; userCoins <= 3; userCoins++ {
			for relayCoins := range 3 {
				name := fmt.Sprintf("funding from %d coins of the user and %d of the relay", userCoins, relayCoins)
				if !change {
					name += ", without the user's change"
				}
				a := agree(name, userCoins, relayCoins, change)
				a.makeChange()
				b.add(name, a.fund(nil))
			}
		}
	}
}

// unsettled is the contract with a state that the user signed.
func (a *agreement) unsettled(amount btcutil.Amount) escrow.Unsettled {
	at := must(a.funding.Outpoint())
	sig := must(escrow.SignState(a.contract, at, amount, a.user))
	return escrow.Unsettled{Contract: a.contract, Funding: at, Payment: escrow.Payment{Seq: 1, Amount: amount, Signature: sig}}
}

func (b *txBuilder) endings() {
	a := agree("endings", 1, 1, true)
	a.makeChange()
	b.add("funding of what follows", a.fund(nil))
	at := must(a.funding.Outpoint())
	for _, amount := range []btcutil.Amount{500, 30_000, 99_000} {
		u := a.unsettled(amount)
		tx := must(escrow.Settle([]escrow.Unsettled{u}, nil, a.contract.RelayScript, txFeerate))
		done(escrow.SignSettlement(tx, 0, u, a.relay))
		b.add(fmt.Sprintf("settlement at %d satoshi", amount), tx)
		s, _ := escrow.Identify(a.contract, at, tx.MsgTx)
		b.add(fmt.Sprintf("sweep of the settlement at %d satoshi", amount),
			must(escrow.Sweep(a.contract, *s.State, s.Left, a.contract.UserScript, escrow.MinFeerate, a.user)))
		for _, asked := range []escrow.Side{escrow.User, escrow.Relay} {
			b.add(fmt.Sprintf("closing at %d satoshi, asked for by the %s", amount, asked), a.close(amount, asked, txFeerate))
		}
	}
	b.add("closing whose output to the user is dust", a.close(99_000, escrow.User, 5_000))
	for _, rate := range []escrow.Feerate{escrow.MinFeerate, txFeerate, 100_000} {
		b.add(fmt.Sprintf("refund at %d sat per 1000 vB", rate), must(escrow.Refund(a.contract, at, a.contract.UserScript, rate, a.user)))
	}
	b.batch(a)
}

func (a *agreement) close(amount btcutil.Amount, asked escrow.Side, rate escrow.Feerate) *escrow.Tx {
	at := must(a.funding.Outpoint())
	closing := must(escrow.NewClosing(a.contract, amount, asked, rate))
	user := must(escrow.SignClosing(a.contract, at, closing, a.user))
	relay := must(escrow.SignClosing(a.contract, at, closing, a.relay))
	return must(escrow.FinishClosing(a.contract, at, closing, user, relay))
}

// batch settles two contracts in one transaction, with a coin of the relay for the fee.
func (b *txBuilder) batch(first *agreement) {
	second := agree("second of a batch", 2, 0, true)
	second.makeChange()
	all := []escrow.Unsettled{first.unsettled(40_000), second.unsettled(500)}
	tx := must(escrow.Settle(all, []escrow.Coin{walletCoin("batch", first.relayCoins, 25_000)}, first.contract.RelayScript, 20_000))
	done(escrow.SignSettlement(tx, 0, all[0], first.relay))
	done(escrow.SignSettlement(tx, 1, all[1], second.relay))
	sign(tx, first.relayCoins)
	b.add("settlement of two contracts and a coin", tx)
}

func (b *txBuilder) renewal() {
	old := agree("renewed", 1, 1, true)
	old.makeChange()
	for _, coins := range []int{0, 1} {
		a := agree(fmt.Sprintf("renewal with %d coins", coins), coins, 0, true)
		a.contract.Renews = &old.contract.ID
		a.contract.Expiry += 4_000
		a.contract.Bond = 10_000
		if coins == 0 {
			a.contract.Deposit = 50_000
		}
		a.funding.Renewal = &escrow.Renewal{Contract: old.contract, Funding: must(old.funding.Outpoint()), Amount: 30_000}
		a.makeChange()
		b.add(fmt.Sprintf("renewal with %d coins of the user", coins), a.fund(old))
	}
}

// done ends a run that cannot make its vectors.
func done(err error) { must(0, err) }
