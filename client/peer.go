package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"relaymarket/client/rest"
	"relaymarket/protocol"
	"relaymarket/relaytls"
)

const (
	requestTimeout = 60 * time.Second
	maxReply       = 64 << 10 // bytes of a reply that is neither page, card nor stream
)

// peer is one relay to talk to.
type peer struct {
	c       *Client
	key     protocol.PublicKey
	address string
	rest    *rest.Client
}

func (c *Client) peer(key protocol.PublicKey, address string) (*peer, error) {
	if err := protocol.ValidateAddress(address); err != nil {
		return nil, err
	}
	if secure, fits := c.http.Transport.(*relaytls.Transport); fits {
		_, host, _ := strings.Cut(address, "://")
		secure.Expect(host, key)
	}
	api, err := rest.NewClient(address, rest.WithHTTPClient(c.http))
	if err != nil {
		return nil, err
	}
	return &peer{c: c, key: key, address: address, rest: api}, nil
}

// exchange is one request: build makes the envelope with the relay's time, send sends it, and read
// takes the reply, whose status is a success.
type exchange struct {
	build func(at protocol.Timestamp) (*protocol.Envelope, error) // nil: an unsigned request
	send  func(ctx context.Context, e *protocol.Envelope) (*http.Response, error)
	read  func(reply *http.Response) error // nil: there is nothing to read
}

// do makes a request. When the relay refuses our clock, it is made once more with the relay's.
func (p *peer) do(ctx context.Context, x exchange) error {
	err := p.once(ctx, x)
	var refusal *RelayError
	if errors.As(err, &refusal) && refusal.Time > 0 && x.build != nil &&
		(refusal.Code == protocol.CodeStale || refusal.Code == protocol.CodeFuture) {
		p.c.setOffset(p.key, refusal.Time.Time().Sub(p.c.clock()))
		err = p.once(ctx, x)
	}
	return err
}

func (p *peer) once(ctx context.Context, x exchange) error {
	var e *protocol.Envelope
	if x.build != nil {
		var err error
		if e, err = x.build(p.c.relayTime(p.key)); err != nil {
			return err
		}
	}
	reply, err := x.send(ctx, e)
	if err != nil {
		return p.fail(fmt.Errorf("no answer: %w", plainCause(err)))
	}
	defer reply.Body.Close()
	if reply.StatusCode < 200 || reply.StatusCode > 299 {
		return p.refusal(ctx, reply)
	}
	if x.read == nil {
		return nil
	}
	return x.read(reply)
}

// plainCause takes the URL out of a net/http error: it is long and the address stands before it.
func plainCause(err error) error {
	var wrapped interface {
		Unwrap() error
		Timeout() bool
	}
	if errors.As(err, &wrapped) && wrapped.Unwrap() != nil {
		return wrapped.Unwrap()
	}
	return err
}

func (p *peer) fail(err error) *RelayError {
	return &RelayError{Relay: p.key, Address: p.address, User: p.c.Key(), Err: err}
}

func (p *peer) tampered(format string, args ...any) *RelayError {
	return p.fail(fmt.Errorf("%w: %s", ErrTampered, fmt.Sprintf(format, args...)))
}

// refusal reads a problem document. What answers with anything else is not a relay.
func (p *peer) refusal(ctx context.Context, reply *http.Response) error {
	e := p.fail(nil)
	e.Status = reply.StatusCode
	if seconds, err := strconv.ParseInt(reply.Header.Get("Retry-After"), 10, 32); err == nil && seconds > 0 {
		e.RetryAfter = min(time.Duration(seconds)*time.Second, time.Hour)
	}
	var problem struct {
		Code         protocol.Code      `json:"code"`
		Detail       string             `json:"detail"`
		Time         protocol.Timestamp `json:"time"`
		PageID       protocol.PageID    `json:"pageId"`
		Root         *protocol.Hash     `json:"root"`
		Announcement json.RawMessage    `json:"announcement"` // exact bytes: they are signed
	}
	data, err := io.ReadAll(io.LimitReader(reply.Body, maxReply))
	if err != nil || json.Unmarshal(data, &problem) != nil || problem.Code == "" {
		e.Err = fmt.Errorf("it answers %d, and not as a relay does: check the address", reply.StatusCode)
		return e
	}
	e.Code, e.Detail, e.Time, e.Root = problem.Code, oneLine(problem.Detail), problem.Time, problem.Root
	if problem.PageID.Validate() == nil {
		e.PageID = problem.PageID
	}
	// Another relay's offer is none of this one.
	if own, offer, err := protocol.ParseAnnouncement(problem.Announcement, p.c.now()); err == nil && own.From == p.key {
		e.Offer, e.OfferHash = offer, own.Hash()
		p.c.keepOffer(ctx, p, own)
	}
	return e
}

// readJSON reads a bounded JSON reply, of which members not known here are ignored.
func (p *peer) readJSON(into any) func(*http.Response) error { return p.readJSONUpTo(maxReply, into) }

func (p *peer) readJSONUpTo(n int64, into any) func(*http.Response) error {
	return func(reply *http.Response) error {
		data, err := io.ReadAll(io.LimitReader(reply.Body, n))
		if err != nil {
			return p.fail(fmt.Errorf("the reply was cut: %w", err))
		}
		if err := json.Unmarshal(data, into); err != nil {
			return p.fail(errors.New("its reply is not what a relay says: check the address"))
		}
		return nil
	}
}

// readUpTo reads a reply of at most n bytes.
func (p *peer) readUpTo(n int64, into *[]byte) func(*http.Response) error {
	return func(reply *http.Response) (err error) {
		if *into, err = io.ReadAll(io.LimitReader(reply.Body, n+1)); err != nil {
			return p.fail(fmt.Errorf("the reply was cut: %w", err))
		}
		return nil
	}
}

// signed builds the envelope of a request to this relay.
func (p *peer) signed(request protocol.Request) func(protocol.Timestamp) (*protocol.Envelope, error) {
	return func(at protocol.Timestamp) (*protocol.Envelope, error) {
		if err := p.c.unlocked(); err != nil {
			return nil, err
		}
		return protocol.Sign(p.c.identity, p.key, at, request)
	}
}

// authorize puts an envelope into the header of a request without a body.
func authorize(e *protocol.Envelope) rest.RequestEditorFn {
	return func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", e.Authorization())
		return nil
	}
}

// relayTime is our time as a relay sees it.
func (c *Client) relayTime(relay protocol.PublicKey) protocol.Timestamp {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now().Add(c.offsets[relay])
}

// setOffset keeps a relay's clock for requests to it, and for nothing else: a relay that lies
// about the time must not make anybody publish documents from the future.
func (c *Client) setOffset(relay protocol.PublicKey, offset time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offsets[relay] = offset
}
