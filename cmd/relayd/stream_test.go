package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"relaymarket/internal/testnode"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// stream is one sender who writes records to one receiver, from several connections, and remembers which were
// acknowledged and which he never heard of.
type stream struct {
	t        *testing.T
	sender   *protocol.PrivateKey
	receiver protocol.PublicKey
	client   *http.Client

	mu      sync.Mutex
	next    int
	acked   map[protocol.RecordID]*protocol.Envelope
	unheard map[protocol.RecordID]*protocol.Envelope
	size    int64 // of all envelopes
	pulls   int64 // size × maxPulls of all envelopes
}

func newStream(t *testing.T) *stream {
	s := &stream{
		t: t, sender: testnode.NewKey(t), receiver: testnode.NewKey(t).Public(),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: 30 * time.Second},
		acked:  map[protocol.RecordID]*protocol.Envelope{}, unheard: map[protocol.RecordID]*protocol.Envelope{},
	}
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

// sign makes the next record.
func (s *stream) sign(relay protocol.PublicKey) (*protocol.Envelope, protocol.RecordID) {
	s.mu.Lock()
	s.next++
	id := protocol.RecordID(fmt.Sprintf("record-%d", s.next))
	s.mu.Unlock()
	content := make([]byte, 1+rand.IntN(2000))
	now := protocol.TimestampOf(time.Now())
	w := &protocol.Write{Relay: relay, RecordID: id, Expires: now.Add(24 * time.Hour), MaxPulls: 1 + rand.Int64N(8),
		Content: base64.StdEncoding.EncodeToString(content)}
	e, err := protocol.Sign(s.sender, s.receiver, now, w)
	if err != nil {
		s.t.Error(err)
		return nil, ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unheard[id] = e
	s.size += e.Size()
	s.pulls += e.Size() * w.MaxPulls
	return e, id
}

// put sends one record; an error means that its outcome is unknown.
func (s *stream) put(relayURL string, e *protocol.Envelope, id protocol.RecordID) error {
	path := protocol.Path{Sender: s.sender.Public(), Receiver: s.receiver, ID: id}
	req, err := http.NewRequest(http.MethodPut, relayURL+path.String(), bytes.NewReader(e.Bytes()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	reply, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = reply.Body.Close() }()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		return err
	}
	var stored struct{ Hash protocol.Hash }
	if reply.StatusCode != http.StatusCreated && reply.StatusCode != http.StatusOK {
		if reply.StatusCode != http.StatusServiceUnavailable {
			s.t.Errorf("write of %s: %s: %s", id, reply.Status, body)
		}
		return fmt.Errorf("%s: %s", reply.Status, body)
	}
	if err := json.Unmarshal(body, &stored); err != nil || stored.Hash != e.Hash() {
		s.t.Errorf("write of %s is answered with %s (%v), want the hash %s", id, body, err, e.Hash())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.unheard, id)
	s.acked[id] = e
	return nil
}

// run writes from some connections until ctx is done or the relay is gone.
func (s *stream) run(ctx context.Context, relay protocol.PublicKey, relayURL string, connections int) *sync.WaitGroup {
	var group sync.WaitGroup
	for range connections {
		group.Go(func() {
			for ctx.Err() == nil {
				e, id := s.sign(relay)
				if e == nil || s.put(relayURL, e, id) != nil {
					return
				}
			}
		})
	}
	return &group
}

// settle repeats every write that was not heard of, as a client does.
func (s *stream) settle(relayURL string) {
	s.t.Helper()
	s.mu.Lock()
	unheard := make(map[protocol.RecordID]*protocol.Envelope, len(s.unheard))
	for id, e := range s.unheard {
		unheard[id] = e
	}
	s.mu.Unlock()
	for id, e := range unheard {
		if err := s.put(relayURL, e, id); err != nil {
			s.t.Errorf("repeat the write of %s: %v", id, err)
		}
	}
}

// stored lists what the relay has, by id.
func (s *stream) stored(relay protocol.PublicKey, relayURL string) map[protocol.RecordID]protocol.Hash {
	s.t.Helper()
	found := map[protocol.RecordID]protocol.Hash{}
	after := ""
	for {
		target := "/" + s.sender.Public().String() + "/outbox/" + s.receiver.String()
		if after != "" {
			target += "?after=" + url.QueryEscape(after)
		}
		e, err := protocol.Sign(s.sender, relay, protocol.TimestampOf(time.Now()),
			&protocol.Targeted{Type: protocol.TypeInventory, Target: protocol.Target(http.MethodGet, target)})
		if err != nil {
			s.t.Fatal(err)
		}
		var page struct {
			Cursor  string
			More    bool
			Records []struct {
				RecordID protocol.RecordID
				Hash     protocol.Hash
			}
		}
		s.get(relayURL+target, e.Authorization(), &page)
		for _, r := range page.Records {
			if _, twice := found[r.RecordID]; twice {
				s.t.Errorf("%s is listed twice", r.RecordID)
			}
			found[r.RecordID] = r.Hash
		}
		if after = page.Cursor; !page.More {
			return found
		}
	}
}

func (s *stream) get(address, authorization string, into any) {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", authorization)
	reply, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	body, err := io.ReadAll(reply.Body)
	if err != nil || reply.StatusCode != http.StatusOK {
		s.t.Fatalf("GET %s: %s: %s (%v)", address, reply.Status, body, err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		s.t.Fatalf("GET %s: %v: %s", address, err, body)
	}
}

// checkAcknowledged fails if a record that was acknowledged is missing or changed, or one is there that nobody
// wrote.
func (s *stream) checkAcknowledged(found map[protocol.RecordID]protocol.Hash) {
	s.t.Helper()
	for id, e := range s.acked {
		if found[id] != e.Hash() {
			s.t.Errorf("%s was acknowledged as %s, and the relay has %q", id, e.Hash(), found[id])
		}
	}
	for id := range found {
		if s.acked[id] == nil && s.unheard[id] == nil {
			s.t.Errorf("nobody wrote %s", id)
		}
	}
}

// checkSettled fails unless the relay has exactly what was written, once, and counts exactly that.
func (s *stream) checkSettled(found map[protocol.RecordID]protocol.Hash, a books.Account) {
	s.t.Helper()
	s.checkAcknowledged(found)
	if len(found) != s.next || len(s.acked) != s.next {
		s.t.Errorf("%d records are stored and %d acknowledged of %d written", len(found), len(s.acked), s.next)
	}
	if a.Stored != s.size || a.Moved != s.size+s.pulls {
		s.t.Errorf("the account counts %d bytes stored and %d moved, want %d and %d", a.Stored, a.Moved, s.size, s.size+s.pulls)
	}
}
