package relaytls_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relaymarket/protocol"
	"relaymarket/relaytls"
)

func newKey(t *testing.T) *protocol.PrivateKey {
	t.Helper()
	k, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// serve answers "hello" over TLS and is host:port.
func serve(t *testing.T, secure *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{TLSConfig: secure, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "hello by "+r.Proto)
	})}
	s.ErrorLog = nil
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return l.Addr().String()
}

func get(t *testing.T, transport http.RoundTripper, host string) (string, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host, nil)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return "", err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	return string(body), err
}

func transport(t *testing.T, clock func() time.Time) *relaytls.Transport {
	tr := relaytls.NewTransport(&http.Transport{ForceAttemptHTTP2: true}, clock)
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// A relay on a bare IP address: taken by who knows its key, refused by everybody else, each with a reason.
func TestOwnCertificate(t *testing.T) {
	t.Parallel()
	relay, other := newKey(t), newKey(t)
	secure, err := relaytls.Own(relay, []string{"127.0.0.1"}, t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	host := serve(t, secure)
	for _, c := range []struct {
		name   string
		expect []*protocol.PrivateKey
		clock  func() time.Time
		want   error
		hint   string
	}{
		{name: "right key", expect: []*protocol.PrivateKey{relay}},
		{name: "right key beside a wrong one", expect: []*protocol.PrivateKey{other, relay}},
		{name: "wrong key", expect: []*protocol.PrivateKey{other}, want: relaytls.ErrOtherKey},
		{name: "no key", want: relaytls.ErrUnknown, hint: relay.Public().Bech32() + "@" + host},
		{name: "expired", expect: []*protocol.PrivateKey{relay}, clock: func() time.Time { return time.Now().Add(91 * 24 * time.Hour) }, want: relaytls.ErrExpired},
		{name: "not yet", expect: []*protocol.PrivateKey{relay}, clock: func() time.Time { return time.Now().Add(-48 * time.Hour) }, want: relaytls.ErrExpired},
	} {
		clock := c.clock
		if clock == nil {
			clock = time.Now
		}
		tr := transport(t, clock)
		for _, k := range c.expect {
			tr.Expect(host, k.Public())
		}
		said, err := get(t, tr, host)
		if !errors.Is(err, c.want) || c.want == nil && said != "hello by HTTP/2.0" {
			t.Errorf("%s: %q, %v", c.name, said, err)
		}
		if c.hint != "" && !strings.Contains(err.Error(), c.hint) {
			t.Errorf("%s: what to do is not in %v", c.name, err)
		}
	}
}

// Whoever takes the certificate, but not its key, cannot use it; nor can a key be put under a certificate of his.
func TestOwnCertificateIsBound(t *testing.T) {
	t.Parallel()
	relay := newKey(t)
	secure, err := relaytls.Own(relay, []string{"127.0.0.1"}, t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := secure.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := relaytls.CheckOwn(pair.Leaf, relay.Public(), time.Now()); err != nil {
		t.Fatal(err)
	}
	// Another's certificate that names this relay, with its signature copied.
	thief, err := relaytls.Own(newKey(t), []string{"127.0.0.1"}, t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	stolen, err := thief.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	forged := *stolen.Leaf
	forged.URIs = pair.Leaf.URIs
	if err := relaytls.CheckOwn(&forged, relay.Public(), time.Now()); !errors.Is(err, relaytls.ErrNotOwn) {
		t.Errorf("a copied signature: %v", err)
	}
	longer := *pair.Leaf
	longer.NotAfter = longer.NotAfter.Add(time.Hour)
	if err := relaytls.CheckOwn(&longer, relay.Public(), time.Now()); !errors.Is(err, relaytls.ErrNotOwn) {
		t.Errorf("a longer life: %v", err)
	}
	host := serve(t, &tls.Config{Certificates: []tls.Certificate{{Certificate: pair.Certificate, PrivateKey: stolen.PrivateKey}}})
	tr := transport(t, time.Now)
	tr.Expect(host, relay.Public())
	if said, err := get(t, tr, host); err == nil {
		t.Errorf("a stolen certificate was taken: %q", said)
	}
}

// The certificate outlives a restart, is made anew when a third of its time is left, and keeps its key then.
func TestOwnCertificateIsRenewed(t *testing.T) {
	t.Parallel()
	relay, folder, now := newKey(t), t.TempDir(), time.Now()
	leaf := func(hosts ...string) *x509.Certificate {
		secure, err := relaytls.Own(relay, hosts, folder, func() time.Time { return now })
		if err != nil {
			t.Fatal(err)
		}
		pair, err := secure.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf
	}
	first := leaf("127.0.0.1")
	if again := leaf("127.0.0.1"); !again.Equal(first) {
		t.Error("a restart made another certificate")
	}
	if more := leaf("127.0.0.1", "relay.example"); more.Equal(first) || more.VerifyHostname("relay.example") != nil {
		t.Error("a new address has no certificate")
	}
	now = now.Add(61 * 24 * time.Hour)
	later := leaf("127.0.0.1")
	if later.Equal(first) || !later.NotAfter.After(first.NotAfter) || string(later.RawSubjectPublicKeyInfo) != string(first.RawSubjectPublicKeyInfo) {
		t.Error("it was not renewed with its key")
	}
	if err := os.WriteFile(filepath.Join(folder, relaytls.KeyFile), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := relaytls.Own(relay, nil, folder, time.Now); err == nil || !strings.Contains(err.Error(), relaytls.KeyFile) {
		t.Errorf("a damaged key: %v", err)
	}
}

// curl takes the certificate that it was given, and no other.
func TestCurl(t *testing.T) {
	t.Parallel()
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal("curl is needed: scripts/setup.sh test installs it")
	}
	folder, elsewhere := t.TempDir(), t.TempDir()
	relay := newKey(t)
	secure, err := relaytls.Own(relay, []string{"127.0.0.1"}, folder, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := relaytls.Own(newKey(t), []string{"127.0.0.1"}, elsewhere, time.Now); err != nil {
		t.Fatal(err)
	}
	host := serve(t, secure)
	run := func(folder string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, curl, "--silent", "--show-error", "--noproxy", "*", "--cacert", filepath.Join(folder, relaytls.CertificateFile), "https://"+host).CombinedOutput()
		return string(out), err
	}
	if said, err := run(folder); err != nil || !strings.HasPrefix(said, "hello") {
		t.Errorf("with its certificate: %q, %v", said, err)
	}
	if said, err := run(elsewhere); err == nil {
		t.Errorf("with another's: %q", said)
	}
}

// A certificate of an authority is taken by the usual rules: name, time and root.
func TestAuthority(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	// A relay's own certificate, without its voucher, is as good an authority as any.
	authority, host := publicPair(t, folder)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	for name, c := range map[string]struct {
		roots *x509.CertPool
		clock func() time.Time
		good  bool
	}{
		"its root":     {pool, time.Now, true},
		"another root": {x509.NewCertPool(), time.Now, false},
		"expired":      {pool, func() time.Time { return time.Now().Add(1000 * 24 * time.Hour) }, false},
	} {
		tr := relaytls.NewTransport(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.roots}}, c.clock)
		said, err := get(t, tr, host)
		tr.CloseIdleConnections()
		if (err == nil) != c.good {
			t.Errorf("%s: %q, %v", name, said, err)
		}
	}
}

// publicPair serves with a certificate in files that no relay vouches for, and is its root in PEM.
func publicPair(t *testing.T, folder string) (root []byte, host string) {
	t.Helper()
	certificate, key := selfSigned(t, "127.0.0.1")
	files := [2]string{filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")}
	for i, text := range [][]byte{certificate, key} {
		if err := os.WriteFile(files[i], text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	secure, err := relaytls.FromFiles(files[0], files[1])
	if err != nil {
		t.Fatal(err)
	}
	return certificate, serve(t, secure)
}

// block is PEM.
func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
