// Package reach is how a relay sees, for another one, whether strangers reach the address that that one announces. Nobody can see it
// from his own side of a firewall.
//
// # What it is not good for
//
// Whoever makes a relay connect somewhere makes it a tool. So [Prober] works for relays only, each of which has done the market's proof of work for an
// announcement that names the address ([Prober.Admit]); it connects to addresses of the public internet and to no others, whatever a name resolves
// to, not to its own machine's either, and to no port of another protocol; it fetches one path, without following where that leads, a few kilobytes in ten seconds, over
// a connection of its own; it tells one word of what it met; and no address is tried again within [Pause], whoever asks. Somebody else's machine sees one
// connection of a relay in that time, which is less than asking for it takes.
//
// api calls it for POST /probe, and relayd doctor asks there.
package reach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"relaymarket/broadcast"
	"relaymarket/protocol"
	"relaymarket/relaytls"
)

const (
	// Pause is how long an address is left alone after it was tried.
	Pause = 10 * time.Second
	// Patience bounds a try.
	Patience = 10 * time.Second
	// AtOnce is how many are tried at the same time.
	AtOnce = 8

	namePatience = 5 * time.Second
	maxHeaders   = 16 << 10
	maxTried     = 4096 // addresses that are remembered
	wellKnown    = "/.well-known/relaymarket"
)

// Config says in which market a prober works.
type Config struct {
	Rules broadcast.Rules
	Clock func() time.Time
	// Local allows addresses of this machine and its network: for a market on one machine.
	Local bool
	// Resolver looks names up; nil: the system's.
	Resolver *net.Resolver
	// Own tells the addresses of this machine, which may change; nil: the system's.
	Own func() ([]net.Addr, error)
}

// Prober tries addresses. It is safe for concurrent use.
type Prober struct {
	cfg  Config
	busy chan struct{}

	mu    sync.Mutex
	tried map[netip.Prefix]time.Time
}

// New makes a prober. It starts nothing.
func New(cfg Config) *Prober {
	if cfg.Resolver == nil {
		cfg.Resolver = net.DefaultResolver
	}
	if cfg.Own == nil {
		cfg.Own = net.InterfaceAddrs
	}
	return &Prober{cfg: cfg, busy: make(chan struct{}, AtOnce), tried: map[netip.Prefix]time.Time{}}
}

// Admit judges what a relay presents to have an address tried: its own announcement, valid in this market, that names the address. The
// error has code [protocol.CodeInvalidValue]. What costs most, a signature, is looked at last.
func (p *Prober) Admit(announcement []byte, relay protocol.PublicKey, address string) error {
	offer, err := p.cfg.Rules.Check(announcement, protocol.TimestampOf(p.cfg.Clock()), nil)
	if err != nil {
		return protocol.Errorf(protocol.CodeInvalidValue, "the announcement is none of this market: %s", err)
	}
	if offer.Relay != relay {
		return protocol.Errorf(protocol.CodeInvalidValue, "the announcement is another relay's")
	}
	if !slices.Contains(offer.Addresses, address) {
		return protocol.Errorf(protocol.CodeInvalidValue, "the announcement does not name this address")
	}
	return nil
}

// Try fetches the relay's announcement from an address, and tells why that fails if it does. It takes [Patience] at most. The error has code
// [protocol.CodeOverloaded] when too much is tried, there or in all.
func (p *Prober) Try(ctx context.Context, address string, relay protocol.PublicKey) (took time.Duration, why protocol.Unreached, err error) {
	select {
	case p.busy <- struct{}{}:
		defer func() { <-p.busy }()
	default:
		return 0, "", protocol.Errorf(protocol.CodeOverloaded, "this relay tries as many addresses as it does at once")
	}
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	began := time.Now()
	to, why, err := p.resolve(ctx, address)
	if why != "" || err != nil {
		return time.Since(began), why, err
	}
	if !p.mayTry(to.Addr()) {
		return 0, "", protocol.Errorf(protocol.CodeOverloaded, "this address was tried a moment ago")
	}
	why = p.fetch(ctx, address, to, relay)
	if why != "" && ctx.Err() != nil {
		why = protocol.UnreachedTime
	}
	return time.Since(began), why, nil
}

// resolve finds where the one connection goes to. A name that also leads to an address that is not public, or to this machine, leads nowhere. Of
// several addresses the first is tried, and no other: the pause is one address's.
func (p *Prober) resolve(ctx context.Context, address string) (to netip.AddrPort, why protocol.Unreached, err error) {
	u, err := url.Parse(address)
	if err != nil || protocol.ValidateAddress(address) != nil {
		return to, protocol.UnreachedAddress, nil
	}
	port := uint16(443)
	if u.Scheme == "http" {
		port = 80
	}
	if text := u.Port(); text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return to, protocol.UnreachedAddress, nil
		}
		port = uint16(n)
	}
	if !p.cfg.Local && (u.Scheme != "https" || port < 1024 && port != 443) {
		return to, protocol.UnreachedAddress, nil
	}
	var ips []netip.Addr
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
		ips = []netip.Addr{ip}
	} else {
		ctx, cancel := context.WithTimeout(ctx, namePatience)
		defer cancel()
		if ips, err = p.cfg.Resolver.LookupNetIP(ctx, "ip", u.Hostname()); err != nil || len(ips) == 0 {
			return to, protocol.UnreachedName, nil
		}
	}
	var own map[netip.Addr]bool
	if !p.cfg.Local {
		if own, err = p.own(); err != nil {
			return to, "", err
		}
	}
	for i := range ips {
		ips[i] = ips[i].Unmap().WithZone("")
		if !p.cfg.Local && (!Public(ips[i]) || own[ips[i]]) {
			return to, protocol.UnreachedAddress, nil
		}
	}
	return netip.AddrPortFrom(ips[0], port), "", nil
}

// own are this machine's addresses. A connection to one of them, public as it may be, goes over the loopback, past the firewall that strangers
// meet. They come and go, so it is asked at each try.
func (p *Prober) own() (map[netip.Addr]bool, error) {
	addrs, err := p.cfg.Own()
	if err != nil {
		return nil, fmt.Errorf("read this machine's addresses: %w", err)
	}
	own := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own[ip.Unmap()] = true
			}
		}
	}
	return own, nil
}

// mayTry leaves an address, or the /64 of an IPv6 one, alone for a while.
func (p *Prober) mayTry(ip netip.Addr) bool {
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	name, err := ip.Prefix(bits)
	if err != nil {
		return false
	}
	if p.cfg.Local && !Public(ip) {
		return true // many relays on one machine
	}
	now := p.cfg.Clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	for other, at := range p.tried {
		if now.Sub(at) >= Pause || now.Before(at) {
			delete(p.tried, other)
		}
	}
	if _, recent := p.tried[name]; recent || len(p.tried) >= maxTried {
		return false
	}
	p.tried[name] = now
	return true
}

// fetch asks for the announcement. The dialer goes to the address that was judged, and looks no name up again.
func (p *Prober) fetch(ctx context.Context, address string, to netip.AddrPort, relay protocol.PublicKey) protocol.Unreached {
	var connected atomic.Bool // a dial may still end when the request is given up
	base := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			conn, err := (&net.Dialer{Timeout: Patience / 2}).DialContext(ctx, network, to.String())
			if err == nil {
				connected.Store(true)
			}
			return conn, err
		},
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxHeaders, TLSHandshakeTimeout: Patience / 2, ResponseHeaderTimeout: Patience / 2,
	}
	transport := relaytls.NewTransport(base, p.cfg.Clock)
	defer transport.CloseIdleConnections()
	u, _ := url.Parse(address) // resolve has read it
	transport.Expect(u.Host, relay)
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address+wellKnown, nil)
	if err != nil {
		return protocol.UnreachedAddress
	}
	r.Header.Set("User-Agent", "relayd probe")
	reply, err := client.Do(r)
	if err != nil {
		if connected.Load() && u.Scheme == "https" && !errors.Is(err, io.EOF) {
			return protocol.UnreachedTLS
		}
		if connected.Load() {
			return protocol.UnreachedAnswer
		}
		return protocol.UnreachedConnect
	}
	defer reply.Body.Close()
	data, err := io.ReadAll(io.LimitReader(reply.Body, protocol.MaxAnnouncementSize+1))
	if err != nil || reply.StatusCode != http.StatusOK {
		return protocol.UnreachedAnswer
	}
	e, _, err := protocol.ParseAnnouncement(data, protocol.TimestampOf(p.cfg.Clock()))
	switch {
	case err != nil:
		return protocol.UnreachedAnswer
	case e.From != relay:
		return protocol.UnreachedAnother
	}
	return ""
}

// Words is what a reason means, for people.
func Words(why protocol.Unreached) string {
	switch why {
	case "":
		return "reached"
	case protocol.UnreachedName:
		return "the host name has no address"
	case protocol.UnreachedAddress:
		return "it is not an address or port that a stranger would connect to"
	case protocol.UnreachedConnect:
		return "nothing takes the connection"
	case protocol.UnreachedTLS:
		return "there is no TLS, or its certificate is not for this address"
	case protocol.UnreachedAnswer:
		return "something answers that is no relay"
	case protocol.UnreachedAnother:
		return "another relay answers"
	case protocol.UnreachedTime:
		return "it took too long"
	}
	return fmt.Sprintf("%.40q", string(why))
}
