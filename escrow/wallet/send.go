package wallet

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/btcsuite/btcwallet/waddrmgr"
	"github.com/btcsuite/btcwallet/walletdb"
	"github.com/btcsuite/btcwallet/wtxmgr"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// SendRequest asks for a payment.
type SendRequest struct {
	// Key names the payment: asked for again under it, the same transaction is sent again, never a second one.
	Key     string
	To      address.Address
	Amount  btcutil.Amount
	Feerate escrow.Feerate
	// All sends every free coin, less the fee, instead of Amount.
	All bool
}

// sendLease is how long a payment's coins are leased until it is written down; after that the wallet knows that they are
// spent.
const sendLease = time.Minute

// Send pays. The transaction is written down before it is handed to the node, so a crash at any instant loses no coin:
// what was written is sent again by Run. When the node is down, the payment is made, and sent when it is back. Errors:
// ErrFunds, ErrRequest, those of chain.Client.Broadcast but ErrUnreachable.
func (w *Wallet) Send(ctx context.Context, r SendRequest) (*wire.MsgTx, error) {
	if r.To == nil || !r.To.IsForNet(w.params) {
		return nil, fmt.Errorf("%w: the address is not one of %s", ErrRequest, w.cfg.Network)
	}
	to, err := txscript.PayToAddrScript(r.To)
	if err != nil {
		return nil, err
	}
	tx, err := w.sent(r.Key)
	if err != nil {
		return nil, err
	}
	if tx == nil {
		if tx, err = w.compose(ctx, r, to); err != nil {
			return nil, err
		}
	} else if !r.paidBy(tx, to) {
		return nil, fmt.Errorf("%w: under the key %q another payment was made, %v", ErrRequest, r.Key, tx.TxHash())
	}
	return tx, w.Publish(ctx, tx)
}

func (r SendRequest) paidBy(tx *wire.MsgTx, to []byte) bool {
	for _, out := range tx.TxOut {
		if bytes.Equal(out.PkScript, to) && (r.All || out.Value == int64(r.Amount)) {
			return true
		}
	}
	return false
}

// compose makes and signs the payment and writes it down under its key.
func (w *Wallet) compose(ctx context.Context, r SendRequest, to []byte) (*wire.MsgTx, error) {
	if dust := protocol.Script(to).Dust(); r.Amount < dust && !r.All {
		return nil, fmt.Errorf("%w: %v is less than the smallest payment to this address, %v", ErrRequest, r.Amount, dust)
	}
	base := r.Feerate.Fee(baseWeight + outputWeight(to))
	funds, err := w.Fund(ctx, FundRequest{Key: sendKey(r.Key), Amount: r.Amount + base, Feerate: r.Feerate, For: sendLease, All: r.All})
	if err != nil {
		return nil, err
	}
	if r.All {
		r.Amount = left(funds.Coins, r.Feerate) - base
		if r.Amount < protocol.Script(to).Dust() {
			return nil, fmt.Errorf("%w: all coins together do not pay the fee", ErrFunds)
		}
	}
	return w.pay(r.Key, funds, []*wire.TxOut{wire.NewTxOut(int64(r.Amount), to)}, r.Feerate)
}

// baseWeight is that of a transaction without inputs and outputs.
const baseWeight = 4*(4+1+1+4) + 2

// sendKey names the lease of a payment.
func sendKey(key string) string { return "send/" + key }

// left is what coins bring beyond what their inputs cost.
func left(coins []escrow.Coin, feerate escrow.Feerate) (sum btcutil.Amount) {
	cost := FundRequest{Feerate: feerate}
	for _, coin := range coins {
		sum += coin.Value - cost.cost(coin)
	}
	return sum
}

// pay makes a transaction with these outputs, and one for what the coins bring too much if that is not dust; signs it, and writes it down
// under its key.
func (w *Wallet) pay(key string, funds Funds, outputs []*wire.TxOut, feerate escrow.Feerate) (*wire.MsgTx, error) {
	tx := wire.NewMsgTx(2)
	coins := make(map[wire.OutPoint]*wire.TxOut)
	var inputs []int
	for i, coin := range funds.Coins {
		tx.AddTxIn(&wire.TxIn{PreviousOutPoint: coin.OutPoint, Sequence: wire.MaxTxInSequenceNum - 2})
		coins[coin.OutPoint] = coin.Output()
		inputs = append(inputs, i)
	}
	for _, out := range outputs {
		tx.AddTxOut(out)
	}
	if change := changeFor(funds, outputs, feerate); change > 0 {
		tx.AddTxOut(wire.NewTxOut(int64(change), funds.Change))
	}
	witnesses, err := w.sign(tx, coins, inputs)
	if err != nil {
		return nil, err
	}
	for i, witness := range witnesses {
		tx.TxIn[i].Witness = witness
	}
	return tx, w.writeSent(key, tx)
}

// changeFor is what the coins bring beyond these outputs and the fee; 0 if that is dust.
func changeFor(funds Funds, outputs []*wire.TxOut, feerate escrow.Feerate) btcutil.Amount {
	rest := left(funds.Coins, feerate) - feerate.Fee(baseWeight+outputWeight(funds.Change))
	for _, out := range outputs {
		rest -= btcutil.Amount(out.Value) + feerate.Fee(outputWeight(out.PkScript))
	}
	if rest < funds.Change.Dust() {
		return 0
	}
	return rest
}

func outputWeight(script []byte) escrow.Weight { return escrow.Weight(4 * (8 + 1 + len(script))) }

// sent is the payment that was made under a key, nil if there is none.
func (w *Wallet) sent(key string) (tx *wire.MsgTx, err error) {
	if key == "" {
		return nil, fmt.Errorf("%w: a payment needs a key, so that it is made once", ErrRequest)
	}
	err = walletdb.View(w.db, func(db walletdb.ReadTx) error {
		raw := db.ReadBucket(bucketSends).Get([]byte(key))
		if raw == nil {
			return nil
		}
		tx = new(wire.MsgTx)
		return tx.Deserialize(bytes.NewReader(raw))
	})
	return tx, err
}

// writeSent writes a payment down, and in the same step that its coins are spent.
func (w *Wallet) writeSent(key string, tx *wire.MsgTx) error {
	var raw bytes.Buffer
	if err := tx.Serialize(&raw); err != nil {
		return err
	}
	return walletdb.Update(w.db, func(db walletdb.ReadWriteTx) error {
		if err := db.ReadWriteBucket(bucketSends).Put([]byte(key), raw.Bytes()); err != nil {
			return err
		}
		return w.note(db, tx)
	})
}

// note makes btcwallet know a transaction that is in no block yet, as its PublishTransaction would: the inputs are spent,
// what it pays to the wallet is the wallet's.
func (w *Wallet) note(db walletdb.ReadWriteTx, tx *wire.MsgTx) error {
	record, err := wtxmgr.NewTxRecordFromMsgTx(tx, w.cfg.Clock())
	if err != nil {
		return err
	}
	transactions, addresses := db.ReadWriteBucket(bucketTransactions), db.ReadWriteBucket(bucketAddresses)
	if err := w.btc.TxStore.InsertTx(transactions, record, nil); err != nil {
		return err
	}
	for i, out := range tx.TxOut {
		_, addrs, _, err := txscript.ExtractPkScriptAddrs(out.PkScript, w.params)
		if err != nil || len(addrs) != 1 {
			continue
		}
		own, err := w.btc.AddrManager().Address(addresses, addrs[0])
		if waddrmgr.IsError(err, waddrmgr.ErrAddressNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if err := w.btc.TxStore.AddCredit(transactions, record, nil, uint32(i), own.Internal()); err != nil {
			return err
		}
	}
	return nil
}

// Publish notes a transaction that concerns the wallet, whoever made it, and hands it to the node: from then on its inputs
// count as spent, what it pays to the wallet as unconfirmed, and Run sends it again until it is in a block or
// contradicted. It may be repeated. When the node is down it answers nil: the transaction is on its way as soon as it is
// back. Errors: those of chain.Client.Broadcast but ErrUnreachable; the transaction is forgotten then.
func (w *Wallet) Publish(_ context.Context, tx *wire.MsgTx) error {
	return w.btc.PublishTransaction(tx, "")
}

// forget takes back that a transaction was noted: it will never be in a block.
func (w *Wallet) forget(tx *wire.MsgTx) {
	err := walletdb.Update(w.db, func(db walletdb.ReadWriteTx) error {
		record, err := wtxmgr.NewTxRecordFromMsgTx(tx, w.cfg.Clock())
		if err != nil {
			return err
		}
		return w.btc.TxStore.RemoveUnminedTx(db.ReadWriteBucket(bucketTransactions), record)
	})
	if err != nil {
		w.cfg.Log.Error("wallet: forget a transaction that was contradicted", "txid", tx.TxHash(), "error", err)
	}
}
