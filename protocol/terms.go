package protocol

import (
	"slices"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Limits of terms and of asking for them.
const (
	MaxWishes  = 16  // alternatives that one request offers
	MaxTerms   = 16  // alternatives in an announcement
	maxContact = 200 // characters of a contact or notice
)

// Types of the request for terms and of its answer.
const (
	TypeTerms       = "terms"
	TypeTermsAnswer = "termsAnswer"
)

// The types of terms. Readers of an announcement pass over others.
const (
	TermsGrant     = "grant"     // the operator gives quotas by hand, to keys he chooses
	TermsContract  = "contract"  // payment by contract, on the prices of the announcement
	TermsVolunteer = "volunteer" // quotas for nothing, to whoever asks and is meant
)

// AnyTopic in an announcement stands for one topic that the user names.
const AnyTopic = "*"

// Terms is one way in which a relay is willing to serve. What is absent is not asked for, or not limited.
type Terms struct {
	Type    string `json:"type"`              // one of the Terms constants, or one of the future
	Payment bool   `json:"payment"`           // whether it costs money
	Contact string `json:"contact,omitempty"` // how to reach the operator, at most 200 characters

	// Topic binds a volunteer's account: it takes records with this [Tag] only. Absent, the relay serves keys that its operator
	// listed. [AnyTopic] stands for one that the user names.
	Topic string `json:"topic,omitzero"`
	// Plaintext: the account takes records only whose content is not sealed, so that the operator can see what he carries.
	Plaintext bool `json:"plaintext,omitzero"`
	// Ads: the user's program is to show him the announcement's notice. Nothing but his word enforces it.
	Ads bool `json:"ads,omitzero"`

	// What a volunteer gives, at most; the operator may have set other quotas for a listed key.
	StoredBytes int64 `json:"storedBytes,omitzero"` // at once
	MovedBytes  int64 `json:"movedBytes,omitzero"`  // a calendar month
	Days        int64 `json:"days,omitzero"`        // until the account ends, unless asked for again
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: type and payment are required.
func (t *Terms) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain Terms
	return decodeItem(dec, (*plain)(t), "type", "payment")
}

func (t *Terms) validate() error {
	if t.Type == "" || utf8.RuneCountInString(t.Contact) > maxContact {
		return Errorf(CodeInvalidValue, "terms have a type, and a contact of at most %d characters", maxContact)
	}
	if t.Topic != "" && t.Topic != AnyTopic && Tag(t.Topic).Validate() != nil {
		return Errorf(CodeInvalidValue, "a topic is a tag, or %s for any", AnyTopic)
	}
	if min(t.StoredBytes, t.MovedBytes, t.Days) < 0 {
		return Errorf(CodeInvalidValue, "what terms give is never negative")
	}
	return nil
}

// Wish is one way in which a user is willing to be served. Its flags are what he would put up with, not what he asks for.
type Wish struct {
	Type      string `json:"type"`           // one of the Terms constants
	Payment   bool   `json:"payment"`        // he would pay; true for a contract, and only for one
	Topic     Tag    `json:"topic,omitzero"` // of a volunteer: all that he would store has this tag
	Plaintext bool   `json:"plaintext"`      // nothing that he would store is sealed
	Ads       bool   `json:"ads"`            // he would be shown the relay's notice
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: everything but the topic is required, and a topic is not empty.
func (w *Wish) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	var plain struct {
		Type      string `json:"type"`
		Payment   bool   `json:"payment"`
		Topic     *Tag   `json:"topic"`
		Plaintext bool   `json:"plaintext"`
		Ads       bool   `json:"ads"`
	}
	if err := decodeItem(dec, &plain, "type", "payment", "plaintext", "ads"); err != nil {
		return err
	}
	*w = Wish{Type: plain.Type, Payment: plain.Payment, Plaintext: plain.Plaintext, Ads: plain.Ads}
	if plain.Topic != nil {
		if w.Topic = *plain.Topic; w.Topic == "" {
			return Errorf(CodeInvalidValue, "a topic is not empty: leave it out")
		}
	}
	return nil
}

// Validate checks a wish. A type of the future is no fault: whoever does not know it refuses the wish, not the request.
func (w *Wish) Validate() error {
	if validateName(w.Type, MaxTag, "type of terms") != nil {
		return Errorf(CodeInvalidValue, "a type of terms is 1 to %d letters, digits, - and _", MaxTag)
	}
	if w.Topic != "" && w.Topic.Validate() != nil {
		return Errorf(CodeInvalidValue, "a topic is a tag: 1 to %d letters, digits, - and _", MaxTag)
	}
	known := w.Type == TermsGrant || w.Type == TermsContract || w.Type == TermsVolunteer
	if known && w.Payment != (w.Type == TermsContract) {
		return Errorf(CodeInvalidValue, "a contract is paid for, a grant and a volunteer are not")
	}
	if w.Topic != "" && known && w.Type != TermsVolunteer {
		return Errorf(CodeInvalidValue, "a topic belongs to a volunteer")
	}
	return nil
}

// Refused says why a relay does not take a wish. Readers tolerate words of the future.
type Refused string

// Why a wish is refused. The first three stay so until the relay announces something else.
const (
	RefusedOffer     Refused = "offer"     // the relay does not offer this type, or not for this topic
	RefusedPlaintext Refused = "plaintext" // it wants to read what it carries
	RefusedAds       Refused = "ads"       // it wants its notice shown
	RefusedKey       Refused = "key"       // not for this key
	RefusedAccount   Refused = "account"   // the key has another account here already
	RefusedFull      Refused = "full"      // as many as the relay serves so are there
	RefusedRate      Refused = "rate"      // too many from this address today
)

// Meets tells whether an alternative that a relay offers is what a user wishes, and otherwise what keeps them apart; the relay may
// refuse him for other reasons still.
func (w *Wish) Meets(t *Terms) (bool, Refused) {
	switch {
	case t.Type != w.Type, t.Payment && !w.Payment:
		return false, RefusedOffer
	case t.Topic != string(w.Topic) && (t.Topic != AnyTopic || w.Topic == ""):
		return false, RefusedOffer
	case t.Plaintext && !w.Plaintext:
		return false, RefusedPlaintext
	case t.Ads && !w.Ads:
		return false, RefusedAds
	}
	return true, ""
}

// Match is the first of a relay's alternatives that meets a wish; without one, nil and the reason that came nearest.
func (w *Wish) Match(offered []Terms) (*Terms, Refused) {
	nearest := RefusedOffer
	for i := range offered {
		ok, why := w.Meets(&offered[i])
		if ok {
			return &offered[i], ""
		}
		if why != RefusedOffer {
			nearest = why
		}
	}
	return nil, nearest
}

// TermsRequest asks a relay to serve the signer on the first of his wishes that it takes. It is answered by a [TermsAnswer].
type TermsRequest struct {
	Type   string `json:"type"`
	Wishes []Wish `json:"wishes"` // 1 … [MaxWishes], what he likes best first
}

// RequestType implements [Request].
func (*TermsRequest) RequestType() string { return TypeTerms }

func (r *TermsRequest) setType()         { r.Type = TypeTerms }
func (*TermsRequest) open() bool         { return false }
func (*TermsRequest) required() []string { return []string{"wishes"} }

// Validate implements [Request].
func (r *TermsRequest) Validate() error {
	if len(r.Wishes) < 1 || len(r.Wishes) > MaxWishes {
		return Errorf(CodeInvalidValue, "wishes are 1 to %d", MaxWishes)
	}
	for i := range r.Wishes {
		if err := r.Wishes[i].Validate(); err != nil {
			return err
		}
		if slices.Contains(r.Wishes[:i], r.Wishes[i]) {
			return Errorf(CodeInvalidValue, "the wish %d occurs twice", i)
		}
	}
	return nil
}

// TermsAnswer is a relay's word to whoever asked: the wish that it takes and the account that it has opened on it, or none and
// what it offers instead. It is a document: readers ignore members they do not know.
type TermsAnswer struct {
	Type    string `json:"type"`
	Request Hash   `json:"request"` // hash of the envelope that it answers: an old answer is none to a new request
	// Accepted is the index of the wish that is taken; absent: none. The account for a contract is opened by a contractOpen.
	Accepted *int64 `json:"accepted,omitzero"`
	// Refused says why, for each wish before the accepted one, or for all.
	Refused []Refused `json:"refused"`
	// Account is what the key has here now; with an accepted grant or volunteer.
	Account *TermsAccount `json:"account,omitzero"`
	// Announcement is the envelope of what the relay announces at this moment.
	Announcement jsontext.Value `json:"announcement"`
}

// TermsAccount is an account without payment.
type TermsAccount struct {
	StoredBytes int64     `json:"storedBytes"` // that may be stored at once
	MovedBytes  int64     `json:"movedBytes"`  // a calendar month
	Until       Timestamp `json:"until"`       // nothing new is taken from then on
	Topic       Tag       `json:"topic,omitzero"`
	Plaintext   bool      `json:"plaintext,omitzero"`
	Ads         bool      `json:"ads,omitzero"`
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: the quotas and the end are required.
func (a *TermsAccount) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain TermsAccount
	return decodeItem(dec, (*plain)(a), "storedBytes", "movedBytes", "until")
}

// RequestType implements [Request].
func (*TermsAnswer) RequestType() string { return TypeTermsAnswer }

func (a *TermsAnswer) setType()         { a.Type = TypeTermsAnswer }
func (*TermsAnswer) open() bool         { return true }
func (*TermsAnswer) required() []string { return []string{"request", "refused", "announcement"} }

// Validate implements [Request].
func (a *TermsAnswer) Validate() error {
	if a.Accepted != nil && (*a.Accepted < 0 || *a.Accepted >= MaxWishes || int64(len(a.Refused)) != *a.Accepted) {
		return Errorf(CodeInvalidValue, "the accepted wish follows those that are refused")
	}
	if len(a.Refused) > MaxWishes || a.Accepted == nil && (len(a.Refused) == 0 || a.Account != nil) {
		return Errorf(CodeInvalidValue, "an answer refuses 1 to %d wishes or accepts one", MaxWishes)
	}
	if c := a.Account; c != nil {
		if min(c.StoredBytes, c.MovedBytes) < 0 || c.Topic != "" && c.Topic.Validate() != nil {
			return Errorf(CodeInvalidValue, "an account has quotas from 0, and a topic that is a tag")
		}
		if err := c.Until.Validate(); err != nil {
			return err
		}
	}
	if a.Announcement.Kind() != '{' {
		return Errorf(CodeMalformed, "announcement is the relay's envelope")
	}
	return nil
}
