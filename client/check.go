package client

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"

	"relaymarket/client/state"
	"relaymarket/protocol"
)

// check verifies all of a page, or of the part of it that arrived. One false record, and nothing
// of the page is believed. Records of people who are no friends, which pages of other devices may
// have, are passed over.
func (p *puller) check(page *state.Page, served *protocol.Page) ([]state.Message, error) {
	if served.Header.PageID != page.ID {
		return nil, p.peer.tampered("it serves page %s for page %s", served.Header.PageID, page.ID)
	}
	if served.Complete() && len(served.Lines) > 0 {
		if err := served.CheckRoot(); err != nil {
			return nil, p.peer.tampered("%v", err)
		}
	}
	var messages []state.Message
	for _, line := range served.Lines {
		var from protocol.PublicKey
		if line.Gone != nil {
			from = line.Gone.From
		} else {
			from = line.Envelope.From
		}
		if page.Scope != nil && !slices.Contains(page.Senders, from) {
			return nil, p.peer.tampered("it serves a record of %s, who was not asked for", from.Short())
		}
		if line.Gone != nil {
			continue // shows up as a gap, unless another relay has it
		}
		write, err := p.checkRecord(line.Envelope)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(p.friends, from) {
			continue
		}
		m := p.c.open(line.Envelope, write, p.peer.key)
		if p.invitations[from] {
			m.Word = p.c.wordOf(&m)
		}
		m.KeepBody = p.backups
		messages = append(messages, m)
	}
	return messages, nil
}

// checkRecord verifies that an envelope is a record for us, on this relay, by whom it says.
func (p *puller) checkRecord(e *protocol.Envelope) (*protocol.Write, error) {
	var write protocol.Write
	if err := e.Decode(&write); err != nil {
		return nil, p.peer.tampered("a record is not one: %v", err)
	}
	switch {
	case e.To != p.c.Key():
		return nil, p.peer.tampered("it serves a record for %s", e.To.Short())
	case write.Relay != p.peer.key:
		return nil, p.peer.tampered("it serves a record that belongs on the relay %s", write.Relay.Short())
	}
	if err := e.Verify(); err != nil {
		return nil, p.peer.tampered("%v", err)
	}
	return &write, nil
}

// open makes a message of a record. What does not open is the sender's doing, not the relay's: it
// becomes a message that says so, because a record that could stop the reader would be a weapon.
func (c *Client) open(e *protocol.Envelope, w *protocol.Write, relay protocol.PublicKey) state.Message {
	m := state.Message{From: e.From, ID: w.RecordID, Envelope: e.Hash(), Content: contentHash(w), Relay: relay,
		Sent: e.Timestamp, Expires: w.Expires, Bytes: e.Size(), MaxPulls: w.MaxPulls}
	if w.Tag != nil {
		m.Tag = *w.Tag
	}
	sealed, err := base64.StdEncoding.DecodeString(w.Content)
	if err != nil {
		m.Fault = "the content is not base64"
		return m
	}
	var header *protocol.SealedHeader
	var body []byte
	if m.Plain = len(sealed) > 0 && sealed[0] == protocol.SuitePlain; m.Plain {
		header, body, err = protocol.ReadPlain(sealed)
	} else {
		header, body, err = protocol.Open(c.sealing, protocol.SealContext{From: e.From, To: e.To, RecordID: w.RecordID, Tag: w.Tag}, sealed)
	}
	if err != nil {
		m.Fault = "it cannot be read"
		var refusal *protocol.Error
		if errors.As(err, &refusal) {
			m.Fault = refusal.Detail
		}
		return m
	}
	m.ContentType, m.Name, m.Device, m.Seq, m.Body = header.ContentType, header.Name, header.Device, header.Seq, body
	m.Receipts, m.Writings, m.Card, m.Batch = receiptsOf(&m), writingsOf(&m), c.cardOf(&m), c.batchOf(&m)
	return m
}

// contentHash is what all copies of a message share: sealed content and tag.
func contentHash(w *protocol.Write) protocol.Hash {
	d := sha256.New()
	if w.Tag != nil {
		d.Write([]byte(*w.Tag))
	}
	d.Write([]byte{0}) // in neither alphabet
	d.Write([]byte(w.Content))
	var h protocol.Hash
	d.Sum(h[:0])
	return h
}
