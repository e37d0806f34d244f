package escrow

import (
	"bytes"
	"fmt"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"relaymarket/protocol"
)

// Sequences of inputs. All of them opt into replacement (BIP125) and leave the locktime in force.
const (
	sequenceReplaceable uint32 = wire.MaxTxInSequenceNum - 2 // fffffffd
	sequenceOneBlock    uint32 = 1                           // BIP68: one block after the previous output
)

const txVersion = 2 // BIP68 needs it

// Tx is a transaction together with the outputs that it spends, in the order of its inputs.
type Tx struct {
	*wire.MsgTx
	Prev []*wire.TxOut
}

// fetcher gives the signature hash algorithms the previous outputs.
func (t *Tx) fetcher() *txscript.MultiPrevOutFetcher {
	outputs := make(map[wire.OutPoint]*wire.TxOut, len(t.TxIn))
	for i, in := range t.TxIn {
		outputs[in.PreviousOutPoint] = t.Prev[i]
	}
	return txscript.NewMultiPrevOutFetcher(outputs)
}

// Fee is what the inputs have and the outputs have not.
func (t *Tx) Fee() btcutil.Amount {
	var fee btcutil.Amount
	for _, out := range t.Prev {
		fee += btcutil.Amount(out.Value)
	}
	for _, out := range t.TxOut {
		fee -= btcutil.Amount(out.Value)
	}
	return fee
}

// VSize is the virtual size as the transaction stands (BIP141).
func (t *Tx) VSize() int64 { return weightOf(t.MsgTx).VBytes() }

// Bytes is the serialization with witnesses (BIP144).
func (t *Tx) Bytes() []byte {
	var b bytes.Buffer
	b.Grow(t.SerializeSize())
	_ = t.Serialize(&b) // a bytes.Buffer takes everything
	return b.Bytes()
}

// Verify runs every input through the script engine with the flags of standard transactions. The
// error has code contract_signature.
func (t *Tx) Verify() error {
	for i := range t.TxIn {
		if err := t.verifyInput(i); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tx) verifyInput(i int) error {
	fetcher := t.fetcher()
	vm, err := txscript.NewEngine(t.Prev[i].PkScript, t.MsgTx, i, txscript.StandardVerifyFlags, nil,
		txscript.NewTxSigHashes(t.MsgTx, fetcher), t.Prev[i].Value, fetcher)
	if err == nil {
		err = vm.Execute()
	}
	if err != nil {
		return protocol.Errorf(protocol.CodeContractSignature, "input %d, %s, is not validly signed: %v",
			i, t.TxIn[i].PreviousOutPoint, err)
	}
	return nil
}

// ID is the transaction id in the form of the wire.
func (t *Tx) ID() protocol.TxID { return WireTxID(t.TxHash()) }

// WireTxID converts from Bitcoin's internal byte order to that of the digits people see.
func WireTxID(hash [32]byte) (id protocol.TxID) {
	for i := range hash {
		id[i] = hash[len(hash)-1-i]
	}
	return id
}

// DecodeTx reads a serialized transaction, bounded by [protocol.MaxContractTx] bytes and without
// anything after it. Errors have code malformed.
func DecodeTx(raw protocol.RawTx) (*wire.MsgTx, error) {
	if len(raw) > protocol.MaxContractTx {
		return nil, protocol.Errorf(protocol.CodeTooLarge, "a transaction has at most %d bytes", protocol.MaxContractTx)
	}
	if !walkTx(raw) {
		return nil, protocol.Errorf(protocol.CodeMalformed, "not a transaction: it ends early or late, or a count in it cannot be")
	}
	var tx wire.MsgTx
	if err := tx.Deserialize(bytes.NewReader(raw)); err != nil {
		return nil, protocol.Errorf(protocol.CodeMalformed, "not a transaction: %v", err)
	}
	return &tx, nil
}

// walkTx tells whether the counts of a serialized transaction (BIP144) are true of its bytes. The
// library makes room for as many inputs as a transaction claims before it looks for them.
func walkTx(raw []byte) bool {
	r := byteReader{rest: raw}
	r.take(4)
	witness := len(r.rest) > 1 && r.rest[0] == 0 && r.rest[1] == 1
	if witness {
		r.take(2)
	}
	inputs := r.count()
	for range inputs {
		r.take(36)
		r.bytes()
		r.take(4)
	}
	for range r.count() {
		r.take(8)
		r.bytes()
	}
	for range inputs {
		if !witness {
			break
		}
		for range r.count() {
			r.bytes()
		}
	}
	r.take(4)
	return r.err == nil && len(r.rest) == 0
}

// spend starts a transaction whose first input spends an output.
func spend(at wire.OutPoint, output *wire.TxOut, sequence, locktime uint32) *Tx {
	tx := wire.NewMsgTx(txVersion)
	tx.LockTime = locktime
	t := &Tx{MsgTx: tx}
	t.addInput(at, output, sequence)
	return t
}

func (t *Tx) addInput(at wire.OutPoint, output *wire.TxOut, sequence uint32) {
	in := wire.NewTxIn(&at, nil, nil)
	in.Sequence = sequence
	t.AddTxIn(in)
	t.Prev = append(t.Prev, output)
}

// addOutput adds an output unless it would be dust, which goes to the fee instead.
func (t *Tx) addOutput(script protocol.Script, amount btcutil.Amount) {
	if dust := script.Dust(); dust > 0 && amount >= dust {
		t.AddTxOut(wire.NewTxOut(int64(amount), script))
	}
}

// spendEscrow starts a transaction that spends the escrow of a valid contract.
func (c *Contract) spendEscrow(at wire.OutPoint, sequence, locktime uint32) (*Tx, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	output, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("spend contract %s: %w", c.ID, err)
	}
	return spend(at, output, sequence, locktime), nil
}
