// Package confcheck looks at a relay's configuration as a whole, with the files that it names and the machine that it is on: what each
// value alone cannot show. It reads, and starts, asks and changes nothing.
//
// A finding that is an error keeps the relay from starting, or from being reached; a warning is something that its operator may
// want, and more often does not. Each says what to do. relayd config check prints them.
package confcheck

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Level is how bad a finding is.
type Level string

// The levels.
const (
	Error   Level = "error"
	Warning Level = "warning"
)

// Finding is something to look at.
type Finding struct {
	Level    Level    `json:"level"`
	Settings []string `json:"settings"` // that it is about
	Says     string   `json:"says"`
	Do       string   `json:"do"`
}

// Config is what is looked at: settings under their own names, with their defaults where nothing was set.
type Config struct {
	Now      time.Time
	Files    Files
	Network  Network
	Limits   Limits
	Business Business
}

// Network is how the relay is reached.
type Network struct {
	Listens    []Listen // that are set
	Addresses  []string
	TrustProxy []netip.Prefix
	ACME       []string
	Own        bool
	Files      bool // tls-cert is set
	Hubs       bool // it announces itself, or is a hub
}

// Listen is a setting that opens a port.
type Listen struct{ Setting, Address string }

// Limits are those that have to fit each other and the machine.
type Limits struct {
	RateAddress, BurstAddress, RateKey, BurstKey int64
	MaxRequests, MaxListeners, ListenersPerKey   int64
	OpenFiles                                    uint64 // the process may have; 0: not known
	BodyTimeout, ShutdownTimeout                 time.Duration
	DiskFree, DiskTotal                          int64 // disk-free, and the size of the disk; 0: not known
	External                                     bool  // the database is elsewhere
	OnlyPrivate                                  []string
}

// Business is what contracts and volunteering cost.
type Business struct {
	Contracts                 bool // new ones are opened
	OpeningPrice, CreditLimit int64
	VolunteerStored           int64 // bytes that strangers may take in all
	Prices                    bool  // at least one of storage and traffic costs something
}

// findings are collected.
type findings []Finding

func (f *findings) add(level Level, do string, settings []string, format string, args ...any) {
	*f = append(*f, Finding{Level: level, Settings: settings, Says: fmt.Sprintf(format, args...), Do: do})
}

// Check is all that is found, errors first.
func Check(c Config) []Finding {
	found := findings{}
	c.Network.ports(&found)
	c.Network.operator(&found)
	c.Network.reach(&found)
	c.Files.check(c.Now, c.Network, &found)
	c.Limits.check(&found)
	c.Business.check(c.Limits, &found)
	slices.SortStableFunc(found, func(a, b Finding) int { return strings.Compare(string(a.Level), string(b.Level)) })
	return found
}

// place is a host:port taken apart; an empty host is every one.
func place(address string) (host netip.Addr, every bool, port string) {
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return host, false, ""
	}
	if name == "" {
		return host, true, port
	}
	if name == "localhost" {
		name = "127.0.0.1"
	}
	host, _ = netip.ParseAddr(name)
	return host.Unmap(), host.IsUnspecified(), port
}

// ports finds two that want the same one. Port 0 is any that is free.
func (n *Network) ports(f *findings) {
	for i, a := range n.Listens {
		hostA, everyA, portA := place(a.Address)
		for _, b := range n.Listens[:i] {
			hostB, everyB, portB := place(b.Address)
			if portA == portB && portA != "0" && (everyA || everyB || hostA == hostB) {
				f.add(Error, "give one of them another port", []string{b.Setting, a.Setting}, "%s and %s both want port %s", b.Setting, a.Setting, portA)
			}
		}
	}
}

func (n *Network) listen(setting string) string {
	for _, l := range n.Listens {
		if l.Setting == setting {
			return l.Address
		}
	}
	return ""
}

// operator finds a listener for the operator that strangers may reach.
func (n *Network) operator(f *findings) {
	address := n.listen("operator-listen")
	host, every, _ := place(address)
	switch {
	case every:
		f.add(Warning, "listen on 127.0.0.1 or an address of a network of your own, or keep the port shut in the firewall", []string{"operator-listen"},
			"operator-listen is %s: whoever reaches this machine reads its metrics", address)
	case host.IsValid() && !host.IsLoopback() && !host.IsPrivate() && !host.IsLinkLocalUnicast():
		f.add(Warning, "listen on 127.0.0.1 or an address of a network of your own", []string{"operator-listen"}, "operator-listen is the public address %s: strangers read the relay's metrics", host)
	}
}

// reach compares what is announced with where and how the relay listens.
func (n *Network) reach(f *findings) {
	listen := n.listen("listen")
	host, every, port := place(listen)
	secure := n.tls()
	local := host.IsLoopback() && !every
	onlyOnion := len(n.Addresses) > 0
	for _, text := range n.Addresses {
		u, err := url.Parse(text)
		if err != nil {
			continue // it was refused before
		}
		name := u.Hostname()
		ip, ipErr := netip.ParseAddr(name)
		onion := strings.HasSuffix(name, ".onion")
		own := name == "localhost" || ipErr == nil && ip.IsLoopback()
		onlyOnion = onlyOnion && (onion || own)
		switch {
		case onion || own:
		case u.Scheme == "https" && !secure && len(n.TrustProxy) == 0:
			f.add(Error, "set tls-cert and tls-key, tls-acme or tls-own; or, with a proxy that speaks TLS in front, name it in trust-proxy", []string{"address", "listen"},
				"%s is announced, and listen speaks plain HTTP with no proxy named", text)
		case local && len(n.TrustProxy) == 0:
			f.add(Error, "listen on :"+port+", or name the proxy that stands in front in trust-proxy", []string{"address", "listen"},
				"%s is announced, and listen is %s, which nobody outside this machine reaches", text, listen)
		case ipErr == nil && (ip.IsPrivate() || ip.IsLinkLocalUnicast()):
			f.add(Warning, "announce an address that is reached from outside, unless all users are in that network", []string{"address"}, "%s is an address of a network of your own", text)
		case ipErr == nil && secure && host.IsValid() && !every && !host.IsPrivate() && !host.IsLoopback() && ip != host:
			f.add(Warning, "announce "+host.String()+", or listen on "+ip.String(), []string{"address", "listen"}, "%s is announced, and listen is another public address, %s", text, host)
		}
		if wanted := portOf(u); secure && !onion && !own && port != "0" && wanted != port && len(n.TrustProxy) == 0 {
			f.add(Warning, "let listen have port "+wanted+", or see that the router sends it to port "+port, []string{"address", "listen"},
				"%s is reached at port %s, and listen has port %s", text, wanted, port)
		}
	}
	n.acme(f, port)
	if len(n.Addresses) == 0 && !local && listen != "" {
		f.add(Warning, "set address, for example https://relay.example.org", []string{"address", "listen"}, "listen is %s and no address is announced: users do not know where the relay is", listen)
	}
	if !secure && len(n.TrustProxy) > 0 && every {
		f.add(Warning, "listen on 127.0.0.1 or on the address that the proxy comes to", []string{"listen", "trust-proxy"},
			"listen is %s in plain HTTP: who goes past the proxy in trust-proxy has no TLS", listen)
	}
	for _, p := range n.TrustProxy {
		if p.Bits() == 0 {
			f.add(Error, "name the proxy's own address", []string{"trust-proxy"}, "trust-proxy is %s: everybody may say where he comes from, and rates by address mean nothing", p)
		}
	}
	if n.Hubs && onlyOnion {
		f.add(Warning, "expect hubs to refuse the address, or announce another one too", []string{"hubs", "address"}, "only loopback and onion addresses are announced")
	}
}

// tls tells whether listen itself speaks TLS.
func (n *Network) tls() bool { return n.Own || len(n.ACME) > 0 || n.Files }

func (n *Network) acme(f *findings, port string) {
	if len(n.ACME) == 0 {
		return
	}
	if port != "443" {
		f.add(Warning, "listen on :443, or have the router send port 443 to "+port, []string{"tls-acme", "listen"}, "the authority of tls-acme comes to port 443, and listen has port %s", port)
	}
	for _, host := range n.ACME {
		if !slices.ContainsFunc(n.Addresses, func(a string) bool { return hostOf(a) == host }) {
			f.add(Warning, "add https://"+host+" to address, or take it out of tls-acme", []string{"tls-acme", "address"}, "a certificate is asked for %s, which is not announced", host)
		}
	}
	for _, a := range n.Addresses {
		if host := hostOf(a); strings.HasPrefix(a, "https://") && !slices.Contains(n.ACME, host) {
			f.add(Error, "add "+host+" to tls-acme, or take the address out", []string{"address", "tls-acme"}, "%s is announced, and tls-acme asks for no certificate for it", a)
		}
	}
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// spareFiles are for the database, logs and what else a process opens.
const spareFiles = 200

func (l *Limits) check(f *findings) {
	for _, pair := range []struct {
		name        string
		rate, burst int64
	}{{"address", l.RateAddress, l.BurstAddress}, {"key", l.RateKey, l.BurstKey}} {
		if pair.rate > 0 && pair.burst < pair.rate {
			f.add(Warning, fmt.Sprintf("set burst-%s to %d or more", pair.name, pair.rate), []string{"burst-" + pair.name, "rate-" + pair.name},
				"burst-%s is %d and rate-%s %d: who sends a second's requests at once is refused some", pair.name, pair.burst, pair.name, pair.rate)
		}
	}
	if l.ListenersPerKey > l.MaxListeners {
		f.add(Warning, "lower listeners-per-key, or raise max-listeners", []string{"listeners-per-key", "max-listeners"},
			"listeners-per-key is %d and max-listeners %d: one reader may take all streams", l.ListenersPerKey, l.MaxListeners)
	}
	if needed := uint64(l.MaxListeners + l.MaxRequests + spareFiles); l.OpenFiles > 0 && needed > l.OpenFiles {
		f.add(Warning, fmt.Sprintf("raise the limit to %d or more (LimitNOFILE in the systemd unit, ulimit -n in a shell), or lower max-listeners", needed),
			[]string{"max-listeners", "max-requests"}, "max-listeners and max-requests may take %d files, and this user may have %d open", needed, l.OpenFiles)
	}
	if l.BodyTimeout < 5*time.Second {
		f.add(Warning, "set body-timeout to 15s", []string{"body-timeout"}, "body-timeout is %s: a batch of 8 MiB has to arrive within it", l.BodyTimeout)
	}
	if l.ShutdownTimeout > time.Minute {
		f.add(Warning, "set TimeoutStopSec in the systemd unit 30 s above it", []string{"shutdown-timeout"}, "shutdown-timeout is %s: systemd kills a service after 90 s, and Postgres needs half a minute of them", l.ShutdownTimeout)
	}
	if !l.External && l.DiskTotal > 0 && l.DiskFree > l.DiskTotal/2 {
		f.add(Warning, "lower disk-free, or use a larger disk", []string{"disk-free"}, "disk-free keeps %d MB of a disk of %d MB: new records are refused early", l.DiskFree/1e6, l.DiskTotal/1e6)
	}
	if l.External && len(l.OnlyPrivate) > 0 {
		f.add(Warning, "take them out, or take database-url out", append([]string{"database-url"}, l.OnlyPrivate...),
			"%s only matter with the private database, and database-url names another", strings.Join(l.OnlyPrivate, ", "))
	}
}

func (b *Business) check(l Limits, f *findings) {
	if b.Contracts {
		if b.CreditLimit > b.OpeningPrice {
			f.add(Warning, "lower credit-limit to opening-price or below", []string{"credit-limit", "opening-price"},
				"credit-limit is %d and opening-price %d satoshi: who comes under many names and never pays costs you more than he brought", b.CreditLimit, b.OpeningPrice)
		}
		if !b.Prices {
			f.add(Warning, "set storage-price and bandwidth-price", []string{"storage-price", "bandwidth-price"}, "storing and moving cost nothing")
		}
	}
	if !l.External && l.DiskTotal > 0 && b.VolunteerStored > l.DiskTotal {
		f.add(Warning, "lower volunteer-accounts or volunteer-stored", []string{"volunteer-accounts", "volunteer-stored"},
			"strangers may store %d MB for nothing, and the disk has %d MB", b.VolunteerStored/1e6, l.DiskTotal/1e6)
	}
}
