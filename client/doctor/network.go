package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"relaymarket/client"
	"relaymarket/internal/bytesize"
	"relaymarket/protocol"
	"relaymarket/relaytls"
)

// Proxy looks whether a proxy takes connections; nil is none.
func Proxy(ctx context.Context, proxy *url.URL) Finding {
	if proxy == nil {
		return found("proxy", OK, "", "none is set with --proxy or $RELAY_PROXY")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", proxy.Host)
	if err != nil {
		return found("proxy", Fail, "start the proxy (Tor: systemctl start tor), or go without: unset RELAY_PROXY", "%s takes no connections: %v", proxy.Host, err)
	}
	_ = conn.Close()
	return found("proxy", OK, "", "%s takes connections", proxy.Host)
}

const (
	// relayTime bounds each request to a relay.
	relayTime = 15 * time.Second
	// skewed is where a clock that is wrong shows, wrong where relays refuse.
	skewed = time.Minute
	wrong  = 5 * time.Minute
	// soonOver is how long before its end a certificate, an account or a contract is spoken of.
	soonOver = 14 * day
	// maxAnnouncement bounds what is read of a relay's announcement.
	maxAnnouncement = 64 << 10
)

const clockHint = "set the clock of this machine: timedatectl set-ntp true"

// Relay asks a relay who it is, which takes no keys. It looks at the answer, at the certificate and at the clocks.
func Relay(ctx context.Context, relay client.Relay, proxy *url.URL, clock func() time.Time) (all []Finding) {
	ctx, cancel := context.WithTimeout(ctx, relayTime)
	defer cancel()
	h := client.NewHTTP(proxy, clock)
	defer h.CloseIdleConnections()
	if secure, fits := h.Transport.(*relaytls.Transport); fits {
		_, host, _ := strings.Cut(relay.Address, "://")
		secure.Expect(host, relay.Key)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, relay.Address+"/.well-known/relaymarket", nil)
	if err != nil {
		return []Finding{found("relay", Fail, "relay relays rm "+relay.Address, "%s is no address: %v", relay.Address, err)}
	}
	begun := clock()
	reply, err := h.Do(request)
	if err != nil {
		return []Finding{unreachable(relay.Address, err, proxy)}
	}
	defer reply.Body.Close()
	took := clock().Sub(begun)
	data, err := io.ReadAll(io.LimitReader(reply.Body, maxAnnouncement))
	if err != nil || reply.StatusCode != http.StatusOK {
		return []Finding{found("relay", Fail, "ask its operator, or use another: relay market", "%s answers %s", relay.Address, reply.Status)}
	}
	all = append(all, skew(relay.Address, reply.Header.Get("Date"), begun, took)...)
	if reply.TLS != nil && len(reply.TLS.PeerCertificates) > 0 {
		all = append(all, certificate(relay.Address, reply.TLS.PeerCertificates[0], clock())...)
	}
	e, _, err := protocol.ParseAnnouncement(data, protocol.TimestampOf(clock()))
	switch {
	case err != nil:
		return append(all, found("relay", Fail, "ask its operator", "%s shows an announcement that is not valid: %v", relay.Address, err))
	case e.From != relay.Key:
		return append(all, found("relay", Fail, "ask its operator whether he has new keys; then: relay relays rm "+relay.Address+"; relay relays add "+relay.Address,
			"at %s answers another relay, %s", relay.Address, e.From.Short()))
	}
	return append(all, found("relay", OK, "", "%s answers, in %d ms", relay.Address, took.Milliseconds()))
}

func unreachable(address string, err error, proxy *url.URL) Finding {
	do := "is this machine on-line? Try again; if it stays away, use another relay: relay market; relay heal"
	if strings.Contains(address, ".onion") && proxy == nil {
		do = "an onion address needs Tor: relay --proxy socks5://127.0.0.1:9050 doctor"
	}
	var named *url.Error
	if errors.As(err, &named) {
		err = named.Err
	}
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		do = "tell its operator that his certificate has expired; and check the clock of this machine: date"
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer in %s", relayTime)
	}
	return found("relay", Fail, do, "%s cannot be reached: %v", address, err)
}

// skew compares clocks. The relay's was read at some time between the request and the answer, to the second.
func skew(address, date string, begun time.Time, took time.Duration) []Finding {
	theirs, err := http.ParseTime(date)
	if err != nil {
		return nil // it does not say
	}
	off := time.Duration(0)
	if earliest := begun.Add(-time.Second); theirs.Before(earliest) {
		off = earliest.Sub(theirs)
	} else if latest := begun.Add(took); theirs.After(latest) {
		off = theirs.Sub(latest)
	}
	switch {
	case off >= wrong:
		return []Finding{found("clock", Fail, clockHint, "this clock and that of %s differ by %s: relays refuse what is dated wrongly", address, ago(off))}
	case off >= skewed:
		return []Finding{found("clock", Warn, clockHint, "this clock and that of %s differ by %s", address, ago(off))}
	}
	return []Finding{found("clock", OK, "", "this clock agrees with that of %s", address)}
}

func certificate(address string, leaf *x509.Certificate, now time.Time) []Finding {
	left := leaf.NotAfter.Sub(now)
	if left > soonOver {
		return []Finding{found("certificate", OK, "", "that of %s is good for %s", address, ago(left))}
	}
	if leaf.NotAfter.Sub(leaf.NotBefore) < 2*soonOver {
		return []Finding{found("certificate", OK, "", "that of %s is good for %s, and of a kind that is renewed often", address, ago(left))}
	}
	return []Finding{found("certificate", Warn, "tell its operator", "that of %s expires in %s", address, ago(left))}
}

// nearlyUsed is what share of a quota is spoken of, in percent.
const nearlyUsed = 90

// Account looks at what a relay lets the user do. It takes the keys.
func Account(ctx context.Context, c *client.Client, relay client.Relay, now time.Time) (all []Finding) {
	ctx, cancel := context.WithTimeout(ctx, relayTime)
	defer cancel()
	a, err := c.Account(ctx, relay)
	var refusal *client.RelayError
	switch {
	case errors.Is(err, protocol.CodeNoAccount):
		return []Finding{found("account", Fail, "ask its operator, or rent it: relay contract open "+relay.Address, "%s does not know your key", relay.Address)}
	case errors.As(err, &refusal) && refusal.Code == "":
		return nil // that it cannot be reached was said
	case err != nil:
		return []Finding{found("account", Fail, "try again later; or ask its operator", "%v", err)}
	}
	if !a.Active {
		do := "ask its operator, or rent it: relay contract open " + relay.Address
		if a.Contract != nil {
			do = "pay it, or renew it: relay contract list"
		}
		all = append(all, found("account", Fail, do, "%s takes nothing new from you", relay.Address))
	}
	for _, q := range []struct {
		what string
		n    int64
		of   int64
		do   string
	}{
		{"the room for what is stored", a.Stored, a.QuotaStored, "delete what is not needed: relay outbox, relay rm; or use another relay, too: relay market"},
		{"what may be moved this month", a.Moved, a.QuotaMoved, "wait for the next month, ask its operator, or use another relay, too: relay market"},
	} {
		if q.of > 0 && q.n >= q.of/100*nearlyUsed {
			all = append(all, found("account", Warn, q.do, "%s: of %s, %s of %s are used", relay.Address, q.what, bytesize.Text(q.n), bytesize.Text(q.of)))
		}
	}
	if last, err := time.Parse(time.DateOnly, a.LastDay); err == nil && a.Active {
		if left := last.Add(day).Sub(now); left < soonOver {
			all = append(all, found("account", Warn, "ask its operator to grant it for longer, or use another relay, too: relay market", "the account on %s ends on %s", relay.Address, a.LastDay))
		}
	}
	if k := a.Contract; k != nil && a.Active {
		cost, okCost := new(big.Int).SetString(k.CostMsat, 10)
		credit, okCredit := new(big.Int).SetString(k.CreditMsat, 10)
		if okCost && okCredit && credit.Sign() > 0 && cost.Mul(cost, big.NewInt(100)).Cmp(credit.Mul(credit, big.NewInt(nearlyUsed))) >= 0 {
			all = append(all, found("account", Warn, "see what is due: relay contract show "+k.Contract.Short()+"   and pay it: relay contract pay "+k.Contract.Short(),
				"%s: the credit of contract %s is nearly used", relay.Address, k.Contract.Short()))
		}
	}
	if len(all) == 0 {
		all = append(all, found("account", OK, "", "%s takes what you write", relay.Address))
	}
	return all
}
