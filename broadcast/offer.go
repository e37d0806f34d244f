package broadcast

import (
	"time"

	"relaymarket/protocol"
)

const (
	// MaxValidity is the longest that an announcement is valid.
	MaxValidity = 7 * 24 * time.Hour
	// Memory is how long a relay's highest seq is remembered: any older announcement has expired by then.
	Memory = MaxValidity + 2*protocol.FreshnessWindow
)

// Offer is an announcement that was checked.
type Offer struct {
	*protocol.Announcement
	Relay    protocol.PublicKey
	Envelope *protocol.Envelope
	Hash     protocol.Hash // of the envelope
	Work     int           // bits that are proved and claimed
}

// DefaultBits is the work that is asked for when nobody says otherwise: a few seconds of a core where a place is worth money.
func DefaultBits(n protocol.Network) int {
	switch n {
	case protocol.Regtest:
		return 8
	case protocol.Mainnet:
		return 24
	}
	return 20
}

// Rules are what an announcement has to keep to.
type Rules struct {
	Network protocol.Network
	Bits    int // of work at least
}

// Known is what is remembered of a relay. The zero value knows nothing.
type Known struct {
	Seq  int64
	Hash protocol.Hash
	Is   bool
}

// beats tells whether an announcement wins against what is known.
func (k Known) beats(seq int64, hash protocol.Hash) bool {
	if !k.Is || k.Seq != seq {
		return k.Is && k.Seq > seq
	}
	return string(k.Hash[:]) < string(hash[:])
}

// Beats tells whether o is not better than what is known, and why.
func (k Known) Beats(o *Offer) error {
	switch {
	case k.Is && k.Hash == o.Hash:
		return refuse(ReasonDuplicate, "it is in the book")
	case k.beats(o.Seq, o.Hash):
		return refuse(ReasonOld, "its seq is %d, %d is known", o.Seq, k.Seq)
	}
	return nil
}

// Check checks the bytes of an announcement, the cheapest first, so that junk costs a scan and two hashes of at most 4 KiB:
//
//	size → canonical envelope → type, audience, date → known already → proof of work → members → validity → seq → signature
//
// known tells what is remembered of a relay; nil remembers nothing. Errors are a [Refusal].
func (r Rules) Check(data []byte, now protocol.Timestamp, known func(protocol.PublicKey) Known) (*Offer, error) {
	e, err := r.open(data, now)
	if err != nil {
		return nil, err
	}
	o := &Offer{Relay: e.From, Envelope: e, Hash: e.Hash(), Announcement: &protocol.Announcement{}}
	var before Known
	if known != nil {
		before = known(o.Relay)
	}
	if before.Is && before.Hash == o.Hash {
		return nil, refuse(ReasonDuplicate, "it is in the book")
	}
	if o.Work, err = r.checkWork(e); err != nil {
		return nil, err
	}
	if err := e.Decode(o.Announcement); err != nil {
		return nil, refuse(ReasonInvalid, "%v", err)
	}
	if err := r.checkMembers(o, now); err != nil {
		return nil, err
	}
	if err := before.Beats(o); err != nil {
		return nil, err
	}
	if err := e.Verify(); err != nil {
		return nil, refuse(ReasonSignature, "%v", err)
	}
	return o, nil
}

// open does what needs no hash.
func (r Rules) open(data []byte, now protocol.Timestamp) (*protocol.Envelope, error) {
	if len(data) > protocol.MaxAnnouncementSize {
		return nil, refuse(ReasonSize, "it has %d bytes, %d are allowed", len(data), protocol.MaxAnnouncementSize)
	}
	e, err := protocol.ParseEnvelope(data)
	switch {
	case err != nil:
		return nil, refuse(ReasonMalformed, "%v", err)
	case e.Type != protocol.TypeAnnouncement:
		return nil, refuse(ReasonType, "its type is %q", e.Type)
	case e.From != e.To:
		return nil, refuse(ReasonAudience, "an announcement is addressed to its own signer")
	case e.Timestamp > now.Add(protocol.FreshnessWindow):
		return nil, refuse(ReasonFuture, "it is dated %d s ahead, 300 s are allowed", (e.Timestamp-now)/1000)
	case e.Timestamp.Add(MaxValidity) < now:
		return nil, refuse(ReasonExpired, "it is more than seven days old")
	}
	return e, nil
}

func (r Rules) checkWork(e *protocol.Envelope) (int, error) {
	subject, claim, err := e.WorkSubject()
	switch {
	case err != nil:
		return 0, refuse(ReasonNoWork, "%v", err)
	case claim == nil:
		return 0, refuse(ReasonNoWork, "it has no proof of work")
	case claim.Bits < int64(r.Bits):
		return 0, refuse(ReasonLittle, "it claims %d bits of work, %d are asked for", claim.Bits, r.Bits)
	case claim.Nonce.Bits(subject) < int(claim.Bits):
		return 0, refuse(ReasonNoWork, "its nonce does not prove %d bits of work", claim.Bits)
	}
	return int(claim.Bits), nil
}

func (r Rules) checkMembers(o *Offer, now protocol.Timestamp) error {
	switch {
	case o.Network != r.Network:
		return refuse(ReasonNetwork, "it is for %q, this is %q", o.Network, r.Network)
	case o.ValidUntil < now:
		return refuse(ReasonExpired, "it was valid until %s", o.ValidUntil.Time().Format(time.DateTime))
	case o.ValidUntil > o.Envelope.Timestamp.Add(MaxValidity):
		return refuse(ReasonFuture, "it is valid for more than seven days")
	case len(o.Addresses) == 0:
		return refuse(ReasonAddress, "it names no address")
	}
	for _, address := range o.Addresses {
		if _, public := hostOf(address); !public && r.Network != protocol.Regtest {
			return refuse(ReasonAddress, "%s is reached from its own machine or network only", address)
		}
	}
	return nil
}
