package market

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	"relaymarket/protocol"
)

const (
	// parallelHubs are read at once.
	parallelHubs = 8
	// wholeAfter is how often a hub's book is read from its start instead of from where it was left: a hub that lost its book
	// counts anew.
	wholeAfter = time.Hour
	// maxPage is the most of one page over HTTP: a thousand announcements.
	maxPage = protocol.MaxPageBytes
)

// Report is how the reading of one hub went.
type Report struct {
	Hub   Hub
	Tally Tally
	Err   error // its book was not read to the end; what was read of it is kept
}

// Refresh reads what changed in the books of all hubs. It errs when there is no hub (ErrNoHubs) or the file fails; what single hubs
// fail at is in their reports. It is safe to repeat.
func (b *Book) Refresh(ctx context.Context) ([]Report, error) {
	hubs, err := b.Hubs(ctx)
	if err != nil {
		return nil, err
	}
	if len(hubs) == 0 {
		return nil, ErrNoHubs
	}
	reports := make([]Report, len(hubs))
	group, reading := errgroup.WithContext(ctx)
	group.SetLimit(parallelHubs)
	for i, h := range hubs {
		group.Go(func() error {
			var err error
			reports[i], err = b.read(reading, h)
			return err
		})
	}
	return reports, errors.Join(group.Wait(), ctx.Err())
}

// read reads one hub.
func (b *Book) read(ctx context.Context, h Hub) (Report, error) {
	r := Report{Hub: h}
	now := b.now()
	from, whole := h.next, h.whole
	if from == 0 || whole > now || whole.Add(wholeAfter) < now {
		from, whole = 0, now
	}
	next, fault, err := b.readFrom(ctx, h.Address, from, &r.Tally)
	if err != nil {
		return r, err
	}
	r.Err = fault
	r.Hub.next, r.Hub.whole = next, whole
	if ctx.Err() != nil {
		return r, nil
	}
	return r, b.noteHub(ctx, r.Hub, fault)
}

// readFrom merges the pages of a book from a place on. fault is the hub's, err the file's.
func (b *Book) readFrom(ctx context.Context, address string, from uint64, t *Tally) (next uint64, fault, err error) {
	fetch, done, fault := b.fetcher(ctx, address)
	if fault != nil {
		return from, fault, nil
	}
	defer done()
	for seen := 0; ; {
		page, fault := fetch(ctx, from)
		if fault != nil {
			return from, fault, nil
		}
		_, tally, err := b.merge(ctx, page.Messages)
		if err != nil {
			return from, nil, err
		}
		t.add(tally)
		// Pages without an end, or that lead nowhere, are no honest hub's.
		seen += max(len(page.Messages), 1)
		if page.More && (page.Next <= from || seen > 2*b.cfg.Bounds.Relays) {
			return from, errors.New("its book has no end"), nil
		}
		from = page.Next
		if !page.More {
			return from, nil, nil
		}
	}
}

// fetcher gets pages of a hub, over NATS or HTTP as its address says.
func (b *Book) fetcher(ctx context.Context, address string) (fetch func(context.Context, uint64) (*feed.Page, error), done func(), err error) {
	if isHTTP(address) {
		return func(ctx context.Context, from uint64) (*feed.Page, error) { return b.fetchHTTP(ctx, address, from) }, func() {}, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	conn, err := feed.Connect(ctx, address, feed.Access{Name: "relay"})
	if err != nil {
		cancel()
		return nil, nil, err
	}
	return func(ctx context.Context, from uint64) (*feed.Page, error) {
		return feed.Fetch(ctx, conn, b.cfg.Network, from, feed.PageRelays)
	}, func() { cancel(); conn.Close() }, nil
}

func isHTTP(address string) bool { return strings.HasPrefix(address, "http") }

// fetchHTTP gets a page of GET /market.
func (b *Book) fetchHTTP(ctx context.Context, address string, from uint64) (*feed.Page, error) {
	target := address + "/market"
	if from > 1 {
		target += "?" + url.Values{"after": {strconv.FormatUint(from-1, 10)}}.Encode()
	}
	data, err := b.get(ctx, target, maxPage+(64<<10))
	if err != nil {
		return nil, err
	}
	var page struct {
		Announcements []json.RawMessage `json:"announcements"`
		Cursor        string            `json:"cursor"`
		More          bool              `json:"more"`
	}
	if err := json.Unmarshal(data, &page); err != nil {
		return nil, errors.New("its answer is no page of a book")
	}
	after, err := strconv.ParseUint(page.Cursor, 10, 63)
	if err != nil || len(page.Announcements) > feed.PageRelays {
		return nil, errors.New("its answer is no page of a book")
	}
	p := &feed.Page{Next: after + 1, More: page.More}
	for _, data := range page.Announcements {
		p.Messages = append(p.Messages, feed.Message{Data: data})
	}
	return p, nil
}

// httpPatience is for one answer over HTTP.
const httpPatience = 30 * time.Second

// get gets a document of a stranger.
func (b *Book) get(ctx context.Context, target string, most int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, httpPatience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	reply, err := b.http().Do(request)
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // the address is said already
	}
	if err != nil {
		return nil, fmt.Errorf("no answer: %w", err)
	}
	defer func() { _ = reply.Body.Close() }()
	if reply.StatusCode == http.StatusNotFound {
		return nil, feed.ErrNoHub
	}
	if reply.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %d", reply.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(reply.Body, most+1))
	if err != nil {
		return nil, fmt.Errorf("its answer breaks off: %w", err)
	}
	if int64(len(data)) > most {
		return nil, errors.New("its answer is too large")
	}
	return data, nil
}

func (b *Book) http() *http.Client {
	if b.cfg.HTTP != nil {
		return b.cfg.HTTP
	}
	return &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Change is a relay whose announcement is new or another than before.
type Change struct {
	Offer *broadcast.Offer
	Hub   string // that told it first
}
