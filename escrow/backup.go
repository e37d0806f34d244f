package escrow

import (
	"bytes"
	"errors"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/go-json-experiment/json"

	"relaymarket/protocol"
)

// MaxBackupSize bounds a backup document in bytes.
const MaxBackupSize = 512 << 10

// BackupVersion is the version of the document that this package writes.
const BackupVersion = 1

// Backup is what a seed cannot give back: with the seed's words it is enough to refund a contract,
// without the relay and without any other file. It is written before the user signs the funding,
// and again when the whole funding transaction is known. It holds no secret, but tells who pays
// whom: outside of the user's own disk it travels sealed.
type Backup struct {
	Contract Contract
	Funding  wire.OutPoint
	Tx       *wire.MsgTx // the funding with its witnesses; nil before it is known
}

// backupDocument is the wire form: canonical JSON (RFC 8785) of these members.
type backupDocument struct {
	Version      int64                `json:"version"`
	Descriptor   string               `json:"descriptor"` // BIP380, with checksum; says the same as the keys and the expiry
	Contract     ID                   `json:"contract"`
	Network      protocol.Network     `json:"network"`
	User         protocol.PublicKey   `json:"user"`
	Relay        protocol.PublicKey   `json:"relay"`
	UserKey      protocol.ContractKey `json:"userKey"`
	RelayKey     protocol.ContractKey `json:"relayKey"`
	UserScript   protocol.Script      `json:"userScript"`
	RelayScript  protocol.Script      `json:"relayScript"`
	Deposit      int64                `json:"deposit"`
	Bond         int64                `json:"bond"`
	OpeningPrice int64                `json:"openingPrice"`
	CreditLimit  int64                `json:"creditLimit"`
	Storage      int64                `json:"storageMsatPerGBDay"`
	Bandwidth    int64                `json:"bandwidthMsatPerGB"`
	Expiry       int64                `json:"expiry"`
	Announcement protocol.Hash        `json:"announcement"`
	Writers      []protocol.PublicKey `json:"writers"`
	Renews       *ID                  `json:"renews,omitempty"`
	FundingTxID  protocol.TxID        `json:"fundingTxid"` // the escrow is its output 0
	FundingTx    protocol.RawTx       `json:"fundingTx,omitempty"`
}

// Encode is the document's bytes.
func (b *Backup) Encode() ([]byte, error) {
	c := &b.Contract
	if err := b.validate(); err != nil {
		return nil, err
	}
	d := backupDocument{
		Version: BackupVersion, Descriptor: c.Descriptor(), Contract: c.ID, Network: c.Network,
		User: c.User, Relay: c.Relay, UserKey: c.UserKey, RelayKey: c.RelayKey,
		UserScript: c.UserScript, RelayScript: c.RelayScript,
		Deposit: int64(c.Deposit), Bond: int64(c.Bond), OpeningPrice: int64(c.OpeningPrice), CreditLimit: int64(c.CreditLimit),
		Storage: c.Prices.StorageMsatPerGBDay, Bandwidth: c.Prices.BandwidthMsatPerGB,
		Expiry: int64(c.Expiry), Announcement: c.Announcement, Writers: c.Writers, Renews: c.Renews,
		FundingTxID: WireTxID(b.Funding.Hash),
	}
	if d.Writers == nil {
		d.Writers = []protocol.PublicKey{}
	}
	if b.Tx != nil {
		d.FundingTx = (&Tx{MsgTx: b.Tx}).Bytes()
	}
	return protocol.Canonicalize(d)
}

// ParseBackup reads a document and checks it against itself: what its members say, what the
// descriptor says, and what the funding transaction pays. Members of later versions are refused
// with their version. Codes are too_large, malformed and those of [Contract.Validate].
func ParseBackup(data []byte) (*Backup, error) {
	if len(data) > MaxBackupSize {
		return nil, protocol.Errorf(protocol.CodeTooLarge, "a contract backup has at most %d bytes", MaxBackupSize)
	}
	if err := protocol.CheckCanonical(data); err != nil {
		return nil, err
	}
	var version struct {
		Version int64 `json:"version"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return nil, backupFault(err)
	}
	if version.Version != BackupVersion {
		return nil, protocol.Errorf(protocol.CodeMalformed, "this is no contract backup of version %d but of %d: take a newer program", BackupVersion, version.Version)
	}
	var d backupDocument
	if err := json.Unmarshal(data, &d, json.RejectUnknownMembers(true)); err != nil {
		return nil, backupFault(err)
	}
	if d.Expiry < 1 || d.Expiry > maxHeight {
		return nil, protocol.Errorf(protocol.CodeContractExpiry, "the expiry %d is no block height", d.Expiry)
	}
	b := &Backup{Contract: d.contract(), Funding: wire.OutPoint{Hash: hashOf(d.FundingTxID)}}
	if len(d.FundingTx) > 0 {
		tx, err := DecodeTx(d.FundingTx)
		if err != nil {
			return nil, err
		}
		b.Tx = tx
	}
	if err := b.validate(); err != nil {
		return nil, err
	}
	if d.Descriptor != b.Contract.Descriptor() {
		return nil, protocol.Errorf(protocol.CodeWrongScript, "the backup's descriptor is not that of its keys and expiry")
	}
	if again, err := b.Encode(); err != nil || !bytes.Equal(again, data) {
		return nil, protocol.Errorf(protocol.CodeMalformed, "the contract backup lacks a member")
	}
	return b, nil
}

func backupFault(err error) error {
	var coded *protocol.Error
	if errors.As(err, &coded) {
		return coded
	}
	return protocol.Errorf(protocol.CodeMalformed, "not a contract backup")
}

func (d *backupDocument) contract() Contract {
	return Contract{
		ID: d.Contract, Network: d.Network, User: d.User, Relay: d.Relay, UserKey: d.UserKey, RelayKey: d.RelayKey,
		UserScript: d.UserScript, RelayScript: d.RelayScript,
		Deposit: btcutil.Amount(d.Deposit), Bond: btcutil.Amount(d.Bond),
		OpeningPrice: btcutil.Amount(d.OpeningPrice), CreditLimit: btcutil.Amount(d.CreditLimit),
		Prices: Prices{StorageMsatPerGBDay: d.Storage, BandwidthMsatPerGB: d.Bandwidth},
		Expiry: uint32(d.Expiry), Announcement: d.Announcement, Writers: d.Writers, Renews: d.Renews,
	}
}

func (b *Backup) validate() error {
	if err := b.Contract.Validate(); err != nil {
		return err
	}
	if b.Funding.Index != 0 {
		return protocol.Errorf(protocol.CodeWrongOutput, "the escrow is output 0 of its funding")
	}
	if b.Tx == nil {
		return nil
	}
	return CheckFundingTx(&b.Contract, b.Funding, b.Tx)
}

// CheckFundingTx refuses a transaction that is not the funding of the contract: another id, or
// another output 0. Codes are wrong_input, wrong_script and wrong_amount.
func CheckFundingTx(c *Contract, funding wire.OutPoint, tx *wire.MsgTx) error {
	if tx.TxHash() != funding.Hash || len(tx.TxOut) == 0 {
		return protocol.Errorf(protocol.CodeWrongInput, "the transaction is not the funding %s of contract %s", funding.Hash, c.ID)
	}
	f := Funding{Contract: c}
	return f.cutOutputs(tx.TxOut[:1])
}

// hashOf converts to Bitcoin's internal byte order.
func hashOf(id protocol.TxID) [32]byte { return [32]byte(WireTxID(id)) }
