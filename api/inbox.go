package api

import (
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
	body, err := s.body(x, r)
	if err != nil {
		return nil, err
	}
	e, line, err := protocol.ParsePullBody(body)
	if err != nil {
		return nil, err
	}
	var pull protocol.Pull
	if err := decode(e, &pull); err != nil {
		return nil, err
	}
	query, err := protocol.ParsePullQuery(line)
	if err != nil {
		return nil, err
	}
	err = s.checkRequest(e, protocol.TypePull, func() error {
		if err := checkSigner(e, reader); err != nil {
			return err
		}
		return pull.CheckQuery(line)
	})
	if err != nil {
		return nil, err
	}
	if err := s.authentic(x, e); err != nil {
		return nil, err
	}
	request := records.PullRequest{Reader: reader, Senders: query.Senders, After: query.After, Limit: query.Limit, PageID: query.PageID}
	if pull.Got != nil {
		request.Got = &records.Acknowledgement{Envelope: e, PageID: pull.Got.PageID, Root: pull.Got.Root}
	}
	ctx, cancel := s.work(r)
	defer cancel()
	return s.cfg.Records.Pull(ctx, request)
}

// headerRoom is what the first line of a page takes, or little less.
const headerRoom = 256

// pageLines are the bytes of a page. Envelopes are what was written, not copied.
func pageLines(page *records.Page) ([][]byte, error) {
	newline := []byte("\n")
	header := appendPageHeader(make([]byte, 0, headerRoom), &page.Header)
	parts := make([][]byte, 0, 2+2*len(page.Lines))
	parts = append(parts, header, newline)
	for _, l := range page.Lines {
		line := l.Envelope
		if l.Gone != nil {
			var err error
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
