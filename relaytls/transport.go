package relaytls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"relaymarket/protocol"
)

const (
	maxHosts    = 4096 // that keys are known of
	maxExpected = 8    // keys at one host and port
	maxIdle     = 256  // hosts with connections of their own
)

// Transport makes requests over TLS as the package comment says. It is a [http.RoundTripper].
type Transport struct {
	base  *http.Transport
	clock func() time.Time

	mu       sync.Mutex
	expected map[string][]protocol.PublicKey // by host and port, as in an address
	hosts    map[string]*http.Transport
}

// NewTransport makes requests as base does, certificates apart. base is not used any more by anybody else.
func NewTransport(base *http.Transport, clock func() time.Time) *Transport {
	return &Transport{base: base, clock: clock, expected: map[string][]protocol.PublicKey{}, hosts: map[string]*http.Transport{}}
}

// Expect says that a relay is at a host, "example.org" or "203.0.113.5:7447": a certificate that it vouches for is taken there. Several
// may be: cards are wrong at times, and TLS is not what tells.
func (t *Transport) Expect(host string, relay protocol.PublicKey) {
	if relay == (protocol.PublicKey{}) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	keys := t.expected[host]
	if slices.Contains(keys, relay) {
		return
	}
	if len(keys) == 0 && len(t.expected) >= maxHosts {
		clear(t.expected) // whoever is asked again says again whom he expects
	}
	if len(keys) >= maxExpected {
		keys = keys[1:]
	}
	t.expected[host] = append(slices.Clip(keys), relay)
}

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return t.base.RoundTrip(r)
	}
	return t.at(r.URL.Host, r.URL.Hostname()).RoundTrip(r)
}

// at is the transport of one host: which host it is a certificate is checked for is not known to a handshake with an IP address.
func (t *Transport) at(host, name string) *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if own := t.hosts[host]; own != nil {
		return own
	}
	if len(t.hosts) >= maxIdle {
		for host, own := range t.hosts {
			own.CloseIdleConnections()
			delete(t.hosts, host)
		}
	}
	own := t.base.Clone()
	secure := own.TLSClientConfig
	if secure == nil {
		secure = &tls.Config{}
	}
	roots := secure.RootCAs
	secure.MinVersion = max(secure.MinVersion, tls.VersionTLS12)
	secure.InsecureSkipVerify = true // VerifyConnection does it, for each handshake
	secure.VerifyConnection = func(state tls.ConnectionState) error { return t.verify(state, host, name, roots) }
	own.TLSClientConfig = secure
	t.hosts[host] = own
	return own
}

// CloseIdleConnections closes what is not in use.
func (t *Transport) CloseIdleConnections() {
	t.base.CloseIdleConnections()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, own := range t.hosts {
		own.CloseIdleConnections()
	}
}

// verify takes a certificate of a public authority, or of a relay that is expected there.
func (t *Transport) verify(state tls.ConnectionState, host, name string, roots *x509.CertPool) error {
	now := t.clock()
	if len(state.PeerCertificates) == 0 {
		return errors.New("it shows no certificate")
	}
	leaf := state.PeerCertificates[0]
	by, unbound := Voucher(leaf)
	if unbound != nil {
		between := x509.NewCertPool()
		for _, c := range state.PeerCertificates[1:] {
			between.AddCert(c)
		}
		_, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: between, CurrentTime: now})
		return err
	}
	t.mu.Lock()
	keys := t.expected[host]
	t.mu.Unlock()
	if len(keys) == 0 {
		return fmt.Errorf("%w. Ask its operator for its key; if it is %s, write https://%s@%s", ErrUnknown, by.Bech32(), by.Bech32(), host)
	}
	if slices.Contains(keys, by) {
		return CheckOwn(leaf, by, now)
	}
	return CheckOwn(leaf, keys[0], now)
}

// ErrUnknown: a relay vouches for its certificate, and nobody said which relay is to be expected.
var ErrUnknown = errors.New("its certificate is its own, and which relay it should be is not known")
