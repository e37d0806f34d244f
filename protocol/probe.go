package protocol

import (
	"github.com/go-json-experiment/json/jsontext"
)

// Types of the request that another relay try the signer's address, and of its answer.
const (
	TypeProbe       = "probe"
	TypeProbeAnswer = "probeAnswer"
)

// Probe asks a relay to fetch what the signer, a relay too, announces at one of its addresses: whether strangers reach it, it cannot see
// itself. It is answered by a [ProbeAnswer].
type Probe struct {
	Type    string `json:"type"`
	Address string `json:"address"` // one of the announcement's
	// Announcement is the envelope of the signer's announcement, valid and with the work that the market asks for.
	Announcement jsontext.Value `json:"announcement"`
}

// RequestType implements [Request].
func (*Probe) RequestType() string { return TypeProbe }

func (p *Probe) setType()         { p.Type = TypeProbe }
func (*Probe) open() bool         { return false }
func (*Probe) required() []string { return []string{"address", "announcement"} }

// Validate implements [Request].
func (p *Probe) Validate() error {
	if p.Announcement.Kind() != '{' {
		return Errorf(CodeMalformed, "announcement is the signer's envelope")
	}
	return ValidateAddress(p.Address)
}

// Unreached says why an address was not reached. Readers tolerate words of the future.
type Unreached string

// Why an address was not reached.
const (
	UnreachedName    Unreached = "name"    // the host name has no address
	UnreachedAddress Unreached = "address" // it is not an address or port that a stranger would connect to
	UnreachedConnect Unreached = "connect" // nothing takes the connection
	UnreachedTLS     Unreached = "tls"     // no TLS, or a certificate that is not for this address and key
	UnreachedAnswer  Unreached = "answer"  // something answers, and not with a valid announcement
	UnreachedAnother Unreached = "another" // another relay answers
	UnreachedTime    Unreached = "time"    // it took too long
)

// ProbeAnswer is a relay's word to whoever asked. It is a document: readers ignore members they do not know.
type ProbeAnswer struct {
	Type      string    `json:"type"`
	Request   Hash      `json:"request"`            // hash of the envelope that it answers
	Address   string    `json:"address"`            // that was tried
	Reached   bool      `json:"reached"`            // the asking relay's announcement was there
	Unreached Unreached `json:"unreached,omitzero"` // why not; absent if it was
	TookMs    int64     `json:"tookMs"`             // from the look-up of the name to the last byte
}

// RequestType implements [Request].
func (*ProbeAnswer) RequestType() string { return TypeProbeAnswer }

func (a *ProbeAnswer) setType()         { a.Type = TypeProbeAnswer }
func (*ProbeAnswer) open() bool         { return true }
func (*ProbeAnswer) required() []string { return []string{"request", "address", "reached", "tookMs"} }

// Validate implements [Request].
func (a *ProbeAnswer) Validate() error {
	if a.Reached != (a.Unreached == "") {
		return Errorf(CodeInvalidValue, "an address was reached, or there is a reason why not")
	}
	if a.TookMs < 0 {
		return Errorf(CodeInvalidValue, "a time is never negative")
	}
	return ValidateAddress(a.Address)
}
