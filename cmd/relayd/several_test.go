package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"relaymarket/internal/scenario"
	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
)

// together starts relayd with those arguments each, as one relay on one database.
func together(t *testing.T, args ...[]string) []*testnode.Process {
	t.Helper()
	dsn := testpg.New(t)
	var all []*testnode.Process
	for _, a := range args {
		dir := testnode.Folder(t)
		if len(all) > 0 {
			key, err := os.ReadFile(filepath.Join(all[0].Dir, "relay.key"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "relay.key"), key, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, testnode.StartProcess(t, testnode.ProcessOptions{Dir: dir, DSN: dsn, Args: a}))
	}
	return all
}

// figure is what a relay's metrics say, "" if it has no such.
func figure(t *testing.T, p *testnode.Process, name string) string {
	t.Helper()
	_, text := status(t, p.OperatorURL+"/metrics")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func connected(t *testing.T, p *testnode.Process) bool {
	return figure(t, p, "relaymarket_nats_connected") == "1"
}

// told writes records at one relay and waits until they are told at another, each once and in order.
type told struct {
	t          *testing.T
	alice, bob *scenario.Person
	stream     *scenario.Stream
	next       int
}

func newTold(t *testing.T, at *testnode.Process) *told {
	t.Helper()
	x := &told{t: t, alice: scenario.NewPerson(t, at.Key), bob: scenario.NewPerson(t, at.Key)}
	at.Grant(t, x.alice.Key.Public())
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute) // all of the test
	t.Cleanup(cancel)
	var err error
	if x.stream, err = x.bob.Follow(ctx, at.URL, nil, x.alice.Key.Public()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.stream.Close)
	return x
}

func (x *told) write(at *testnode.Process, records int) {
	x.t.Helper()
	for range records {
		id := fmt.Sprint("r", x.next)
		x.next++
		reply, err := x.alice.Send(x.t.Context(), at.URL, x.alice.Write(x.bob.Key.Public(), id, 1))
		if err != nil || reply.Status != http.StatusCreated {
			x.t.Fatalf("write of %s: %+v %v", id, reply, err)
		}
		line, err := x.stream.Next()
		if err != nil || string(line.ID) != id {
			x.t.Fatalf("told %+v (%v), want %s", line, err, id)
		}
	}
}

const hinted = `relaymarket_records_read_on_total{cause="hint"}`

// byHint writes until a record is told because of a hint.
func (x *told) byHint(from, to *testnode.Process) {
	x.t.Helper()
	before := figure(x.t, to, hinted)
	for deadline := time.Now().Add(4 * time.Minute); figure(x.t, to, hinted) == before; x.write(from, 5) {
		if time.Now().After(deadline) {
			x.t.Fatalf("no hint is followed\n%s", to.Log())
		}
	}
}

// Three relayd on one database, one of them with the NATS server of all. It is stopped, which leaves connections open that nobody answers,
// and killed: what one of the others stores the third one tells, each record once and in order; and by hints again once it is back.
func TestThreeProcesses(t *testing.T) {
	at := testnode.FreeAddress(t)
	guest := []string{"--nats", "nats://" + at}
	all := together(t, []string{"--nats-listen", at}, guest, guest)
	host, from, to := all[0], all[1], all[2]
	for _, p := range all {
		waitFor(t, func() bool { return connected(t, p) })
	}
	x := newTold(t, to)
	x.byHint(from, to)
	x.byHint(host, to)

	host.Signal(syscall.SIGSTOP)
	x.write(from, 4)
	host.Signal(syscall.SIGCONT)
	x.byHint(from, to)

	const away = "NATS is away" // it may have been noticed of the one that stood still, too
	before := map[*testnode.Process]int{from: strings.Count(from.Log(), away), to: strings.Count(to.Log(), away)}
	host.Kill()
	x.write(from, 4)
	waitFor(t, func() bool { return !connected(t, from) && !connected(t, to) })
	for _, p := range all[1:] {
		if code, body := status(t, p.OperatorURL+"/readyz"); code != http.StatusOK {
			t.Errorf("/readyz without NATS: %d %s", code, body)
		}
		waitFor(t, func() bool { return strings.Count(p.Log(), away) > before[p] }) // it is told a moment later
		if n := strings.Count(p.Log(), away) - before[p]; n != 1 {
			t.Errorf("it is told %d times that NATS is away\n%s", n, p.Log())
		}
	}
	host.Start()
	waitFor(t, func() bool { return connected(t, from) && connected(t, to) })
	x.byHint(from, to)
	x.byHint(host, to)
	for _, p := range all {
		if code := p.Terminate(); code != 0 {
			t.Errorf("exit code %d\n%s", code, p.Log())
		}
	}
}

// Another relay's key does not get in.
func TestNATSKeepsOthersOut(t *testing.T) {
	at := testnode.FreeAddress(t)
	together(t, []string{"--nats-listen", at})
	stranger := together(t, []string{"--nats", "nats://" + at})[0]
	waitFor(t, func() bool { return strings.Contains(stranger.Log(), "Authorization Violation") })
	if connected(t, stranger) {
		t.Error("connected")
	}
}

// A server with TLS is checked against the system's certificates.
func TestNATSWithTLS(t *testing.T) {
	certificate, file := certificateFor(t, "127.0.0.1")
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, Username: "relayd", Password: "secret",
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}}})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer func() { s.Shutdown(); s.WaitForShutdown() }()
	url := fmt.Sprintf("tls://relayd:secret@%s", s.Addr())

	distrusting := together(t, []string{"--nats", url})[0]
	waitFor(t, func() bool { return strings.Contains(distrusting.Log(), "certificate") })
	t.Setenv("SSL_CERT_FILE", file)
	trusting := together(t, []string{"--nats", url})[0]
	waitFor(t, func() bool { return connected(t, trusting) })
	if connected(t, distrusting) {
		t.Error("it trusts a certificate of nobody")
	}
	for _, p := range []*testnode.Process{trusting, distrusting} {
		if strings.Contains(p.Log(), "secret") {
			t.Errorf("the log shows the password:\n%s", p.Log())
		}
	}
}

// certificateFor makes a certificate that signs itself, and a file of it.
func certificateFor(t *testing.T, address string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(address)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, file
}
