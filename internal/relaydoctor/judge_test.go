package relaydoctor

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"relaymarket/internal/findings"
	"relaymarket/internal/leakcheck"
	"relaymarket/internal/relaybackup"
	"relaymarket/internal/relaycare"
	"relaymarket/protocol"
	"relaymarket/relaytls"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

const day = 24 * time.Hour

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func is(t *testing.T, name string, f findings.Finding, level findings.Level, says string) {
	t.Helper()
	if f.Level != level || !strings.Contains(f.Text, says) || (f.Do == "") != (level == findings.OK) {
		t.Errorf("%s: %+v, want %s and %q", name, f, level, says)
	}
}

func TestClockOff(t *testing.T) {
	is(t, "the same", clockOff("clock", "x", 3*time.Millisecond), findings.OK, "to 3ms")
	is(t, "a little", clockOff("clock", "x", 11*time.Second), findings.Warn, "11s later")
	is(t, "too much", clockOff("clock", "x", -301*time.Second), findings.Fail, "5m1s earlier")
}

func TestForecast(t *testing.T) {
	size := func(ago time.Duration, free int64) relaycare.Size {
		return relaycare.Size{At: now.Add(-ago), Bytes: 100e9, Free: &free}
	}
	d := &doctor{now: now}
	d.cfg.Database.Keep = 1e9
	is(t, "nothing known", d.forecast(size(0, 50e9), nil), findings.OK, "when the relay has run")
	is(t, "full", d.forecast(size(0, 1e9), nil), findings.Fail, "new records are refused")
	is(t, "long", d.forecast(size(0, 401e9), []relaycare.Size{size(day, 405e9)}), findings.OK, "full in 100 days")
	is(t, "soon", d.forecast(size(0, 41e9), []relaycare.Size{size(day, 45e9)}), findings.Warn, "full in 10 days")
	is(t, "a burst", d.forecast(size(0, 41e9), []relaycare.Size{size(day, 45e9), size(time.Hour, 43e9)}), findings.Fail, "full in 20h")
	is(t, "more room", d.forecast(size(0, 41e9), []relaycare.Size{size(day, 40e9)}), findings.OK, "that lasts")
}

func TestJudgeBackup(t *testing.T) {
	noted := func(age time.Duration, rehearsed bool) *relaybackup.Noted {
		return &relaybackup.Noted{Taken: protocol.TimestampOf(now.Add(-age)), Bytes: 5e9, Rehearsed: rehearsed}
	}
	d := &doctor{now: now}
	is(t, "none", d.judgeBackup(nil, 0), findings.Warn, "there is none")
	is(t, "none, and money", d.judgeBackup(nil, 3), findings.Fail, "3 contracts")
	is(t, "good", d.judgeBackup(noted(time.Hour, true), 3), findings.OK, "1h0m0s old, 5.0 GB")
	is(t, "two days", d.judgeBackup(noted(2*day, true), 0), findings.OK, "2 days old")
	is(t, "two days, and money", d.judgeBackup(noted(2*day, true), 1), findings.Warn, "in the database alone")
	is(t, "old", d.judgeBackup(noted(8*day, true), 0), findings.Warn, "8 days old")
	is(t, "not rehearsed", d.judgeBackup(noted(time.Hour, false), 0), findings.Warn, "nobody tried")
}

// The relay's own certificate is good for its hosts and its time, and nobody else's is.
func TestJudgeCertificate(t *testing.T) {
	key, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	secure, err := relaytls.Own(key, []string{"192.0.2.1"}, t.TempDir(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	made, err := secure.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	d := &doctor{now: now}
	d.cfg.Key = key
	judge := func(at time.Time, host string) findings.Finding {
		leaf, err := parse(made)
		if err != nil {
			t.Fatal(err)
		}
		d.now = at
		return d.judgeCertificate(leaf, host)
	}
	is(t, "good", judge(now, "192.0.2.1"), findings.OK, "is good for")
	is(t, "another host", judge(now, "192.0.2.2"), findings.Fail, "is for 192.0.2.1 and not for 192.0.2.2")
	is(t, "soon", judge(now.Add(85*day), "192.0.2.1"), findings.Warn, "ends in")
	is(t, "over", judge(now.Add(91*day), "192.0.2.1"), findings.Fail, "ended")
	if d.cfg.Key, err = protocol.GeneratePrivateKey(); err != nil {
		t.Fatal(err)
	}
	is(t, "another relay's", judge(now, "192.0.2.1"), findings.Fail, "is of the relay")
	is(t, "none", d.judgeCertificate(nil, "192.0.2.1"), findings.Fail, "no certificate")
}

func parse(c *tls.Certificate) (chain []*x509.Certificate, err error) {
	for _, der := range c.Certificate {
		one, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		chain = append(chain, one)
	}
	return chain, nil
}
