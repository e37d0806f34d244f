package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

// Wish is one way in which the user is willing to be served; its flags are what he would put up with.
type Wish = protocol.Wish

// ErrWishes: the list of wishes is not what was expected.
var ErrWishes = errors.New("the list of terms was changed meanwhile")

// UsualWishes are those of a user who never said any: to be served for nothing, and else to pay. He is not
// shown anything for it, and nothing that he writes is readable.
func UsualWishes() []Wish {
	return []Wish{{Type: protocol.TermsGrant}, {Type: protocol.TermsVolunteer}, {Type: protocol.TermsContract, Payment: true}}
}

// Wishes are what the user would take of a relay, what he likes best first. own tells whether he said so himself.
func (c *Client) Wishes(ctx context.Context) (wishes []Wish, own bool, err error) {
	wishes, err = c.state.Wishes(ctx)
	if err == nil && len(wishes) == 0 {
		return UsualWishes(), false, nil
	}
	return wishes, true, err
}

// ChangeWishes changes the list. None brings the usual ones back. The error is a refusal with [protocol.CodeInvalidValue] for a list
// that no relay would read, and [ErrWishes] when somebody else changed it meanwhile.
func (c *Client) ChangeWishes(ctx context.Context, change func([]Wish) ([]Wish, error)) ([]Wish, error) {
	before, err := c.state.Wishes(ctx)
	if err != nil {
		return nil, err
	}
	list := slices.Clone(before)
	if len(list) == 0 {
		list = UsualWishes()
	}
	after, err := change(list)
	if err != nil {
		return nil, err
	}
	if len(after) > 0 {
		if err := (&protocol.TermsRequest{Wishes: after}).Validate(); err != nil {
			return nil, err
		}
	}
	changed, err := c.state.SetWishes(ctx, before, after)
	if err == nil && !changed {
		err = ErrWishes
	}
	return after, err
}

// TermsAnswer is what a relay said to the user's wishes.
type TermsAnswer struct {
	Relay    protocol.PublicKey
	Address  string
	At       protocol.Timestamp
	Asked    []Wish                 // what it was asked, in this order
	Refused  []protocol.Refused     // why, for each of them before the accepted one, or for all
	Accepted *Wish                  // nil: none
	Account  *protocol.TermsAccount // that the relay gave; nil with none, and with a contract, which is to be opened
	Offer    *protocol.Announcement // what the relay offers, verified
	Envelope *protocol.Envelope     // of the offer
}

// AskTerms asks a relay to serve the user on the first of his wishes that it takes. What he would put up with is not brought up
// unless the relay is known to ask for it, from what it said last: nobody need know it for nothing. When the answer shows that the relay
// asks for more of it now, it is asked again. An answer that accepts nothing is no error.
func (c *Client) AskTerms(ctx context.Context, typed string) (*TermsAnswer, error) {
	if err := c.unlocked(); err != nil {
		return nil, err
	}
	address, expected, err := ParseAddress(typed)
	if err != nil {
		return nil, err
	}
	if expected != nil { // whose own certificate is taken
		if _, err := c.peer(*expected, address); err != nil {
			return nil, err
		}
	}
	wishes, _, err := c.Wishes(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	p, known, err := c.acquainted(ctx, address)
	if err != nil {
		return nil, err
	}
	asked := promising(wishes, known)
	answer, err := p.terms(ctx, asked)
	if errors.Is(err, protocol.CodeWrongAudience) {
		// Another relay is at this address than was.
		if p, _, known, err = c.meet(ctx, address); err != nil {
			return nil, err
		}
		asked = promising(wishes, known)
		answer, err = p.terms(ctx, asked)
	}
	if err != nil {
		return nil, err
	}
	if better(wishes, asked, answer) {
		if answer, err = p.terms(ctx, promising(wishes, answer.Offer)); err != nil {
			return nil, err
		}
	}
	return answer, c.keepAnswer(ctx, answer)
}

// acquainted is the relay at an address with what it offered last: what is remembered, else what it announces.
func (c *Client) acquainted(ctx context.Context, address string) (*peer, *protocol.Announcement, error) {
	kept, err := c.state.OfferAt(ctx, address)
	if err != nil {
		return nil, nil, err
	}
	if kept != nil {
		if _, offer, err := protocol.ParseAnnouncement(kept.Announcement, c.now()); err == nil {
			p, err := c.peer(kept.Relay, address)
			return p, offer, err
		}
	}
	p, _, offer, err := c.meet(ctx, address)
	return p, offer, err
}

// promising are the wishes to bring up: all that concede nothing, and those concessions that the relay is known to ask for.
func promising(wishes []Wish, offer *protocol.Announcement) []Wish {
	var may []Wish
	for _, w := range wishes {
		if met, _ := w.Match(offer.Terms); met != nil || !w.Plaintext && !w.Ads {
			may = append(may, w)
		}
	}
	if len(may) == 0 {
		return wishes
	}
	return may
}

// better tells whether the user likes something better than what he got, that he did not ask for and the relay now offers.
func better(wishes, asked []Wish, got *TermsAnswer) bool {
	for _, w := range wishes {
		if got.Accepted != nil && *got.Accepted == w {
			return false
		}
		if met, _ := w.Match(got.Offer.Terms); met != nil && !slices.Contains(asked, w) {
			return true
		}
	}
	return false
}

// terms is one round trip.
func (p *peer) terms(ctx context.Context, wishes []Wish) (answer *TermsAnswer, err error) {
	var request protocol.Hash
	err = p.do(ctx, exchange{
		build: func(at protocol.Timestamp) (*protocol.Envelope, error) {
			e, err := p.signed(&protocol.TermsRequest{Wishes: wishes})(at)
			if err == nil {
				request = e.Hash()
			}
			return e, err
		},
		send: func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
			return p.rest.AskTermsWithBody(ctx, contentJSON, bytes.NewReader(e.Bytes()))
		},
		read: func(reply *http.Response) error {
			var data []byte
			if err := p.readUpTo(maxReply, &data)(reply); err != nil {
				return err
			}
			answer, err = p.readTerms(data, request, wishes)
			return err
		},
	})
	return answer, err
}

// readTerms believes an answer only if the relay signed it to this user, for this very request, and it says what was asked for.
func (p *peer) readTerms(data []byte, request protocol.Hash, wishes []Wish) (*TermsAnswer, error) {
	e, err := (&ContractRelay{p}).verified(data)
	if err != nil {
		return nil, err
	}
	var said protocol.TermsAnswer
	if err := e.Decode(&said); err != nil {
		return nil, p.tampered("its answer is none: %v", err)
	}
	if said.Request != request {
		return nil, p.tampered("its answer is to another request")
	}
	if len(said.Refused) > len(wishes) || said.Accepted == nil && len(said.Refused) != len(wishes) || said.Accepted != nil && *said.Accepted >= int64(len(wishes)) {
		return nil, p.tampered("it answers %d wishes, and was asked %d", len(said.Refused), len(wishes))
	}
	own, offer, err := protocol.ParseAnnouncement(said.Announcement, p.c.now())
	if err != nil || own.From != p.key {
		return nil, p.tampered("what it offers is not signed by it, or not valid")
	}
	answer := &TermsAnswer{Relay: p.key, Address: p.address, At: p.c.now(), Asked: wishes, Refused: said.Refused, Account: said.Account, Offer: offer, Envelope: own}
	if said.Accepted != nil {
		w := wishes[*said.Accepted]
		answer.Accepted = &w
		if err := fits(&w, said.Account); err != nil {
			return nil, p.tampered("%v", err)
		}
	}
	return answer, nil
}

// fits refuses an account that the user did not wish for.
func fits(w *Wish, a *protocol.TermsAccount) error {
	switch {
	case w.Type == protocol.TermsContract && a == nil:
		return nil
	case w.Type == protocol.TermsContract || a == nil:
		return errors.New("it accepts a wish, and the account is another")
	case a.Topic != "" && a.Topic != w.Topic, a.Plaintext && !w.Plaintext, a.Ads && !w.Ads:
		return fmt.Errorf("it accepts a wish, and binds the account to more")
	}
	return nil
}

func (c *Client) keepAnswer(ctx context.Context, a *TermsAnswer) error {
	kept := state.Answer{Offer: state.Offer{Relay: a.Relay, Address: a.Address, Announcement: a.Envelope.Bytes()}, Asked: a.Asked, Refused: a.Refused}
	if a.Accepted != nil {
		at := int64(slices.Index(a.Asked, *a.Accepted))
		kept.Accepted = &at
	}
	if a.Account != nil {
		kept.Ads, kept.Topic, kept.Plaintext = a.Account.Ads, a.Account.Topic, a.Account.Plaintext
	}
	return c.state.PutAnswer(ctx, kept)
}

// keepOffer keeps what a relay offers instead of what it refuses. Nothing depends on it.
func (c *Client) keepOffer(ctx context.Context, p *peer, e *protocol.Envelope) {
	if err := c.state.PutOffer(ctx, state.Offer{Relay: p.key, Address: p.address, Announcement: e.Bytes()}); err != nil {
		c.log.Warn("an offer is not kept", "relay", p.address, "error", err)
	}
}

// ErrNoOffer: the offer is not kept, or not valid any more.
var ErrNoOffer = errors.New("this offer is not known, or not valid any more")

// KeptOffer is what the relay at an address offered when it refused, or was asked for terms: what [Client.Offer] is without asking it. hash are the first
// digits of the envelope's hash. The error is [ErrNoOffer].
func (c *Client) KeptOffer(ctx context.Context, typed, hash string) (address string, e *protocol.Envelope, offer *protocol.Announcement, err error) {
	if address, err = NormalizeAddress(typed); err != nil {
		return "", nil, nil, err
	}
	kept, err := c.state.OfferAt(ctx, address)
	if err != nil {
		return "", nil, nil, err
	}
	if kept != nil {
		e, offer, err = protocol.ParseAnnouncement(kept.Announcement, c.now())
	}
	if kept == nil || err != nil || !strings.HasPrefix(e.Hash().String(), hash) {
		return "", nil, nil, fmt.Errorf("%s: %w", address, ErrNoOffer)
	}
	return address, e, offer, nil
}

// TermsAnswers are the last answers of the relays that were asked, the newest first. Accounts are not kept: [Client.Account] tells.
func (c *Client) TermsAnswers(ctx context.Context) ([]TermsAnswer, error) {
	kept, err := c.state.Answers(ctx)
	if err != nil {
		return nil, err
	}
	answers := make([]TermsAnswer, 0, len(kept))
	for _, k := range kept {
		a := TermsAnswer{Relay: k.Relay, Address: k.Address, At: k.At, Asked: k.Asked, Refused: k.Refused}
		if k.Accepted != nil && *k.Accepted < int64(len(k.Asked)) {
			a.Accepted = &k.Asked[*k.Accepted]
		}
		// It was verified when it came; by now it may have expired.
		if a.Envelope, err = protocol.ParseEnvelope(k.Announcement); err != nil {
			return nil, err
		}
		a.Offer = &protocol.Announcement{}
		if err := a.Envelope.Decode(a.Offer); err != nil {
			return nil, err
		}
		answers = append(answers, a)
	}
	return answers, nil
}

// taking are those of the user's relays whose accounts take a message, as far as it is known on what terms they were given. There may be none.
func (c *Client) taking(ctx context.Context, relays []Relay, tag protocol.Tag, plain bool) ([]Relay, error) {
	kept, err := c.state.Answers(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(relays), func(r Relay) bool {
		return slices.ContainsFunc(kept, func(a state.Answer) bool {
			return a.Relay == r.Key && (a.Topic != "" && a.Topic != tag || a.Plaintext && !plain)
		})
	}), nil
}

// Notice is what a relay shows those who took its terms with ads.
type Notice struct{ Address, Text string }

// Notices are those of the user's relays that he agreed to be shown.
func (c *Client) Notices(ctx context.Context) ([]Notice, error) {
	relays, err := c.state.Relays(ctx)
	if err != nil {
		return nil, err
	}
	kept, err := c.state.Answers(ctx)
	if err != nil {
		return nil, err
	}
	var notices []Notice
	for _, k := range kept {
		used := slices.ContainsFunc(relays, func(r Relay) bool { return r.Key == k.Relay })
		e, err := protocol.ParseEnvelope(k.Announcement)
		if !k.Ads || !used || err != nil {
			continue
		}
		var offer protocol.Announcement
		if e.Decode(&offer) == nil && offer.Notice != "" {
			notices = append(notices, Notice{k.Address, oneLine(offer.Notice)})
		}
	}
	return notices, nil
}
