package relaytls_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
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

// keptFolder is a folder that may still be written to when the test ends: whoever looks after certificates is told to end, and
// not waited for.
func keptFolder(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "relaytls-test-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			if err = os.RemoveAll(folder); err == nil || time.Now().After(deadline) {
				break
			}
		}
		if err != nil {
			t.Error(err)
		}
	})
	return folder
}

// quietLog is a log that outlives the test, unlike the test's own.
type quietLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *quietLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *quietLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
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
	folder, said := keptFolder(t), &quietLog{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("it said:\n%s", said)
		}
	})
	secure, err := relaytls.FromACME(ctx, relaytls.ACME{Hosts: []string{"localhost"}, Directory: s.URL + wfe.DirectoryPath, Folder: folder,
		Listen: l.Addr().String(), Roots: trusts, Logger: slog.New(slog.NewTextHandler(said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{TLSConfig: secure, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.ServeTLS(l, "", "") }()
	defer func() { _ = server.Close(); <-done }()
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		pair, err := shown(l.Addr().String())
		if err == nil {
			if err := pair.VerifyHostname("localhost"); err != nil || pair.Issuer.CommonName == "" {
				t.Errorf("the certificate is by %q: %v", pair.Issuer.CommonName, err)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no certificate in time: %v", err)
		}
	}
}
