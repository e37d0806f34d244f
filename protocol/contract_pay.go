package protocol

import (
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/go-json-experiment/json/jsontext"
)

// ContractPayment is a new state of a contract: the relay's amount rises to Amount. POST
// /contracts/{contract}/payments; the answer is a [ContractStatus]. The same seq again with the
// same content has the same answer, with other content the code [CodeConflict].
type ContractPayment struct {
	Type      string            `json:"type"`
	Contract  ContractID        `json:"contract"`
	Seq       int64             `json:"seq"`    // greater than every one before
	Amount    btcutil.Amount    `json:"amount"` // A, never less than before
	Signature ContractSignature `json:"signature"`
	Usage     *Msat             `json:"usage,omitempty"`   // the cumulative usage it pays for
	Pending   *PendingState     `json:"pending,omitempty"` // the same for the escrow that renews this one
}

// PendingState is a state of the escrow whose funding is not confirmed yet.
type PendingState struct {
	Contract  ContractID        `json:"contract"`
	Seq       int64             `json:"seq"`
	Amount    btcutil.Amount    `json:"amount"`
	Signature ContractSignature `json:"signature"`
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: every member is required.
func (p *PendingState) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain PendingState
	return decodeItem(dec, (*plain)(p), "contract", "seq", "amount", "signature")
}

// RequestType implements [Request].
func (*ContractPayment) RequestType() string { return TypeContractPayment }

func (c *ContractPayment) setType() { c.Type = TypeContractPayment }
func (*ContractPayment) open() bool { return false }
func (*ContractPayment) required() []string {
	return []string{"contract", "seq", "amount", "signature"}
}

// Validate implements [Request].
func (c *ContractPayment) Validate() error {
	if c.Pending != nil {
		if c.Pending.Contract == c.Contract {
			return Errorf(CodeInvalidValue, "pending is the state of another contract, the one that renews this")
		}
		if err := validateState(c.Pending.Seq, c.Pending.Amount, c.Pending.Signature); err != nil {
			return err
		}
	}
	return validateState(c.Seq, c.Amount, c.Signature)
}

func validateState(seq int64, amount btcutil.Amount, signature ContractSignature) error {
	if seq < 1 {
		return Errorf(CodeStateOrder, "a payment has seq 1 or more: 0 is the opening price")
	}
	if err := validateAmount(amount, "the amount"); err != nil {
		return err
	}
	return signature.Validate()
}

// ContractRefund asks for a cooperative refund: the user's signature, SIGHASH_ALL, of the closing
// transaction that pays the relay Amount and its bond and the user the rest less Fee. POST
// /contracts/{contract}/refund; the answer is a [ContractStatus].
type ContractRefund struct {
	Type      string            `json:"type"`
	Contract  ContractID        `json:"contract"`
	Amount    btcutil.Amount    `json:"amount"` // A, at least what is owed
	Fee       btcutil.Amount    `json:"fee"`    // satoshi, taken from the user's output
	Signature ContractSignature `json:"signature"`
}

// RequestType implements [Request].
func (*ContractRefund) RequestType() string { return TypeContractRefund }

func (c *ContractRefund) setType() { c.Type = TypeContractRefund }
func (*ContractRefund) open() bool { return false }
func (*ContractRefund) required() []string {
	return []string{"contract", "amount", "fee", "signature"}
}

// Validate implements [Request].
func (c *ContractRefund) Validate() error { return validateClosing(c.Amount, c.Fee, c.Signature) }

func validateClosing(amount, fee btcutil.Amount, signature ContractSignature) error {
	if err := validateAmount(amount, "the amount"); err != nil {
		return err
	}
	if fee < 1 || fee > btcutil.MaxSatoshi {
		return Errorf(CodeFeerate, "a closing transaction pays a fee")
	}
	return signature.Validate()
}
