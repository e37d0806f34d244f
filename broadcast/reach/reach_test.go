package reach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"relaymarket/broadcast"
	"relaymarket/internal/leakcheck"
	"relaymarket/internal/regtest"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestPublic(t *testing.T) {
	for text, want := range map[string]bool{
		"9.9.9.9": true, "2620:fe::fe": true, "::ffff:9.9.9.9": true,
		"127.0.0.1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "169.254.169.254": false, "100.64.0.1": false, "0.0.0.0": false,
		"0.1.2.3": false, "224.0.0.1": false, "255.255.255.255": false, "240.0.0.1": false, "203.0.113.5": false, "198.18.0.1": false, "192.0.0.8": false,
		"::1": false, "::": false, "fe80::1": false, "fc00::1": false, "ff02::1": false, "fec0::1": false, "2001:db8::1": false, "::ffff:127.0.0.1": false,
		"::127.0.0.1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false, "2001:0:7f00:1::": false, "::ffff:169.254.169.254": false,
	} {
		if got := Public(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is public: %t", text, got)
		}
	}
}

// relay is a server at an address of this machine, and its announcement.
type relay struct {
	key    *protocol.PrivateKey
	said   []byte // its announcement
	asked  atomic.Int64
	server *httptest.Server
}

func announced(t *testing.T, key *protocol.PrivateKey, n protocol.Network, bits int, addresses ...string) []byte {
	t.Helper()
	now := protocol.TimestampOf(time.Now())
	e, err := broadcast.Prover{}.Announce(t.Context(), key, now, &protocol.Announcement{Addresses: addresses, Terms: []protocol.Terms{}, Seq: 1,
		ValidUntil: now.Add(time.Hour), Network: n}, bits)
	if err != nil {
		t.Fatal(err)
	}
	return e.Bytes()
}

func newKey(t *testing.T) *protocol.PrivateKey {
	t.Helper()
	key, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serve(t *testing.T, answer func(http.ResponseWriter, *http.Request)) *relay {
	t.Helper()
	r := &relay{key: newKey(t)}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.asked.Add(1)
		if answer != nil {
			answer(w, q)
			return
		}
		_, _ = w.Write(r.said)
	}))
	t.Cleanup(r.server.Close)
	r.said = announced(t, r.key, protocol.Regtest, 8, r.server.URL)
	return r
}

func prober(local bool) *Prober {
	return New(Config{Rules: broadcast.Rules{Network: protocol.Regtest, Bits: 8}, Clock: time.Now, Local: local})
}

// noNames knows none: tests do not ask the internet.
func noNames() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no name server is asked here")
	}}
}

func TestTry(t *testing.T) {
	honest := serve(t, nil)
	redirects := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, honest.server.URL+wellKnown, http.StatusFound)
	})
	floods := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for range 1 << 14 {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	})
	nobody, err := regtest.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	p := prober(true)
	p.cfg.Resolver = noNames()
	for name, test := range map[string]struct {
		address string
		relay   protocol.PublicKey
		want    protocol.Unreached
	}{
		"the relay":       {honest.server.URL, honest.key.Public(), ""},
		"another":         {honest.server.URL, redirects.key.Public(), protocol.UnreachedAnother},
		"a redirection":   {redirects.server.URL, honest.key.Public(), protocol.UnreachedAnswer},
		"a flood":         {floods.server.URL, floods.key.Public(), protocol.UnreachedAnswer},
		"nobody":          {"http://" + nobody, honest.key.Public(), protocol.UnreachedConnect},
		"no TLS":          {strings.Replace(honest.server.URL, "http", "https", 1), honest.key.Public(), protocol.UnreachedTLS},
		"a name of none":  {"https://nowhere.invalid", honest.key.Public(), protocol.UnreachedName},
		"no address":      {"ftp://127.0.0.1", honest.key.Public(), protocol.UnreachedAddress},
		"with a path":     {honest.server.URL + "/x", honest.key.Public(), protocol.UnreachedAddress},
		"an onion's name": {"http://" + strings.Repeat("a", 56) + ".onion", honest.key.Public(), protocol.UnreachedName},
	} {
		t.Run(name, func(t *testing.T) {
			if _, why, err := p.Try(t.Context(), test.address, test.relay); err != nil || why != test.want {
				t.Errorf("%q, %v; want %q", why, err, test.want)
			}
		})
	}
}

// Nothing that is not of the public internet is connected to, by whatever name, and no port of other protocols.
func TestTryNothingLocal(t *testing.T) {
	honest := serve(t, nil)
	port := honest.server.Listener.Addr().(*net.TCPAddr).AddrPort().Port()
	p := prober(false)
	p.cfg.Resolver = noNames()
	for _, address := range []string{honest.server.URL, "https://127.0.0.1:" + strings.Split(honest.server.URL, ":")[2], "https://localhost", "https://169.254.169.254",
		"https://10.0.0.1", "https://[::1]:8443", "https://9.9.9.9:25", "https://9.9.9.9:22"} {
		if _, why, err := p.Try(t.Context(), address, honest.key.Public()); err != nil || why != protocol.UnreachedAddress && why != protocol.UnreachedName {
			t.Errorf("%s: %q, %v", address, why, err)
		}
	}
	if n := honest.asked.Load(); n != 0 || port == 0 {
		t.Errorf("this machine was asked %d times", n)
	}
}

// names is a name server that gives every name these addresses, in this order.
func names(t *testing.T, ips ...string) *net.Resolver {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		question := make([]byte, 512)
		for {
			n, from, err := server.ReadFrom(question)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(answerTo(question[:n], ips), from)
		}
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// answerTo answers one question (RFC 1035, 4.1), if it is for IPv4 addresses.
func answerTo(question []byte, ips []string) []byte {
	end := 12 + bytes.IndexByte(question[12:], 0) + 5
	answer := append([]byte{question[0], question[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question[12:end]...)
	if question[end-3] != 1 {
		return answer
	}
	for _, ip := range ips {
		answer[7]++
		answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4) // the name asked for, A, IN, not to be kept, 4 bytes
		answer = append(answer, netip.MustParseAddr(ip).AsSlice()...)
	}
	return answer
}

// An address of this machine is not connected to, public as it may be, for that would pass its firewall; nor is a name that leads
// there besides.
func TestTryNotItself(t *testing.T) {
	p := prober(false)
	if own, err := p.own(); err != nil || !own[netip.MustParseAddr("127.0.0.1")] {
		t.Errorf("%v, %v", own, err)
	}
	var own []net.Addr
	p.cfg.Own = func() ([]net.Addr, error) { return own, nil }
	p.cfg.Resolver = names(t, "9.9.9.10", "9.9.9.9")
	for _, address := range []string{"https://9.9.9.9:8443", "https://[2620:fe::fe]:8443", "https://relay.example:8443"} {
		own = nil
		if _, why, err := p.resolve(t.Context(), address); why != "" || err != nil {
			t.Errorf("%s while it is another's: %q, %v", address, why, err)
		}
		// Networks are as they come from the system: IPv4 in 16 bytes.
		own = []net.Addr{&net.IPNet{IP: net.ParseIP("9.9.9.9"), Mask: net.CIDRMask(24, 32)}, &net.IPNet{IP: net.ParseIP("2620:fe::fe"), Mask: net.CIDRMask(64, 128)}}
		if _, why, err := p.resolve(t.Context(), address); why != protocol.UnreachedAddress || err != nil {
			t.Errorf("%s: %q, %v", address, why, err)
		}
	}
	p.cfg.Own = func() ([]net.Addr, error) { return nil, errors.New("not to be known") }
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nobody is connected to in any case
	if _, why, err := p.Try(ctx, "https://9.9.9.9:8443", newKey(t).Public()); err == nil {
		t.Errorf("tried without knowing this machine's addresses: %q", why)
	}
}

// Of a name's addresses one is connected to, the one that the pause is for.
func TestTryOneAddress(t *testing.T) {
	honest := serve(t, nil) // at 127.0.0.1; nothing takes its port at 127.0.0.2
	p := prober(true)
	port := honest.server.Listener.Addr().(*net.TCPAddr).AddrPort().Port()
	address := fmt.Sprintf("https://relay.example:%d", port)
	for _, test := range []struct {
		ips  []string
		want protocol.Unreached
	}{
		{[]string{"127.0.0.2", "127.0.0.1"}, protocol.UnreachedConnect},
		{[]string{"127.0.0.1", "127.0.0.2"}, protocol.UnreachedTLS}, // it has none
	} {
		p.cfg.Resolver = names(t, test.ips...)
		if _, why, err := p.Try(t.Context(), address, honest.key.Public()); why != test.want || err != nil {
			t.Errorf("%v: %q, %v", test.ips, why, err)
		}
	}
}

func TestAdmit(t *testing.T) {
	p, key := prober(true), newKey(t)
	const address = "https://relay.example"
	good := announced(t, key, protocol.Regtest, 8, address)
	if err := p.Admit(good, key.Public(), address); err != nil {
		t.Error(err)
	}
	forged := []byte(strings.Replace(string(good), `"sig":"`, `"sig":"0`, 1)) // one digit more
	for name, test := range map[string]struct {
		said    []byte
		relay   protocol.PublicKey
		address string
	}{
		"another's":       {good, newKey(t).Public(), address},
		"another address": {good, key.Public(), "https://victim.example"},
		"of mainnet":      {announced(t, key, protocol.Mainnet, 8, address), key.Public(), address},
		"little work":     {announced(t, key, protocol.Regtest, 4, address), key.Public(), address},
		"no envelope":     {forged, key.Public(), address},
		"not signed":      {tampered(good), key.Public(), address},
	} {
		if err := p.Admit(test.said, test.relay, test.address); !errors.Is(err, protocol.CodeInvalidValue) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p.cfg.Clock = func() time.Time { return time.Now().Add(2 * time.Hour) }
	if err := p.Admit(good, key.Public(), address); !errors.Is(err, protocol.CodeInvalidValue) {
		t.Errorf("an hour too late: %v", err)
	}
}

// tampered changes the last digit of the signature, which is no part of the work.
func tampered(said []byte) []byte {
	changed := []byte(string(said))
	at := len(changed) - 3
	if changed[at]++; changed[at] > '9' && changed[at] < 'a' || changed[at] > 'f' {
		changed[at] = '0'
	}
	return changed
}

// One machine is tried once in a while, whatever names it has and whoever asks; and so many at once.
func TestPause(t *testing.T) {
	p := prober(false)
	now := time.Now()
	p.cfg.Clock = func() time.Time { return now }
	one, same, other := netip.MustParseAddr("2620:fe::fe"), netip.MustParseAddr("2620:fe::9"), netip.MustParseAddr("9.9.9.9")
	if !p.mayTry(one) || p.mayTry(one) || p.mayTry(same) || !p.mayTry(other) {
		t.Error("not once each")
	}
	now = now.Add(Pause)
	if !p.mayTry(same) || p.mayTry(one) {
		t.Error("not again after the pause")
	}
	for range AtOnce {
		p.busy <- struct{}{}
	}
	if _, _, err := p.Try(t.Context(), "https://9.9.9.9", newKey(t).Public()); !errors.Is(err, protocol.CodeOverloaded) {
		t.Errorf("one more than at once: %v", err)
	}
}
