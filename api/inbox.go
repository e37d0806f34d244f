package api

import (
	"errors"
	"net/http"

	"relaymarket/protocol"
	"relaymarket/records"
)

// Pull implements ServerInterface.
func (s *routes) Pull(w http.ResponseWriter, r *http.Request, receiver Receiver) {
	page, err := s.pull(exchangeOf(r), r, receiver)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	parts, err := pageLines(page)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.send(w, http.StatusOK, mediaLines, parts...)
}

func (s *Server) pull(x *exchange, r *http.Request, reader protocol.PublicKey) (*records.Page, error) {
	var pull protocol.Pull
	e, err := s.envelope(x, r, &pull)
	if err != nil {
		return nil, err
	}
	var rider *protocol.Envelope
	var got protocol.Got
	if e.Type == protocol.TypePull && pull.Got != nil {
		if rider, err = parseRider(pull.Got, &got); err != nil {
			return nil, inGot(err)
		}
	}
	if err := s.checkRequest(e, protocol.TypePull, func() error { return checkSigner(e, reader) }); err != nil {
		return nil, err
	}
	if rider != nil {
		err := s.checkRequest(rider, protocol.TypeGot, func() error { return checkSigner(rider, reader) })
		if err != nil {
			return nil, inGot(err)
		}
	}
	if err := s.authentic(x, e); err != nil {
		return nil, err
	}
	request := records.PullRequest{Reader: reader, Senders: pull.Senders, After: pull.After, Limit: pull.Limit, PageID: pull.PageID}
	if rider != nil {
		if err := rider.Verify(); err != nil {
			return nil, inGot(err)
		}
		request.Got = &records.Acknowledgement{Envelope: rider, PageID: got.PageID, Root: got.Root}
	}
	ctx, cancel := s.work(r)
	defer cancel()
	return s.cfg.Records.Pull(ctx, request)
}

// parseRider reads the acknowledgement within a pull.
func parseRider(data []byte, got *protocol.Got) (*protocol.Envelope, error) {
	rider, err := protocol.ParseEnvelope(data)
	if err != nil {
		return nil, err
	}
	return rider, decode(rider, got)
}

// inGot says that a refusal is about the acknowledgement within a pull.
func inGot(err error) error {
	var refusal *protocol.Error
	if errors.As(err, &refusal) {
		return protocol.Errorf(refusal.Code, "got: %s", refusal.Detail)
	}
	return err
}

// pageLines are the bytes of a page. Envelopes are what was written, not copied.
func pageLines(page *records.Page) ([][]byte, error) {
	newline := []byte("\n")
	header, err := protocol.Canonicalize(page.Header)
	if err != nil {
		return nil, err
	}
	parts := make([][]byte, 0, 2+2*len(page.Lines))
	parts = append(parts, header, newline)
	for _, l := range page.Lines {
		line := l.Envelope
		if l.Gone != nil {
			if line, err = protocol.Canonicalize(protocol.GoneLine{Gone: *l.Gone}); err != nil {
				return nil, err
			}
		}
		parts = append(parts, line, newline)
	}
	return parts, nil
}

// Got implements ServerInterface.
func (s *routes) Got(w http.ResponseWriter, r *http.Request, receiver Receiver) {
	if err := s.got(exchangeOf(r), r, receiver); err != nil {
		s.refuse(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) got(x *exchange, r *http.Request, reader protocol.PublicKey) error {
	var got protocol.Got
	e, err := s.inbox(x, r, reader, &got)
	if err != nil {
		return err
	}
	if err := s.authentic(x, e); err != nil {
		return err
	}
	ctx, cancel := s.work(r)
	defer cancel()
	return s.cfg.Records.Got(ctx, reader, records.Acknowledgement{Envelope: e, PageID: got.PageID, Root: got.Root})
}
