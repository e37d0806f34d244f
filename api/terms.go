package api

import (
	"context"
	"net/http"
	"time"

	"relaymarket/ledger/books"
	"relaymarket/ledger/willing"
	"relaymarket/protocol"
)

// termsCost is what asking for terms counts in the rates: it may make an account.
const termsCost = 10

// AskTerms implements ServerInterface.
func (s *routes) AskTerms(w http.ResponseWriter, r *http.Request) {
	var ask protocol.TermsRequest
	e, err := s.readTerms(exchangeOf(r), r, &ask)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	answer, err := s.terms(r.Context(), exchangeOf(r), e, &ask)
	s.answerSigned(w, r, e.From, answer, err)
}

func (s *Server) readTerms(x *exchange, r *http.Request, ask *protocol.TermsRequest) (*protocol.Envelope, error) {
	e, err := s.envelope(x, r, ask)
	if err != nil {
		return nil, err
	}
	// The path names nobody: the signer asks for himself.
	if err := s.checkRequest(e, protocol.TypeTerms, func() error { return nil }); err != nil {
		return nil, err
	}
	return e, s.authenticAs(x, e, termsCost)
}

// terms answers. It is done even if who asked leaves: he may have an account then, and a repeat tells.
func (s *Server) terms(ctx context.Context, x *exchange, e *protocol.Envelope, ask *protocol.TermsRequest) (*protocol.TermsAnswer, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Bounds.WorkTimeout)
	defer cancel()
	said, err := s.cfg.Willing.Agree(ctx, willing.Ask{Key: e.From, Wishes: ask.Wishes, Offered: s.Words().Terms, Address: func() bool {
		return s.openings.take(addressName(x.address), 1, s.cfg.Clock()) <= 0
	}})
	if err != nil {
		return nil, err
	}
	signed, err := s.announcer.current(ctx)
	if err != nil {
		return nil, err
	}
	answer := &protocol.TermsAnswer{Request: e.Hash(), Refused: append([]protocol.Refused{}, said.Refused...), Announcement: signed}
	if said.Accepted >= 0 {
		accepted := int64(said.Accepted)
		answer.Accepted = &accepted
	}
	if said.Account != nil {
		answer.Account = termsAccount(said.Account)
	}
	return answer, nil
}

func termsAccount(a *books.Account) *protocol.TermsAccount {
	last, err := time.Parse(time.DateOnly, string(a.LastDay))
	if err != nil {
		last = time.Unix(0, 0) // the database checks that it is a day
	}
	return &protocol.TermsAccount{StoredBytes: a.QuotaStored, MovedBytes: a.QuotaMoved, Until: protocol.TimestampOf(last.AddDate(0, 0, 1)),
		Topic: a.Bound.Topic, Plaintext: a.Bound.Plaintext, Ads: a.Bound.Ads}
}
