package main

import (
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"relaymarket/protocol"
)

const sessionFile = "session.json"

// session is a whole exchange; its cases are steps in order.
type session struct {
	topic
	Sealing map[string]sealingActor `json:"sealing"`
}

// step is one request and what the relay answers.
type step struct {
	verdict
	Story     string            `json:"story"`
	By        string            `json:"by"` // who signs, a name in keys
	Request   httpRequest       `json:"request"`
	Envelopes []signedValues    `json:"envelopes,omitempty"` // what the request carries
	Query     string            `json:"query,omitempty"`     // of a pull: the line after its envelope
	Response  httpResponse      `json:"response"`
	Values    map[string]string `json:"values,omitempty"`
}

type httpRequest struct {
	Method     string            `json:"method"`
	RequestURI string            `json:"requestUri"`
	Headers    map[string]string `json:"headers"`
	Body       string            `json:"body,omitempty"` // byte for byte
}

type httpResponse struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"` // byte for byte
	JSON    any               `json:"json,omitempty"` // a body whose members count, not its bytes
}

// signedValues are the steps from a request to its envelope, with 32 zero bytes of auxiliary randomness.
type signedValues struct {
	Signer      string             `json:"signer"`
	To          string             `json:"to"`
	Timestamp   protocol.Timestamp `json:"timestamp"`
	Request     string             `json:"request"`
	Msg         string             `json:"msg"`
	Digest      string             `json:"digest"`
	Sig         string             `json:"sig"`
	Envelope    string             `json:"envelope"`
	Hash        string             `json:"hash"`
	RequestHash string             `json:"requestHash"`
}

type sessionBuilder struct {
	session
	c      cast
	clock  protocol.Timestamp
	sealed *sealedBuilder
	bobs   *protocol.Envelope // bob's card
	first  *protocol.Envelope // alice's message
	second *protocol.Envelope
}

func sessionTopic(c cast, sealed *sealedBuilder) session {
	b := &sessionBuilder{c: c, clock: now, sealed: sealed, session: session{
		topic: topic{
			Description: "A whole exchange with one relay, in order: each step is a request, byte for byte, and its answer. A step that is not valid " +
				"is refused with its code. An answer's body is byte for byte where it is body, and by its members where it is json; clocks of the relay, " +
				"details of problems and the form of cursors vary. Every signature has 32 zero bytes of auxiliary randomness.",
			Keys: c.keys(),
		},
		Sealing: sealed.Sealing,
	}}
	b.cards()
	b.writes()
	b.strangers()
	b.pulls()
	b.acknowledgements()
	b.ends()
	return b.session
}

// sign makes an envelope a second later than the one before.
func (b *sessionBuilder) sign(who actor, to protocol.PublicKey, request protocol.Request) *protocol.Envelope {
	b.clock = b.clock.Add(time.Second)
	return must(protocol.SignWith(who.key, to, b.clock, request, [32]byte{}))
}

func (b *sessionBuilder) nameOf(key protocol.PublicKey) string {
	for name, a := range b.Keys {
		if a.Public == key {
			return name
		}
	}
	panic("vectors: nobody has the key " + key.String())
}

func (b *sessionBuilder) values(e *protocol.Envelope) signedValues {
	text := string(e.Bytes())
	return signedValues{
		b.nameOf(e.From), e.To.String(), e.Timestamp, string(e.Request), text[len(`{"msg":`):strings.LastIndex(text, `,"sig":"`)],
		e.Digest().String(), e.Sig.String(), text, e.Hash().String(), e.RequestHash().String(),
	}
}

func (b *sessionBuilder) add(s step) { b.Cases = append(b.Cases, s) }

// body is a step whose request is an envelope.
func (b *sessionBuilder) body(v verdict, story, method, uri string, response httpResponse, e *protocol.Envelope) {
	b.add(step{verdict: v, Story: story, By: b.nameOf(e.From), Response: response, Envelopes: []signedValues{b.values(e)}, Request: httpRequest{
		method, uri, map[string]string{"Content-Type": "application/json"}, string(e.Bytes()),
	}})
}

// bare is a step whose request has no body.
func (b *sessionBuilder) bare(v verdict, story string, who actor, requestType, method, uri string, response httpResponse) {
	e := b.sign(who, b.c.relay.Public, &protocol.Targeted{Type: requestType, Target: protocol.Target(method, uri)})
	b.add(step{verdict: v, Story: story, By: b.nameOf(who.Public), Response: response, Envelopes: []signedValues{b.values(e)},
		Request: httpRequest{method, uri, map[string]string{"Authorization": e.Authorization()}, ""}})
}

func refused(code protocol.Code, extra map[string]any) httpResponse {
	problem := map[string]any{"code": code, "status": code.Status(), "title": code.Title(), "type": "urn:relaymarket:problem:" + string(code)}
	for name, value := range extra {
		problem[name] = value
	}
	return httpResponse{Status: code.Status(), Headers: map[string]string{"Content-Type": "application/problem+json"}, JSON: problem}
}

func (b *sessionBuilder) cards() {
	key := must(protocol.ParseSealingPublicKey(must(base64.StdEncoding.DecodeString(b.Sealing["bob"].PublicKey))))
	b.bobs = b.sign(b.c.bob, b.c.bob.Public, &protocol.Identity{
		Label: "Bob", Relays: []protocol.RelayRef{{Address: "https://relay.example", PubKey: b.c.relay.Public}}, Sealing: []protocol.SealingItem{key.Item()},
	})
	uri := "/" + b.c.bob.Public.String() + "/card"
	b.body(good("bob-publishes-his-card"), "Bob leaves his identity card at the relay.", "PUT", uri, httpResponse{Status: 204}, b.bobs)
	b.add(step{verdict: good("alice-fetches-bobs-card"), Story: "Anybody may fetch it; nothing is signed.", By: "alice",
		Request:  httpRequest{"GET", uri, map[string]string{}, ""},
		Response: httpResponse{Status: 200, Headers: map[string]string{"Content-Type": "application/json"}, Body: string(b.bobs.Bytes())}})
}

func (b *sessionBuilder) write(id protocol.RecordID, relay actor, content []byte, tag *protocol.Tag) *protocol.Envelope {
	return b.sign(b.c.alice, b.c.bob.Public, &protocol.Write{
		Relay: relay.Public, RecordID: id, Expires: now + 86_400_000, MaxPulls: 8, Tag: tag, Content: base64.StdEncoding.EncodeToString(content),
	})
}

func (b *sessionBuilder) outbox() string {
	return "/" + b.c.alice.Public.String() + "/outbox/" + b.c.bob.Public.String()
}

func stored(status int, cursor string, e *protocol.Envelope) httpResponse {
	return httpResponse{Status: status, Headers: map[string]string{"Content-Type": "application/json"},
		JSON: map[string]any{"cursor": cursor, "hash": e.Hash()}}
}

func (b *sessionBuilder) writes() {
	path := b.outbox() + "/" + sealedRecordID
	message, tagged := b.sealed.made[sessionMessage], b.sealed.made["tag"]
	b.first = b.write(sealedRecordID, b.c.relay, message, nil)
	b.body(good("alice-writes"), "Alice leaves a sealed message for Bob. Its content is the case message of sealed.json.", "PUT", path, stored(201, "7f3a.41", b.first), b.first)
	again := b.write(sealedRecordID, b.c.relay, message, nil)
	b.body(good("alice-writes-again"), "She did not see the answer and asks again with a newer timestamp: one requestHash, so one record. The first envelope stays.",
		"PUT", path, stored(200, "7f3a.41", b.first), again)
	other := b.write(sealedRecordID, b.c.relay, tagged, nil)
	b.body(bad("alice-writes-otherwise", protocol.CodeConflict), "Other content under the same path is another record.", "PUT", path, refused(protocol.CodeConflict, nil), other)
	elsewhere := b.write(sealedRecordID, b.c.other, message, nil)
	b.body(bad("alice-writes-for-another-relay", protocol.CodeWrongAudience), "request.relay names another relay.", "PUT", path, refused(protocol.CodeWrongAudience, nil), elsewhere)
	b.body(bad("alice-writes-under-another-path", protocol.CodeMismatch), "The path is not the record's.", "PUT", path+"x", refused(protocol.CodeMismatch, nil), again)
	tag := protocol.Tag("ack")
	b.second = b.write("0193-b", b.c.relay, tagged, &tag)
	b.batch(tag)
}

func (b *sessionBuilder) batch(tag protocol.Tag) {
	repeat := b.first
	stale := b.write("0193-a_B", b.c.relay, b.sealed.made["tag"], &tag)
	body := string(b.second.Bytes()) + "\n" + string(repeat.Bytes()) + "\n" + string(stale.Bytes()) + "\n"
	b.add(step{verdict: good("alice-writes-a-batch"), Story: "Three writes at once: one new, one stored before, one in conflict. Each has its own outcome.", By: "alice",
		Request:   httpRequest{"POST", "/" + b.c.alice.Public.String() + "/outbox", map[string]string{"Content-Type": "application/x-ndjson"}, body},
		Envelopes: []signedValues{b.values(b.second), b.values(repeat), b.values(stale)},
		Response: httpResponse{Status: 200, Headers: map[string]string{"Content-Type": "application/x-ndjson"}, JSON: []any{
			map[string]any{"line": 0, "status": 201, "recordId": "0193-b", "cursor": "7f3a.42", "hash": b.second.Hash()},
			map[string]any{"line": 1, "status": 200, "recordId": sealedRecordID, "cursor": "7f3a.41", "hash": b.first.Hash()},
			map[string]any{"line": 2, "status": 409, "recordId": sealedRecordID, "problem": refused(protocol.CodeConflict, nil).JSON},
		}}})
}

func (b *sessionBuilder) strangers() {
	uri := b.outbox() + "/" + sealedRecordID + "?pageId=carol-1"
	b.bare(bad("carol-reads", protocol.CodeNotFound), "Carol is neither sender nor receiver: for her there is nothing.", b.c.carol, protocol.TypeRead, "GET", uri, refused(protocol.CodeNotFound, nil))
	b.bare(bad("alice-reads-her-own", protocol.CodeWrongParty), "Only the receiver pulls.", b.c.alice, protocol.TypeRead, "GET",
		strings.Replace(uri, "carol", "alice", 1), refused(protocol.CodeWrongParty, nil))
	b.bare(bad("bob-deletes", protocol.CodeWrongParty), "Only the sender deletes.", b.c.bob, protocol.TypeDelete, "DELETE", b.outbox()+"/"+sealedRecordID, refused(protocol.CodeWrongParty, nil))
	records := []any{b.listed(b.first, "7f3a.41", ""), b.listed(b.second, "7f3a.42", "ack")}
	b.bare(good("bob-lists"), "Both may list. Nothing is charged.", b.c.bob, protocol.TypeInventory, "GET", b.outbox()+"?limit=10", httpResponse{
		Status: 200, Headers: map[string]string{"Content-Type": "application/json"}, JSON: map[string]any{"cursor": "7f3a.42", "more": false, "records": records}})
}

func (b *sessionBuilder) listed(e *protocol.Envelope, cursor, tag string) map[string]any {
	var w protocol.Write
	if err := e.Decode(&w); err != nil {
		panic(err)
	}
	r := map[string]any{"cursor": cursor, "from": e.From, "to": e.To, "recordId": w.RecordID, "bytes": e.Size(), "timestamp": e.Timestamp,
		"expires": w.Expires, "maxPulls": w.MaxPulls, "pulls": 0, "hash": e.Hash()}
	if tag != "" {
		r["tag"] = tag
	}
	return r
}

// pull is a step whose request is an envelope and the query that it names.
func (b *sessionBuilder) pull(v verdict, story string, who actor, query, got members, response httpResponse) {
	b.clock = b.clock.Add(time.Second)
	query = query.with(members{"salt": quote(fmt.Sprintf("%032x", int64(b.clock)))}) // any that did not serve before
	request := pullOf(object(query))
	if got != nil {
		request["got"] = object(got)
	}
	e := signed(who, b.c.relay.Public, b.clock, object(request))
	b.add(step{verdict: v, Story: story, By: b.nameOf(who.Public), Response: response, Envelopes: []signedValues{b.values(e)}, Query: object(query), Request: httpRequest{
		"POST", "/inbox/" + b.c.bob.Public.String(), map[string]string{"Content-Type": "application/x-ndjson"}, string(e.Bytes()) + "\n" + object(query) + "\n",
	}})
}

// query is what Bob asks for under the id of a page.
func (b *sessionBuilder) query(pageID, after string) members {
	m := members{"senders": list(quote(b.c.alice.Public.String()), quote(b.c.carol.Public.String())), "limit": "100", "pageId": quote(pageID)}
	if after != "" {
		m["after"] = quote(after)
	}
	return m
}

func (b *sessionBuilder) root() protocol.Hash {
	first, second := b.first.Hash(), b.second.Hash()
	return node(first, second)
}

// pageBody is a page as the relay writes it.
func (b *sessionBuilder) pageBody(served int) httpResponse {
	header := pageHeader(2, b.root().String()).with(members{"cursor": `"7f3a.42"`, "pageId": `"page-1"`, "served": fmt.Sprint(served)})
	return httpResponse{Status: 200, Headers: map[string]string{"Content-Type": "application/x-ndjson"},
		Body: object(header) + "\n" + string(b.first.Bytes()) + "\n" + string(b.second.Bytes()) + "\n"}
}

func (b *sessionBuilder) pulls() {
	b.pull(good("bob-pulls"), "Bob asks for what Alice and Carol have for him. The root is over the two records.", b.c.bob, b.query("page-1", ""), nil, b.pageBody(1))
	b.pull(good("bob-pulls-the-page-again"), "His reply was cut. The same pageId is the same page, counted once; the salt is another.", b.c.bob,
		b.query("page-1", ""), nil, b.pageBody(2))
	b.pull(bad("bob-pulls-another-page", protocol.CodePageOpen), "One page may be open: the first waits for its acknowledgement.", b.c.bob, b.query("page-2", "7f3a.42"), nil,
		refused(protocol.CodePageOpen, map[string]any{"pageId": "page-1"}))
	b.pull(bad("carol-pulls-for-bob", protocol.CodeMismatch), "Carol signs a pull of Bob's inbox.", b.c.carol,
		members{"senders": list(quote(b.c.alice.Public.String())), "limit": "1", "pageId": `"carol-2"`}, nil, refused(protocol.CodeMismatch, nil))
}

func (b *sessionBuilder) acknowledgements() {
	inbox := "/inbox/" + b.c.bob.Public.String()
	wrong := b.sign(b.c.bob, b.c.relay.Public, &protocol.Got{PageID: "page-1", Root: b.first.Hash()})
	b.body(bad("bob-acknowledges-another-root", protocol.CodeRootMismatch), "That is the hash of one record, not the root.", "POST", inbox+"/got", refused(protocol.CodeRootMismatch, nil), wrong)
	empty := object(pageHeader(0, "").with(members{"cursor": `"7f3a.42"`, "pageId": `"page-3"`, "served": "0"})) + "\n"
	b.pull(good("bob-acknowledges-and-pulls-on"), "One signature acknowledges the page and asks for the next. Nothing new is there.", b.c.bob, b.query("page-3", "7f3a.42"),
		members{"pageId": `"page-1"`, "root": quote(b.root().String())},
		httpResponse{Status: 200, Headers: map[string]string{"Content-Type": "application/x-ndjson"}, Body: empty})
	got := b.sign(b.c.bob, b.c.relay.Public, &protocol.Got{PageID: "page-1", Root: b.root()})
	b.body(good("bob-acknowledges-again"), "The same acknowledgement alone; it has one effect.", "POST", inbox+"/got", httpResponse{Status: 204}, got)
	after := "7f3a.41"
	listen := b.sign(b.c.bob, b.c.relay.Public, &protocol.Listen{Senders: []protocol.PublicKey{b.c.alice.Public}, After: &after})
	lines := []any{
		map[string]any{"alive": map[string]any{"cursor": "7f3a.41", "time": b.clock}},
		map[string]any{"record": b.pulled(b.second, "7f3a.42", "ack")},
	}
	b.body(good("bob-listens"), "The stream starts with a sign of life and stays open; here are its first lines.", "POST", inbox+"/listen",
		httpResponse{Status: 200, Headers: map[string]string{"Content-Type": "application/x-ndjson"}, JSON: lines}, listen)
	admit := b.sign(b.c.bob, b.c.relay.Public, &protocol.Admit{Keys: []protocol.Admitted{{Key: b.c.alice.Public, Bytes: 65536, Records: 16}}})
	b.body(good("bob-admits-alice"), "Alice may leave small records for Bob on his account.", "PUT", "/account/admitted", httpResponse{Status: 204}, admit)
}

func (b *sessionBuilder) pulled(e *protocol.Envelope, cursor, tag string) map[string]any {
	r := b.listed(e, cursor, tag)
	r["pulls"] = 1
	return r
}

func (b *sessionBuilder) ends() {
	path := b.outbox() + "/" + sealedRecordID
	b.bare(good("alice-deletes"), "Alice ends the first record.", b.c.alice, protocol.TypeDelete, "DELETE", path, httpResponse{Status: 204})
	b.bare(good("alice-deletes-again"), "Again is fine.", b.c.alice, protocol.TypeDelete, "DELETE", path, httpResponse{Status: 204})
	b.bare(bad("bob-reads-it", protocol.CodeGone), "It is gone, and says so to the two only.", b.c.bob, protocol.TypeRead, "GET", path+"?pageId=page-4", refused(protocol.CodeGone, nil))
	again := b.write(sealedRecordID, b.c.relay, b.sealed.made[sessionMessage], nil)
	b.body(bad("alice-writes-it-again", protocol.CodeGone), "Nothing is resurrected.", "PUT", path, refused(protocol.CodeGone, nil), again)
}
