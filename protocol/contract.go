package protocol

import (
	"encoding/hex"
	"strconv"

	"github.com/btcsuite/btcd/btcutil/v2"
)

// Limits of contract messages that no relay changes.
const (
	MaxPSBTSize        = 64 << 10  // bytes of a decoded PSBT
	MaxContractWriters = 100       // writing keys one contract pays for
	MaxContractList    = 1000      // contracts in one list
	MaxContractTx      = 100 << 10 // bytes of a transaction in a status
	MaxContractTxs     = 100       // transactions named in one status
	maxSignature       = 73        // bytes of a DER signature and its sighash byte
	minSignature       = 9
)

// DustP2WPKH and DustP2TR are the smallest outputs that nodes relay: 294 satoshi to a P2WPKH
// script, 330 to the longer P2TR and P2WSH scripts (Bitcoin Core's policy at 3000 sat/kvB).
const (
	DustP2WPKH btcutil.Amount = 294
	DustP2TR   btcutil.Amount = 330
)

// ContractID names a contract: 32 random bytes drawn by the user, 64 lower-case hex digits on the
// wire. Both contract keys are derived from it, so it is never used twice.
type ContractID [32]byte

// String is the wire form.
func (id ContractID) String() string { return hex.EncodeToString(id[:]) }

// Short is the first eight digits, for tables and logs.
func (id ContractID) Short() string { return hex.EncodeToString(id[:4]) }

// MarshalText implements encoding.TextMarshaler.
func (id ContractID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts the wire form only.
func (id *ContractID) UnmarshalText(text []byte) error { return decodeHex(id[:], text, "contract id") }

// ContractKey is a compressed secp256k1 public key (33 bytes, SEC 1), 66 lower-case hex digits on
// the wire. It belongs to one contract and signs nothing else.
type ContractKey [33]byte

// String is the wire form.
func (k ContractKey) String() string { return hex.EncodeToString(k[:]) }

// MarshalText implements encoding.TextMarshaler.
func (k ContractKey) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, k[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts the wire form only and does not
// check that the key lies on the curve.
func (k *ContractKey) UnmarshalText(text []byte) error { return decodeHex(k[:], text, "contract key") }

// Validate tells whether the key is a point in compressed form.
func (k ContractKey) Validate() error {
	if k[0] != 2 && k[0] != 3 {
		return Errorf(CodeInvalidValue, "a contract key starts with 02 or 03")
	}
	x := PublicKey(k[1:])
	if !onCurve(&x) {
		return Errorf(CodeInvalidValue, "%s is no point of secp256k1", k)
	}
	return nil
}

// Script is an output script (scriptPubKey), lower-case hex on the wire.
type Script []byte

// String is the wire form.
func (s Script) String() string { return hex.EncodeToString(s) }

// MarshalText implements encoding.TextMarshaler.
func (s Script) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts lower-case hex of at most 34 bytes.
func (s *Script) UnmarshalText(text []byte) error {
	return readHexBytes((*[]byte)(s), text, 34, "output script")
}

// Dust is the smallest amount that an output with this script may have, or 0 for a script that is
// no payout.
func (s Script) Dust() btcutil.Amount {
	switch {
	case len(s) == 22 && s[0] == 0x00 && s[1] == 20: // P2WPKH, BIP141
		return DustP2WPKH
	case len(s) == 34 && s[1] == 32 && (s[0] == 0x00 || s[0] == 0x51): // P2WSH, BIP141; P2TR, BIP341
		return DustP2TR
	}
	return 0
}

// Validate accepts P2WPKH, P2WSH and P2TR, the native SegWit scripts of a fixed, small size.
func (s Script) Validate() error {
	if s.Dust() == 0 {
		return Errorf(CodeWrongScript, "a payout is to a P2WPKH, P2WSH or P2TR script, give a bc1q… or bc1p… address")
	}
	return nil
}

// ContractSignature is a signature of one transaction input: low-S DER ECDSA (BIP66, BIP146) and
// one sighash byte, lower-case hex on the wire.
type ContractSignature []byte

// String is the wire form.
func (s ContractSignature) String() string { return hex.EncodeToString(s) }

// MarshalText implements encoding.TextMarshaler.
func (s ContractSignature) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts lower-case hex of at most 73 bytes.
func (s *ContractSignature) UnmarshalText(text []byte) error {
	return readHexBytes((*[]byte)(s), text, maxSignature, "signature")
}

// Validate checks the length; only a contract can tell whether the signature is true.
func (s ContractSignature) Validate() error {
	if len(s) < minSignature || len(s) > maxSignature {
		return Errorf(CodeContractSignature, "a signature has %d to %d bytes, its sighash byte included", minSignature, maxSignature)
	}
	return nil
}

// RawTx is a serialized transaction with its witnesses (BIP144), lower-case hex on the wire.
type RawTx []byte

// MarshalText implements encoding.TextMarshaler.
func (t RawTx) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, t), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts lower-case hex of at most
// [MaxContractTx] bytes.
func (t *RawTx) UnmarshalText(text []byte) error {
	return readHexBytes((*[]byte)(t), text, MaxContractTx, "transaction")
}

// TxID is a transaction's id as people see it: the byte-reversed double SHA-256, 64 lower-case hex
// digits. The bytes here are in the order of the digits, the reverse of chainhash.Hash.
type TxID [32]byte

// String is the wire form.
func (id TxID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText implements encoding.TextMarshaler.
func (id TxID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts the wire form only.
func (id *TxID) UnmarshalText(text []byte) error { return decodeHex(id[:], text, "transaction id") }

// PSBT is a partially signed transaction (BIP174 version 0) in standard base64 with padding.
type PSBT string

// Validate checks size and alphabet. What is in it only package escrow tells.
func (p PSBT) Validate() error {
	if len(p) > (MaxPSBTSize+2)/3*4 {
		return Errorf(CodeTooLarge, "a PSBT has at most %d bytes: leave out previous transactions and derivations", MaxPSBTSize)
	}
	if p == "" || !isBase64(string(p)) {
		return Errorf(CodeBadPSBT, "a PSBT is standard base64 with padding")
	}
	return nil
}

// Msat is an amount in millisatoshi. On the wire it is a decimal string without leading zeros,
// because it may pass 2^53.
type Msat int64

// String is the wire form.
func (m Msat) String() string { return strconv.FormatInt(int64(m), 10) }

// MarshalText implements encoding.TextMarshaler.
func (m Msat) MarshalText() ([]byte, error) { return strconv.AppendInt(nil, int64(m), 10), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts 0 … 2^63−1 in their shortest form.
func (m *Msat) UnmarshalText(text []byte) error {
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != string(text) {
		return Errorf(CodeMalformed, "millisatoshi are a decimal string, 0 to 2^63-1, without leading zeros")
	}
	*m = Msat(n)
	return nil
}

// readHexBytes fills dst from lower-case hex digits of at most the given number of bytes.
func readHexBytes(dst *[]byte, text []byte, most int, what string) error {
	if len(text)%2 != 0 || len(text) > 2*most {
		return Errorf(CodeMalformed, "a %s is an even number of hex digits, at most %d", what, 2*most)
	}
	raw := make([]byte, len(text)/2)
	if !readHex(raw, text) {
		return Errorf(CodeMalformed, "a %s is lower-case hex digits only", what)
	}
	*dst = raw
	return nil
}

// validateAmount checks an amount of satoshi on the wire: 0 to all bitcoin there can be.
func validateAmount(a btcutil.Amount, what string) error {
	if a < 0 || a > btcutil.MaxSatoshi {
		return Errorf(CodeWrongAmount, "%s is 0 to %d satoshi", what, int64(btcutil.MaxSatoshi))
	}
	return nil
}

// Network is the Bitcoin network that a relay's contracts are on.
type Network string

// The networks.
const (
	Mainnet  Network = "mainnet"
	Testnet4 Network = "testnet4"
	Signet   Network = "signet"
	Regtest  Network = "regtest"
)

// Networks lists them in the order of their number in key derivation paths.
func Networks() []Network { return []Network{Mainnet, Testnet4, Signet, Regtest} }

// Validate accepts the four names.
func (n Network) Validate() error {
	switch n {
	case Mainnet, Testnet4, Signet, Regtest:
		return nil
	}
	return Errorf(CodeNetwork, "a Bitcoin network is mainnet, testnet4, signet or regtest")
}
