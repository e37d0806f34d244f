package protocol

import (
	"unicode/utf8"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxAnnouncementSize bounds an announcement.
const MaxAnnouncementSize = 4 << 10 // bytes of the envelope

// TypeAnnouncement is the request type of a relay's announcement.
const TypeAnnouncement = "serverBroadcast"

// Announcement is what a relay says of itself to everybody: an envelope from and to the relay,
// served at /.well-known/relaymarket and inside a 402. It is a document: readers ignore members
// they do not know.
type Announcement struct {
	Type       string    `json:"type"`
	Addresses  []string  `json:"addresses"` // see [ValidateAddress]; empty when the operator named none
	Limits     Limits    `json:"limits"`
	Terms      []Terms   `json:"terms"` // alternatives, the relay's preference first
	Seq        int64     `json:"seq"`   // rises with every change
	ValidUntil Timestamp `json:"validUntil"`
	// Network is the Bitcoin network of the contracts, and the market that the relay is announced in; absent from a relay that
	// makes no contracts and is in no market.
	Network Network `json:"network,omitempty"`
	// Contracts are the terms of a contract opened on this announcement: members of the announcement itself, all of them
	// or none. Nil: the relay makes no contracts.
	Contracts *ContractOffer `json:",embed"`
	Hubs      []string       `json:"hubs,omitempty"`   // where it is announced, see [ValidateHub]
	Notice    string         `json:"notice,omitempty"` // what those are shown who took terms with ads, at most 200 characters
	Pow       *Work          `json:"pow,omitempty"`    // in the market only
}

// ContractOffer is what a relay asks of those who pay it by contract. It honours each announcement of its own that is
// still valid, whatever it announced since. Prices are in millisatoshi, for 10^9 bytes; what they are for is in docs/contract.md.
type ContractOffer struct {
	StorageMsatPerGBDay int64          `json:"storageMsatPerGBDay"` // 0 … 2^53−1, for a GB stored for 86,400 s
	BandwidthMsatPerGB  int64          `json:"bandwidthMsatPerGB"`  // 0 … 2^53−1, for a GB moved
	OpeningPrice        btcutil.Amount `json:"openingPriceSat"`     // c₀, satoshi
	CreditLimit         btcutil.Amount `json:"creditLimitSat"`      // Δ, satoshi
	BondPercent         int64          `json:"bondPercent"`         // the relay's bond, of the deposit: 0 … 100
	MinPrepay           btcutil.Amount `json:"minPrepaySat"`        // the least deposit, satoshi
}

// contractOffer are the members of a [ContractOffer].
var contractOffer = []string{"storageMsatPerGBDay", "bandwidthMsatPerGB", "openingPriceSat", "creditLimitSat", "bondPercent", "minPrepaySat"}

// Bond is what the relay adds to a deposit, rounded down. The deposit is an amount, 0 … 21·10^14 satoshi.
func (o *ContractOffer) Bond(deposit btcutil.Amount) btcutil.Amount {
	return deposit * btcutil.Amount(o.BondPercent) / 100
}

func (o *ContractOffer) validate() error {
	if min(o.StorageMsatPerGBDay, o.BandwidthMsatPerGB) < 0 {
		return Errorf(CodeInvalidValue, "a price is never negative")
	}
	for _, a := range []struct {
		amount btcutil.Amount
		what   string
	}{{o.OpeningPrice, "the opening price"}, {o.CreditLimit, "the credit limit"}, {o.MinPrepay, "the least deposit"}} {
		if err := validateAmount(a.amount, a.what); err != nil {
			return err
		}
	}
	if o.BondPercent < 0 || o.BondPercent > 100 {
		return Errorf(CodeInvalidValue, "a bond is 0 to 100 percent of the deposit")
	}
	return nil
}

func validateHubs(hubs []string) error {
	if len(hubs) > MaxCardHubs {
		return Errorf(CodeInvalidValue, "an announcement names at most %d hubs", MaxCardHubs)
	}
	for _, hub := range hubs {
		if err := ValidateHub(hub); err != nil {
			return err
		}
	}
	return nil
}

// together implements grouped.
func (*Announcement) together() []string { return contractOffer }

// Limits are the bounds a relay keeps, from its live configuration.
type Limits struct {
	RecordBytes   int64 `json:"recordBytes"`   // envelope of one record
	AdmittedBytes int64 `json:"admittedBytes"` // envelope of one record left by an admitted key
	BatchBytes    int64 `json:"batchBytes"`    // body of a batch
	BatchRecords  int64 `json:"batchRecords"`
	PageBytes     int64 `json:"pageBytes"`
	PageRecords   int64 `json:"pageRecords"`
	LifetimeMs    int64 `json:"lifetimeMs"`    // expires − now at most
	MaxPulls      int64 `json:"maxPulls"`      // at most, one write
	HeaderSeconds int64 `json:"headerSeconds"` // for headers to arrive
	BodySeconds   int64 `json:"bodySeconds"`   // for a body to arrive
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: every member is required.
func (l *Limits) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain Limits
	return decodeItem(dec, (*plain)(l), "recordBytes", "admittedBytes", "batchBytes", "batchRecords", "pageBytes",
		"pageRecords", "lifetimeMs", "maxPulls", "headerSeconds", "bodySeconds")
}

func (l Limits) validate() error {
	least := min(l.RecordBytes, l.AdmittedBytes, l.BatchBytes, l.BatchRecords, l.PageBytes,
		l.PageRecords, l.LifetimeMs, l.MaxPulls, l.HeaderSeconds, l.BodySeconds)
	if least < 0 {
		return Errorf(CodeInvalidValue, "a limit is never negative")
	}
	return nil
}

// RequestType implements [Request].
func (*Announcement) RequestType() string { return TypeAnnouncement }

func (a *Announcement) setType() { a.Type = TypeAnnouncement }
func (*Announcement) open() bool { return true }
func (*Announcement) required() []string {
	return []string{"addresses", "limits", "terms", "seq", "validUntil"}
}

// Validate implements [Request].
func (a *Announcement) Validate() error {
	if len(a.Addresses) > MaxCardRelays {
		return Errorf(CodeInvalidValue, "an announcement names at most %d addresses", MaxCardRelays)
	}
	for _, address := range a.Addresses {
		if err := ValidateAddress(address); err != nil {
			return err
		}
	}
	if err := a.Limits.validate(); err != nil {
		return err
	}
	if len(a.Terms) > MaxTerms {
		return Errorf(CodeInvalidValue, "an announcement offers at most %d terms", MaxTerms)
	}
	for i := range a.Terms {
		if err := a.Terms[i].validate(); err != nil {
			return err
		}
	}
	if utf8.RuneCountInString(a.Notice) > maxContact {
		return Errorf(CodeInvalidValue, "a notice has at most %d characters", maxContact)
	}
	if a.Network != "" || a.Contracts != nil {
		if err := a.Network.Validate(); err != nil {
			return err
		}
	}
	if a.Contracts != nil {
		if err := a.Contracts.validate(); err != nil {
			return err
		}
	}
	if err := validateHubs(a.Hubs); err != nil {
		return err
	}
	if err := a.Pow.validate(); err != nil {
		return err
	}
	if a.Seq < 0 {
		return Errorf(CodeInvalidValue, "seq starts at 0")
	}
	return a.ValidUntil.Validate()
}

// ParseAnnouncement reads and verifies an announcement against the reader's clock.
func ParseAnnouncement(data []byte, now Timestamp) (*Envelope, *Announcement, error) {
	if len(data) > MaxAnnouncementSize {
		return nil, nil, Errorf(CodeTooLarge, "an announcement has at most %d bytes", MaxAnnouncementSize)
	}
	e, err := ParseEnvelope(data)
	if err != nil {
		return nil, nil, err
	}
	var a Announcement
	if err := e.Decode(&a); err != nil {
		return nil, nil, err
	}
	if e.From != e.To {
		return nil, nil, Errorf(CodeWrongAudience, "an announcement is addressed to its own signer")
	}
	if err := CheckNotFuture(e.Timestamp, now); err != nil {
		return nil, nil, err
	}
	if a.ValidUntil < now {
		return nil, nil, Errorf(CodeStale, "the announcement was valid until %s", a.ValidUntil.Time().Format("2006-01-02 15:04:05Z"))
	}
	if err := e.Verify(); err != nil {
		return nil, nil, err
	}
	return e, &a, nil
}
