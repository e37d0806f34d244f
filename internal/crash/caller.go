package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"relaymarket/api"
	"relaymarket/protocol"
)

// attemptPatience bounds one request. A relay under test answers long before; what takes longer has an unknown outcome.
const attemptPatience = 10 * time.Second

// retryEvery is how soon a request is repeated whose outcome is unknown: a relay that is away refuses at once.
const retryEvery = 15 * time.Millisecond

// caller is one connection's worth of requests, to whichever relayd.
type caller struct {
	world  *world
	cohort *cohort
	client *http.Client
	random *rand.Rand
}

func newCaller(w *world, c *cohort, random *rand.Rand) *caller {
	return &caller{world: w, cohort: c, random: random,
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2, DisableCompression: true}, Timeout: attemptPatience}}
}

// enough tells whether to begin no more: stop is closed, or something was found broken.
func (c *caller) enough(ctx context.Context, stop <-chan struct{}) (bool, error) {
	select {
	case <-stop:
		return true, nil
	case <-ctx.Done():
		return true, ctx.Err()
	default:
		return c.cohort.isBroken(), nil
	}
}

func (c *caller) close() { c.client.CloseIdleConnections() }

// fork is randomness for another goroutine.
func (c *caller) fork() *rand.Rand {
	return rand.New(rand.NewPCG(c.random.Uint64(), c.random.Uint64()))
}

// message is one request before it has an address.
type message struct {
	method, path  string
	authorization string
	lines         bool // the body is NDJSON
	body          []byte
}

// reply is an answer that came whole.
type reply struct {
	status int
	body   []byte
}

// problem is the refusal in a reply.
func (r *reply) problem() api.Problem {
	var p api.Problem
	_ = json.Unmarshal(r.body, &p) // without a code it is as unexpected
	return p
}

// overQuota tells a refusal for the account's sake from those that a relay in trouble gives with a status of the same kind.
func (r *reply) overQuota() bool {
	code := r.problem().Code
	return code == protocol.CodeQuotaStored || code == protocol.CodeQuotaMoved || code == protocol.CodeQuotaAdmitted
}

func (r *reply) String() string { return fmt.Sprintf("%d %.300s", r.status, r.body) }

// once sends a message to one relay. An error means that the outcome is unknown.
func (c *caller) once(ctx context.Context, relay int, m message) (*reply, error) {
	request, err := http.NewRequestWithContext(ctx, m.method, c.world.url(relay)+m.path, bytes.NewReader(m.body))
	if err != nil {
		return nil, err
	}
	if m.authorization != "" {
		request.Header.Set("Authorization", m.authorization)
	}
	if m.body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if m.lines {
		request.Header.Set("Content-Type", "application/x-ndjson")
	}
	answer, err := c.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 32<<20))
	if err != nil {
		return nil, err
	}
	r := &reply{answer.StatusCode, body}
	if r.status >= http.StatusInternalServerError && !r.overQuota() {
		return nil, fmt.Errorf("%s: %.300s", answer.Status, body)
	}
	return r, nil
}

// settled repeats a message, as next makes it each time, until it is answered, and says how often it was sent. A nil
// reply without an error is an outcome that stayed unknown, which is noted.
func (c *caller) settled(ctx context.Context, next func(attempt int) (message, error)) (answer *reply, attempts int, err error) {
	deadline := time.Now().Add(c.world.patience)
	for {
		m, err := next(attempts)
		if err != nil {
			return nil, attempts, err
		}
		relay := c.random.IntN(len(c.world.relays))
		answer, failure := c.once(ctx, relay, m)
		if attempts++; failure == nil {
			return answer, attempts, nil
		}
		if attempts == 1 {
			c.cohort.unknown.Add(1)
			c.cohort.counts.unknown.Add(1)
		}
		if ctx.Err() != nil {
			return nil, attempts, ctx.Err()
		}
		if time.Now().After(deadline) {
			c.cohort.fault(promiseSettle, "%s %s was not answered in %d attempts within %s: %v", m.method, m.path, attempts, c.world.patience, failure)
			return nil, attempts, nil
		}
		select {
		case <-ctx.Done():
			return nil, attempts, ctx.Err()
		case <-time.After(retryEvery):
		}
	}
}

// targeted makes a message without a body, signed anew.
func (c *caller) targeted(signer *protocol.PrivateKey, requestType, method, path string) (message, error) {
	e, err := protocol.Sign(signer, c.cohort.relay, now(), &protocol.Targeted{Type: requestType, Target: protocol.Target(method, path)})
	if err != nil {
		return message{}, err
	}
	return message{method: method, path: path, authorization: e.Authorization()}, nil
}

func now() protocol.Timestamp { return protocol.TimestampOf(time.Now()) }
