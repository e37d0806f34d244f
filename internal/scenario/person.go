package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"relaymarket/protocol"
)

// Person signs requests to one relay and sends them over a wire that the caller names each time.
type Person struct {
	Key   *protocol.PrivateKey
	Relay protocol.PublicKey
}

// NewPerson makes a key.
func NewPerson(t testing.TB, relay protocol.PublicKey) *Person {
	t.Helper()
	k, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return &Person{Key: k, Relay: relay}
}

// Call is one request, signed anew each time it is sent, as a client's retry is.
type Call struct {
	Method, Path string
	Body         []protocol.Request   // several travel as NDJSON
	To           []protocol.PublicKey // audience of each body
	Query        *protocol.PullQuery  // in place of a body: a pull
	Type         string               // without either: the type that is signed
}

// Reply is what came back whole.
type Reply struct {
	Status int
	Header http.Header
	Body   []byte
}

// ErrCut means that no whole reply came back: the outcome is unknown.
var ErrCut = errors.New("the reply was cut")

// Write is a call that stores a record.
func (p *Person) Write(to protocol.PublicKey, id string, maxPulls int64) Call {
	w := &protocol.Write{Relay: p.Relay, RecordID: protocol.RecordID(id), MaxPulls: maxPulls,
		Expires: protocol.TimestampOf(time.Now().Add(24 * time.Hour)), Content: "aGVsbG8="}
	return Call{Method: http.MethodPut, Path: p.path(to, id), Body: []protocol.Request{w}, To: []protocol.PublicKey{to}}
}

// Pull is a call for a page.
func (p *Person) Pull(page string, after *string, limit int64, senders ...protocol.PublicKey) Call {
	return Call{Method: http.MethodPost, Path: "/inbox/" + p.Key.Public().String(),
		Query: &protocol.PullQuery{Senders: senders, After: after, Limit: limit, PageID: protocol.PageID(page)}}
}

// Got is a call that acknowledges a page.
func (p *Person) Got(page protocol.PageID, root protocol.Hash) Call {
	return Call{Method: http.MethodPost, Path: "/inbox/" + p.Key.Public().String() + "/got", To: []protocol.PublicKey{p.Relay},
		Body: []protocol.Request{&protocol.Got{PageID: page, Root: root}}}
}

// Delete is a call that ends a record.
func (p *Person) Delete(to protocol.PublicKey, id string) Call {
	return Call{Method: http.MethodDelete, Path: p.path(to, id), Type: protocol.TypeDelete}
}

// Listen is a call for a stream.
func (p *Person) Listen(senders ...protocol.PublicKey) Call {
	return Call{Method: http.MethodPost, Path: "/inbox/" + p.Key.Public().String() + "/listen", To: []protocol.PublicKey{p.Relay},
		Body: []protocol.Request{&protocol.Listen{Senders: senders}}}
}

// Request is a call as it goes over the wire in HTTP/1.1: its head, which ends in an empty line, and its body.
func (p *Person) Request(ctx context.Context, url string, c Call) (head, body []byte, err error) {
	r, err := p.sign(ctx, url, c)
	if err != nil {
		return nil, nil, err
	}
	if r.Body != nil {
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, nil, err
		}
	}
	head = fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: relay\r\nContent-Length: %d\r\n", r.Method, r.URL.RequestURI(), len(body))
	for name := range r.Header {
		head = fmt.Appendf(head, "%s: %s\r\n", name, r.Header.Get(name))
	}
	return append(head, "\r\n"...), body, nil
}

func (p *Person) path(to protocol.PublicKey, id string) string {
	return protocol.Path{Sender: p.Key.Public(), Receiver: to, ID: protocol.RecordID(id)}.String()
}

// Send signs and sends a call over a connection of its own. The error is ErrCut, or an unexpected one.
func (p *Person) Send(ctx context.Context, url string, c Call) (*Reply, error) {
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	return p.SendWith(ctx, &http.Client{Transport: transport}, url, c)
}

// SendWith is Send over the connections of a client.
func (p *Person) SendWith(ctx context.Context, client *http.Client, url string, c Call) (*Reply, error) {
	request, err := p.sign(ctx, url, c)
	if err != nil {
		return nil, err
	}
	reply, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCut, err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(io.LimitReader(reply.Body, 32<<20))
	whole := &Reply{Status: reply.StatusCode, Header: reply.Header, Body: body}
	if err != nil {
		return whole, fmt.Errorf("%w: %w", ErrCut, err)
	}
	return whole, nil
}

func (p *Person) sign(ctx context.Context, url string, c Call) (*http.Request, error) {
	now := protocol.TimestampOf(time.Now())
	if c.Query != nil {
		return p.signPull(ctx, url, c, now)
	}
	if c.Body == nil {
		r, err := http.NewRequestWithContext(ctx, c.Method, url+c.Path, nil)
		if err != nil {
			return nil, err
		}
		e, err := protocol.Sign(p.Key, p.Relay, now, &protocol.Targeted{Type: c.Type, Target: protocol.Target(c.Method, c.Path)})
		if err != nil {
			return nil, err
		}
		r.Header.Set("Authorization", e.Authorization())
		return r, nil
	}
	var body bytes.Buffer
	for i, request := range c.Body {
		e, err := protocol.Sign(p.Key, c.To[i], now, request)
		if err != nil {
			return nil, err
		}
		body.Write(e.Bytes())
		if len(c.Body) > 1 {
			body.WriteByte('\n')
		}
	}
	r, err := http.NewRequestWithContext(ctx, c.Method, url+c.Path, &body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if len(c.Body) > 1 {
		r.Header.Set("Content-Type", "application/x-ndjson")
	}
	return r, nil
}

func (p *Person) signPull(ctx context.Context, url string, c Call, now protocol.Timestamp) (*http.Request, error) {
	pull, line, err := protocol.NewPull(*c.Query, nil)
	if err != nil {
		return nil, err
	}
	e, err := protocol.Sign(p.Key, p.Relay, now, pull)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, c.Method, url+c.Path, bytes.NewReader(protocol.PullBody(e, line)))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-ndjson")
	return r, nil
}
