package api

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-chi/chi/v5"

	"relaymarket/protocol"
)

// Bodies of requests that carry keys and names only. The largest that is legal fits: a thousand keys are 67 kB,
// a thousand admitted ones 150 kB.
const (
	maxNamesBody = 128 << 10
	maxAdmitBody = 256 << 10
	maxGotBody   = 4 << 10
	// A contract's: a PSBT is 88 kB in base64, a hundred writers with their consents 70 kB, two states 2 kB.
	maxOpenBody    = 192 << 10
	maxSignedBody  = 96 << 10
	maxStateBody   = 4 << 10
	maxRefusalBody = 64 << 10
	maxTermsBody   = 4 << 10 // sixteen wishes are 2 kB
	maxProbeBody   = protocol.MaxAnnouncementSize + 1<<10
)

// Media types of what goes to and fro.
const (
	mediaEnvelope = "application/json"
	mediaLines    = "application/x-ndjson"
	mediaProblem  = "application/problem+json"
)

// class is what is shed together when the relay is overloaded, first what comes first.
type class int

const (
	classUnsigned class = iota
	classReader
	classWriter
)

// operation is what is known of a route before its handler runs.
type operation struct {
	name    string // operationId
	class   class
	media   string   // media type of the body; "" when there is none
	size    int64    // bytes of the body at most
	record  bool     // the body is a record, whose size is a limit that can change: see Server.most
	queries []string // parameters of the query

	handler http.Handler           // of the generated code
	counts  atomic.Pointer[counts] // its metrics, once it was asked for
}

// operations maps "METHOD pattern" to what is known of the route. TestRoutes holds it against
// openapi.yaml.
func operations(recordBytes int64) map[string]*operation {
	inventory := []string{"after", "limit", "afterTs", "beforeTs"}
	const contract = "/contracts/{contract}"
	const record = "/{user}/outbox/{receiver}/{id}"
	return map[string]*operation{
		"GET /.well-known/relaymarket": {name: "getAnnouncement", class: classUnsigned},
		"GET /market":                  {name: "getMarket", class: classUnsigned, queries: []string{"after", "limit"}},
		"GET /account":                 {name: "getAccount", class: classWriter},
		"PUT /account/admitted":        {name: "putAdmitted", class: classWriter, media: mediaEnvelope, size: maxAdmitBody},
		// Openers are strangers: they go before account holders when there is too much to do.
		"POST /contracts":                {name: "openContract", class: classReader, media: mediaEnvelope, size: maxOpenBody},
		"GET /contracts":                 {name: "listContracts", class: classReader},
		"GET " + contract:                {name: "getContract", class: classWriter},
		"POST " + contract + "/signed":   {name: "signContract", class: classWriter, media: mediaEnvelope, size: maxSignedBody},
		"POST " + contract + "/payments": {name: "payContract", class: classWriter, media: mediaEnvelope, size: maxStateBody},
		"POST " + contract + "/refusals": {name: "refuseUsage", class: classWriter, media: mediaEnvelope, size: maxRefusalBody},
		"POST " + contract + "/refund":   {name: "refundContract", class: classWriter, media: mediaEnvelope, size: maxStateBody},
		"POST /inbox/{receiver}":         {name: "pull", class: classReader, media: mediaLines, size: maxNamesBody},
		"POST /inbox/{receiver}/got":     {name: "got", class: classReader, media: mediaEnvelope, size: maxGotBody},
		"POST /inbox/{receiver}/listen":  {name: "listen", class: classReader, media: mediaEnvelope, size: maxNamesBody},
		"POST /probe":                    {name: "probe", class: classReader, media: mediaEnvelope, size: maxProbeBody},
		"POST /terms":                    {name: "askTerms", class: classReader, media: mediaEnvelope, size: maxTermsBody},
		"GET /usage":                     {name: "getUsage", class: classReader, queries: []string{"contract", "after", "line"}},
		"GET /{user}/card":               {name: "getCard", class: classUnsigned},
		"PUT /{user}/card":               {name: "putCard", class: classWriter, media: mediaEnvelope, size: protocol.MaxCardSize},
		"GET /{user}/outbox":             {name: "listOutboxes", class: classReader, queries: inventory},
		"POST /{user}/outbox":            {name: "writeBatch", class: classWriter, media: mediaLines, size: protocol.MaxPageBytes},
		"GET /{user}/outbox/{receiver}":  {name: "listOutbox", class: classReader, queries: inventory},
		http.MethodPut + " " + record:    {name: "writeRecord", class: classWriter, media: mediaEnvelope, size: recordBytes, record: true},
		http.MethodGet + " " + record:    {name: "readRecord", class: classReader, queries: []string{"pageId"}},
		http.MethodDelete + " " + record: {name: "deleteRecord", class: classWriter},
	}
}

// methods are those that any route has.
var methods = []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete}

// requestLine is a method and the pattern of a path.
type requestLine struct{ method, pattern string }

// routeContexts are what chi notes the values of a path in.
var routeContexts = sync.Pool{New: func() any { return chi.NewRouteContext() }}

// attach gives every operation its handler, so that a request is matched once: what chi found a pattern for is
// called without asking it again.
func (s *Server) attach() {
	s.lines = map[requestLine]*operation{}
	for _, route := range s.router.Routes() {
		for method, handler := range route.Handlers {
			if op := s.operations[method+" "+route.Pattern]; op != nil {
				op.handler = handler
				s.lines[requestLine{method, route.Pattern}] = op
			}
		}
	}
}

// find is the operation that a request line asks for, with the values of its path in route, and otherwise the
// methods that its path has.
func (s *Server) find(route *chi.Context, method, path string) (*operation, []string) {
	if op := s.match(route, method, path); op != nil {
		return op, nil
	}
	var allowed []string
	for _, m := range methods {
		route.Reset()
		if s.match(route, m, path) != nil {
			allowed = append(allowed, m)
		}
	}
	return nil, allowed
}

func (s *Server) match(route *chi.Context, method, path string) *operation {
	return s.lines[requestLine{method, s.router.Find(route, method, path)}]
}

// checkPath refuses what no route could mean. Segments are compared byte for byte, so a percent-encoded one
// would be a second name for the same thing.
func checkPath(requestURI string) error {
	path, _, _ := strings.Cut(requestURI, "?")
	if !strings.HasPrefix(path, "/") || strings.Contains(path, "%") {
		return protocol.Errorf(protocol.CodeBadPath, "a path starts with / and is never percent-encoded")
	}
	if path == "/" {
		return nil
	}
	var first, second string // the segments that tell what follows
	n := 0
	for rest, more := path[1:], true; more; n++ {
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		switch segment {
		case "", ".", "..":
			return protocol.Errorf(protocol.CodeBadPath, "a path has no empty segments, nor . and ..")
		}
		if n == 0 {
			first = segment
		}
		if n < 2 {
			second = segment
		}
	}
	if first == "inbox" && n > 3 {
		return protocol.Errorf(protocol.CodeBadPath, "an inbox is /inbox/receiver, with /got or /listen")
	}
	if first == "contracts" && n > 3 {
		return protocol.Errorf(protocol.CodeBadPath, "a contract is /contracts/id, with /signed, /payments, /refusals or /refund")
	}
	if second == "outbox" && n > 4 || second == "card" && n > 2 {
		return protocol.Errorf(protocol.CodeBadPath, "the path has more segments than its route")
	}
	return nil
}

// checkQuery refuses parameters that are unknown, repeated or unreadable. Values are the handlers'.
func (op *operation) checkQuery(raw string) error {
	if raw == "" {
		return nil
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return protocol.Errorf(protocol.CodeBadQuery, "the query is not name=value pairs joined by &")
	}
	for name, list := range values {
		if !slices.Contains(op.queries, name) {
			return protocol.Errorf(protocol.CodeBadQuery, "unknown query parameter %.40q", name)
		}
		if len(list) > 1 {
			return protocol.Errorf(protocol.CodeBadQuery, "the query parameter %s occurs twice", name)
		}
	}
	return nil
}
