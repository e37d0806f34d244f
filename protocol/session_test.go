package protocol

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

type sessionStep struct {
	vectorHead
	Story, By string
	Request   struct {
		Method, RequestURI, Body string
		Headers                  map[string]string
	}
	Query     string
	Envelopes []struct {
		Signer, Request, Msg, Envelope string
		To                             PublicKey
		Timestamp                      Timestamp
		Digest, Hash, RequestHash      Hash
		Sig                            Signature
	}
	Response struct {
		Status  int
		Headers map[string]string
		Body    string
		JSON    json.RawMessage
	}
}

// TestSession checks the session vector for consistency: each envelope can be made again byte for
// byte, stands where it should, and the answers fit.
func TestSession(t *testing.T) {
	f := readVectors(t, sessionFile)
	steps := map[string]*sessionStep{}
	for _, raw := range f.Cases {
		s := &sessionStep{}
		decodeCase(t, raw, s)
		if steps[s.Name] != nil {
			t.Fatalf("two steps are called %s", s.Name)
		}
		steps[s.Name] = s
		t.Run(s.Name, func(t *testing.T) { checkStep(t, f, s) })
	}
	first, again := steps["alice-writes"], steps["alice-writes-again"]
	if first == nil || again == nil || steps["bob-pulls"] == nil {
		t.Fatal("the session lacks its main steps")
	}
	if first.Envelopes[0].RequestHash != again.Envelopes[0].RequestHash || first.Envelopes[0].Hash == again.Envelopes[0].Hash {
		t.Error("the repeated write is not the same request in another envelope")
	}
	checkPulledPage(t, f, steps)
}

func checkStep(t *testing.T, f *vectorFile, s *sessionStep) {
	if !s.Valid {
		equal(t, "status", s.Response.Status, s.Code.Status())
	}
	var wires []string
	for _, v := range s.Envelopes {
		e, err := SignRaw(f.Keys[v.Signer].key(t), v.To, v.Timestamp, []byte(v.Request), [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "envelope", string(e.Bytes()), v.Envelope)
		equal(t, "msg", string(e.msg), v.Msg)
		equal(t, "digest", e.Digest(), v.Digest)
		equal(t, "sig", e.Sig, v.Sig)
		equal(t, "hash", e.Hash(), v.Hash)
		equal(t, "requestHash", e.RequestHash(), v.RequestHash)
		if err := e.Verify(); err != nil {
			t.Error(err)
		}
		if err := e.Decode(requestOf(t, e.Type)); err != nil {
			t.Error(err)
		}
		wires = append(wires, v.Envelope)
	}
	if len(wires) == 0 {
		return // nothing is signed
	}
	outer := wires[len(wires)-1]
	equal(t, "signer", s.Envelopes[len(wires)-1].Signer, s.By)
	switch s.Request.Headers["Content-Type"] {
	case "application/x-ndjson":
		if s.Query != "" {
			checkQuery(t, s)
			wires = append(wires, s.Query)
		}
		equal(t, "body", s.Request.Body, strings.Join(wires, "\n")+"\n")
	case "application/json":
		equal(t, "body", s.Request.Body, outer)
		equal(t, "envelopes", len(wires), 1)
	default:
		e, err := ParseAuthorization(s.Request.Headers["Authorization"])
		if err != nil {
			t.Fatal(err)
		}
		var target struct{ Target string }
		if err := json.Unmarshal(e.Request, &target); err != nil {
			t.Fatal(err)
		}
		equal(t, "target", target.Target, Target(s.Request.Method, s.Request.RequestURI))
		equal(t, "authorization", string(e.Bytes()), outer)
	}
}

// checkQuery judges the query beside a pull.
func checkQuery(t *testing.T, s *sessionStep) {
	t.Helper()
	e, line, err := ParsePullBody([]byte(s.Request.Body))
	if err != nil {
		t.Fatal(err)
	}
	var pull Pull
	if err := e.Decode(&pull); err != nil {
		t.Fatal(err)
	}
	if _, err := ParsePullQuery(line); err != nil {
		t.Error(err)
	}
	if err := pull.CheckQuery(line); err != nil {
		t.Error(err)
	}
	equal(t, "query", string(line), s.Query)
}

// checkPulledPage reads the page as its receiver does: root, acknowledgement, signature, content.
func checkPulledPage(t *testing.T, f *vectorFile, steps map[string]*sessionStep) {
	p, err := ReadPage(strings.NewReader(steps["bob-pulls"].Response.Body))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.CheckRoot(); err != nil {
		t.Fatal(err)
	}
	ack, err := ParseAcknowledgement([]byte(steps["bob-acknowledges-and-pulls-on"].Envelopes[0].Envelope))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "acknowledged root", ack.Root, *p.Header.Root)
	equal(t, "acknowledged page", ack.PageID, p.Header.PageID)
	record := p.Lines[0].Envelope
	equal(t, "first record", string(record.Bytes()), steps["alice-writes"].Request.Body)
	var w Write
	if err := record.Decode(&w); err != nil {
		t.Fatal(err)
	}
	content, err := base64.StdEncoding.DecodeString(w.Content)
	if err != nil {
		t.Fatal(err)
	}
	where := SealContext{From: record.From, To: record.To, RecordID: w.RecordID, Tag: w.Tag}
	_, body, err := Open(f.Sealing["bob"].key(t), where, content)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "message", string(body), "Meet me at the old mill at noon.")

	empty, err := ReadPage(strings.NewReader(steps["bob-acknowledges-and-pulls-on"].Response.Body))
	if err != nil || len(empty.Lines) != 0 || empty.Header.Served != 0 || empty.Header.Root != nil {
		t.Errorf("the last page is %+v (%v), want an empty one", empty, err)
	}
	again, err := ReadPage(strings.NewReader(steps["bob-pulls-the-page-again"].Response.Body))
	if err != nil || again.Header.Served != 2 || !slices.EqualFunc(again.Lines, p.Lines, func(a, b PageLine) bool {
		return bytes.Equal(a.Envelope.Bytes(), b.Envelope.Bytes())
	}) {
		t.Errorf("the page asked again is another page: %v", err)
	}
}
