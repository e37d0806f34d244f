package escrow

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/protocol"
)

const testFeerate Feerate = 2_000

// testKey is a key that every test run has again.
func testKey(name string) *btcec.PrivateKey {
	secret := sha256.Sum256([]byte("escrow test key " + name))
	key, _ := btcec.PrivKeyFromBytes(secret[:])
	return key
}

// p2wpkh is the script of a key's native SegWit address.
func p2wpkh(key *btcec.PrivateKey) protocol.Script {
	return append(protocol.Script{txscript.OP_0, txscript.OP_DATA_20}, address.Hash160(key.PubKey().SerializeCompressed())...)
}

// p2tr is the script of a key's taproot address without scripts (BIP86).
func p2tr(key *btcec.PrivateKey) protocol.Script {
	output := txscript.ComputeTaprootKeyNoScript(key.PubKey())
	return append(protocol.Script{txscript.OP_1, txscript.OP_DATA_32}, schnorr.SerializePubKey(output)...)
}

// coin is a confirmed output of a wallet.
func coin(name string, script protocol.Script, value btcutil.Amount) Coin {
	hash := chainhash.Hash(sha256.Sum256([]byte("escrow test coin " + name)))
	return Coin{OutPoint: wire.OutPoint{Hash: hash, Index: 1}, Value: value, PkScript: script, Confirmations: 6}
}

// deal is one contract with all that both sides have of it.
type deal struct {
	contract            *Contract
	userKey, relayKey   *btcec.PrivateKey // contract keys
	userCoin, relayCoin *btcec.PrivateKey // wallet keys
	funding             *Funding
}

// plain is a contract between honest sides: P2WPKH coins, and a relay that puts in a bond.
func plain(t testing.TB) *deal {
	t.Helper()
	return newDeal(t, "plain", func(*deal) {})
}

func newDeal(t testing.TB, name string, change func(*deal)) *deal {
	t.Helper()
	d := &deal{userKey: testKey(name + " user"), relayKey: testKey(name + " relay"),
		userCoin: testKey(name + " user coin"), relayCoin: testKey(name + " relay coin")}
	d.contract = &Contract{
		ID: ID(sha256.Sum256([]byte(name))), Network: protocol.Regtest, User: protocol.PublicKey{1}, Relay: protocol.PublicKey{2},
		UserKey: KeyOf(d.userKey), RelayKey: KeyOf(d.relayKey),
		UserScript: p2wpkh(testKey(name + " user payout")), RelayScript: p2wpkh(testKey(name + " relay payout")),
		Deposit: 100_000, Bond: 10_000, OpeningPrice: 2_000, CreditLimit: 2_000,
		Prices: Prices{StorageMsatPerGBDay: 500_000, BandwidthMsatPerGB: 2_000_000}, Expiry: 10_000,
	}
	d.funding = &Funding{Contract: d.contract, Feerate: testFeerate,
		User:  Part{Coins: []Coin{coin(name+" user", p2wpkh(d.userCoin), 150_000)}},
		Relay: Part{Coins: []Coin{coin(name+" relay", p2wpkh(d.relayCoin), 40_000)}},
	}
	change(d)
	d.setChange(t)
	return d
}

func (d *deal) setChange(t testing.TB) {
	t.Helper()
	if err := d.funding.SetChange(User, p2wpkh(d.userCoin)); err != nil {
		t.Fatal(err)
	}
	if len(d.funding.Relay.Coins) > 0 || d.funding.Renewal != nil {
		if err := d.funding.SetChange(Relay, p2wpkh(d.relayCoin)); err != nil {
			t.Fatal(err)
		}
	}
}

func (d *deal) outpoint(t testing.TB) wire.OutPoint {
	t.Helper()
	at, err := d.funding.Outpoint()
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func (d *deal) payment(t testing.TB, seq int64, amount btcutil.Amount) Payment {
	t.Helper()
	sig, err := SignState(d.contract, d.outpoint(t), amount, d.userKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyState(d.contract, d.outpoint(t), amount, sig); err != nil {
		t.Fatal(err)
	}
	return Payment{Seq: seq, Amount: amount, Signature: sig}
}

// walletSign finalizes the inputs of a packet that the key can spend.
func walletSign(t testing.TB, packet *psbt.Packet, sighash txscript.SigHashType, keys ...*btcec.PrivateKey) {
	t.Helper()
	prev := make([]*wire.TxOut, len(packet.Inputs))
	for i := range packet.Inputs {
		prev[i] = packet.Inputs[i].WitnessUtxo
	}
	tx := &Tx{MsgTx: packet.UnsignedTx, Prev: prev}
	for i := range packet.Inputs {
		for _, key := range keys {
			if w := walletWitness(t, tx, i, sighash, key); w != nil {
				packet.Inputs[i].FinalScriptWitness = EncodeWitness(w)
			}
		}
	}
}

// walletWitness is the witness of one input, nil if the key cannot spend it.
func walletWitness(t testing.TB, tx *Tx, i int, sighash txscript.SigHashType, key *btcec.PrivateKey) wire.TxWitness {
	t.Helper()
	hashes := txscript.NewTxSigHashes(tx.MsgTx, tx.fetcher())
	var w wire.TxWitness
	var err error
	switch string(tx.Prev[i].PkScript) {
	case string(p2wpkh(key)):
		w, err = txscript.WitnessSignature(tx.MsgTx, hashes, i, tx.Prev[i].Value, tx.Prev[i].PkScript, sighash, key, true)
	case string(p2tr(key)):
		if sighash == sighashAll {
			sighash = txscript.SigHashDefault
		}
		w, err = txscript.TaprootWitnessSignature(tx.MsgTx, hashes, i, tx.Prev[i].Value, tx.Prev[i].PkScript, sighash, key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// fund runs the exchange of an honest user and an honest relay and returns the funding.
func (d *deal) fund(t testing.TB) *Tx {
	t.Helper()
	signed := d.userSigned(t, sighashAll)
	packet, err := d.funding.MergeUser(signed)
	if err != nil {
		t.Fatal(err)
	}
	walletSign(t, packet, sighashAll, d.relayCoin)
	tx, err := d.funding.Finish(packet, d.relayKey)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// userSigned is the user's half of the exchange up to his contractClientSigned.
func (d *deal) userSigned(t testing.TB, sighash txscript.SigHashType) protocol.PSBT {
	t.Helper()
	offer, err := OfferPSBT(d.funding.User)
	if err != nil {
		t.Fatal(err)
	}
	part, err := ParseOffer(offer)
	if err != nil {
		t.Fatal(err)
	}
	proposed, err := d.funding.PSBT()
	if err != nil {
		t.Fatal(err)
	}
	f, err := VerifyFunding(proposed, d.contract, d.funding.Feerate, part, d.funding.Renewal)
	if err != nil {
		t.Fatal(err)
	}
	packet, err := f.Packet()
	if err != nil {
		t.Fatal(err)
	}
	walletSign(t, packet, sighash, d.userCoin)
	if f.Renewal != nil {
		if err := f.AddRenewalSignature(packet, testKey(oldName(f)+" user")); err != nil {
			t.Fatal(err)
		}
	}
	signed, err := EncodePSBT(packet)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// oldName is the name of the contract that a funding renews.
func oldName(f *Funding) string {
	for _, name := range []string{"plain", "old"} {
		if f.Renewal.Contract.ID == ID(sha256.Sum256([]byte(name))) {
			return name
		}
	}
	return ""
}

// wantCode fails unless the error has the code; the empty code is no error.
func wantCode(t testing.TB, err error, code protocol.Code) {
	t.Helper()
	if code == "" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	var coded *protocol.Error
	if !errors.As(err, &coded) || coded.Code != code || coded.Detail == "" {
		t.Errorf("the answer is %v, not %s with a sentence", err, code)
	}
}

// checkTx runs a final transaction through the engine, and checks that nothing is made or lost, that
// no output is dust, and that the fee is the feerate's.
func checkTx(t testing.TB, what string, tx *Tx, feerate Feerate) {
	t.Helper()
	if err := tx.Verify(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for _, out := range tx.TxOut {
		if dust := protocol.Script(out.PkScript).Dust(); btcutil.Amount(out.Value) < dust || dust == 0 {
			t.Errorf("%s has an output of %d satoshi", what, out.Value)
		}
	}
	if fee := tx.Fee(); fee < feerate.Fee(weightOf(tx.MsgTx)) {
		t.Errorf("%s has %d vB and pays %d satoshi, less than %d sat per 1000 vB", what, tx.VSize(), fee, int64(feerate))
	}
	if again, err := DecodeTx(tx.Bytes()); err != nil || again.TxHash() != tx.TxHash() {
		t.Errorf("%s is not read back: %v", what, err)
	}
	if id := fmt.Sprint(tx.TxHash()); id != tx.ID().String() {
		t.Errorf("%s: the id is %s instead of %s", what, tx.ID(), id)
	}
}

func mustPacket(t testing.TB, d *deal) *psbt.Packet {
	t.Helper()
	packet, err := d.funding.Packet()
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

// derNumbers are R and S of a DER signature, with their sign bytes.
func derNumbers(sig []byte) (r, s []byte) {
	n := int(sig[3])
	r = sig[4 : 4+n]
	return r, sig[6+n : 6+n+int(sig[5+n])]
}

// negate is n − S as a DER number.
func negate(s []byte) []byte {
	var scalar btcec.ModNScalar
	scalar.SetByteSlice(s)
	b := scalar.Negate().Bytes()
	return append([]byte{0}, b[:]...)
}
