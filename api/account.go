package api

import (
	"net/http"

	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// GetAnnouncement implements ServerInterface.
func (s *routes) GetAnnouncement(w http.ResponseWriter, r *http.Request) {
	if err := s.rateAddress(exchangeOf(r), 1); err != nil {
		s.refuse(w, r, err)
		return
	}
	signed, err := s.announcer.current(r.Context())
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-cache") // for everybody, but not to be kept past a change
	s.send(w, http.StatusOK, mediaEnvelope, signed)
}

// GetCard implements ServerInterface.
func (s *routes) GetCard(w http.ResponseWriter, r *http.Request, user User) {
	if err := s.rateAddress(exchangeOf(r), 1); err != nil {
		s.refuse(w, r, err)
		return
	}
	ctx, cancel := s.work(r)
	defer cancel()
	card, err := s.cfg.Records.Card(ctx, user)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-cache")
	s.send(w, http.StatusOK, mediaEnvelope, card)
}

// PutCard implements ServerInterface.
func (s *routes) PutCard(w http.ResponseWriter, r *http.Request, user User) {
	if err := s.putCard(exchangeOf(r), r, user); err != nil {
		s.refuse(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// putCard takes a card however old it is: a document, not a request. That is also why it does not
// count in the rate of its key: anybody can send it again, and would lock its owner out.
func (s *Server) putCard(x *exchange, r *http.Request, user protocol.PublicKey) error {
	var card protocol.Identity
	e, err := s.envelope(x, r, &card)
	if err != nil {
		return err
	}
	switch {
	case e.From != e.To:
		return protocol.Errorf(protocol.CodeWrongAudience, "a card is addressed to its own signer")
	case e.Type != protocol.TypeIdentity:
		return checkType(e, protocol.TypeIdentity)
	case e.From != user:
		return checkSigner(e, user)
	}
	if err := protocol.CheckNotFuture(e.Timestamp, s.now()); err != nil {
		return err
	}
	if err := s.rateAddress(x, 1); err != nil {
		return err
	}
	if err := e.Verify(); err != nil {
		return err
	}
	ctx, cancel := s.work(r)
	defer cancel()
	return s.cfg.Records.PutCard(ctx, e)
}

// GetAccount implements ServerInterface.
func (s *routes) GetAccount(w http.ResponseWriter, r *http.Request) {
	account, err := s.account(exchangeOf(r), r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.reply(w, r, http.StatusOK, account)
}

func (s *Server) account(x *exchange, r *http.Request) (*Account, error) {
	signer, err := s.signer(x, r, protocol.TypeAccount)
	if err != nil {
		return nil, err
	}
	ctx, cancel := s.work(r)
	defer cancel()
	a, err := s.cfg.Books.Get(ctx, signer)
	if err != nil {
		return nil, err
	}
	account := &Account{
		Key: a.Key, Kind: AccountKind(a.Kind), Active: a.Active, QuotaStored: a.QuotaStored, Stored: a.Stored, QuotaMoved: a.QuotaMoved,
		Moved: a.Moved, Month: a.Month, LastDay: string(a.LastDay), Admitted: make([]AdmittedUse, len(a.Admitted)), Time: s.now(),
	}
	if a.Kind == books.KindContract {
		account.QuotaStored, account.QuotaMoved, account.LastDay = 0, 0, "" // of a grant before it
	}
	if c := a.Contract; c != nil {
		account.Contract = &ContractAccount{
			Contract: c.ID, Taking: c.Taking, CreditMsat: c.Credit.String(), CostMsat: c.Cost.String(),
			ByteMilliseconds: c.Used.Stored.String(), BytesMoved: c.Used.Moved.String(),
			StorageMsatPerGBDay: int64(c.Prices.Storage), BandwidthMsatPerGB: int64(c.Prices.Bandwidth), Since: protocol.TimestampOf(c.Since),
		}
	}
	if b := a.Bound; a.Kind == books.KindGrant && b.For != "" {
		account.Volunteer = &VolunteerAccount{Plaintext: b.Plaintext, Ads: b.Ads}
		if b.Topic != "" {
			account.Volunteer.Topic = (*string)(&b.Topic)
		}
	}
	for i, u := range a.Admitted {
		account.Admitted[i] = AdmittedUse{Key: u.Key, Bytes: u.Bytes, Records: u.Records, UsedBytes: u.UsedBytes, UsedRecords: u.UsedRecords}
	}
	return account, nil
}

// PutAdmitted implements ServerInterface.
func (s *routes) PutAdmitted(w http.ResponseWriter, r *http.Request) {
	if err := s.putAdmitted(exchangeOf(r), r); err != nil {
		s.refuse(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) putAdmitted(x *exchange, r *http.Request) error {
	var admit protocol.Admit
	e, err := s.envelope(x, r, &admit)
	if err != nil {
		return err
	}
	// The path names nobody: it is the signer's own list.
	if err := s.checkRequest(e, protocol.TypeAdmit, func() error { return nil }); err != nil {
		return err
	}
	if err := s.authentic(x, e); err != nil {
		return err
	}
	ctx, cancel := s.work(r)
	defer cancel()
	return s.cfg.Books.SetAdmitted(ctx, e.From, admit.Keys)
}
