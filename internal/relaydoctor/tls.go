package relaydoctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"relaymarket/internal/findings"
	"relaymarket/relaytls"
)

// certificateSoon is when a certificate should have been renewed: by ACME and by the relay itself that is done with a third of its time left.
const certificateSoon = 10 * 24 * time.Hour

// tls looks at the certificate that the relay shows for each of its https addresses.
func (d *doctor) tls(ctx context.Context) (all findings.List) {
	if !d.running {
		return nil
	}
	for _, address := range d.cfg.Public.Addresses {
		u, err := url.Parse(address)
		if err != nil || u.Scheme != "https" {
			continue
		}
		at := d.cfg.Public.Listen
		if !d.cfg.Public.Secure { // a proxy speaks it
			at = u.Host
			if u.Port() == "" {
				at = net.JoinHostPort(u.Hostname(), "443")
			}
		}
		all = append(all, d.certificate(ctx, at, u.Hostname()))
	}
	return all
}

func (d *doctor) certificate(ctx context.Context, at, host string) findings.Finding {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	// What is wrong with it is told below, all of it and not only what comes first.
	dialer := &tls.Dialer{Config: &tls.Config{ServerName: host, InsecureSkipVerify: true}}
	conn, err := dialer.DialContext(ctx, "tcp", at)
	if err != nil {
		if !d.cfg.Public.Secure {
			return warn("tls", fmt.Sprintf("the proxy for %s does not answer at %s: %v", host, at, err), "from inside some networks the public address is not reached; see what reachable says")
		}
		return fail("tls", fmt.Sprintf("there is no certificate for %s: %v", host, err), "see the relay's log; with tls-acme, the authority has to reach port 443")
	}
	state := conn.(*tls.Conn).ConnectionState()
	_ = conn.Close()
	return d.judgeCertificate(state.PeerCertificates, host)
}

func (d *doctor) judgeCertificate(chain []*x509.Certificate, host string) findings.Finding {
	if len(chain) == 0 {
		return fail("tls", "no certificate is shown for "+host, "see the relay's log")
	}
	leaf := chain[0]
	left := leaf.NotAfter.Sub(d.now)
	const renew = "renew it: files are read again when they change; with tls-acme and tls-own the log says why it was not"
	switch by, unbound := relaytls.Voucher(leaf); {
	case left <= 0:
		return fail("tls", fmt.Sprintf("the certificate for %s ended %s ago", host, span(left)), renew)
	case leaf.VerifyHostname(host) != nil:
		return fail("tls", fmt.Sprintf("the certificate is for %s and not for %s", strings.Join(names(leaf), ", "), host), "get one for that name, or correct address")
	case unbound == nil && d.cfg.Key != nil:
		if err := relaytls.CheckOwn(leaf, d.cfg.Key.Public(), d.now); err != nil {
			return fail("tls", fmt.Sprintf("the certificate for %s is of the relay %s: %v", host, by.Bech32(), err), "delete tls.crt in the relay's folder and start it again")
		}
	default:
		between := x509.NewCertPool()
		for _, c := range chain[1:] {
			between.AddCert(c)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Intermediates: between, CurrentTime: d.now}); err != nil {
			return fail("tls", fmt.Sprintf("clients do not take the certificate for %s: %v", host, err), "put the whole chain into tls-cert, or set tls-own, for which no authority is needed")
		}
	}
	if left < certificateSoon {
		return warn("tls", fmt.Sprintf("the certificate for %s ends in %s", host, span(left)), renew)
	}
	return findings.Okf("tls", "the certificate for %s is good for %s", host, span(left))
}

func names(leaf *x509.Certificate) (all []string) {
	all = append(all, leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		all = append(all, ip.String())
	}
	return all
}
