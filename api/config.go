package api

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"relaymarket/protocol"
	"relaymarket/records"
)

// MaxHeaderBytes is what the http.Server is to accept of headers: an authorization is below 1 KiB.
const MaxHeaderBytes = 16 << 10

// IdleTimeout is how long the http.Server is to keep a connection without a request.
const IdleTimeout = 2 * time.Minute

// Config is what a [Server] needs. Zero values of the bounds mean [DefaultConfig]'s, except for rates, where
// zero is unlimited.
type Config struct {
	Key     *protocol.PrivateKey // the relay's, which signs its announcement
	Records Records
	Books   Books
	Willing Willing
	Clock   func() time.Time
	Logger  *slog.Logger
	// Registry takes this package's metrics; /metrics serves all that is in it. Nil: one of its own.
	Registry *prometheus.Registry

	Limits    records.Limits // published, and checked before records is asked
	Addresses []string       // published, see protocol.ValidateAddress
	Contact   string         // published: how to reach the operator

	// Contracts runs the relay's contracts; nil: it makes none, and Offer is nil too.
	Contracts Contracts
	Network   protocol.Network        // published: of the contracts' Bitcoin and of the market; empty without either
	Offer     *protocol.ContractOffer // published: the terms of new contracts; nil: no new ones

	Market Market   // the book that the relay keeps as a hub; nil: it is none
	Hubs   []string // published, see protocol.ValidateHub

	Prober Prober // tries addresses of other relays; nil: this relay is in no market and tries none

	Rates      Rates
	TrustProxy []netip.Prefix // peers whose X-Forwarded-For or Forwarded is believed
	Bounds     Bounds
}

// Rates bound requests; a batch counts one more for each hundred lines after its first.
type Rates struct {
	Address Rate // by IPv4 address or IPv6 /64, before the signature is checked
	Key     Rate // by signer, after it
	Opening int  // accounts for nothing, to strangers, a day and address
	Tracked int  // addresses, and keys, that are remembered; the least recently seen is forgotten first
}

// Rate is a token bucket. PerSecond 0 is unlimited.
type Rate struct {
	PerSecond float64
	Burst     int
}

// Bounds keep memory and time in hand.
type Bounds struct {
	HeaderTimeout time.Duration // published; the http.Server's ReadHeaderTimeout
	BodyTimeout   time.Duration // published; for a whole body to arrive
	WorkTimeout   time.Duration // for the domains to answer
	ReplyTimeout  time.Duration // for a whole reply to be taken

	MaxConcurrent int   // requests at work; unsigned ones are shed at half of it, readers at three quarters
	MaxBodyBytes  int64 // bytes of all bodies at work together

	MaxListeners       int           // open streams in all
	MaxListenersPerKey int           // open streams of one reader
	KeepAlive          time.Duration // between signs of life on a quiet stream
	FlushTimeout       time.Duration // for a listener to take what is flushed
}

// DefaultBounds are what a relay keeps when its operator says nothing.
func DefaultBounds() Bounds {
	return Bounds{
		HeaderTimeout: 15 * time.Second, BodyTimeout: 15 * time.Second,
		WorkTimeout: 30 * time.Second, ReplyTimeout: time.Minute,
		MaxConcurrent: 512, MaxBodyBytes: 256 << 20,
		MaxListeners: 20_000, MaxListenersPerKey: 16,
		KeepAlive: 15 * time.Second, FlushTimeout: 10 * time.Second,
	}
}

// DefaultRates are what a relay keeps when its operator says nothing.
func DefaultRates() Rates {
	return Rates{Address: Rate{PerSecond: 50, Burst: 200}, Key: Rate{PerSecond: 100, Burst: 400}, Opening: 2, Tracked: 50_000}
}

// complete fills in what was left zero and refuses what cannot work.
func (c *Config) complete() error {
	if c.Key == nil || c.Records == nil || c.Books == nil || c.Willing == nil || c.Clock == nil || c.Logger == nil {
		return fmt.Errorf("api: key, records, books, willing, clock and logger are needed")
	}
	if c.Offer != nil && c.Contracts == nil {
		return fmt.Errorf("api: an offer of contracts is announced, and nobody runs them")
	}
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
	l, d := &c.Limits, records.DefaultLimits()
	orDefault(&l.RecordBytes, d.RecordBytes)
	orDefault(&l.AdmittedBytes, d.AdmittedBytes)
	orDefault(&l.Lifetime, d.Lifetime)
	orDefault(&l.MaxPulls, d.MaxPulls)
	if l.RecordBytes > protocol.MaxEnvelopeSize {
		return fmt.Errorf("api: a record of %d bytes is over the protocol's %d", l.RecordBytes, protocol.MaxEnvelopeSize)
	}
	orDefault(&c.Rates.Tracked, DefaultRates().Tracked)
	b, bd := &c.Bounds, DefaultBounds()
	for _, p := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&b.HeaderTimeout, bd.HeaderTimeout}, {&b.BodyTimeout, bd.BodyTimeout}, {&b.WorkTimeout, bd.WorkTimeout},
		{&b.ReplyTimeout, bd.ReplyTimeout}, {&b.KeepAlive, bd.KeepAlive}, {&b.FlushTimeout, bd.FlushTimeout},
	} {
		orDefault(p.value, p.fallback)
	}
	orDefault(&b.MaxConcurrent, bd.MaxConcurrent)
	orDefault(&b.MaxBodyBytes, bd.MaxBodyBytes)
	orDefault(&b.MaxListeners, bd.MaxListeners)
	orDefault(&b.MaxListenersPerKey, bd.MaxListenersPerKey)
	return nil
}

func orDefault[T int | int64 | time.Duration](value *T, fallback T) {
	if *value <= 0 {
		*value = fallback
	}
}
