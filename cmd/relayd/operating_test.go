package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/regtest"
	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
	"relaymarket/protocol"
)

// writeCertificate writes name.crt and name.key, self-signed for localhost, valid for so long.
func writeCertificate(t *testing.T, name string, valid time.Duration) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(valid), DNSNames: []string{"localhost", "relay.example.org"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []struct {
		path, kind string
		der        []byte
	}{{name + ".key", "PRIVATE KEY", secret}, {name + ".crt", "CERTIFICATE", der}} {
		if err := os.WriteFile(file.path, pem.EncodeToMemory(&pem.Block{Type: file.kind, Bytes: file.der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// serviceManager listens as systemd does, and returns what it was told.
func serviceManager(t *testing.T) (environ []string, told func() string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	// Read all the time: the signs of life, twenty a second, would fill the socket while the test is busy elsewhere, and whoever tells the rest wait.
	all := make(chan string, 1<<16)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for buffer := make([]byte, 4096); ; {
			n, err := conn.Read(buffer)
			if err != nil {
				return // the end of the test
			}
			all <- string(buffer[:n])
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-ended })
	return []string{"NOTIFY_SOCKET=" + name, "WATCHDOG_USEC=100000"}, func() string {
		t.Helper()
		select {
		case text := <-all:
			return text
		case <-time.After(time.Minute):
			t.Fatal("nothing is told")
			return ""
		}
	}
}

// until reads what the service manager is told up to a state, and returns it whole.
func until(t *testing.T, told func() string, state string) string {
	t.Helper()
	for deadline := time.Now().Add(4 * time.Minute); time.Now().Before(deadline); {
		if text := told(); strings.HasPrefix(text, state) {
			return text
		}
	}
	t.Fatalf("it is not told %s", state)
	return ""
}

func announcedBy(t *testing.T, address string) *protocol.Announcement {
	t.Helper()
	code, body := status(t, address+"/.well-known/relaymarket")
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	_, a, err := protocol.ParseAnnouncement([]byte(body), protocol.TimestampOf(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// writeFor stores a record that allows so many pulls.
func writeFor(t *testing.T, p *testnode.Process, writer *protocol.PrivateKey, pulls int64) (int, string) {
	t.Helper()
	now, id := protocol.TimestampOf(time.Now()), protocol.RecordID(fmt.Sprint("for-", pulls))
	e, err := protocol.Sign(writer, writer.Public(), now, &protocol.Write{Relay: p.Key, RecordID: id, Expires: now.Add(time.Hour), MaxPulls: pulls, Content: "aGk="})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodPut, p.URL+protocol.Path{Sender: writer.Public(), Receiver: writer.Public(), ID: id}.String(), bytes.NewReader(e.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, string(text)
}

// SIGHUP: what can change does, what cannot is named, a configuration with a mistake changes nothing; and systemd is told of all of it.
func TestReload(t *testing.T) {
	dir := testnode.Folder(t)
	if got := command(t, "init", "--dir", dir); got.code != 0 {
		t.Fatal(got.err)
	}
	environ, told := serviceManager(t)
	writeConfig(t, dir, "contact = \"ann\"\nmax-pulls = 50\n")
	dsn := testpg.New(t)
	if got := command(t, "allow", testnode.NewKey(t).Public().Bech32(), "--dir", dir, "--database-url", dsn); got.code != 0 {
		t.Fatal(got.err)
	}
	p := testnode.StartProcess(t, testnode.ProcessOptions{Dir: dir, DSN: dsn, Environ: environ})
	if ready := until(t, told, "READY=1"); !strings.Contains(ready, "STATUS=serves on http://127.0.0.1:") {
		t.Errorf("systemd is told %q", ready)
	}
	until(t, told, "WATCHDOG=1")
	reload := func(text string) string {
		t.Helper()
		writeConfig(t, dir, text)
		before := len(p.Log())
		p.Signal(syscall.SIGHUP)
		until(t, told, "RELOADING=1\nMONOTONIC_USEC=")
		until(t, told, "READY=1")
		// What was written is on its way through a pipe.
		waitFor(t, func() bool { return strings.Contains(p.Log()[before:], "the configuration ") })
		return p.Log()[before:]
	}

	log := reload("contact = \"bob\"\nmax-pulls = 60\nlog-level = \"debug\"\nlifetime = \"30d\"\nnats-listen = \"127.0.0.1:1\"\nvolunteer-days = 3\nrate-key = 9\n")
	a := announcedBy(t, p.URL)
	if a.Terms[0].Contact != "bob" || a.Limits.MaxPulls != 60 || a.Limits.LifetimeMs != (366*24*time.Hour).Milliseconds() {
		t.Errorf("it announces %+v", a)
	}
	if last := a.Terms[len(a.Terms)-1]; last.Type != protocol.TermsVolunteer || last.Days != 3 {
		t.Errorf("for nothing it offers %+v", last)
	}
	for _, want := range []string{`setting=contact from=ann to=bob`, `setting=max-pulls from=50 to=60`, `setting=log-level from=info to=debug`, `setting=volunteer-days from=30 to=3`,
		`msg="a setting needs a restart" setting=lifetime now=366d then=30d`, `msg="a setting needs a restart" setting=nats-listen`, `msg="the configuration was read again" changed=4`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s\n%s", want, log)
		}
	}
	if strings.Contains(log, "setting=rate-key") { // it was given as a flag, which goes before the file
		t.Errorf("a flag gave way to the file\n%s", log)
	}
	waitFor(t, func() bool { return strings.Contains(p.Log(), "level=DEBUG msg=request") })

	writer := testnode.NewKey(t)
	p.Grant(t, writer.Public())
	for pulls, want := range map[int64]int{60: http.StatusCreated, 61: http.StatusUnprocessableEntity} {
		if code, body := writeFor(t, p, writer, pulls); code != want {
			t.Errorf("a record for %d pulls: %d %s", pulls, code, body)
		}
	}

	for name, broken := range map[string]string{
		"no TOML":       "contact = ",
		"unknown name":  "contact = \"carl\"\nmax-pull = 5\n",
		"contradiction": "contact = \"carl\"\nadmitted-bytes = \"2MiB\"\n",
		"too much":      "contact = \"carl\"\ntls-cert = \"/nowhere\"\ntls-key = \"/nowhere\"\n",
	} {
		log := reload(broken)
		if !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "nothing has changed") || announcedBy(t, p.URL).Terms[0].Contact != "bob" {
			t.Errorf("%s: %s", name, log)
		}
	}
	// What is back to what it was needs no restart any more.
	if log := reload("contact = \"dora\"\n"); strings.Contains(log, "restart") || announcedBy(t, p.URL).Terms[0].Contact != "dora" {
		t.Error(log)
	}
	p.Signal(syscall.SIGTERM)
	until(t, told, "STOPPING=1")
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.Log())
	}
}

// A certificate that was renewed, or stands elsewhere, is served from the next handshake on.
func TestReloadCertificate(t *testing.T) {
	folder := t.TempDir()
	first, second := filepath.Join(folder, "first"), filepath.Join(folder, "second")
	writeCertificate(t, first, time.Hour)
	writeCertificate(t, second, time.Hour)
	dir := testnode.Folder(t)
	if got := command(t, "init", "--dir", dir); got.code != 0 {
		t.Fatal(got.err)
	}
	config := func(name string) string { return "tls-cert = \"" + name + ".crt\"\ntls-key = \"" + name + ".key\"\n" }
	writeConfig(t, dir, config(first))
	p := testnode.StartProcess(t, testnode.ProcessOptions{Dir: dir, DSN: testpg.New(t)})
	served := func() string {
		t.Helper()
		conn, err := tls.Dial("tcp", strings.TrimPrefix(p.URL, "https://"), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		return string(conn.ConnectionState().PeerCertificates[0].Raw)
	}
	stands := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(name + ".crt")
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		return string(block.Bytes)
	}
	if served() != stands(first) {
		t.Fatal("it serves another certificate")
	}
	writeConfig(t, dir, config(second))
	p.Signal(syscall.SIGHUP)
	waitFor(t, func() bool { return served() == stands(second) })
	writeCertificate(t, second, 2*time.Hour) // renewed in place
	p.Signal(syscall.SIGHUP)
	waitFor(t, func() bool { return served() == stands(second) })
	writeConfig(t, dir, "")
	p.Signal(syscall.SIGHUP)
	waitFor(t, func() bool { return strings.Contains(p.Log(), `msg="a setting needs a restart" setting=tls-cert`) })
	if served() != stands(second) {
		t.Error("without a restart it serves no certificate")
	}
}

// New prices are announced at once to whoever asks, and contracts are opened on them; those of before are honoured as long as they were announced
// for. Without new contracts, nothing is offered.
func TestReloadPrices(t *testing.T) {
	node := regtest.Start(t)
	dir := bitcoinFolder(t, node)
	config, err := os.ReadFile(filepath.Join(dir, "relayd.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if got := command(t, "wallet", "init", "--dir", dir); got.code != 0 {
		t.Fatal(got.err)
	}
	dsn := testpg.New(t)
	p := testnode.StartProcess(t, testnode.ProcessOptions{Dir: dir, DSN: dsn})
	before := announcedBy(t, p.URL)
	if before.Contracts == nil || before.Contracts.StorageMsatPerGBDay != 2000 {
		t.Fatalf("it announces %+v", before.Contracts)
	}
	writeConfig(t, dir, string(config)+"\nstorage-price = 7\nbandwidth-price = 8\nopening-price = 3000\n")
	p.Signal(syscall.SIGHUP)
	waitFor(t, func() bool { c := announcedBy(t, p.URL).Contracts; return c != nil && c.StorageMsatPerGBDay == 7 })
	after := announcedBy(t, p.URL)
	if c := after.Contracts; c.BandwidthMsatPerGB != 8 || c.OpeningPrice != 3000 || c.CreditLimit != before.Contracts.CreditLimit || after.Seq <= before.Seq {
		t.Errorf("it announces %+v under seq %d, before %d", c, after.Seq, before.Seq)
	}
	db, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close(t.Context()) }()
	var kept int
	if err := db.QueryRow(t.Context(), `SELECT count(*) FROM contract_announcements`).Scan(&kept); err != nil || kept != 2 {
		t.Errorf("%d announcements are kept for contracts (%v)", kept, err)
	}
	writeConfig(t, dir, string(config)+"\ncontracts = \"no\"\n")
	p.Signal(syscall.SIGHUP)
	waitFor(t, func() bool { return announcedBy(t, p.URL).Contracts == nil })
}

// relayd top beside a relay at work: once, as JSON, and when nobody answers.
func TestTop(t *testing.T) {
	p := testnode.StartProcess(t, testnode.ProcessOptions{}) // with a database of its own, whose disk is watched
	s := newStream(t)
	p.Grant(t, s.sender.Public())
	e, id := s.sign(p.Key)
	if err := s.put(p.URL, e, id); err != nil {
		t.Fatal(err)
	}
	if code, _ := status(t, p.URL+"/nowhere"); code != http.StatusNotFound {
		t.Errorf("%d", code)
	}
	if code, body := status(t, p.OperatorURL+"/status"); code != http.StatusUnauthorized {
		t.Errorf("the status is for everybody: %d %s", code, body)
	}
	if code, _ := status(t, p.URL+"/status"); code == http.StatusOK {
		t.Error("strangers read the status")
	}
	operator := strings.TrimPrefix(p.OperatorURL, "http://")
	args := []string{"top", "--dir", p.Dir, "--operator-listen", operator, "--every", "100ms"}
	got := command(t, append(args, "--once")...)
	if got.code != 0 || got.err != "" || strings.Contains(got.out, "\x1b") {
		t.Fatalf("exit code %d: %s%s", got.code, got.out, got.err)
	}
	sender := s.sender.Public().Bech32()
	for _, want := range []string{p.Key.Bech32(), "written/s", "Latency    writes", "Database   ", "Disk       ", "Process    ", "not_found", sender[:12] + "…" + sender[len(sender)-6:]} {
		if !strings.Contains(got.out, want) {
			t.Errorf("it lacks %q\n%s", want, got.out)
		}
	}

	cmd := testnode.Command(t, append(args, "--json")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range 3 {
		if !lines.Scan() {
			t.Fatal("it has ended")
		}
		var v struct {
			Key      protocol.PublicKey
			Over     float64
			Rates    map[string]float64
			Database struct{ Answers bool }
			Disk     struct{ Free, Keep int64 }
			Refused  []struct {
				Code  string
				Total int
			}
			Accounts []struct {
				Key   protocol.PublicKey
				Moved int64
			}
		}
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		if v.Key != p.Key || v.Over <= 0 || !v.Database.Answers || v.Disk.Free == 0 || v.Disk.Keep != 1<<30 || len(v.Rates) != 7 || len(v.Refused) != 1 || v.Refused[0].Code != "not_found" ||
			len(v.Accounts) != 1 || v.Accounts[0].Key != s.sender.Public() || v.Accounts[0].Moved == 0 {
			t.Errorf("it says %s", lines.Bytes())
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGINT: %v", err)
	}

	p.Kill()
	if got := command(t, append(args, "--once")...); got.code != 1 || !strings.Contains(got.err, "the relay does not run") {
		t.Errorf("of a relay that does not run: exit code %d: %s%s", got.code, got.out, got.err)
	}
	if got := command(t, "top", "--dir", p.Dir, "--every", "1ms"); got.code != 2 {
		t.Errorf("a thousand looks a second: exit code %d", got.code)
	}
}

// docs/operators.md names what takes effect without a restart, and nothing else.
func TestLiveSettingsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/operators.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "**Without a restart**")
	paragraph, _, _ := strings.Cut(rest, "\n\n")
	if !found {
		t.Fatal("docs/operators.md does not say what takes effect without a restart")
	}
	var named []string
	for _, match := range regexp.MustCompile("`([a-z-]+)`").FindAllStringSubmatch(paragraph, -1) {
		named = append(named, match[1])
	}
	for _, item := range newSettings(nil).all {
		if isLive(item.name) != slices.Contains(named, item.name) {
			t.Errorf("%s takes effect without a restart: %t, and docs/operators.md names %q", item.name, isLive(item.name), named)
		}
	}
}

func TestUnit(t *testing.T) {
	got := relayd(t, nil, "unit")
	file, err := os.ReadFile("../../packaging/systemd/relayd.service")
	if err != nil || got.code != 0 || !bytes.Equal(file, []byte(got.out)) {
		t.Errorf("exit code %d (%v)\n%s", got.code, err, got.out)
	}
	if users := relayd(t, nil, "unit", "--sysusers"); !strings.Contains(users.out, "\nu relayd ") {
		t.Errorf("%s%s", users.out, users.err)
	}
}
