package api

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"relaymarket/protocol"
)

// baseRequest is a request as it should be. Members are JSON texts.
type baseRequest struct {
	method, path, query string
	media               string // of the body; "" when it has none
	requestType         string // "" when nothing is signed
	signer, to          string // names of keys
	request             map[string]string
	asks                map[string]string // of a pull: the members of its query
}

const hexRecord = "/{alice}/outbox/{bob}/"

var baseRequests = map[string]baseRequest{
	"getAnnouncement": {method: "GET", path: "/.well-known/relaymarket"},
	"getCard":         {method: "GET", path: "/{alice}/card"},
	"getAccount":      {method: "GET", path: "/account", requestType: protocol.TypeAccount, signer: "alice", to: "relay"},
	"readRecord":      {method: "GET", path: "/{alice}/outbox/{dave}/single", query: "pageId=page", requestType: protocol.TypeRead, signer: "dave", to: "relay"},
	"listOutbox":      {method: "GET", path: "/{alice}/outbox/{bob}", query: "limit=5", requestType: protocol.TypeInventory, signer: "bob", to: "relay"},
	"listOutboxes":    {method: "GET", path: "/{alice}/outbox", requestType: protocol.TypeInventory, signer: "alice", to: "relay"},
	"deleteRecord":    {method: "DELETE", path: "/{alice}/outbox/{carol}/served", requestType: protocol.TypeDelete, signer: "alice", to: "relay"},
	"writeRecord": {method: "PUT", path: hexRecord + "fresh", media: mediaEnvelope, requestType: protocol.TypeWrite, signer: "alice", to: "bob",
		request: writeMembers("fresh")},
	"writeBatch": {method: "POST", path: "/{alice}/outbox", media: mediaLines, requestType: protocol.TypeWrite, signer: "alice", to: "bob",
		request: writeMembers("batched")},
	"pull": {method: "POST", path: "/inbox/{bob}", media: mediaLines, requestType: protocol.TypePull, signer: "bob", to: "relay",
		request: map[string]string{"query": `"{query}"`},
		asks:    map[string]string{"senders": `["{alice}"]`, "limit": `10`, "pageId": `"page"`, "salt": `"{7*32}"`}},
	"got": {method: "POST", path: "/inbox/{carol}/got", media: mediaEnvelope, requestType: protocol.TypeGot, signer: "carol", to: "relay",
		request: map[string]string{"pageId": `"open"`, "root": `"{root}"`}},
	"listen": {method: "POST", path: "/inbox/{bob}/listen", media: mediaEnvelope, requestType: protocol.TypeListen, signer: "bob", to: "relay",
		request: map[string]string{"senders": `["{alice}"]`}},
	"putAdmitted": {method: "PUT", path: "/account/admitted", media: mediaEnvelope, requestType: protocol.TypeAdmit, signer: "alice", to: "relay",
		request: map[string]string{"keys": `[{"bytes":1000,"key":"{bob}","records":1}]`}},
	"askTerms": {method: "POST", path: "/terms", media: mediaEnvelope, requestType: protocol.TypeTerms, signer: "alice", to: "relay",
		request: map[string]string{"wishes": `[` + wishGrant + `]`}},
	"probe": {method: "POST", path: "/probe", media: mediaEnvelope, requestType: protocol.TypeProbe, signer: "alice", to: "relay",
		request: map[string]string{"address": `"https://relay.example"`, "announcement": `{}`}},
	"putCard": {method: "PUT", path: "/{alice}/card", media: mediaEnvelope, requestType: protocol.TypeIdentity, signer: "alice", to: "alice",
		request: map[string]string{"label": `"Alice"`, "relays": `[{"address":"https://relay.example","pubkey":"{relay}"}]`, "sealing": `[{"key":"AAAA","suite":200}]`}},
}

const wishGrant = `{"ads":false,"payment":false,"plaintext":false,"type":"grant"}`

func writeMembers(id string) map[string]string {
	return map[string]string{"content": `"aGVsbG8="`, "expires": `{now+3600000}`, "maxPulls": `8`, "recordId": `"` + id + `"`, "relay": `"{relay}"`}
}

var (
	namePattern   = regexp.MustCompile(`\{(alice|bob|carol|dave|stranger|other|relay|root)\}`)
	nowPattern    = regexp.MustCompile(`\{now([+-]\d+)\}`)
	repeatPattern = regexp.MustCompile(`\{([^{}]+)\*(\d+)\}`)
)

// expand fills in what a file cannot know, or would be too long with.
func (w *world) expand(text string) string {
	text = namePattern.ReplaceAllStringFunc(text, func(s string) string {
		if s == "{root}" {
			return w.root.String()
		}
		return w.keys[s[1:len(s)-1]].Public().String()
	})
	text = strings.ReplaceAll(text, "{ff}", "\xff") // what no UTF-8 has, nor a file of JSON
	text = nowPattern.ReplaceAllStringFunc(text, func(s string) string {
		ahead, _ := strconv.ParseInt(s[4:len(s)-1], 10, 64)
		return strconv.FormatInt(int64(w.now())+ahead, 10)
	})
	return repeatPattern.ReplaceAllStringFunc(text, func(s string) string {
		m := repeatPattern.FindStringSubmatch(s)
		n, _ := strconv.Atoi(m[2])
		return strings.Repeat(m[1], n)
	})
}

// envelope signs the base request with its alteration. It is no more than text: what cannot be
// parsed can be signed too.
func (w *world) envelope(t *testing.T, base baseRequest, a *alteration, target string) string {
	t.Helper()
	if a == nil {
		a = &alteration{}
	}
	request := maps.Clone(base.request)
	if request == nil {
		request = map[string]string{"target": quote(target)}
	}
	request["type"] = `"` + base.requestType + `"`
	alter(request, a.Set)
	from := override(base.signer, a.Signer)
	msg := map[string]string{"from": `"{` + from + `}"`, "request": object(request), "timestamp": `{now+0}`, "to": `"{` + base.to + `}"`}
	if base.requestType == protocol.TypeIdentity && a.Signer != "" {
		msg["to"] = msg["from"]
	}
	alter(msg, a.Msg)
	signed, _ := w.asked(t, base, a)
	text := strings.ReplaceAll(w.expand(object(msg)), "{query}", protocol.QueryHash([]byte(signed)).String())
	for i := 0; i+1 < len(a.Text); i += 2 {
		text = replace(t, text, w.expand(a.Text[i]), w.expand(a.Text[i+1]))
	}
	key := w.keys[override(from, a.Forger)]
	sig, err := key.SignDigest(protocol.TaggedHash(protocol.TagEnvelope, []byte(text)), [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	wire := `{"msg":` + text + `,"sig":"` + sig.String() + `"}`
	for i := 0; i+1 < len(a.Wire); i += 2 {
		wire = replace(t, wire, w.expand(a.Wire[i]), w.expand(a.Wire[i+1]))
	}
	return wire[:len(wire)-a.Cut]
}

// asked is the query beside the base request with its alteration, as it is hashed and as it is sent.
func (w *world) asked(t *testing.T, base baseRequest, a *alteration) (signed, sent string) {
	t.Helper()
	if base.asks == nil {
		return "", ""
	}
	if a == nil {
		a = &alteration{}
	}
	members := maps.Clone(base.asks)
	alter(members, a.Ask)
	signed = w.expand(object(members))
	for i := 0; i+1 < len(a.Asked); i += 2 {
		signed = replace(t, signed, w.expand(a.Asked[i]), w.expand(a.Asked[i+1]))
	}
	sent = signed
	for i := 0; i+1 < len(a.Swap); i += 2 {
		sent = replace(t, sent, w.expand(a.Swap[i]), w.expand(a.Swap[i+1]))
	}
	return signed, sent
}

func replace(t *testing.T, text, old, with string) string {
	t.Helper()
	if !strings.Contains(text, old) {
		t.Fatalf("there is no %s in %.300s", old, text)
	}
	return strings.Replace(text, old, with, 1)
}

func alter(members map[string]string, set map[string]json.RawMessage) {
	for name, value := range set {
		text := compact(value)
		if raw, ok := strings.CutPrefix(text, `"@`); ok {
			text = strings.TrimSuffix(raw, `"`)
		}
		if members[name] = text; string(value) == "null" {
			delete(members, name)
		}
	}
}

// compact takes the indentation of a file off a JSON text and changes nothing else.
func compact(value json.RawMessage) string {
	var b strings.Builder
	inString := false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case inString && c == '\\':
			b.WriteByte(c)
			i++
			b.WriteByte(value[i])
			continue
		case c == '"':
			inString = !inString
		case !inString && (c == ' ' || c == '\n'):
			continue
		}
		b.WriteByte(value[i])
	}
	return b.String()
}

// object writes members in canonical order.
func object(members map[string]string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, name := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(quote(name) + ":" + members[name])
	}
	b.WriteByte('}')
	return b.String()
}

func quote(s string) string {
	data, _ := json.Marshal(s)
	return strings.NewReplacer(`\u0026`, "&", `\u003c`, "<", `\u003e`, ">").Replace(string(data))
}
