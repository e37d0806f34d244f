package userside_test

import (
	"database/sql"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/psbt/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/escrow"
	"relaymarket/escrow/userside"
	"relaymarket/escrow/wallet"
	"relaymarket/protocol"
)

// watchedKeys notes whose keys are asked for.
type watchedKeys struct {
	userside.Keys
	ids []protocol.ContractID
}

func (k *watchedKeys) ContractKey(n protocol.Network, id protocol.ContractID) (*btcec.PrivateKey, error) {
	k.ids = append(k.ids, id)
	return k.Keys.ContractKey(n, id)
}

// Each contract has a key of its own, which signs for that contract alone; the wallet's keys sign coins, and neither can
// stand in for the other.
func TestKeysOfOnePurpose(t *testing.T) {
	u := somebody(t)
	keys := &watchedKeys{Keys: u.Manager.Keys}
	u.Manager.Keys = keys
	one, two := u.opens(), u.opens()
	for _, id := range []protocol.ContractID{one, two} {
		keys.ids = nil
		if _, err := u.Pay(t.Context(), id, openingPrice+100); err != nil {
			t.Fatal(err)
		}
		if _, err := u.Close(t.Context(), id, openingPrice+100, 1000); err != nil {
			t.Fatal(err)
		}
		if len(keys.ids) == 0 || slices.ContainsFunc(keys.ids, func(asked protocol.ContractID) bool { return asked != id }) {
			t.Errorf("for contract %s the keys of %v were asked", id, keys.ids)
		}
	}
	contracts := []protocol.ContractKey{u.contractKeyOf(one), u.contractKeyOf(two)}
	if contracts[0] == contracts[1] {
		t.Error("two contracts have one key")
	}
	for i, id := range []protocol.ContractID{one, two} {
		r := u.record(id)
		terms, at, _ := r.Terms()
		if terms.UserKey != contracts[i] || slices.Equal(terms.UserKey[1:], u.key[:]) {
			t.Errorf("contract %s has the key %x", id, terms.UserKey)
		}
		tx, err := escrow.DecodeTx(r.Transactions[0].Raw)
		for _, transaction := range r.Transactions {
			if transaction.Kind == protocol.TxFunding {
				tx, err = escrow.DecodeTx(transaction.Raw)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range tx.TxIn { // P2WPKH: signature and key
			for _, key := range contracts {
				if slices.Equal(in.Witness[len(in.Witness)-1], key[:]) {
					t.Error("a contract's key signed a coin of the wallet's")
				}
			}
		}
		// What was signed for one is worth nothing in the other.
		other, otherAt, _ := u.record([]protocol.ContractID{two, one}[i]).Terms()
		last, _ := r.Last()
		if err := escrow.VerifyState(terms, at, last.Amount, last.Signature); err != nil {
			t.Error(err)
		}
		want(t, escrow.VerifyState(other, otherAt, last.Amount, last.Signature), protocol.CodeContractSignature)
		want(t, u.wallet.SignOwn(t.Context(), payment(t, contracts[i])), wallet.ErrRequest)
	}
}

// payment spends an output to the address of a key.
func payment(t *testing.T, key protocol.ContractKey) *psbt.Packet {
	t.Helper()
	a, err := address.NewAddressWitnessPubKeyHash(address.Hash160(key[:]), &chaincfg.RegressionNetParams)
	if err != nil {
		t.Fatal(err)
	}
	script, err := txscript.PayToAddrScript(a)
	if err != nil {
		t.Fatal(err)
	}
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: [32]byte{1}}, nil, nil))
	tx.AddTxOut(wire.NewTxOut(1000, script))
	packet, err := psbt.NewFromUnsignedTx(tx)
	if err != nil {
		t.Fatal(err)
	}
	packet.Inputs[0].WitnessUtxo = wire.NewTxOut(2000, script)
	return packet
}

// Ten thousand contracts that came to nothing, before anything was signed, keep no coin and are not looked at again: the one beside them
// is opened, watched and closed as ever.
func TestTenThousandCameToNothing(t *testing.T) {
	u := somebody(t)
	before := u.balance()
	u.relay.refuse = func(string) error { return protocol.Errorf(protocol.CodeTerms, "no") }
	id := u.starts()
	if _, err := u.advances(id); err == nil {
		t.Fatal("it was opened")
	}
	u.relay.refuse = nil
	db, err := sql.Open("sqlite", filepath.Join(u.dir, "contracts.db"))
	if err != nil {
		t.Fatal(err)
	}
	made, err := db.ExecContext(t.Context(), `WITH RECURSIVE many (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many WHERE n < 10000)
		INSERT INTO contracts SELECT randomblob(32), network, relay, address, state, step, foreign_inputs, announced, request, answer, document, psbt,
		accepted, cushion, renewed_by, told, fault, created, changed FROM contracts, many WHERE id = ?`, id[:])
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if n, err := made.RowsAffected(); n != 10_000 || err != nil {
		t.Fatalf("%d contracts, %v", n, err)
	}
	began := time.Now()
	opened := u.opens()
	if _, err := u.Close(t.Context(), opened, openingPrice, 1000); err != nil {
		t.Fatal(err)
	}
	u.node.Mine(6)
	u.steps()
	t.Logf("beside 10,000 contracts that came to nothing one was opened and closed in %v", time.Since(began))
	u.is(opened, escrow.Closed)
	u.adds(opened, before, openingPrice)
	if b, err := u.wallet.Balance(t.Context()); err != nil || b.Leased != btcutil.Amount(0) {
		t.Errorf("%v is leased, %v", b.Leased, err)
	}
}
