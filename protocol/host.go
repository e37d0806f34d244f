package protocol

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// isLoopback tells whether a host of an address reaches only this machine.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// validHost accepts IP literals in their canonical text and host names of RFC 1123 labels.
func validHost(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.String() == host && ip.Zone() == ""
	}
	if len(host) == 0 || len(host) > 253 {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(host, ".") {
		last = label
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if !('0' <= c && c <= '9' || 'a' <= c && c <= 'z' || c == '-') {
				return false
			}
		}
	}
	return !readsAsNumber(last)
}

// readsAsNumber tells whether a last label makes resolvers read the host as an IPv4 address in one
// of its old spellings (127.1, 0x7f000001, 2130706433): one relay must not have several addresses.
func readsAsNumber(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// validPort refuses ports that are not a plain decimal 1–65535.
func validPort(u *url.URL) error {
	port := u.Port()
	if port == "" {
		if strings.HasSuffix(u.Host, ":") {
			return Errorf(CodeInvalidValue, "%.80q is not an address: the port is empty", u.String())
		}
		return nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return Errorf(CodeInvalidValue, "%.80q is not an address: the port is 1 to 65535", u.String())
	}
	return nil
}

// ValidateHub checks the address of a hub, where announcements are: an address as [ValidateAddress] takes it, of a relay that
// serves GET /market, or nats://host:port or, where TLS is spoken, tls://host:port of a NATS server. It is text that
// strangers wrote: no user, password or path is in it.
func ValidateHub(hub string) error {
	u, err := url.Parse(hub)
	if err != nil || u.Scheme != "nats" && u.Scheme != "tls" {
		return ValidateAddress(hub)
	}
	switch {
	case len(hub) > maxAddress:
		return Errorf(CodeInvalidValue, "an address has at most %d bytes", maxAddress)
	case u.Scheme+"://"+u.Host != hub || strings.ToLower(hub) != hub || u.Port() == "":
		return Errorf(CodeInvalidValue, "%.80q is not the address of a hub: write nats://host:port or tls://host:port, in lower case, with nothing behind", hub)
	case !validHost(u.Hostname()):
		return Errorf(CodeInvalidValue, "%.80q is not the address of a hub: the host is no host name or IP", hub)
	}
	return validPort(u)
}
