package client

import (
	"bytes"
	"context"
	"net/http"

	"relaymarket/client/rest"
	"relaymarket/protocol"
)

// maxAccountReply bounds an account: 1,000 admitted keys of some 180 bytes.
const maxAccountReply = 512 << 10

// Media types of bodies.
const (
	contentJSON  = "application/json"
	contentLines = "application/x-ndjson"
)

// The requests to a relay, one function each. The callers bound their time.

func (p *peer) announcement(ctx context.Context) ([]byte, error) {
	var data []byte
	err := p.do(ctx, exchange{
		send: func(ctx context.Context, _ *protocol.Envelope) (*http.Response, error) {
			return p.rest.GetAnnouncement(ctx)
		},
		read: p.readUpTo(protocol.MaxAnnouncementSize, &data),
	})
	return data, err
}

func (p *peer) card(ctx context.Context, owner protocol.PublicKey) ([]byte, error) {
	var data []byte
	err := p.do(ctx, exchange{
		send: func(ctx context.Context, _ *protocol.Envelope) (*http.Response, error) {
			return p.rest.GetCard(ctx, owner)
		},
		read: p.readUpTo(protocol.MaxCardSize, &data),
	})
	return data, err
}

func (p *peer) putCard(ctx context.Context, card *protocol.Envelope) error {
	return p.do(ctx, exchange{
		send: func(ctx context.Context, _ *protocol.Envelope) (*http.Response, error) {
			return p.rest.PutCardWithBody(ctx, card.From, contentJSON, bytes.NewReader(card.Bytes()))
		},
	})
}

func (p *peer) account(ctx context.Context) (*rest.Account, error) {
	var account rest.Account
	err := p.do(ctx, exchange{
		build: p.signed(&protocol.Targeted{Type: protocol.TypeAccount, Target: protocol.Target(http.MethodGet, "/account")}),
		send: func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
			return p.rest.GetAccount(ctx, authorize(e))
		},
		read: p.readJSONUpTo(maxAccountReply, &account),
	})
	return &account, err
}

// write sends an envelope that build makes, or made before.
func (p *peer) write(ctx context.Context, path protocol.Path, build func(protocol.Timestamp) (*protocol.Envelope, error)) (*rest.Stored, error) {
	var stored rest.Stored
	err := p.do(ctx, exchange{
		build: build,
		send: func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
			return p.rest.WriteRecordWithBody(ctx, path.Sender, path.Receiver, string(path.ID), contentJSON, bytes.NewReader(e.Bytes()))
		},
		read: p.readJSON(&stored),
	})
	if err == nil {
		if bad := checkCursor(stored.Cursor); bad != nil {
			err = p.tampered("%v", bad)
		}
	}
	return &stored, err
}

func (p *peer) delete(ctx context.Context, path protocol.Path) error {
	return p.do(ctx, exchange{
		build: p.signed(&protocol.Targeted{Type: protocol.TypeDelete, Target: protocol.Target(http.MethodDelete, path.String())}),
		send: func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
			return p.rest.DeleteRecord(ctx, path.Sender, path.Receiver, string(path.ID), authorize(e))
		},
	})
}

// pull asks for a page. got, if not nil, acknowledges the page before. A reply that was cut gives the part
// that arrived whole, and an error.
func (p *peer) pull(ctx context.Context, query protocol.PullQuery, got *protocol.PageRoot) (*protocol.Page, error) {
	var page *protocol.Page
	var line []byte
	err := p.do(ctx, exchange{
		build: func(at protocol.Timestamp) (e *protocol.Envelope, err error) {
			request, signedLine, err := protocol.NewPull(query, got)
			if err != nil {
				return nil, err
			}
			line = signedLine
			return p.signed(request)(at)
		},
		send: func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
			return p.rest.PullWithBody(ctx, p.c.Key(), contentLines, bytes.NewReader(protocol.PullBody(e, line)))
		},
		read: func(reply *http.Response) (err error) {
			page, err = protocol.ReadPage(reply.Body)
			return err
		},
	})
	return page, err
}

func (p *peer) got(ctx context.Context, got *protocol.Got) error {
	return p.do(ctx, exchange{
		build: p.signed(got),
		send: func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
			return p.rest.GotWithBody(ctx, p.c.Key(), contentJSON, bytes.NewReader(e.Bytes()))
		},
	})
}

// listen opens the stream and reads it until read returns.
func (p *peer) listen(ctx context.Context, request *protocol.Listen, read func(*http.Response) error) error {
	return p.do(ctx, exchange{
		build: p.signed(request),
		send: func(ctx context.Context, e *protocol.Envelope) (*http.Response, error) {
			return p.rest.ListenWithBody(ctx, p.c.Key(), contentJSON, bytes.NewReader(e.Bytes()))
		},
		read: read,
	})
}
