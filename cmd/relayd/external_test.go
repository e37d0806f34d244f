package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"relaymarket/broadcast"
	"relaymarket/broadcast/feed"
	"relaymarket/internal/testhub"
	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
	"relaymarket/protocol"
)

// natsProgram builds the NATS server as operators run it, from the module that relayd has it from.
func natsProgram(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nats-server")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/nats-io/nats-server/v2").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// authority is a certificate for loopback, which relayd trusts by the environment, and strangers here by hand.
type authority struct {
	certificate, key string
	stranger         *tls.Config
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &secret.PublicKey, secret)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	a := authority{filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem"), &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	write(t, a.certificate, string(text))
	write(t, a.key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	a.stranger.RootCAs.AppendCertsFromPEM(text)
	t.Setenv("SSL_CERT_FILE", a.certificate)
	return a
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// external runs a NATS server with this configuration, behind TLS, and returns its host and port.
func external(t *testing.T, program string, a authority, configuration string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "nats.conf")
	write(t, file, fmt.Sprintf("listen: 127.0.0.1:-1\nports_file_dir: %q\ntls { cert_file: %q, key_file: %q }\n%s", dir, a.certificate, a.key,
		strings.ReplaceAll(configuration, "/var/lib/nats", filepath.Join(dir, "jetstream"))))
	cmd := exec.Command(program, "-c", file)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	var ports struct{ Nats []string }
	testhub.Wait(t, "the NATS server says its port", func() bool {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the NATS server ended: %v\n%s", err, log.String())
		default:
		}
		found, _ := filepath.Glob(filepath.Join(dir, "nats-server_*.ports"))
		if len(found) == 0 {
			return false
		}
		data, err := os.ReadFile(found[0])
		return err == nil && json.Unmarshal(data, &ports) == nil && len(ports.Nats) > 0
	})
	_, address, _ := strings.Cut(ports.Nats[0], "://")
	return address
}

// operated is the policy of a hub where an operator's keys say who may do what, as large installations have it: the configuration of such
// a server, and the .creds file of the hub.
func operated(t *testing.T, n protocol.Network) (configuration, credentials string) {
	t.Helper()
	operator, system, hub, public := pair(t, nkeys.CreateOperator), pair(t, nkeys.CreateAccount), pair(t, nkeys.CreateAccount), pair(t, nkeys.CreateAccount)
	book, strangers := jwt.NewAccountClaims(name(t, hub)), jwt.NewAccountClaims(name(t, public))
	book.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: -1, MemoryStorage: -1, Streams: -1, Consumer: -1}
	for subject, kind := range map[string]jwt.ExportType{broadcast.AnnounceWildcard(n): jwt.Stream, broadcast.IngestSubject(n): jwt.Service, broadcast.DirectGetSubject(n): jwt.Service} {
		export := &jwt.Export{Subject: jwt.Subject(subject), Type: kind}
		if subject == broadcast.DirectGetSubject(n) {
			export.ResponseType = jwt.ResponseTypeStream
		}
		book.Exports.Add(export)
		strangers.Imports.Add(&jwt.Import{Account: name(t, hub), Subject: jwt.Subject(subject), Type: kind})
	}
	anybody := jwt.NewUserClaims(name(t, pair(t, nkeys.CreateUser)))
	anybody.BearerToken = true
	anybody.Pub.Allow.Add(broadcast.IngestSubject(n), broadcast.DirectGetSubject(n))
	anybody.Sub.Allow.Add(broadcast.AnnounceWildcard(n), broadcast.InboxWildcard)
	itself := pair(t, nkeys.CreateUser)
	seed, err := itself.Seed()
	if err != nil {
		t.Fatal(err)
	}
	creds, err := jwt.FormatUserConfig(encoded(t, jwt.NewUserClaims(name(t, itself)), hub), seed)
	if err != nil {
		t.Fatal(err)
	}
	credentials = filepath.Join(t.TempDir(), "hub.creds")
	write(t, credentials, string(creds))
	claims := jwt.NewOperatorClaims(name(t, operator))
	claims.SystemAccount = name(t, system)
	return fmt.Sprintf("max_payload: 8KB\njetstream { store_dir: \"/var/lib/nats\" }\noperator: %s\nsystem_account: %s\nresolver: MEMORY\n"+
		"resolver_preload: {\n%s: %s\n%s: %s\n%s: %s\n}\ndefault_sentinel: %s\n", encoded(t, claims, operator), name(t, system),
		name(t, system), encoded(t, jwt.NewAccountClaims(name(t, system)), operator), name(t, hub), encoded(t, book, operator),
		name(t, public), encoded(t, strangers, operator), encoded(t, anybody, public)), credentials
}

func pair(t *testing.T, create func() (nkeys.KeyPair, error)) nkeys.KeyPair {
	t.Helper()
	k, err := create()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func name(t *testing.T, k nkeys.KeyPair) string {
	t.Helper()
	public, err := k.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return public
}

func encoded(t *testing.T, claims jwt.Claims, signer nkeys.KeyPair) string {
	t.Helper()
	text, err := claims.Encode(signer)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// configured is relayd with more lines in its file.
func configured(t *testing.T, lines string) *testnode.Process {
	t.Helper()
	dir := testnode.Folder(t)
	if out, err := testnode.Command(t, "init", "--dir", dir).CombinedOutput(); err != nil {
		t.Fatalf("relayd init: %v\n%s", err, out)
	}
	file := filepath.Join(dir, "relayd.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, string(text)+"\nbitcoin-network = \"regtest\"\n"+lines)
	return testnode.StartProcess(t, testnode.ProcessOptions{Dir: dir, DSN: testpg.New(t)})
}

// listed are the relays in a hub's book, by GET /market.
func listed(t *testing.T, hub *testnode.Process) string {
	t.Helper()
	reply, err := http.Get(hub.URL + "/market")
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	data, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Hubs on two NATS servers that are processes of their own, behind TLS: one with the policy that relayd prints and a password, one with
// an operator's keys and a .creds file. Relays that announce on both are in both books, hubs take from each other, and strangers have a
// stranger's rights on either.
func TestExternalNATS(t *testing.T) {
	program, trusted := natsProgram(t), newAuthority(t)
	policy := relayd(t, nil, "hub-policy", "--dir", t.TempDir(), "--bitcoin-network", "regtest")
	one := external(t, program, trusted, strings.ReplaceAll(policy.out, policyPassword, "s3cret/word"))
	configuration, credentials := operated(t, protocol.Regtest)
	two := external(t, program, trusted, configuration)

	first := configured(t, fmt.Sprintf("hub-nats = \"tls://hub:s3cret%%2Fword@%s\"\n", one))
	second := configured(t, fmt.Sprintf("hub-nats = \"tls://%s\"\nhub-nats-credentials = %q\nhub-peers = [\"tls://%s\"]\n", two, credentials, one))
	relay := configured(t, fmt.Sprintf("hubs = [\"tls://%s\", \"tls://%s\"]\n", one, two))
	waitFor(t, func() bool { // all that belong there are in both books
		a, b := listed(t, first), listed(t, second)
		return strings.Contains(a, first.Key.String()) && strings.Contains(a, relay.Key.String()) &&
			strings.Contains(b, second.Key.String()) && strings.Contains(b, relay.Key.String()) && strings.Contains(b, first.Key.String())
	})

	for server, least := range map[string]int{one: 2, two: 3} {
		conn, err := feed.Connect(t.Context(), "tls://"+server, feed.Access{Name: "test", TLS: trusted.stranger})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		page, err := feed.Fetch(t.Context(), conn, protocol.Regtest, 0, 10)
		if err != nil || len(page.Messages) < least {
			t.Errorf("a stranger reads %+v, %v", page, err)
		}
		for _, subject := range []string{"$JS.API.STREAM.PURGE." + broadcast.StreamName(protocol.Regtest), "$JS.API.INFO", "$SYS.REQ.SERVER.PING",
			broadcast.AnnounceSubject(protocol.Regtest, relay.Key)} {
			if err := tried(t, server, trusted, subject); err == nil {
				t.Errorf("on %s a stranger may publish to %s", server, subject)
			}
		}
	}
	if c, err := nats.Connect("tls://hub:wrong@"+one, nats.Secure(trusted.stranger)); err == nil {
		c.Close()
		t.Error("anybody is the hub")
	}
}

// tried publishes as a stranger; the error is the server's refusal, nil if there is none.
func tried(t *testing.T, server string, a authority, subject string) error {
	t.Helper()
	faults := make(chan error, 10)
	conn, err := nats.Connect("tls://"+server, nats.Secure(a.stranger), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { faults <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Publish(subject, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err := conn.FlushTimeout(time.Minute); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-faults:
		return err
	case <-time.After(time.Second): // the refusal comes before the flush's answer: this is for what is allowed
		return conn.LastError()
	}
}
