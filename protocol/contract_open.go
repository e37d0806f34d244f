package protocol

import (
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/go-json-experiment/json/jsontext"
)

// Request types of contracts. A [TypeContractRead] is signed as a [Targeted].
const (
	TypeContractOpen         = "contractOpen"
	TypeContractConsent      = "contractConsent"
	TypeContractServerInputs = "contractServerAddInputs"
	TypeContractClientSigned = "contractClientSigned"
	TypeContractPayment      = "contractPaymentState"
	TypeContractRefund       = "contractRefundPayment"
	TypeContractStatus       = "contractStatus"
	TypeContractList         = "contractList"
	TypeContractRead         = "contractRead" // GET of one contract or of all
)

// Bounds of a feerate on the wire, in satoshi per 1000 virtual bytes.
const (
	MinContractFeerate = 1_000     // 1 sat/vB, what every node relays
	MaxContractFeerate = 1_000_000 // 1000 sat/vB; more is a mistake
)

// maxHeight is the last block height that a locktime can name (BIP65): from 500,000,000 on it is a
// time.
const maxHeight = 499_999_999

// ContractOpen asks a relay for a contract: POST /contracts. The relay answers with a
// [ContractServerInputs], the same one as often as it is asked.
type ContractOpen struct {
	Type         string           `json:"type"`
	Contract     ContractID       `json:"contract"`
	Announcement Hash             `json:"announcement"` // hash of the relay's announcement envelope relied on
	Deposit      btcutil.Amount   `json:"deposit"`      // P, satoshi
	Expiry       int64            `json:"expiry"`       // T, block height from which the user alone can spend
	Feerate      int64            `json:"feerate"`      // of the funding transaction, sat per 1000 vB
	UserKey      ContractKey      `json:"userKey"`      // C
	UserScript   Script           `json:"userScript"`   // where the user's money goes in the end
	PSBT         PSBT             `json:"psbt"`         // the user's inputs with WITNESS_UTXO, and his change output if any
	Writers      []ContractWriter `json:"writers"`      // keys it pays for beside the signer's own, at most [MaxContractWriters]
	Renews       *ContractID      `json:"renews,omitempty"`
}

// ContractWriter is a key that a contract pays for, and that key's own word for it.
type ContractWriter struct {
	Key     PublicKey      `json:"key"`
	Consent jsontext.Value `json:"consent"` // envelope of a [ContractConsent], from Key to the relay
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: every member is required.
func (w *ContractWriter) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain ContractWriter
	return decodeItem(dec, (*plain)(w), "key", "consent")
}

// RequestType implements [Request].
func (*ContractOpen) RequestType() string { return TypeContractOpen }

func (c *ContractOpen) setType() { c.Type = TypeContractOpen }
func (*ContractOpen) open() bool { return false }
func (*ContractOpen) required() []string {
	return []string{"contract", "announcement", "deposit", "expiry", "feerate", "userKey", "userScript", "psbt", "writers"}
}

// Validate implements [Request].
func (c *ContractOpen) Validate() error {
	if err := validateAmount(c.Deposit, "the deposit"); err != nil {
		return err
	}
	if err := validateHeight(c.Expiry); err != nil {
		return err
	}
	if c.Feerate < MinContractFeerate || c.Feerate > MaxContractFeerate {
		return Errorf(CodeFeerate, "a feerate is %d to %d satoshi per 1000 vB", MinContractFeerate, MaxContractFeerate)
	}
	if err := c.UserKey.Validate(); err != nil {
		return err
	}
	if err := c.UserScript.Validate(); err != nil {
		return err
	}
	if c.Renews != nil && *c.Renews == c.Contract {
		return Errorf(CodeInvalidValue, "a contract does not renew itself: draw a new id")
	}
	if err := c.validateWriters(); err != nil {
		return err
	}
	return c.PSBT.Validate()
}

func (c *ContractOpen) validateWriters() error {
	if len(c.Writers) > MaxContractWriters {
		return Errorf(CodeInvalidValue, "a contract pays for at most %d writers", MaxContractWriters)
	}
	seen := make(map[PublicKey]struct{}, len(c.Writers))
	for _, w := range c.Writers {
		if w.Consent.Kind() != '{' {
			return Errorf(CodeMalformed, "consent is the envelope that the writer %s signed", w.Key)
		}
		if _, twice := seen[w.Key]; twice {
			return Errorf(CodeInvalidValue, "the writer %s occurs twice", w.Key)
		}
		seen[w.Key] = struct{}{}
	}
	return nil
}

// ContractConsent is a writer's word that the payer may pay for what it writes: an envelope from
// the writer to the relay.
type ContractConsent struct {
	Type     string     `json:"type"`
	Contract ContractID `json:"contract"`
	Payer    PublicKey  `json:"payer"`
}

// RequestType implements [Request].
func (*ContractConsent) RequestType() string { return TypeContractConsent }

func (c *ContractConsent) setType()         { c.Type = TypeContractConsent }
func (*ContractConsent) open() bool         { return false }
func (*ContractConsent) required() []string { return []string{"contract", "payer"} }

// Validate implements [Request].
func (c *ContractConsent) Validate() error { return nil }

// CheckConsent judges a writer's consent to a contract: signed by the writer for this relay, this
// contract and this payer. Its time does not matter: the contract id is used once. Errors have code
// [CodeConsent].
func CheckConsent(w ContractWriter, relay PublicKey, contract ContractID, payer PublicKey) error {
	e, err := ParseEnvelope(w.Consent)
	if err != nil {
		return Errorf(CodeConsent, "the consent of %s is no envelope", w.Key)
	}
	var c ContractConsent
	if err := e.Decode(&c); err != nil {
		return Errorf(CodeConsent, "the consent of %s is none: %v", w.Key, err)
	}
	if e.From != w.Key || e.To != relay || c.Contract != contract || c.Payer != payer {
		return Errorf(CodeConsent, "the consent of %s is for another relay, contract or payer", w.Key)
	}
	if e.Verify() != nil {
		return Errorf(CodeConsent, "the consent is not signed by %s", w.Key)
	}
	return nil
}

// ContractServerInputs is the relay's answer to a [ContractOpen]: its part, its terms, and the
// whole unsigned funding transaction. It is a document: readers ignore members they do not know.
type ContractServerInputs struct {
	Type                string         `json:"type"`
	Contract            ContractID     `json:"contract"`
	RelayKey            ContractKey    `json:"relayKey"`     // S
	RelayScript         Script         `json:"relayScript"`  // where the relay is paid to
	Bond                btcutil.Amount `json:"bond"`         // B, satoshi
	OpeningPrice        btcutil.Amount `json:"openingPrice"` // c₀, the amount of state 0
	CreditLimit         btcutil.Amount `json:"creditLimit"`  // Δ
	StorageMsatPerGBDay int64          `json:"storageMsatPerGBDay"`
	BandwidthMsatPerGB  int64          `json:"bandwidthMsatPerGB"`
	Expiry              int64          `json:"expiry"` // T, as asked
	PSBT                PSBT           `json:"psbt"`   // the whole unsigned funding, every input with WITNESS_UTXO
	ReservedUntil       Timestamp      `json:"reservedUntil"`
	// RenewsAmount is A of the renewed contract, which the funding pays out; only with a renewal.
	RenewsAmount *btcutil.Amount `json:"renewsAmount,omitempty"`
}

// RequestType implements [Request].
func (*ContractServerInputs) RequestType() string { return TypeContractServerInputs }

func (c *ContractServerInputs) setType() { c.Type = TypeContractServerInputs }
func (*ContractServerInputs) open() bool { return true }
func (*ContractServerInputs) required() []string {
	return []string{"contract", "relayKey", "relayScript", "bond", "openingPrice", "creditLimit",
		"storageMsatPerGBDay", "bandwidthMsatPerGB", "expiry", "psbt", "reservedUntil"}
}

// Validate implements [Request].
func (c *ContractServerInputs) Validate() error {
	if err := c.RelayKey.Validate(); err != nil {
		return err
	}
	if err := c.RelayScript.Validate(); err != nil {
		return err
	}
	if err := validateTerms(c.Bond, c.OpeningPrice, c.CreditLimit); err != nil {
		return err
	}
	if c.StorageMsatPerGBDay < 0 || c.BandwidthMsatPerGB < 0 {
		return Errorf(CodeInvalidValue, "a price is never negative")
	}
	if c.RenewsAmount != nil {
		if err := validateAmount(*c.RenewsAmount, "the renewed contract's amount"); err != nil {
			return err
		}
	}
	if err := validateHeight(c.Expiry); err != nil {
		return err
	}
	if err := c.ReservedUntil.Validate(); err != nil {
		return err
	}
	return c.PSBT.Validate()
}

// ContractClientSigned gives the user's witnesses of the funding and the signature of state 0:
// POST /contracts/{contract}/signed. The answer is a [ContractStatus].
type ContractClientSigned struct {
	Type      string            `json:"type"`
	Contract  ContractID        `json:"contract"`
	PSBT      PSBT              `json:"psbt"`   // the same, the user's inputs finalized
	Seq       int64             `json:"seq"`    // 0
	Amount    btcutil.Amount    `json:"amount"` // c₀
	Signature ContractSignature `json:"signature"`
}

// RequestType implements [Request].
func (*ContractClientSigned) RequestType() string { return TypeContractClientSigned }

func (c *ContractClientSigned) setType() { c.Type = TypeContractClientSigned }
func (*ContractClientSigned) open() bool { return false }
func (*ContractClientSigned) required() []string {
	return []string{"contract", "psbt", "seq", "amount", "signature"}
}

// Validate implements [Request].
func (c *ContractClientSigned) Validate() error {
	if c.Seq != 0 {
		return Errorf(CodeStateOrder, "the first state has seq 0")
	}
	if err := validateAmount(c.Amount, "the amount"); err != nil {
		return err
	}
	if err := c.Signature.Validate(); err != nil {
		return err
	}
	return c.PSBT.Validate()
}

func validateTerms(bond, openingPrice, creditLimit btcutil.Amount) error {
	if err := validateAmount(bond, "the bond"); err != nil {
		return err
	}
	if err := validateAmount(openingPrice, "the opening price"); err != nil {
		return err
	}
	return validateAmount(creditLimit, "the credit limit")
}

func validateHeight(height int64) error {
	if height < 1 || height > maxHeight {
		return Errorf(CodeContractExpiry, "the expiry is a block height, 1 to %d", maxHeight)
	}
	return nil
}
