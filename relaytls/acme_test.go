package relaytls_test

import (
	"context"
	"crypto/x509"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"

	"relaymarket/relaytls"
)

// authority is a real ACME server, which validates by connecting to a port of this machine.
func authority(t *testing.T, port int) *httptest.Server {
	t.Helper()
	// It waits at random, and refuses some nonces, to see what clients make of that.
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	quiet := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	issuer := ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: 3600}})
	front := wfe.New(quiet, store, va.New(quiet, 0, port, false, "", store), issuer, nil, false, false, 1, 1)
	s := httptest.NewTLSServer(front.Handler())
	t.Cleanup(s.Close)
	return s
}

// A certificate is had from an authority that reaches the server at its own port, and is kept.
func TestACME(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	s := authority(t, port)
	trusts := x509.NewCertPool()
	trusts.AddCert(s.Certificate())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	folder := t.TempDir()
	secure, err := relaytls.FromACME(ctx, relaytls.ACME{Hosts: []string{"localhost"}, Directory: s.URL + wfe.DirectoryPath, Folder: folder,
		Listen: l.Addr().String(), Roots: trusts, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{TLSConfig: secure, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.ServeTLS(l, "", "") }()
	defer func() { _ = server.Close(); <-done }()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		pair, err := shown(l.Addr().String())
		if err == nil {
			if err := pair.VerifyHostname("localhost"); err != nil || pair.Issuer.CommonName == "" {
				t.Errorf("the certificate is by %q: %v", pair.Issuer.CommonName, err)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no certificate within two minutes: %v", err)
		}
	}
}
