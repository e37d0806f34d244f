package broadcast

import (
	"net/netip"
	"net/url"
	"strings"
)

// hostOf is what relays share that are on one host: the name, the IPv4 address, or the /64 of an IPv6 address, which one
// customer has. On loopback it is host and port, where one machine plays a whole market. public tells whether
// others can reach it at all.
func hostOf(address string) (host string, public bool) {
	u, err := url.Parse(address)
	if err != nil {
		return address, false
	}
	name := u.Hostname()
	ip, err := netip.ParseAddr(name)
	if err != nil {
		if name == "localhost" || strings.HasSuffix(name, ".localhost") {
			return u.Host, false
		}
		return name, true
	}
	ip = ip.Unmap()
	switch {
	case ip.IsLoopback():
		return u.Host, false
	case ip.Is6():
		prefix, _ := ip.Prefix(64)
		return prefix.String(), ip.IsGlobalUnicast() && !ip.IsPrivate()
	}
	return ip.String(), ip.IsGlobalUnicast() && !ip.IsPrivate()
}

// hosts are the different ones of an announcement's addresses.
func hosts(addresses []string) []string {
	var all []string
	for _, address := range addresses {
		host, _ := hostOf(address)
		known := false
		for _, h := range all {
			known = known || h == host
		}
		if !known {
			all = append(all, host)
		}
	}
	return all
}
