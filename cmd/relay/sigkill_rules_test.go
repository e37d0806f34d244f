package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"slices"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/escrow/userside"
	"relaymarket/protocol"
)

// held is a contract in the relay's database.
type held struct {
	terms   escrow.Contract
	at      wire.OutPoint
	state   escrow.State
	last    escrow.Payment
	closing bool // a closing signature was let out
	renewed bool // or is being
	taking  bool // its account takes writes
}

// held reads them in one moment: while only the user is dead, and for a moment after the relay's death, the database goes on.
func (l *lives) held() []held {
	l.t.Helper()
	rows, err := l.db.Query(l.t.Context(), `SELECT terms, funding, state, seq, amount, signature, closing_sig IS NOT NULL, renewed_by IS NOT NULL,
		(SELECT coalesce(bool_or(taking), false) FROM accounts WHERE contract = contracts.id) FROM contracts`)
	if err != nil {
		l.t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (h held, err error) {
		var terms, funding, signature []byte
		if err := row.Scan(&terms, &funding, &h.state, &h.last.Seq, &h.last.Amount, &signature, &h.closing, &h.renewed, &h.taking); err != nil {
			return h, err
		}
		h.at.Hash, h.last.Signature = chainhash.Hash(funding), signature
		return h, json.Unmarshal(terms, &h.terms)
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return all
}

// users are the contracts on the user's disk.
func (l *lives) users() []userside.Record {
	l.t.Helper()
	store, err := userside.OpenStore(l.t.Context(), filepath.Join(l.alice.dir, contractsFile), nil, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	all, err := store.Contracts(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return all
}

// rules holds what is on both disks and in the mempool, in the moment of a death, against the rules that hold at every instant.
func (l *lives) rules() {
	l.t.Helper()
	// What was sent to the chain or to the other side is on the sender's disk: so the receivers are read first.
	rpc, err := l.bitcoin.RPC()
	if err != nil {
		l.t.Fatal(err)
	}
	waiting, err := rpc.GetRawMempool()
	if err != nil {
		l.t.Fatal(err)
	}
	contracts := l.held()
	users := l.users()
	for _, h := range contracts {
		l.relayRules(&h)
		i := slices.IndexFunc(users, func(r userside.Record) bool { return r.ID == h.terms.ID })
		if i < 0 {
			l.t.Errorf("life %d: the relay has contract %s, and the user does not", l.n, h.terms.ID)
			continue
		}
		if !escrow.Final(users[i].State) {
			l.userRules(&h, &users[i])
		}
	}
	l.creditRules()
	for _, id := range waiting {
		known := slices.ContainsFunc(users, func(r userside.Record) bool { return r.Transaction(escrow.WireTxID(*id)) != nil })
		if !known {
			l.sql(&known, `SELECT EXISTS (SELECT FROM contract_transactions WHERE txid = $1)`, id[:])
		}
		if !known {
			l.t.Errorf("life %d: somebody died, and %v is sent and on no disk (rule 8)", l.n, id)
		}
	}
}

// relayRules are those about what the relay has in its hands.
func (l *lives) relayRules(h *held) {
	l.t.Helper()
	if err := escrow.VerifyState(&h.terms, h.at, h.last.Amount, h.last.Signature); err != nil {
		l.t.Errorf("life %d: the state that the relay holds is worth nothing (rule 1): %v", l.n, err)
	}
	if sighash := h.last.Signature[len(h.last.Signature)-1]; sighash != 0x83 {
		l.t.Errorf("life %d: the user signed a state with the sighash %x (rule 1)", l.n, sighash)
	}
	if h.last.Amount < h.terms.OpeningPrice || h.last.Amount > h.terms.Deposit-escrow.MinUserRest {
		l.t.Errorf("life %d: A is %d of %d (rule 7)", l.n, int64(h.last.Amount), int64(h.terms.Deposit))
	}
	// The account of a contract whose renewal is in a block goes over to that, with all that is owed, in the step after.
	if h.taking && (h.closing || !escrow.TakesUsage(h.state) && !h.renewed) {
		l.t.Errorf("life %d: a contract that is %s, closing released %t, takes writes (rule 2)", l.n, h.state, h.closing)
	}
}

// creditRules are those about what may be used, which the account has in one row.
func (l *lives) creditRules() {
	l.t.Helper()
	var beyond, unpaid int
	// Byte-milliseconds at msat for a GB-day, bytes at msat for a GB: the relay's own units.
	l.sql(&beyond, `SELECT count(*) FROM accounts WHERE taking AND credit > 0
		AND used_stored * storage_price + used_moved * bandwidth_price * 86400000 > credit * 86400000000000000::numeric`)
	l.sql(&unpaid, `SELECT count(*) FROM accounts a JOIN contracts c ON c.id = a.contract WHERE c.renews IS NULL
		AND a.credit > ((c.terms->>'CreditLimit')::bigint + c.amount - (c.terms->>'OpeningPrice')::bigint) * 1000`)
	if beyond > 0 {
		l.t.Errorf("life %d: more is used than may be (rule 3)", l.n)
	}
	if unpaid > 0 {
		l.t.Errorf("life %d: more may be used than was paid on this disk, and the limit (rule 2)", l.n)
	}
}

// userRules are those about what the user gave away: it was on his disk before, and in his backup.
func (l *lives) userRules(h *held, r *userside.Record) {
	l.t.Helper()
	last, ok := r.Last()
	if !ok || r.Step != userside.StepSigned && r.Step != userside.StepTaken {
		l.t.Errorf("life %d: the relay has signatures that are not on the user's disk: step %s (rule 8)", l.n, r.Step)
		return
	}
	if h.last.Seq > last.Seq || h.last.Amount > last.Amount {
		l.t.Errorf("life %d: the relay has state %d of %d, on the user's disk is %d of %d (rule 8)", l.n, h.last.Seq, int64(h.last.Amount), last.Seq, int64(last.Amount))
	}
	if last.Taken && (h.last.Seq < last.Seq || h.last.Amount < last.Amount) {
		l.t.Errorf("life %d: the relay said that it has state %d of %d, and has %d of %d (rule 2)", l.n, last.Seq, int64(last.Amount), h.last.Seq, int64(h.last.Amount))
	}
	if last.Amount > r.Allowance() {
		l.t.Errorf("life %d: %d sat are signed, %d are allowed (rule 4)", l.n, int64(last.Amount), int64(r.Allowance()))
	}
	documents, err := userside.ReadBackup(filepath.Join(l.alice.dir, backupFile), l.key)
	if err != nil {
		l.t.Errorf("life %d: %v", l.n, err)
	}
	if !slices.ContainsFunc(documents, func(d []byte) bool {
		b, err := escrow.ParseBackup(d)
		return err == nil && b.Contract.ID == h.terms.ID && b.Funding == h.at && b.Contract.Descriptor() == h.terms.Descriptor()
	}) {
		l.t.Errorf("life %d: the relay has signatures of contract %s, which is not in the backup (rule 8)", l.n, h.terms.ID)
	}
}

// chain are the transactions of this life's blocks, in their order.
func (l *lives) chain() (txs []*wire.MsgTx) {
	l.t.Helper()
	rpc, err := l.bitcoin.RPC()
	if err != nil {
		l.t.Fatal(err)
	}
	for height := l.began + 1; height <= l.bitcoin.Height(); height++ {
		hash, err := rpc.GetBlockHash(int64(height))
		if err != nil {
			l.t.Fatal(err)
		}
		block, err := rpc.GetBlock(hash)
		if err != nil {
			l.t.Fatal(err)
		}
		txs = append(txs, block.Transactions[1:]...)
	}
	return txs
}

// counts holds the chain of this life against what was agreed: these transactions and no other, validly made, and each satoshi
// where it belongs.
func (l *lives) counts(want bill) {
	l.t.Helper()
	contracts := l.held()
	scripts := slices.Clone(l.scripts)
	for _, h := range contracts {
		scripts = append(scripts, h.terms.RelayScript)
	}
	var kinds []string
	var relay, fees, relayFees btcutil.Amount
	for _, tx := range l.chain() {
		kind, asked := l.kindOf(contracts, tx)
		kinds = append(kinds, kind)
		var fee, gets, bond btcutil.Amount
		for _, in := range tx.TxIn {
			previous := l.bitcoin.Transaction(in.PreviousOutPoint.Hash).TxOut[in.PreviousOutPoint.Index]
			fee += btcutil.Amount(previous.Value)
			if slices.ContainsFunc(scripts, func(s []byte) bool { return bytes.Equal(s, previous.PkScript) }) {
				gets -= btcutil.Amount(previous.Value)
			}
		}
		for _, out := range tx.TxOut {
			fee -= btcutil.Amount(out.Value)
			if slices.ContainsFunc(scripts, func(s []byte) bool { return bytes.Equal(s, out.PkScript) }) {
				gets += btcutil.Amount(out.Value)
			}
		}
		for _, h := range contracts {
			if h.at.Hash == tx.TxHash() {
				bond = h.terms.Bond
			}
		}
		switch {
		case kind == protocol.TxSettlement || asked == escrow.Relay:
			relayFees += fee
		case bond > 0: // its share, by weight
			share := -gets - bond
			if share <= 0 || share > lifeOpening {
				l.t.Errorf("life %d: of the funding's fee of %d the relay paid %d", l.n, int64(fee), int64(share))
			}
			relayFees += share
		}
		relay, fees = relay+gets, fees+fee
	}
	if !slices.Equal(kinds, want.kinds) {
		l.t.Errorf("life %d: the blocks have %v, not %v", l.n, kinds, want.kinds)
	}
	paid := btcutil.Amount(want.paid)
	balance := l.alice.money()
	if spent := l.before - btcutil.Amount(balance.Confirmed); relay != paid-relayFees || spent != paid+fees-relayFees {
		l.t.Errorf("life %d: %d sat were paid; the relay has %d more, and the user is %d poorer; of %d sat for fees the relay pays %d (rules 5 and 7)",
			l.n, int64(paid), int64(relay), int64(spent), int64(fees), int64(relayFees))
	}
	if balance.Leased != 0 || balance.Unconfirmed != 0 {
		l.t.Errorf("life %d: %d sat are still kept for a contract, %d wait (rule 9)", l.n, balance.Leased, balance.Unconfirmed)
	}
}

// kindOf tells what a transaction is by its inputs and witnesses, and whose closing it is: the side that pays the fee.
func (l *lives) kindOf(contracts []held, tx *wire.MsgTx) (kind string, asked escrow.Side) {
	l.t.Helper()
	for _, h := range contracts {
		if h.at.Hash == tx.TxHash() && h.terms.Renews != nil {
			return protocol.TxRenewal, 0
		}
		if h.at.Hash == tx.TxHash() {
			return protocol.TxFunding, 0
		}
	}
	for _, h := range contracts {
		s, ok := escrow.Identify(&h.terms, h.at, tx)
		if !ok {
			continue
		}
		witness := tx.TxIn[s.Input].Witness
		last := func(i int) byte { return witness[i][len(witness[i])-1] }
		switch s.Kind {
		case protocol.TxRefund:
			if tx.LockTime != h.terms.Expiry || last(1) != 1 {
				l.t.Errorf("life %d: a refund at %d with locktime %d, sighash %x", l.n, h.terms.Expiry, tx.LockTime, last(1))
			}
		case protocol.TxSettlement:
			if tx.LockTime != 0 || last(0) != 1 || last(1) != 0x83 || s.Amount != h.last.Amount {
				l.t.Errorf("life %d: settled at %d of %d, locktime %d, sighashes %x %x (rule 1)", l.n, int64(s.Amount), int64(h.last.Amount), tx.LockTime, last(0), last(1))
			}
		default:
			if tx.LockTime != 0 || last(0) != 1 || last(1) != 1 {
				l.t.Errorf("life %d: a closing with locktime %d, sighashes %x %x", l.n, tx.LockTime, last(0), last(1))
			}
			if asked = escrow.User; h.closing {
				asked = escrow.Relay
			}
		}
		return s.Kind, asked
	}
	for _, h := range contracts {
		if state, err := h.terms.StatePkScript(); err == nil {
			previous := tx.TxIn[0].PreviousOutPoint
			if out := l.bitcoin.Transaction(previous.Hash).TxOut[previous.Index]; bytes.Equal(out.PkScript, state) {
				return protocol.TxSweep, 0
			}
		}
	}
	return "unknown", 0
}
