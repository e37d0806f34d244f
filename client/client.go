package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"relaymarket/client/state"
	"relaymarket/protocol"
	"relaymarket/relaytls"
)

// StateFile is the name of the state in [Config].Dir.
const StateFile = "state.db"

// Config says who and where the user is.
type Config struct {
	// Dir is the folder of the state. It is made, with mode 0700, if Identity is given and it is missing.
	Dir string
	// Identity and Sealing are the user's keys. Without them only what needs no secret works: reading
	// the state, and adding friends. The rest fails with [ErrLocked].
	Identity *protocol.PrivateKey
	Sealing  *protocol.SealingPrivateKey
	// Hubs are where the user learns of relays: his card names those with https:// addresses, so that friends find hubs too.
	Hubs []string
	// HTTP makes the requests; nil is what [NewHTTP] makes of Proxy. Redirects and cookies are off whatever it says.
	HTTP *http.Client
	// Proxy is what the requests go through, such as socks5://127.0.0.1:9050 for onion addresses; nil is what the environment
	// says (HTTPS_PROXY, NO_PROXY).
	Proxy *url.URL
	// Clock is time.Now if nil.
	Clock func() time.Time
	// Logger gets what is of interest only when something goes wrong; nil is silent.
	Logger *slog.Logger
}

// Client is one device of one user. See the package comment.
type Client struct {
	state    *state.Store
	identity *protocol.PrivateKey
	sealing  *protocol.SealingPrivateKey
	hubs     []string
	http     *http.Client
	clock    func() time.Time
	log      *slog.Logger
	lent     bool // by Lend
	*met
}

// met is what a client, and all that are lent by it, know of relays.
type met struct {
	mu      sync.Mutex
	offsets map[protocol.PublicKey]time.Duration // a relay's clock minus ours
	pulling map[protocol.PublicKey]*sync.Mutex   // one pull a relay at a time
	looked  protocol.Timestamp                   // when a newer card of the user was looked for
}

// Open opens the user's state, or makes it. It starts nothing; Close it in the end.
func Open(ctx context.Context, c Config) (*Client, error) {
	if (c.Identity == nil) != (c.Sealing == nil) {
		return nil, errors.New("give both the identity and the sealing key, or neither")
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	var owner *protocol.PublicKey
	if c.Identity != nil {
		key := c.Identity.Public()
		owner = &key
		if err := os.MkdirAll(c.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the state folder: %w", err)
		}
	}
	store, err := state.Open(ctx, state.Config{Path: filepath.Join(c.Dir, StateFile), Owner: owner, Clock: c.Clock, Log: c.Logger})
	if err != nil {
		return nil, err
	}
	return &Client{
		state: store, identity: c.Identity, sealing: c.Sealing, hubs: cardHubs(c.Hubs), http: strictHTTP(&c), clock: c.Clock, log: c.Logger,
		met: &met{offsets: map[protocol.PublicKey]time.Duration{}, pulling: map[protocol.PublicKey]*sync.Mutex{}},
	}, nil
}

// Lend is the same client for somebody who closes what he was given: that closes nothing. It must not be used once c is closed.
func (c *Client) Lend() *Client {
	lent := *c
	lent.lent = true
	return &lent
}

// Close ends the use of the state. Calls under way fail.
func (c *Client) Close() error {
	if c.lent {
		return nil
	}
	c.http.CloseIdleConnections()
	return c.state.Close()
}

// Key is the user's public key.
func (c *Client) Key() protocol.PublicKey { return c.state.Owner() }

func (c *Client) now() protocol.Timestamp { return protocol.TimestampOf(c.clock()) }

func (c *Client) unlocked() error {
	if c.identity == nil {
		return ErrLocked
	}
	return nil
}

// strictHTTP is the given client, or one made for strangers on the other side, without redirects and cookies.
func strictHTTP(c *Config) *http.Client {
	if c.HTTP == nil {
		return NewHTTP(c.Proxy, c.Clock)
	}
	h := *c.HTTP
	h.Jar = nil
	h.CheckRedirect = noRedirect
	return &h
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// NewHTTP makes requests to strangers: with patience for a slow network and no more, without redirects and cookies, and over TLS
// to relays that have no certificate but their own, see package relaytls. A nil proxy is that of the environment.
func NewHTTP(proxy *url.URL, clock func() time.Time) *http.Client {
	base := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  30 * time.Second,
		IdleConnTimeout:        60 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConnsPerHost:    4,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
	}
	if proxy != nil {
		base.Proxy = http.ProxyURL(proxy)
	}
	return &http.Client{Transport: relaytls.NewTransport(base, clock), CheckRedirect: noRedirect}
}
