package main

import (
	"encoding/json"
	"strings"
	"testing"

	"relaymarket/internal/findings"
	"relaymarket/internal/relaynode"
	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
	"relaymarket/protocol"
)

// visited runs relayd doctor and returns the worst level of each name, what was found in all, and the exit code.
func visited(t *testing.T, args ...string) (levels map[string]findings.Level, text string, code int) {
	t.Helper()
	got := command(t, append([]string{"doctor", "--json"}, args...)...)
	var said struct {
		Worst    findings.Level
		Findings findings.List
	}
	if err := json.Unmarshal([]byte(got.out), &said); err != nil {
		t.Fatalf("%v: exit code %d: %s%s", err, got.code, got.out, got.err)
	}
	by := map[string]findings.List{}
	levels = map[string]findings.Level{}
	for _, f := range said.Findings {
		by[f.Name] = append(by[f.Name], f)
		levels[f.Name] = by[f.Name].Worst()
		if f.Level != findings.OK && f.Do == "" {
			t.Errorf("of %s it says %q, and not what to do", f.Name, f.Text)
		}
	}
	if want := said.Findings.Worst(); said.Worst != want || (want == findings.Fail) != (got.code == 1) {
		t.Errorf("worst is %s, said is %s, exit code %d", want, said.Worst, got.code)
	}
	return levels, got.out, got.code
}

func expect(t *testing.T, when string, levels map[string]findings.Level, text string, want map[string]findings.Level) {
	t.Helper()
	for name, level := range want {
		if levels[name] != level {
			t.Errorf("%s: %s is %q, want %q: %s", when, name, levels[name], level, text)
		}
	}
}

// The doctor comes before the relay was ever started, while it serves, when it was killed, and when its key is gone.
func TestDoctor(t *testing.T) {
	const ok, warn, fail = findings.OK, findings.Warn, findings.Fail
	dir := testnode.Folder(t)
	if got := command(t, "init", "--dir", dir); got.code != 0 {
		t.Fatal(got.err)
	}
	free := []string{"--dir", dir, "--operator-listen", testnode.FreeAddress(t)}
	levels, text, code := visited(t, free...)
	expect(t, "new", levels, text, map[string]findings.Level{"key": ok, "relay": warn, "database": warn})
	if code != 0 {
		t.Errorf("of a new relay the exit code is %d", code)
	}
	p := testnode.StartProcess(t, testnode.ProcessOptions{Dir: dir})
	at := []string{"--dir", dir, "--listen", strings.TrimPrefix(p.URL, "http://"), "--operator-listen", strings.TrimPrefix(p.OperatorURL, "http://")}
	levels, text, code = visited(t, at...)
	expect(t, "serving", levels, text, map[string]findings.Level{"relay": ok, "clock": ok, "database": ok, "settings": ok, "vacuum": ok, "disk": ok, "backup": warn, "announcement": warn})
	if code != 0 {
		t.Errorf("of a relay that serves the exit code is %d: %s", code, text)
	}
	p.Kill()
	levels, text, _ = visited(t, at...)
	expect(t, "killed", levels, text, map[string]findings.Level{"relay": warn, "database": ok})
	if got := command(t, "doctor", "--dir", testnode.Folder(t)); got.code != 1 || !strings.HasPrefix(got.out, "fail  key       there is no relay key") || !strings.Contains(got.out, "\n      do: ") {
		t.Errorf("without a key: exit code %d: %s%s", got.code, got.out, got.err)
	}
}

// A hub's other relay reaches the address of one that is in the market, and says that it does not reach one where nobody listens.
func TestDoctorAsksFromOutside(t *testing.T) {
	const ok, fail = findings.OK, findings.Fail
	hub := testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) {
		c.Market = relaynode.Market{Network: protocol.Regtest, Hub: &relaynode.Hub{Listen: "127.0.0.1:0", Folder: t.TempDir()}}
	}})
	market := []string{"--bitcoin-network", "regtest", "--hubs", hub.HubURL}
	p := testnode.StartProcess(t, testnode.ProcessOptions{DSN: testpg.New(t), Args: market})
	doctor := func(p *testnode.Process, more ...string) (map[string]findings.Level, string) {
		t.Helper()
		args := append([]string{"--dir", p.Dir, "--database-url", p.DSN, "--listen", strings.TrimPrefix(p.URL, "http://"), "--operator-listen", strings.TrimPrefix(p.OperatorURL, "http://")}, market...)
		levels, text, _ := visited(t, append(args, more...)...)
		return levels, text
	}
	waitFor(t, func() bool { return strings.Contains(p.Log(), "announced") })
	var levels map[string]findings.Level
	var text string
	waitFor(t, func() bool { // the hub's own relay may be in its book a moment later, and who is asked may be slow to answer
		levels, text = doctor(p)
		return levels["hubs"] == ok && levels["reachable"] == ok
	})
	expect(t, "reached", levels, text, map[string]findings.Level{"announcement": ok, "hubs": ok, "reachable": ok, "clock": ok})
	levels, text = doctor(p, "--through", hub.URL)
	expect(t, "through", levels, text, map[string]findings.Level{"reachable": ok})
	if !strings.Contains(text, hub.URL+" reaches "+p.URL) {
		t.Errorf("it says %s", text)
	}

	nobody := "http://" + testnode.FreeAddress(t)
	q := testnode.StartProcess(t, testnode.ProcessOptions{DSN: testpg.New(t), Args: append([]string{"--address", nobody}, market...)})
	levels, text = doctor(q, "--address", nobody, "--through", hub.URL)
	expect(t, "not reached", levels, text, map[string]findings.Level{"announcement": ok, "reachable": fail})
	if !strings.Contains(text, "nothing takes the connection") {
		t.Errorf("it says %s", text)
	}
}
