package hubserver_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	"relaymarket/broadcast/hub"
	"relaymarket/broadcast/hubserver"
	"relaymarket/internal/leakcheck"
	"relaymarket/protocol"
	"relaymarket/relaytls"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

const patience = 2 * time.Minute

var quiet = slog.New(slog.DiscardHandler)

// newCertificate writes a certificate for loopback and its key, and trusts it.
func newCertificate(t *testing.T, folder string, serial int64) (certificate, key string, trusted *x509.CertPool) {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &secret.PublicKey, secret)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for path, data := range map[string][]byte{certificate: text, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trusted = x509.NewCertPool()
	trusted.AppendCertsFromPEM(text)
	return certificate, key, trusted
}

// connect is as anybody connects, who has more patience than the two seconds of NATS.
func connect(url string, options ...nats.Option) (*nats.Conn, error) {
	return nats.Connect(url, append(options, nats.Timeout(patience))...)
}

func start(t *testing.T, change func(*hubserver.Config)) *hubserver.Server {
	t.Helper()
	cfg := hubserver.Config{Network: protocol.Regtest, Listen: "127.0.0.1:0", Folder: t.TempDir(), Bytes: 16 << 20, Logger: quiet}
	if change != nil {
		change(&cfg)
	}
	s, err := hubserver.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// runHub runs a hub on a connection.
func runHub(t *testing.T, conn *nats.Conn) *hub.Hub {
	t.Helper()
	h, err := hub.New(hub.Config{Conn: conn, Rules: broadcast.Rules{Network: protocol.Regtest, Bits: 8}, Bounds: broadcast.Bounds{Relays: 100, Bytes: 1 << 20, Host: 4},
		Clock: time.Now, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(patience); !h.Ready(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the hub does not begin")
		}
	}
	return h
}

// announce brings an announcement in, and reads it as a stranger.
func announce(t *testing.T, h *hub.Hub, conn *nats.Conn) {
	t.Helper()
	key, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	now := protocol.TimestampOf(time.Now())
	e, err := broadcast.Prover{}.Announce(t.Context(), key, now, &protocol.Announcement{Addresses: []string{"https://relay.example"},
		Network: protocol.Regtest, Terms: []protocol.Terms{}, ValidUntil: now.Add(time.Hour)}, 8)
	if err != nil {
		t.Fatal(err)
	}
	if receipt, err := h.Announce(t.Context(), e.Bytes()); err != nil || !receipt.Taken {
		t.Fatalf("%+v, %v", receipt, err)
	}
	page, err := feed.Fetch(t.Context(), conn, protocol.Regtest, 0, 10)
	if err != nil || len(page.Messages) != 1 || string(page.Messages[0].Data) != string(e.Bytes()) {
		t.Errorf("a stranger reads %+v, %v", page, err)
	}
}

// With a certificate the server speaks TLS only, and a renewed one is served without a restart.
func TestTLS(t *testing.T) {
	folder := t.TempDir()
	certificate, key, trusted := newCertificate(t, folder, 1)
	secure, err := relaytls.FromFiles(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, func(c *hubserver.Config) { c.TLS = secure })
	if !strings.HasPrefix(s.URL(), "tls://") {
		t.Errorf("it is at %s", s.URL())
	}
	own, err := s.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.Close)
	h := runHub(t, own)
	conn, err := feed.Connect(t.Context(), s.URL(), feed.Access{Name: "test", TLS: &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	announce(t, h, conn)
	if c, err := connect(s.URL()); err == nil {
		c.Close()
		t.Error("a stranger accepts a certificate that nobody he trusts signed")
	}
	if _, err := relaytls.FromFiles(certificate, filepath.Join(folder, "none.pem")); err == nil {
		t.Error("a missing key is accepted")
	}
	// The first look at the files is at the first handshake, so a pair of files that was renewed before is served.
	again, err := relaytls.FromFiles(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	newCertificate(t, folder, 2)
	if err := os.Chtimes(certificate, time.Now(), time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	served, err := again.GetCertificate(nil)
	if err != nil || served.Leaf.SerialNumber.Int64() != 2 {
		t.Errorf("the renewed certificate is not served: %v", err)
	}
}

// A server of the operator's own with the policy is as good: the hub logs in there, strangers need not, and have their rights only.
func TestPolicyElsewhere(t *testing.T) {
	options := &server.Options{}
	if err := options.ProcessConfigString(hubserver.Policy(protocol.Regtest, `se"cret`)); err != nil {
		t.Fatal(err)
	}
	options.Host, options.Port, options.NoSigs, options.NoLog = "127.0.0.1", server.RANDOM_PORT, true, true
	options.JetStream, options.StoreDir = true, t.TempDir()
	s, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server does not start")
	}
	address := s.Addr().String()
	own, err := feed.Connect(t.Context(), "nats://"+hubserver.HubUser+":se%22cret@"+address, feed.Access{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.Close)
	h := runHub(t, own)
	conn, err := feed.Connect(t.Context(), "nats://"+address, feed.Access{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	announce(t, h, conn)
	faults := make(chan error, 1)
	stranger, err := connect("nats://"+address, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { faults <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if err := stranger.Publish("$JS.API.STREAM.PURGE."+broadcast.StreamName(protocol.Regtest), nil); err != nil {
		t.Fatal(err)
	}
	select {
	case <-faults:
	case <-time.After(patience):
		t.Error("a stranger may purge the stream")
	}
	if c, err := connect("nats://" + hubserver.HubUser + ":wrong@" + address); err == nil {
		c.Close()
		t.Error("anybody is the hub")
	}
}

// More connections than there may be are refused, and those that are there stay.
func TestConnectionsAreBounded(t *testing.T) {
	s := start(t, func(c *hubserver.Config) { c.Connections = 3 })
	var open []*nats.Conn
	for range 3 {
		conn, err := connect(s.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		open = append(open, conn)
	}
	if conn, err := connect(s.URL()); err == nil {
		conn.Close()
		t.Error("a fourth is let in")
	}
	if s.Connections() != 3 || open[0].FlushTimeout(patience) != nil {
		t.Errorf("%d are connected", s.Connections())
	}
	for range 20 {
		if _, err := open[0].SubscribeSync("_INBOX." + nats.NewInbox()[7:]); err != nil {
			t.Fatal(err)
		}
	}
	if err := open[0].FlushTimeout(patience); err == nil && open[0].LastError() == nil {
		t.Error("one connection has twenty subscriptions")
	}
}
