package reach

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"relaymarket/broadcast"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
	closed := httptest.NewServer(nil)
	closed.Close()
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
		"nobody":          {closed.URL, honest.key.Public(), protocol.UnreachedConnect},
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
