package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"relaymarket/protocol"
	"relaymarket/relaytls"
)

// tlsSettings say how the relay is reached over TLS: by at most one of three ways.
type tlsSettings struct {
	certificate, key string
	acme             []string
	acmeEmail        string
	acmeDirectory    string
	own              bool
}

func (s *settings) secure() []*setting {
	const section = "TLS at listen: in files, by ACME, or the relay's own"
	t := &s.tls
	text := func(target *string, kind string) pflag.Value { return one[string]{target, kind, anyText, same} }
	return []*setting{
		{name: "tls-cert", section: section, value: text(&t.certificate, "file"),
			help: "certificate and those that lead to its authority, PEM\nIt is read again when it changes."},
		{name: "tls-key", section: section, value: text(&t.key, "file"), help: "private key of tls-cert, PEM"},
		{name: "tls-acme", section: section, value: &many[string]{target: &t.acme, kind: "host,…", parse: hostName, format: same},
			help: "host names that a public authority certifies by itself (ACME)\nThe authority reaches listen at port 443 of each name. You agree to its terms."},
		{name: "tls-acme-email", section: section, value: text(&t.acmeEmail, "address"), help: "where the authority writes if a certificate is in danger"},
		{name: "tls-acme-directory", section: section, value: text(&t.acmeDirectory, "URL"), help: "directory of the authority, empty: Let's Encrypt"},
		{name: "tls-own", section: section, value: yesNo(&t.own),
			help: "a certificate that this relay's key vouches for, for an IP address or a name that no authority certifies\nClients that know the relay's key take it; others are told to write relay1…@host."},
	}
}

// hostName wants a name as it stands in an address, no IP address.
func hostName(text string) (string, error) {
	if _, err := netip.ParseAddr(text); err == nil {
		return "", fmt.Errorf("%q is an IP address, which authorities do not certify this way: set tls-own", text)
	}
	if err := protocol.ValidateAddress("https://" + text); err != nil {
		return "", fmt.Errorf("%q is no host name", text)
	}
	return text, nil
}

// checkTLS refuses settings that exclude each other.
func (s *settings) checkTLS(w *wrongs) {
	t := &s.tls
	ways := 0
	for _, set := range []bool{t.certificate != "" || t.key != "", len(t.acme) > 0, t.own} {
		if set {
			ways++
		}
	}
	w.when(ways > 1, "tls-cert, tls-acme and tls-own are three ways to have a certificate: set one of them")
	w.when((t.certificate == "") != (t.key == ""), "tls-cert and tls-key belong together: set both, or none")
	w.when(len(t.acme) == 0 && (t.acmeEmail != "" || t.acmeDirectory != ""), "tls-acme-email and tls-acme-directory are for tls-acme, which is not set")
	w.when(t.own && len(s.addresses) == 0, "tls-own certifies the hosts of address, which is not set: for example --address https://203.0.113.5:7447")
}

// tlsConfig is what the settings mean for the public interface; nil is plain HTTP. The files are those of tls-cert, nil without it.
func (s *settings) tlsConfig(ctx context.Context, relay *protocol.PrivateKey, files *relaytls.Files, log *slog.Logger) (*tls.Config, error) {
	t := &s.tls
	switch {
	case files != nil:
		return files.Config(), nil
	case len(t.acme) > 0:
		return relaytls.FromACME(ctx, relaytls.ACME{Hosts: t.acme, Email: t.acmeEmail, Directory: t.acmeDirectory,
			Folder: filepath.Join(s.dir, "acme"), Listen: s.listen, Logger: log})
	case t.own:
		return relaytls.Own(relay, s.hosts(), s.dir, time.Now)
	}
	return nil, nil
}

// hosts are those of the relay's addresses, and the IP address it listens on.
func (s *settings) hosts() []string {
	var hosts []string
	for _, address := range s.addresses {
		if u, err := url.Parse(address); err == nil && u.Scheme == "https" && !slices.Contains(hosts, u.Hostname()) {
			hosts = append(hosts, u.Hostname())
		}
	}
	host, _, err := net.SplitHostPort(s.listen)
	if ip, ipErr := netip.ParseAddr(host); err == nil && ipErr == nil && !ip.IsUnspecified() && !slices.Contains(hosts, host) {
		hosts = append(hosts, host)
	}
	return hosts
}
