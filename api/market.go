package api

import (
	"net/http"
	"strconv"

	"relaymarket/broadcast/feed"
	"relaymarket/protocol"
)

// GetMarket implements ServerInterface.
func (s *routes) GetMarket(w http.ResponseWriter, r *http.Request, params GetMarketParams) {
	page, err := s.market(r, params)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-cache")
	s.send(w, http.StatusOK, mediaEnvelope, marketPage(page))
}

// market is the page that is asked for.
func (s *Server) market(r *http.Request, params GetMarketParams) (*feed.Page, error) {
	if err := s.rateAddress(exchangeOf(r), 1); err != nil {
		return nil, err
	}
	if s.cfg.Market == nil {
		return nil, protocol.Errorf(protocol.CodeNotFound, "this relay is no hub; its announcement names those that it is announced on")
	}
	from, limit := uint64(0), feed.PageRelays
	if params.After != nil {
		after, err := strconv.ParseUint(*params.After, 10, 63)
		if err != nil || strconv.FormatUint(after, 10) != *params.After {
			return nil, protocol.Errorf(protocol.CodeBadCursor, "not a cursor of this book: leave it out to begin from the start")
		}
		from = after + 1
	}
	if params.Limit != nil {
		if *params.Limit < 1 || *params.Limit > feed.PageRelays {
			return nil, protocol.Errorf(protocol.CodeInvalidValue, "limit is 1 to %d", feed.PageRelays)
		}
		limit = int(*params.Limit)
	}
	ctx, cancel := s.work(r)
	defer cancel()
	page, err := s.cfg.Market.Page(ctx, from, limit)
	if err != nil {
		s.seldom.Do(func() { s.cfg.Logger.Warn("the hub's book cannot be read", "err", err) })
		return nil, protocol.Errorf(protocol.CodeOverloaded, "the hub's book cannot be read now")
	}
	return s.valid(page), nil
}

// valid leaves out what has expired, which a hub keeps only to remember its seq. What else is in its book it checked when
// it came; the reader checks again.
func (s *Server) valid(page *feed.Page) *feed.Page {
	now := protocol.TimestampOf(s.cfg.Clock())
	kept := &feed.Page{Next: page.Next, More: page.More}
	for _, m := range page.Messages {
		e, err := protocol.ParseEnvelope(m.Data)
		if err != nil {
			continue
		}
		var said protocol.Announcement
		if e.Decode(&said) == nil && said.ValidUntil >= now {
			kept.Messages = append(kept.Messages, m)
		}
	}
	return kept
}

// marketPage is a MarketPage with each announcement byte for byte as it is signed.
func marketPage(page *feed.Page) []byte {
	size := 128
	for _, m := range page.Messages {
		size += len(m.Data) + 1
	}
	b := append(make([]byte, 0, size), `{"announcements":[`...)
	for i, m := range page.Messages {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, m.Data...)
	}
	b = append(b, `],"cursor":"`...)
	b = strconv.AppendUint(b, page.Next-1, 10)
	b = append(b, `","more":`...)
	b = strconv.AppendBool(b, page.More)
	return append(b, '}')
}
