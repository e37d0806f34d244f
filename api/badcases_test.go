package api

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// badCases is the table that testdata/badinput is made of: for every field of every request, what can be
// wrong with it, and for every request, what can be wrong around it.
func badCases() []*badCase {
	b := &badTable{}
	for _, op := range slices.Sorted(maps.Keys(baseRequests)) {
		base := baseRequests[op]
		b.op, b.base = op, base
		b.lines()
		if base.requestType == "" {
			continue
		}
		b.envelopes()
		if base.media == "" {
			b.authorizations()
		} else {
			b.bodies()
		}
	}
	b.writes()
	b.reading()
	b.accounts()
	b.parties()
	b.order()
	return b.cases
}

type badTable struct {
	op    string
	base  baseRequest
	cases []*badCase
}

func (b *badTable) add(status int, code, fault string, envelope *alteration, http *wireFault) {
	b.cases = append(b.cases, &badCase{Operation: b.op, Fault: fault, Envelope: envelope, HTTP: http, Status: status, Code: code})
}

// field alters one member of the request to each of the values.
func (b *badTable) field(status int, code, name string, values ...string) {
	for i := 0; i < len(values); i += 2 {
		b.add(status, code, name+" "+values[i], b.set(name, values[i+1]), nil)
	}
}

// set alters a member of the request, or of the query beside it if that is where such a one stands.
func (b *badTable) set(name, value string) *alteration {
	if _, asked := b.base.asks[name]; asked || b.base.asks != nil && name == "after" {
		return &alteration{Ask: map[string]json.RawMessage{name: raw(value)}}
	}
	return set(name, value)
}

func set(name, value string) *alteration {
	return &alteration{Set: map[string]json.RawMessage{name: raw(value)}}
}

func msg(name, value string) *alteration {
	return &alteration{Msg: map[string]json.RawMessage{name: raw(value)}}
}

// raw is a JSON text in a file; what is none there stands after an @.
func raw(value string) json.RawMessage {
	if json.Valid([]byte(value)) {
		return json.RawMessage(value)
	}
	return json.RawMessage(quote("@" + strings.TrimPrefix(value, "@")))
}

// lines are the request lines: path, query and method.
func (b *badTable) lines() {
	line := func(status int, code, fault string, h *wireFault) { b.add(status, code, fault, nil, h) }
	path := b.base.path
	line(400, "bad_path", "path percent-encoded", &wireFault{Path: strings.Replace(path, "/", "/%2e", 1)})
	line(400, "bad_path", "path with an empty segment", &wireFault{Path: "/" + path})
	line(400, "bad_path", "path with a slash at its end", &wireFault{Path: path + "/"})
	line(400, "bad_path", "path with dots", &wireFault{Path: path + "/.."})
	line(405, "method_not_allowed", "method of no route", &wireFault{Method: "PATCH"})
	line(405, "method_not_allowed", "method unheard of", &wireFault{Method: "BREW"})
	line(400, "bad_query", "query with an unknown parameter", &wireFault{Query: join(b.base.query, "colour=red")})
	line(400, "bad_query", "query unreadable", &wireFault{Query: join(b.base.query, "%zz")})
	line(400, "bad_query", "query with a semicolon", &wireFault{Query: join(b.base.query, "a=1;b=2")})
	if strings.HasPrefix(path, "/{") || strings.HasPrefix(path, "/inbox/") {
		start := strings.Index(path, "{")
		name := path[start : strings.Index(path, "}")+1]
		line(400, "bad_path", "path with a short key", &wireFault{Path: strings.Replace(path, name, "abcdef", 1)})
		line(400, "bad_path", "path with a key of capitals", &wireFault{Path: strings.Replace(path, name, "{A*64}", 1)})
		line(400, "bad_path", "path with a key of no hex", &wireFault{Path: strings.Replace(path, name, "{g*64}", 1)})
		line(400, "bad_path", "path with a long key", &wireFault{Path: strings.Replace(path, name, name+"0", 1)})
	}
	if strings.Count(path, "/") == 4 {
		cut := strings.LastIndex(path, "/")
		line(400, "bad_path", "path with a long id", &wireFault{Path: path[:cut] + "/{a*65}"})
		line(400, "bad_path", "path with an id of another alphabet", &wireFault{Path: path[:cut] + "/a.b"})
		line(400, "bad_path", "path with more segments", &wireFault{Path: path + "/more"})
	}
	if b.base.media == "" {
		line(400, "malformed", "body where none belongs", &wireFault{Body: text("{}")})
		line(400, "malformed", "body in chunks where none belongs", &wireFault{Body: text("{}"), Chunked: true})
	}
}

func join(query, more string) string { return strings.TrimPrefix(query+"&"+more, "&") }

func text(s string) *string { return &s }

// envelopes are faults of what every envelope has.
func (b *badTable) envelopes() {
	signed := func(status int, code, fault string, a *alteration) { b.add(status, code, fault, a, nil) }
	for _, name := range []string{"from", "to"} {
		signed(400, "malformed", name+" absent", msg(name, "null"))
		signed(400, "malformed", name+" short", msg(name, `"abcdef"`))
		signed(400, "malformed", name+" long", msg(name, `"{a*66}"`))
		signed(400, "malformed", name+" in capitals", msg(name, `"{A*64}"`))
		signed(400, "malformed", name+" a number", msg(name, `7`))
	}
	signed(400, "malformed", "timestamp absent", msg("timestamp", "null"))
	signed(400, "malformed", "timestamp negative", msg("timestamp", "-1"))
	signed(400, "malformed", "timestamp a string", msg("timestamp", `"now"`))
	signed(400, "not_canonical", "timestamp a fraction", msg("timestamp", "1.5"))
	signed(400, "not_canonical", "timestamp too big", msg("timestamp", "9007199254740992"))
	if b.op != "putCard" { // a card may be old
		signed(401, "stale", "timestamp stale", msg("timestamp", "{now-301000}"))
		signed(401, "stale", "timestamp of 1970", msg("timestamp", "0"))
	}
	signed(401, "future", "timestamp in the future", msg("timestamp", "{now+310000}"))
	signed(400, "malformed", "request absent", msg("request", "null"))
	signed(400, "malformed", "request an array", msg("request", "[]"))
	signed(400, "malformed", "request a string", msg("request", `"write"`))
	signed(400, "malformed", "msg with an unknown member", msg("zone", `"UTC"`))
	signed(400, "malformed", "type absent", set("type", "null"))
	signed(400, "malformed", "type a number", set("type", "7"))
	signed(400, "malformed", "type empty", set("type", `""`))
	signed(400, "malformed", "type too long", set("type", `"{a*65}"`))
	signed(403, "wrong_type", "type of another request", set("type", `"other"`))
	if b.op != "putCard" { // a document may grow
		signed(400, "malformed", "request with an unknown member", set("zzz", "1"))
	}
	if b.base.requestType == "write" {
		signed(421, "wrong_audience", "relay another", set("relay", `"{other}"`))
	} else {
		signed(421, "wrong_audience", "to another relay", msg("to", `"{other}"`))
	}
	signed(400, "malformed", "member twice", &alteration{Text: []string{`"type":`, `"type":"x","type":`}})
	signed(400, "not_canonical", "space", &alteration{Text: []string{`"type":`, `"type": `}})
	signed(400, "not_canonical", "order", &alteration{Text: []string{`{"from":`, `{"zfrom":1,"from":`}})
	signed(400, "not_canonical", "escaped letter", &alteration{Text: []string{`"type"`, `"\u0074ype"`}})
	signed(400, "not_canonical", "null member", set("zzz", "@null"))
	signed(400, "not_canonical", "deep", set("zzz", "{[*20}1{]*20}"))
	signed(401, "bad_signature", "signature of a stranger", &alteration{Forger: "stranger"})
	signed(400, "malformed", "signature in capitals", &alteration{Wire: []string{`"sig":"`, `"sig":"A`}, Cut: 0})
	signed(400, "malformed", "signature absent", &alteration{Wire: []string{`,"sig":"`, `,"signature":"`}})
	signed(400, "malformed", "truncated", &alteration{Cut: 1})
	signed(400, "malformed", "truncated within the signature", &alteration{Cut: 40})
	signed(400, "malformed", "unknown member beside msg", &alteration{Wire: []string{`"},"sig":`, `"},"note":"x","sig":`}})
	signed(400, "malformed", "not JSON", &alteration{Wire: []string{`{"msg"`, `msg`}})
	signed(400, "malformed", "no UTF-8", &alteration{Wire: []string{`"type":"`, `"type":"{ff}`}})
}

// bodies are faults of requests whose body is the envelope.
func (b *badTable) bodies() {
	body := func(status int, code, fault string, h *wireFault) { b.add(status, code, fault, nil, h) }
	body(415, "content_type", "media type of another kind", &wireFault{Headers: map[string]string{"Content-Type": "text/plain"}})
	body(415, "content_type", "media type absent", &wireFault{Headers: map[string]string{"Content-Type": ""}})
	body(415, "content_type", "media type twice", &wireFault{Headers: map[string]string{"Content-Type": b.base.media + "\n" + b.base.media}})
	body(415, "content_encoding", "compressed", &wireFault{Headers: map[string]string{"Content-Encoding": "gzip"}})
	body(415, "content_encoding", "encoding named identity", &wireFault{Headers: map[string]string{"Content-Encoding": "identity"}})
	body(400, "malformed", "body empty", &wireFault{Body: text("")})
	body(400, "malformed", "body of no object", &wireFault{Body: text("[]")})
	body(413, "too_large", "body announced too large", &wireFault{Length: 9 << 20})
	body(413, "too_large", "body too large in chunks", &wireFault{Body: text("{ *9000000}"), Chunked: true})
	body(408, "too_slow", "body slow", &wireFault{Slow: true})
	if b.base.media == mediaEnvelope {
		body(400, "not_canonical", "newline after the envelope", &wireFault{Body: text("{envelope}\n")})
		body(400, "malformed", "two envelopes", &wireFault{Body: text("{envelope}{envelope}")})
	}
	if b.op == "pull" {
		b.twoLines(body)
	}
	if b.op != "writeBatch" {
		return
	}
	body(400, "malformed", "last newline absent", &wireFault{Body: text("{envelope}")})
	body(400, "malformed", "line empty", &wireFault{Body: text("\n")})
	body(400, "not_canonical", "carriage return", &wireFault{Body: text("{envelope}\r\n")})
	body(413, "too_large", "too many lines", &wireFault{Body: text("{[]\n*1001}")})
}

// twoLines are faults of a body that is an envelope and the query that it names.
func (b *badTable) twoLines(body func(status int, code, fault string, h *wireFault)) {
	for fault, lines := range map[string]string{
		"lines swapped": "{query}\n{envelope}\n", "three lines": "{envelope}\n{query}\n{query}\n", "empty line after the query": "{envelope}\n{query}\n\n",
		"bytes after the query": "{envelope}\n{query}\nx", "query line absent": "{envelope}\n", "query line empty": "{envelope}\n\n", "newline between absent": "{envelope}{query}\n",
		"last newline absent": "{envelope}\n{query}", "query line an array": "{envelope}\n[{query}]\n", "query line an envelope": "{envelope}\n{envelope}\n",
		"empty line between": "{envelope}\n\n{query}\n",
	} {
		body(400, "malformed", fault, &wireFault{Body: text(lines)})
	}
	body(400, "not_canonical", "carriage returns", &wireFault{Body: text("{envelope}\r\n{query}\r\n")})
	body(400, "not_canonical", "carriage return after the query", &wireFault{Body: text("{envelope}\n{query}\r\n")})
	body(400, "not_canonical", "space after the query", &wireFault{Body: text("{envelope}\n{query} \n")})
	body(413, "too_large", "query line too large", &wireFault{Body: text("{envelope}\n{ *131072}\n")})
}

// authorizations are faults of the header that stands for a body.
func (b *badTable) authorizations() {
	header := func(status int, code, fault, value string) {
		b.add(status, code, fault, nil, &wireFault{Headers: map[string]string{"Authorization": value}})
	}
	header(401, "unauthorized", "authorization absent", "")
	header(401, "unauthorized", "authorization of another scheme", "Bearer abc")
	header(401, "unauthorized", "authorization scheme in small letters", "relaymarket e30")
	header(400, "malformed", "authorization with padding", "Relaymarket e30=")
	header(400, "malformed", "authorization of standard base64", "Relaymarket ++//")
	header(401, "unauthorized", "authorization empty", "Relaymarket ")
	header(400, "malformed", "authorization of no envelope", "Relaymarket e30")
	header(400, "malformed", "authorization twice", "Relaymarket e30\nRelaymarket e30")
	b.field(403, "wrong_target", "target", "of another method", `"PUT `+b.base.path+`"`, "of another path", `"`+b.base.method+` /account/other"`,
		"without method", `"`+b.base.path+`"`, "with another query", `"`+b.base.method+` `+b.base.path+`?limit=6"`)
	b.field(422, "invalid_value", "target", "empty", `""`, "too long", `"{a*4097}"`)
	b.field(400, "malformed", "target", "absent", `null`, "a number", `1`)
}
