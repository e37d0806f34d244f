package main

import (
	"crypto/sha256"
	"fmt"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// feerate of all that is not about feerates, sat per 1000 vB.
const feerate escrow.Feerate = 2_000

// key is the same in every run: these coins are worth nothing.
func key(name string) *btcec.PrivateKey {
	secret := sha256.Sum256([]byte("relaymarket paths " + name))
	k, _ := btcec.PrivKeyFromBytes(secret[:])
	return k
}

// addressOf is the native SegWit address of a key.
func addressOf(k *btcec.PrivateKey) (address.Address, error) {
	return address.NewAddressWitnessPubKeyHash(address.Hash160(k.PubKey().SerializeCompressed()), &chaincfg.RegressionNetParams)
}

// scriptOf is the output script of that address.
func scriptOf(k *btcec.PrivateKey) protocol.Script {
	return append(protocol.Script{txscript.OP_0, txscript.OP_DATA_20}, address.Hash160(k.PubKey().SerializeCompressed())...)
}

// deal is one contract with the keys of both sides.
type deal struct {
	contract            *escrow.Contract
	userKey, relayKey   *btcec.PrivateKey // of the contract
	userCoin, relayCoin *btcec.PrivateKey // of the wallets
	funding             *escrow.Funding
}

// newDeal is a contract that expires at a height, with a bond or without one.
func newDeal(name string, deposit, bond btcutil.Amount, expiry uint32) *deal {
	d := &deal{userKey: key(name + " user"), relayKey: key(name + " relay"), userCoin: key(name + " user coin"), relayCoin: key(name + " relay coin")}
	d.contract = &escrow.Contract{
		ID: sha256.Sum256([]byte(name)), Network: protocol.Regtest, User: protocol.PublicKey{1}, Relay: protocol.PublicKey{2},
		UserKey: escrow.KeyOf(d.userKey), RelayKey: escrow.KeyOf(d.relayKey),
		UserScript: scriptOf(key(name + " user payout")), RelayScript: scriptOf(key(name + " relay payout")),
		Deposit: deposit, Bond: bond, OpeningPrice: 2_000, CreditLimit: 2_000,
		Prices: escrow.Prices{StorageMsatPerGBDay: 500_000, BandwidthMsatPerGB: 2_000_000}, Expiry: expiry,
	}
	d.funding = &escrow.Funding{Contract: d.contract, Feerate: feerate}
	return d
}

// sign goes through the exchange of both sides, each checking what the other sent, up to the funding transaction. old is the
// deal that it renews, or nil.
func (d *deal) sign(old *deal) (*escrow.Tx, error) {
	f := d.funding
	if err := f.SetChange(escrow.User, scriptOf(d.userCoin)); err != nil {
		return nil, err
	}
	if len(f.Relay.Coins) > 0 || f.Renewal != nil {
		if err := f.SetChange(escrow.Relay, scriptOf(d.relayCoin)); err != nil {
			return nil, err
		}
	}
	proposed, err := f.PSBT()
	if err != nil {
		return nil, err
	}
	seen, err := escrow.VerifyFunding(proposed, d.contract, f.Feerate, f.User, f.Renewal)
	if err != nil {
		return nil, fmt.Errorf("the user refuses: %w", err)
	}
	packet, err := seen.Packet()
	if err != nil {
		return nil, err
	}
	if err := signCoins(packet, d.userCoin); err != nil {
		return nil, err
	}
	var relayKey *btcec.PrivateKey
	if old != nil {
		relayKey = old.relayKey
		if err := seen.AddRenewalSignature(packet, old.userKey); err != nil {
			return nil, err
		}
	}
	signed, err := escrow.EncodePSBT(packet)
	if err != nil {
		return nil, err
	}
	merged, err := f.MergeUser(signed)
	if err != nil {
		return nil, fmt.Errorf("the relay refuses: %w", err)
	}
	if err := signCoins(merged, d.relayCoin); err != nil {
		return nil, err
	}
	return f.Finish(merged, relayKey)
}

// signCoins finalizes the inputs of a packet that are to a key's address.
func signCoins(packet *psbt.Packet, k *btcec.PrivateKey) error {
	script := scriptOf(k)
	for i := range packet.Inputs {
		out := packet.Inputs[i].WitnessUtxo
		if string(out.PkScript) != string(script) {
			continue
		}
		witness, err := signCoin(packet.UnsignedTx, i, out, k)
		if err != nil {
			return err
		}
		packet.Inputs[i].FinalScriptWitness = escrow.EncodeWitness(witness)
	}
	return nil
}

// signCoin is the witness of a P2WPKH input. Its digest (BIP143) takes no previous output but its own.
func signCoin(tx *wire.MsgTx, i int, out *wire.TxOut, k *btcec.PrivateKey) (wire.TxWitness, error) {
	hashes := txscript.NewTxSigHashes(tx, txscript.NewCannedPrevOutputFetcher(out.PkScript, out.Value))
	return txscript.WitnessSignature(tx, hashes, i, out.Value, out.PkScript, txscript.SigHashAll, k, true)
}

func (d *deal) outpoint() (wire.OutPoint, error) { return d.funding.Outpoint() }

// unsettled is the contract at a state that its user signed.
func (d *deal) unsettled(seq int64, amount btcutil.Amount) (escrow.Unsettled, error) {
	at, err := d.outpoint()
	if err != nil {
		return escrow.Unsettled{}, err
	}
	sig, err := escrow.SignState(d.contract, at, amount, d.userKey)
	if err != nil {
		return escrow.Unsettled{}, err
	}
	if err := escrow.VerifyState(d.contract, at, amount, sig); err != nil {
		return escrow.Unsettled{}, err
	}
	return escrow.Unsettled{Contract: d.contract, Funding: at, Payment: escrow.Payment{Seq: seq, Amount: amount, Signature: sig}}, nil
}

// settle is the settlement of deals at an amount each, with coins of the first relay's for the fee.
func settle(amount btcutil.Amount, rate escrow.Feerate, extra []escrow.Coin, deals ...*deal) (*escrow.Tx, error) {
	var all []escrow.Unsettled
	for _, d := range deals {
		u, err := d.unsettled(1, amount)
		if err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	tx, err := escrow.Settle(all, extra, deals[0].contract.RelayScript, rate)
	if err != nil {
		return nil, err
	}
	for i, d := range deals {
		if err := escrow.SignSettlement(tx, i, all[i], d.relayKey); err != nil {
			return nil, err
		}
	}
	for i := range extra {
		at := len(deals) + i
		if tx.TxIn[at].Witness, err = signCoin(tx.MsgTx, at, tx.Prev[at], deals[0].relayCoin); err != nil {
			return nil, err
		}
	}
	return tx, tx.Verify()
}

// close is the closing transaction that a side asked for, signed by both.
func (d *deal) close(amount btcutil.Amount, asked escrow.Side) (*escrow.Tx, error) {
	closing, err := escrow.NewClosing(d.contract, amount, asked, feerate)
	if err != nil {
		return nil, err
	}
	at, err := d.outpoint()
	if err != nil {
		return nil, err
	}
	user, err := escrow.SignClosing(d.contract, at, closing, d.userKey)
	if err != nil {
		return nil, err
	}
	relay, err := escrow.SignClosing(d.contract, at, closing, d.relayKey)
	if err != nil {
		return nil, err
	}
	return escrow.FinishClosing(d.contract, at, closing, user, relay)
}

// refund is the user's way out at the expiry.
func (d *deal) refund(rate escrow.Feerate) (*escrow.Tx, error) {
	at, err := d.outpoint()
	if err != nil {
		return nil, err
	}
	return escrow.Refund(d.contract, at, d.contract.UserScript, rate, d.userKey)
}

// sweep takes what a settlement left to the user.
func (d *deal) sweep(settlement *escrow.Tx) (*escrow.Tx, error) {
	at, err := d.outpoint()
	if err != nil {
		return nil, err
	}
	s, ok := escrow.Identify(d.contract, at, settlement.MsgTx)
	if !ok || s.State == nil {
		return nil, fmt.Errorf("%s is no settlement of the contract", settlement.TxHash())
	}
	return escrow.Sweep(d.contract, *s.State, s.Left, d.contract.UserScript, feerate, d.userKey)
}

// cancel spends an input of the funding, so that it can never happen.
func (d *deal) cancel() (*escrow.Tx, error) {
	coin := d.funding.User.Coins[0]
	tx := &escrow.Tx{MsgTx: wire.NewMsgTx(2), Prev: []*wire.TxOut{coin.Output()}}
	tx.AddTxIn(&wire.TxIn{PreviousOutPoint: coin.OutPoint, Sequence: wire.MaxTxInSequenceNum - 2})
	tx.AddTxOut(wire.NewTxOut(int64(coin.Value-feerate.Fee(cancelWeight)), d.contract.UserScript))
	var err error
	tx.TxIn[0].Witness, err = signCoin(tx.MsgTx, 0, tx.Prev[0], d.userCoin)
	return tx, err
}

// cancelWeight is that of one P2WPKH input and one P2WPKH output.
const cancelWeight escrow.Weight = 439
