package api

import (
	"encoding/json"
	"fmt"
	"strings"
)

// names are the faults of a name: record id, page id, tag.
func (b *badTable) name(field string, most string) {
	b.field(400, "malformed", field, "empty", `""`, "too long", `"{a*`+most+`}"`, "of another alphabet", `"a.b"`,
		"with a space", `"a b"`, "of Unicode", `"é"`, "a number", `7`, "an object", `{}`)
}

func (b *badTable) hex(field string, digits string) {
	b.field(400, "malformed", field, "short", `"abc"`, "long", `"{a*`+digits+`}a"`, "in capitals", `"{A*`+digits+`}"`,
		"of no hex", `"{g*`+digits+`}"`, "a number", `7`, "absent", `null`)
}

// count are the faults of an integer whose bounds are 1 and most.
func (b *badTable) count(field, most string) {
	b.field(422, "invalid_value", field, "zero", `0`, "negative", `-1`, "too big", most)
	b.field(400, "malformed", field, "a string", `"1"`, "an array", `[1]`, "absent", `null`, "a boolean", `true`)
	b.field(400, "not_canonical", field, "a fraction", `1.5`, "over 2^53", `9007199254740992`, "with an exponent", `1e3`)
}

func (b *badTable) writes() {
	for _, op := range []string{"writeRecord", "writeBatch"} {
		b.op, b.base = op, baseRequests[op]
		b.name("recordId", "65")
		b.field(400, "malformed", "recordId", "absent", `null`)
		b.name("tag", "33")
		b.hex("relay", "64")
		b.count("maxPulls", "1000001")
		b.field(422, "invalid_value", "maxPulls", "over the relay's limit", `10001`)
		b.field(422, "invalid_value", "expires", "over the relay's limit", `{now+31700000000}`)
		b.field(422, "expired", "expires", "past", `{now-1000}`, "zero", `0`)
		b.field(400, "malformed", "expires", "a string", `"tomorrow"`, "absent", `null`)
		b.field(400, "malformed", "expires", "negative", `-1`)
		b.add(401, "bad_signature", "signature over other content", &alteration{Wire: []string{`aGVsbG8=`, `aGVsbA==`}}, nil)
		b.field(400, "not_canonical", "expires", "over 2^53", `9007199254740992`)
		b.field(422, "invalid_value", "content", "empty", `""`)
		b.field(400, "malformed", "content", "base64url", `"_-_-"`, "without padding", `"aGVsbG8"`, "padding bits set", `"aGVsbG9="`,
			"with a newline", `"aGVs\nbG8="`, "a number", `7`, "absent", `null`)
		b.add(413, "too_large", "content too large", set("content", `"{A*1048576}"`), nil)
		b.add(402, "no_account", "signer without an account", &alteration{Signer: "stranger"}, pathOf(op, "stranger"))
		b.add(403, "mismatch", "signer another than the path's", &alteration{Signer: "stranger"}, nil)
	}
	b.op = "writeRecord"
	b.field(403, "mismatch", "recordId", "another than the path's", `"other"`)
	b.add(403, "mismatch", "receiver another than the path's", msg("to", `"{carol}"`), nil)
	b.add(409, "conflict", "another record under a path in use", set("recordId", `"kept"`), &wireFault{Path: hexRecord + "kept"})
	b.add(401, "stale", "replayed after its time", msg("timestamp", "{now-300500}"), nil)
	b.op = "writeBatch"
	b.add(409, "conflict", "another record under a path in use", set("recordId", `"kept"`), nil)
}

func pathOf(op, user string) *wireFault {
	if op == "writeBatch" {
		return &wireFault{Path: "/{" + user + "}/outbox"}
	}
	return &wireFault{Path: "/{" + user + "}/outbox/{bob}/fresh"}
}

func (b *badTable) reading() {
	for _, op := range []string{"pull", "listen"} {
		b.op, b.base = op, baseRequests[op]
		b.field(422, "invalid_value", "senders", "empty", `[]`, "twice the same", `["{alice}","{alice}"]`)
		b.field(400, "malformed", "senders", "absent", `null`, "a string", `"{alice}"`, "of numbers", `[1]`, "of short keys", `["abc"]`,
			"in capitals", `["{A*64}"]`, "of no hex", `["{g*64}"]`)
		b.add(422, "invalid_value", "senders too many", b.set("senders", manyKeys(1001)), nil)
		b.field(400, "bad_cursor", "after", "empty", `""`, "too long", `"{a*65}"`, "with a space", `"a b"`, "of no epoch", `"7"`,
			"negative", `"epoch.-1"`, "of Unicode", `"é.1"`)
		b.field(410, "cursor_epoch", "after", "of another epoch", `"000000000000.1"`)
		b.field(400, "malformed", "after", "a number", `7`)
		b.add(403, "mismatch", "signer another than the path's", &alteration{Signer: "stranger"}, nil)
	}
	b.op, b.base = "pull", baseRequests["pull"]
	b.asked()
	b.count("limit", "1001")
	b.hex("salt", "32")
	b.name("pageId", "65")
	b.field(400, "malformed", "pageId", "absent", `null`)
	b.add(409, "page_open", "another page while one is open", &alteration{Signer: "carol"}, &wireFault{Path: "/inbox/{carol}"})
	b.riders()
	b.op, b.base = "got", baseRequests["got"]
	b.name("pageId", "65")
	b.hex("root", "64")
	b.field(422, "root_mismatch", "root", "another", `"{0*64}"`)
	b.field(404, "not_found", "pageId", "unknown", `"unknown"`)
	b.add(403, "mismatch", "signer another than the path's", &alteration{Signer: "stranger"}, nil)
	b.add(404, "not_found", "page of another reader", &alteration{Signer: "bob"}, &wireFault{Path: "/inbox/{bob}/got"})
	b.queries()
}

// asked are faults of the query beside a pull, and of how the two belong together.
func (b *badTable) asked() {
	b.hex("query", "64")
	b.field(403, "wrong_query", "query", "of another hash", `"{0*64}"`)
	for fault, swap := range map[string][]string{
		"another limit": {`"limit":10`, `"limit":11`}, "another sender": {`{alice}`, `{stranger}`}, "another page id": {`"page"`, `"other"`},
		"another salt": {`"salt":"7`, `"salt":"8`}, "another cursor": {`{"limit"`, `{"after":"e.1","limit"`},
	} {
		b.add(403, "wrong_query", "query with "+fault+" than was signed", &alteration{Swap: swap}, nil)
	}
	b.add(400, "malformed", "query with an unknown member", &alteration{Ask: map[string]json.RawMessage{"zzz": raw("1")}}, nil)
	b.add(400, "malformed", "query with a type", &alteration{Ask: map[string]json.RawMessage{"type": raw(`"pull"`)}}, nil)
	b.add(400, "malformed", "query with a member twice", &alteration{Asked: []string{`{"limit"`, `{"limit":10,"limit"`}}, nil)
	b.add(400, "not_canonical", "query with a space", &alteration{Asked: []string{`"limit":10`, `"limit": 10`}}, nil)
	b.add(400, "not_canonical", "query in another order", &alteration{Asked: []string{`{"limit":10,`, `{`, `}`, `,"limit":10}`}}, nil)
	b.add(400, "malformed", "query in the request", set("limit", "10"), nil)
}

// riders are faults of the acknowledgement within a pull.
func (b *badTable) riders() {
	const page, root = `"pageId":"open"`, `"root":"{root}"`
	b.field(400, "malformed", "got", "a string", `"x"`, "a number", `1`, "an array", `[]`, "an empty object", `{}`,
		"without a root", `{`+page+`}`, "without a page", `{`+root+`}`, "with a short root", `{`+page+`,"root":"abc"}`,
		"with a bad page id", `{"pageId":"a.b",`+root+`}`, "with an unknown member", `{`+page+`,`+root+`,"zzz":1}`,
		"an envelope", `{"msg":{"from":"{carol}","request":{`+page+`,`+root+`,"type":"got"},"timestamp":1,"to":"{relay}"},"sig":"{0*128}"}`)
	b.field(400, "not_canonical", "got", "null", `@null`)
	b.field(404, "not_found", "got", "for an unknown page", `{"pageId":"unknown",`+root+`}`, "for another reader's page", `{`+page+`,`+root+`}`)
	carols := &wireFault{Path: "/inbox/{carol}"}
	rider := func(root string) *alteration {
		return &alteration{Signer: "carol", Set: map[string]json.RawMessage{"got": raw(`{` + page + `,"root":"` + root + `"}`)}}
	}
	b.add(422, "root_mismatch", "got with another root", rider("{0*64}"), carols)
	changed := func(fault string, a *alteration, wire ...string) {
		a.Wire = wire
		b.add(401, "bad_signature", "got "+fault+" after it was signed", a, carols)
	}
	changed("stripped", rider("{root}"), `"got":{`+page+`,`+root+`},`, ``)
	changed("replaced", rider("{0*64}"), `"root":"{0*64}"`, root)
	changed("added", &alteration{Signer: "carol"}, `{"query"`, `{"got":{`+page+`,`+root+`},"query"`)
}

// queries are faults of the values in a query.
func (b *badTable) queries() {
	query := func(status int, code, fault, q string) { b.add(status, code, fault, nil, &wireFault{Query: q}) }
	for _, op := range []string{"listOutbox", "listOutboxes"} {
		b.op, b.base = op, baseRequests[op]
		query(400, "bad_query", "limit twice", "limit=1&limit=1")
		query(400, "bad_query", "limit of letters", "limit=ten")
		query(400, "bad_query", "limit empty", "limit=")
		query(400, "bad_query", "limit beyond integers", "limit=99999999999999999999")
		query(422, "invalid_value", "limit zero", "limit=0")
		query(422, "invalid_value", "limit too big", "limit=1001")
		query(422, "invalid_value", "afterTs negative", "afterTs=-1")
		query(400, "bad_query", "afterTs of letters", "afterTs=now")
		query(422, "invalid_value", "beforeTs over 2^53", "beforeTs=9007199254740992")
		query(400, "bad_query", "beforeTs a fraction", "beforeTs=1.5")
		query(400, "bad_cursor", "after too long", "after={a*65}")
		query(400, "bad_cursor", "after empty", "after=")
		query(400, "bad_cursor", "after of no cursor", "after=cursor")
		query(410, "cursor_epoch", "after of another epoch", "after=000000000000.1")
	}
	b.op, b.base = "readRecord", baseRequests["readRecord"]
	query(400, "bad_query", "pageId twice", "pageId=a&pageId=a")
	query(400, "bad_query", "pageId empty", "pageId=")
	query(400, "bad_query", "pageId too long", "pageId={a*65}")
	query(400, "bad_query", "pageId of another alphabet", "pageId=a.b")
	query(400, "bad_query", "pageId absent", "page=a")
}

func (b *badTable) accounts() {
	b.op, b.base = "putAdmitted", baseRequests["putAdmitted"]
	b.field(400, "malformed", "keys", "absent", `null`, "an object", `{}`, "of strings", `["{bob}"]`)
	key := func(status int, code, fault, entry string) {
		b.add(status, code, fault, set("keys", `[`+entry+`]`), nil)
	}
	key(422, "invalid_value", "key twice", `{"bytes":1,"key":"{bob}","records":1},{"bytes":1,"key":"{bob}","records":1}`)
	key(400, "malformed", "key absent", `{"bytes":1,"records":1}`)
	key(400, "malformed", "key short", `{"bytes":1,"key":"abc","records":1}`)
	key(400, "malformed", "key in capitals", `{"bytes":1,"key":"{A*64}","records":1}`)
	key(400, "malformed", "key with an unknown member", `{"bytes":1,"key":"{bob}","records":1,"zzz":1}`)
	for _, f := range [][3]string{{"bytes", `{"bytes":`, `,"key":"{bob}","records":1}`}, {"records", `{"bytes":1,"key":"{bob}","records":`, `}`}} {
		key(422, "invalid_value", f[0]+" zero", f[1]+`0`+f[2])
		key(422, "invalid_value", f[0]+" negative", f[1]+`-5`+f[2])
		key(400, "malformed", f[0]+" a string", f[1]+`"1"`+f[2])
		key(400, "not_canonical", f[0]+" over 2^53", f[1]+`9007199254740992`+f[2])
	}
	key(400, "malformed", "bytes absent", `{"key":"{bob}","records":1}`)
	key(400, "malformed", "records absent", `{"bytes":1,"key":"{bob}"}`)
	b.add(402, "no_account", "signer without an account", &alteration{Signer: "stranger"}, nil)
	b.op, b.base = "getAccount", baseRequests["getAccount"]
	b.add(402, "no_account", "signer without an account", &alteration{Signer: "stranger"}, nil)
	b.cards()
	b.terms()
}

func (b *badTable) terms() {
	b.op, b.base = "askTerms", baseRequests["askTerms"]
	b.field(400, "malformed", "wishes", "absent", `null`, "an object", `{}`, "of strings", `["grant"]`)
	b.field(422, "invalid_value", "wishes", "none", `[]`, "twice the same", `[`+wishGrant+`,`+wishGrant+`]`)
	// 17 that differ.
	var many []string
	for i := range 17 {
		many = append(many, fmt.Sprintf(`{"ads":false,"payment":false,"plaintext":false,"topic":"t%d","type":"volunteer"}`, i))
	}
	b.field(422, "invalid_value", "wishes", "too many", `[`+strings.Join(many, ",")+`]`)
	b.field(413, "too_large", "wishes", "too large", `[`+strings.Repeat(strings.Join(many, ",")+",", 4)+wishGrant+`]`)
	wish := func(status int, code, fault, members string) {
		b.add(status, code, "wish "+fault, set("wishes", `[{`+members+`}]`), nil)
	}
	wish(400, "malformed", "with an unknown flag", `"ads":false,"payment":false,"plaintext":false,"tracking":true,"type":"volunteer"`)
	wish(400, "malformed", "without ads", `"payment":false,"plaintext":false,"type":"volunteer"`)
	wish(400, "malformed", "without a type", `"ads":false,"payment":false,"plaintext":false`)
	wish(400, "malformed", "with plaintext a number", `"ads":false,"payment":false,"plaintext":1,"type":"volunteer"`)
	wish(422, "invalid_value", "of a volunteer for money", `"ads":false,"payment":true,"plaintext":false,"type":"volunteer"`)
	wish(422, "invalid_value", "of a contract for nothing", `"ads":false,"payment":false,"plaintext":false,"type":"contract"`)
	wish(422, "invalid_value", "with an empty topic", `"ads":false,"payment":false,"plaintext":false,"topic":"","type":"volunteer"`)
	wish(422, "invalid_value", "for any topic", `"ads":false,"payment":false,"plaintext":false,"topic":"*","type":"volunteer"`)
}

func (b *badTable) cards() {
	b.op, b.base = "getCard", baseRequests["getCard"]
	b.add(404, "not_found", "card of nobody", nil, &wireFault{Path: "/{stranger}/card"})
	b.op, b.base = "putCard", baseRequests["putCard"]
	b.field(422, "invalid_value", "label", "too long", `"{a*65}"`, "with a control character", `"a\nb"`)
	b.field(400, "malformed", "label", "absent", `null`, "a number", `7`)
	b.field(400, "malformed", "relays", "absent", `null`, "an object", `{}`, "without a key", `[{"address":"https://a.example"}]`,
		"with a short key", `[{"address":"https://a.example","pubkey":"abc"}]`)
	b.field(422, "invalid_value", "relays", "at an address with a path", `[{"address":"https://a.example/x","pubkey":"{relay}"}]`,
		"at http", `[{"address":"http://a.example","pubkey":"{relay}"}]`, "in capitals", `[{"address":"https://A.example","pubkey":"{relay}"}]`,
		"twice the same", `[{"address":"https://a.example","pubkey":"{relay}"},{"address":"https://b.example","pubkey":"{relay}"}]`)
	b.field(422, "invalid_value", "sealing", "empty", `[]`, "of a suite too big", `[{"key":"AAAA","suite":256}]`,
		"of a negative suite", `[{"key":"AAAA","suite":-1}]`)
	b.field(400, "malformed", "sealing", "absent", `null`, "without a key", `[{"suite":200}]`, "of no base64", `[{"key":"_-_-","suite":200}]`)
	b.field(422, "invalid_value", "hubs", "of no address", `["hub"]`)
	b.field(400, "malformed", "hubs", "a string", `"https://hub.example"`)
	b.add(413, "too_large", "card too large", set("note", `"{a*20000}"`), nil)
	b.add(421, "wrong_audience", "card for somebody else", msg("to", `"{bob}"`), nil)
	b.add(403, "mismatch", "card of another than the path's", &alteration{Signer: "stranger"}, nil)
	b.add(402, "no_account", "card of no account holder", &alteration{Signer: "stranger"}, &wireFault{Path: "/{stranger}/card"})
}

// parties are requests that are right, by somebody who may not.
func (b *badTable) parties() {
	party := func(op string, status int, code, who string) {
		b.op, b.base = op, baseRequests[op]
		b.add(status, code, "signer "+who, &alteration{Signer: who}, nil)
	}
	party("readRecord", 403, "wrong_party", "alice")
	party("readRecord", 404, "not_found", "stranger")
	party("deleteRecord", 403, "wrong_party", "carol")
	party("deleteRecord", 404, "not_found", "stranger")
	party("listOutbox", 404, "not_found", "stranger")
	party("listOutboxes", 404, "not_found", "bob")
	b.op, b.base = "readRecord", baseRequests["readRecord"]
	b.add(404, "not_found", "record of no name", nil, &wireFault{Path: "/{alice}/outbox/{dave}/nothing"})
	b.op, b.base = "deleteRecord", baseRequests["deleteRecord"]
	b.add(404, "not_found", "record of no name", nil, &wireFault{Path: "/{alice}/outbox/{carol}/nothing"})
	b.op, b.base = "getAnnouncement", baseRequests["getAnnouncement"]
	b.add(404, "not_found", "path of no route", nil, &wireFault{Path: "/favicon.ico"})
	b.add(404, "not_found", "path empty", nil, &wireFault{Path: "/"})
	b.add(400, "bad_path", "path of a proxy", nil, &wireFault{Path: "http://relay.example/account"})
}

// order are requests with several faults: the one whose check comes first is told.
func (b *badTable) order() {
	b.op, b.base = "pull", baseRequests["pull"]
	stale, other := raw("{now-301000}"), raw(`"{other}"`)
	type members = map[string]json.RawMessage
	colour := &wireFault{Query: "colour=red"}
	b.add(413, "too_large", "two faults: size before query", nil, &wireFault{Query: "colour=red", Length: 9 << 20})
	b.add(400, "bad_query", "two faults: query before media type", nil, &wireFault{Query: "colour=red", Headers: map[string]string{"Content-Type": ""}})
	b.add(400, "bad_query", "two faults: query before shape", &alteration{Cut: 1}, colour)
	b.add(400, "malformed", "two faults: shape before audience", &alteration{Set: members{"zzz": raw("1")}, Msg: members{"to": other}}, nil)
	b.add(400, "not_canonical", "two faults: canonical form before audience", &alteration{Text: []string{`"type":`, `"type": `}, Msg: members{"to": other}}, nil)
	b.add(421, "wrong_audience", "two faults: audience before type", &alteration{Set: members{"type": raw(`"got"`)}, Msg: members{"to": other}}, nil)
	b.add(403, "wrong_type", "two faults: type before party", &alteration{Signer: "stranger", Set: members{"type": raw(`"got"`)}}, nil)
	b.add(403, "mismatch", "two faults: party before time", &alteration{Signer: "stranger", Msg: members{"timestamp": stale}}, nil)
	b.add(401, "stale", "two faults: time before signature", &alteration{Forger: "stranger", Msg: members{"timestamp": stale}}, nil)
	b.add(401, "bad_signature", "two faults: signature before the cursor's epoch", &alteration{Forger: "stranger", Ask: members{"after": raw(`"000000000000.1"`)}}, nil)
	swapped := []string{`"limit":10`, `"limit":11`}
	b.add(400, "malformed", "two faults: shape of the query before audience", &alteration{Ask: members{"zzz": raw("1")}, Msg: members{"to": other}}, nil)
	b.add(403, "mismatch", "two faults: party before query", &alteration{Signer: "stranger", Swap: swapped}, nil)
	b.add(403, "wrong_query", "two faults: query before time", &alteration{Swap: swapped, Msg: members{"timestamp": stale}}, nil)
	b.add(403, "wrong_query", "two faults: query before signature", &alteration{Swap: swapped, Forger: "stranger"}, nil)
	b.op, b.base = "writeRecord", baseRequests["writeRecord"]
	b.add(401, "bad_signature", "two faults: signature before account", &alteration{Signer: "stranger", Forger: "other"}, pathOf("writeRecord", "stranger"))
	b.op, b.base = "readRecord", baseRequests["readRecord"]
	b.add(403, "wrong_target", "two faults: target before time", &alteration{Set: members{"target": raw(`"GET /"`)}, Msg: members{"timestamp": stale}}, nil)
	b.add(401, "bad_signature", "two faults: signature before party", &alteration{Signer: "stranger", Forger: "other"}, nil)
}

// manyKeys is an array of that many keys, all different.
func manyKeys(n int) string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = hexNumber(i)
	}
	data, _ := json.Marshal(keys)
	return string(data)
}

func hexNumber(i int) string {
	const digits = "0123456789abcdef"
	out := []byte("{0*60}0000")
	for at := len(out) - 1; i > 0; i /= 16 {
		out[at] = digits[i%16]
		at--
	}
	return string(out)
}
