package api

import (
	"net/http"
	"net/netip"
	"strings"
)

// clientAddress is whom a request counts for: the peer, or, when the peer is a trusted proxy, the right-most
// address in X-Forwarded-For (or Forwarded, RFC 7239) that no trusted proxy has. What stands left
// of it was written by the client. A proxy that passes one header through and writes the other cannot be told from
// a client's forgery, so when both are there and differ, the peer counts. An unknown peer, as of
// a Unix socket, is the zero address.
func clientAddress(r *http.Request, trusted []netip.Prefix) netip.Addr {
	peer := peerAddress(r.RemoteAddr)
	if !isTrusted(peer, trusted) {
		return peer
	}
	xff := splitHeader(r.Header.Values("X-Forwarded-For"))
	forwarded := forwardedFor(r.Header.Values("Forwarded"))
	a, b := rightmost(peer, xff, trusted), rightmost(peer, forwarded, trusted)
	switch {
	case len(forwarded) == 0:
		return a
	case len(xff) == 0:
		return b
	case a != b:
		return peer
	}
	return a
}

func peerAddress(remote string) netip.Addr {
	if ap, err := netip.ParseAddrPort(remote); err == nil {
		return ap.Addr().Unmap()
	}
	a, _ := netip.ParseAddr(remote)
	return a.Unmap()
}

func isTrusted(a netip.Addr, trusted []netip.Prefix) bool {
	for _, p := range trusted {
		if p.Contains(a.WithZone("")) {
			return true
		}
	}
	return false
}

// rightmost walks from the peer towards the client. What it cannot read ends the walk at whoever wrote it.
func rightmost(peer netip.Addr, hops []string, trusted []netip.Prefix) netip.Addr {
	for i := len(hops) - 1; i >= 0; i-- {
		a, ok := hopAddress(hops[i])
		if !ok {
			return peer
		}
		if peer = a; !isTrusted(a, trusted) {
			return a
		}
	}
	return peer
}

// hopAddress reads an address as proxies write it: alone, with a port, in brackets.
func hopAddress(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap(), true
	}
	if len(s) > 1 && s[0] == '[' && s[len(s)-1] == ']' {
		s = s[1 : len(s)-1]
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err == nil
}

func splitHeader(values []string) []string {
	var parts []string
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			parts = append(parts, strings.TrimSpace(part))
		}
	}
	return parts
}

// forwardedFor are the for= values of Forwarded headers, "" for an element that has none.
func forwardedFor(values []string) []string {
	hops := splitHeader(values)
	for i, element := range hops {
		hops[i] = ""
		for pair := range strings.SplitSeq(element, ";") {
			name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if strings.EqualFold(name, "for") {
				hops[i] = strings.Trim(value, `"`)
			}
		}
	}
	return hops
}
