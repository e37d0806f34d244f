// Package feed reads the book of a hub over NATS: [Fetch] gets a page of it, [Follow] gets all of it and then what changes, and
// goes on where it was when the connection was lost. It believes nothing and checks nothing: what it
// hands on are bytes, for [broadcast.Rules] to judge. It needs of a hub no more than strangers are let do.
//
// Hubs call it to take from each other and to read their own stream; clients call it.
package feed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"relaymarket/broadcast"
	"relaymarket/protocol"
)

const (
	// PageRelays is the most announcements of one page, PageBytes about how large it is at most.
	PageRelays = 1000
	PageBytes  = 1 << 20
	// pagePatience is for one page to arrive, after the first byte was asked for.
	pagePatience = 20 * time.Second
)

// ErrNoHub: the server answers, and keeps no book of this network.
var ErrNoHub = errors.New("there is no hub of this network")

// errAway: there is no connection.
var errAway = errors.New("the hub cannot be reached")

// Message is an announcement as a hub keeps it, not checked.
type Message struct {
	Subject string
	Data    []byte
	Place   uint64    // in the hub's stream: later changes have higher ones; 0 when it was just published
	Stored  time.Time // zero when it was just published
}

// Page is a part of a book, in the order in which it changed last.
type Page struct {
	Messages []Message
	Next     uint64 // where the next page starts
	More     bool   // whether there is one now
}

// request is JetStream's direct get. Other than with multi_last, which answers for 1,024 subjects at most, a page may start
// anywhere and the book may have any size.
type request struct {
	Seq   uint64 `json:"seq"`
	Batch int    `json:"batch"`
	Bytes int    `json:"max_bytes"`
}

// Fetch gets the announcements from a place of the stream on, at most limit; from 0 is the beginning. It waits some seconds for the
// connection to be made. It is safe to repeat.
func Fetch(ctx context.Context, conn *nats.Conn, n protocol.Network, from uint64, limit int) (*Page, error) {
	ctx, cancel := context.WithTimeout(ctx, pagePatience)
	defer cancel()
	body, err := json.Marshal(request{Seq: max(from, 1), Batch: min(max(limit, 1), PageRelays), Bytes: PageBytes})
	if err != nil {
		return nil, err
	}
	inbox := conn.NewInbox()
	sub, err := conn.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := sub.SetPendingLimits(2*PageRelays, 4*PageBytes); err != nil {
		return nil, err
	}
	if err := publish(ctx, conn, broadcast.DirectGetSubject(n), inbox, body); err != nil {
		return nil, err
	}
	page := &Page{Next: max(from, 1)}
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, fmt.Errorf("the hub's page does not arrive: %w", err)
		}
		if done, err := page.add(m); done || err != nil {
			return page, err
		}
	}
}

// publish waits a while until there is a connection.
func publish(ctx context.Context, conn *nats.Conn, subject, reply string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	for {
		err := conn.PublishRequest(subject, reply, body)
		if !errors.Is(err, nats.ErrReconnectBufExceeded) && !conn.IsReconnecting() {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(errAway, conn.LastError())
		case <-time.After(firstPause):
		}
	}
}

// add takes one part of the reply.
func (p *Page) add(m *nats.Msg) (done bool, err error) {
	switch status := m.Header.Get("Status"); status {
	case "":
	case "204":
		pending, err := strconv.ParseUint(m.Header.Get("Nats-Num-Pending"), 10, 64)
		p.More = err == nil && pending > 0 && len(p.Messages) > 0
		return true, nil
	case "404":
		return true, nil // nothing from there on
	case "503":
		return true, ErrNoHub
	default:
		return true, fmt.Errorf("the hub answers %s %.80s", status, m.Header.Get("Description"))
	}
	place, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	if err != nil || place < p.Next || len(p.Messages) >= PageRelays {
		return true, errors.New("the hub's page is not one: its places do not ascend")
	}
	stored, err := time.Parse(time.RFC3339Nano, m.Header.Get("Nats-Time-Stamp"))
	if err != nil {
		return true, errors.New("the hub's page is not one: it lacks a time")
	}
	p.Messages = append(p.Messages, Message{Subject: m.Header.Get("Nats-Subject"), Data: m.Data, Place: place, Stored: stored})
	p.Next = place + 1
	return false, nil
}

// FetchAll hands on a whole book, page by page, from a place on, and returns where the next change will be. It ends with an
// error when the book has more than most announcements: no honest hub's has.
func FetchAll(ctx context.Context, conn *nats.Conn, n protocol.Network, from uint64, most int, take func(Message) error) (uint64, error) {
	for count := 0; ; {
		page, err := Fetch(ctx, conn, n, from, PageRelays)
		if err != nil {
			return from, err
		}
		for _, m := range page.Messages {
			if err := take(m); err != nil {
				return from, err
			}
		}
		from = page.Next
		if !page.More {
			return from, nil
		}
		if count += len(page.Messages); count > most {
			return from, fmt.Errorf("the hub's book has more than %d announcements", most)
		}
	}
}
