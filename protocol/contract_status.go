package protocol

import (
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/go-json-experiment/json/jsontext"
)

// ContractState is the word for where a contract stands. Readers of a status tolerate words of the
// future; package escrow has the table of those of today.
type ContractState string

// The states of a contract.
const (
	StateOpening          ContractState = "opening"           // asked for, not signed by the user
	StateFunding          ContractState = "funding"           // signed by both, not in a block
	StateActive           ContractState = "active"            // funded; pays for usage
	StatePaymentRequested ContractState = "payment_requested" // the relay released a closing signature
	StateRefundRequested  ContractState = "refund_requested"  // the user released a closing signature
	StateRenewing         ContractState = "renewing"          // the funding of its successor spends it
	StateSettling         ContractState = "settling"          // a transaction that ends it is on its way
	StateClosed           ContractState = "closed"            // that transaction has 6 confirmations
	StateArchived         ContractState = "archived"          // it has 100, or the funding can never happen
	StateAbandoned        ContractState = "abandoned"         // never funded
)

// Kinds of the transactions of a contract.
const (
	TxFunding    = "funding"
	TxSettlement = "settlement" // a state, broadcast by the relay
	TxClosing    = "closing"    // both agreed
	TxRefund     = "refund"     // the user alone, from T
	TxRenewal    = "renewal"    // the funding of the successor
	TxSweep      = "sweep"      // the user takes what a settlement left him
	TxCancel     = "cancel"     // an input of the funding was spent elsewhere
)

// ContractStatus is where a contract stands in the relay's eyes. It is a document: readers ignore
// members they do not know.
type ContractStatus struct {
	Type         string          `json:"type"`
	Contract     ContractID      `json:"contract"`
	State        ContractState   `json:"state"`
	Seq          int64           `json:"seq"`    // of the highest state held, −1 before the first
	Amount       btcutil.Amount  `json:"amount"` // A of that state
	Deposit      btcutil.Amount  `json:"deposit"`
	Bond         btcutil.Amount  `json:"bond"`
	OpeningPrice btcutil.Amount  `json:"openingPrice"`
	CreditLimit  btcutil.Amount  `json:"creditLimit"`
	Expiry       int64           `json:"expiry"`    // T
	LastUsage    int64           `json:"lastUsage"` // T − M: from this height on nothing new is taken
	Height       int64           `json:"height"`    // the relay's chain tip
	Funding      *FundingStatus  `json:"funding,omitempty"`
	Transactions []ContractTx    `json:"transactions"`
	Owed         btcutil.Amount  `json:"owed"` // what the relay counts, c₀ included, rounded once
	Due          *PaymentDue     `json:"due,omitempty"`
	Closing      *RequestPayment `json:"closing,omitempty"`
	RenewedBy    *ContractID     `json:"renewedBy,omitempty"`
	Renews       *ContractID     `json:"renews,omitempty"`
}

// FundingStatus is the funding transaction, whole, so that a user who lost it has it again.
type FundingStatus struct {
	TxID          TxID  `json:"txid"`
	Tx            RawTx `json:"tx"`
	Confirmations int64 `json:"confirmations"` // 0: not in a block
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: every member is required.
func (f *FundingStatus) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain FundingStatus
	return decodeItem(dec, (*plain)(f), "txid", "tx", "confirmations")
}

// ContractTx names one transaction of a contract.
type ContractTx struct {
	Kind          string `json:"kind"` // one of the Tx constants, or one of the future
	TxID          TxID   `json:"txid"`
	Confirmations int64  `json:"confirmations"`
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: every member is required.
func (c *ContractTx) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain ContractTx
	return decodeItem(dec, (*plain)(c), "kind", "txid", "confirmations")
}

// PaymentDue is the relay's notice that credit runs low. It closes nothing.
type PaymentDue struct {
	Amount btcutil.Amount `json:"amount"` // what A should reach
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: every member is required.
func (p *PaymentDue) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain PaymentDue
	return decodeItem(dec, (*plain)(p), "amount")
}

// RequestPayment (contractRequestPayment) is a closing transaction that the relay has signed with
// SIGHASH_ALL: the user adds his own signature and broadcasts it, or the relay settles with what it
// holds.
type RequestPayment struct {
	Amount    btcutil.Amount    `json:"amount"` // A, the amount due
	Fee       btcutil.Amount    `json:"fee"`    // satoshi, taken from the relay's output
	Signature ContractSignature `json:"signature"`
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: every member is required.
func (r *RequestPayment) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain RequestPayment
	return decodeItem(dec, (*plain)(r), "amount", "fee", "signature")
}

// RequestType implements [Request].
func (*ContractStatus) RequestType() string { return TypeContractStatus }

func (c *ContractStatus) setType()         { c.Type = TypeContractStatus }
func (*ContractStatus) open() bool         { return true }
func (*ContractStatus) required() []string { return contractStatusRequired }

var contractStatusRequired = []string{"contract", "state", "seq", "amount", "deposit", "bond", "openingPrice",
	"creditLimit", "expiry", "lastUsage", "height", "transactions", "owed"}

// Validate implements [Request].
func (c *ContractStatus) Validate() error {
	if err := validateTerms(c.Bond, c.OpeningPrice, c.CreditLimit); err != nil {
		return err
	}
	for _, a := range []btcutil.Amount{c.Amount, c.Deposit, c.Owed} {
		if err := validateAmount(a, "an amount"); err != nil {
			return err
		}
	}
	if c.State == "" || len(c.State) > 32 || c.Seq < -1 || c.LastUsage < 0 || c.Height < 0 {
		return Errorf(CodeInvalidValue, "a status has a state of at most 32 bytes, a seq from -1 and heights from 0")
	}
	if err := validateHeight(c.Expiry); err != nil {
		return err
	}
	if len(c.Transactions) > MaxContractTxs {
		return Errorf(CodeInvalidValue, "a status names at most %d transactions", MaxContractTxs)
	}
	return c.validateParts()
}

func (c *ContractStatus) validateParts() error {
	for _, tx := range c.Transactions {
		if tx.Kind == "" || len(tx.Kind) > 32 || tx.Confirmations < 0 {
			return Errorf(CodeInvalidValue, "a transaction has a kind of at most 32 bytes and 0 or more confirmations")
		}
	}
	if c.Funding != nil && c.Funding.Confirmations < 0 {
		return Errorf(CodeInvalidValue, "a funding has 0 or more confirmations")
	}
	if c.Due != nil {
		if err := validateAmount(c.Due.Amount, "the amount due"); err != nil {
			return err
		}
	}
	if c.Closing != nil {
		return validateClosing(c.Closing.Amount, c.Closing.Fee, c.Closing.Signature)
	}
	return nil
}

// ContractList is the relay's answer to GET /contracts: every contract of the signer, newest first.
type ContractList struct {
	Type      string           `json:"type"`
	Contracts []ContractStatus `json:"contracts"`
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom, for a status within a list.
func (c *ContractStatus) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain ContractStatus
	return decodeItem(dec, (*plain)(c), append([]string{"type"}, contractStatusRequired...)...)
}

// RequestType implements [Request].
func (*ContractList) RequestType() string { return TypeContractList }

func (c *ContractList) setType() {
	c.Type = TypeContractList
	for i := range c.Contracts {
		c.Contracts[i].setType()
	}
}
func (*ContractList) open() bool         { return true }
func (*ContractList) required() []string { return []string{"contracts"} }

// Validate implements [Request].
func (c *ContractList) Validate() error {
	if len(c.Contracts) > MaxContractList {
		return Errorf(CodeInvalidValue, "a list has at most %d contracts", MaxContractList)
	}
	for i := range c.Contracts {
		if c.Contracts[i].Type != TypeContractStatus {
			return Errorf(CodeInvalidValue, "what a list holds is of the type %s", TypeContractStatus)
		}
		if err := c.Contracts[i].Validate(); err != nil {
			return err
		}
	}
	return nil
}
