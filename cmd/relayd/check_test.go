package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relaymarket/internal/confcheck"
)

// checkFolder is a relay's folder in order, on a machine where nothing is wrong.
func checkFolder(t *testing.T, config string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "relay")
	if got := relayd(t, nil, "init", "--dir", dir); got.code != 0 {
		t.Fatal(got.err)
	}
	writeConfig(t, dir, config)
	return dir
}

// Each of these is found, is told with what to do, and nothing else is.
func TestConfigCheck(t *testing.T) {
	files := t.TempDir()
	valid, soon, ended := filepath.Join(files, "valid"), filepath.Join(files, "soon"), filepath.Join(files, "ended")
	writeCertificate(t, valid, 90*24*time.Hour)
	writeCertificate(t, soon, 3*24*time.Hour)
	writeCertificate(t, ended, -time.Minute)
	pair := func(cert, key string) string {
		return "tls-cert = \"" + cert + ".crt\"\ntls-key = \"" + key + ".key\"\n"
	}
	const public = "listen = \":443\"\naddress = [\"https://relay.example.org\"]\n"
	for name, test := range map[string]struct {
		config string
		spoil  func(t *testing.T, dir string)
		level  confcheck.Level // empty: nothing is found
		says   string
		do     string
	}{
		"defaults":             {"", nil, "", "", ""},
		"certificate in files": {public + pair(valid, valid), nil, "", "", ""},
		"proxy":                {"address = [\"https://relay.example.org\"]\ntrust-proxy = [\"127.0.0.1\"]\n", nil, "", "", ""},
		"onion":                {"address = [\"http://pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion\"]\n", nil, "", "", ""},
		"own certificate":      {"listen = \":7447\"\naddress = [\"https://203.0.113.5:7447\"]\ntls-own = \"yes\"\n", nil, "", "", ""},
		"ACME":                 {public + "tls-acme = [\"relay.example.org\"]\n", nil, "", "", ""},

		"unknown name":       {"listn = \":1\"\n", nil, confcheck.Error, "listn is no setting", "write listen"},
		"bad value":          {"max-pulls = \"many\"\n", nil, confcheck.Error, "max-pulls", "change it"},
		"contradiction":      {"admitted-bytes = \"2MiB\"\n", nil, confcheck.Error, "up to record-bytes", "change it"},
		"one port twice":     {"nats-listen = \":7448\"\n", nil, confcheck.Error, "operator-listen and nats-listen both want port 7448", "another port"},
		"operator's address": {"operator-listen = \":7448\"\n", nil, confcheck.Warning, "reads its metrics", "127.0.0.1"},
		"operator in public": {"operator-listen = \"203.0.113.5:7448\"\n", nil, confcheck.Warning, "strangers read", "127.0.0.1"},

		"https without TLS":        {"address = [\"https://relay.example.org\"]\n", nil, confcheck.Error, "plain HTTP", "trust-proxy"},
		"only loopback listens":    {"address = [\"https://relay.example.org:7447\"]\n" + pair(valid, valid), nil, confcheck.Error, "nobody outside", "listen on :7447"},
		"other port":               {"listen = \":7447\"\naddress = [\"https://relay.example.org\"]\n" + pair(valid, valid), nil, confcheck.Warning, "port 443", "router"},
		"private address":          {"listen = \":7447\"\naddress = [\"https://10.0.0.1:7447\"]\ntls-own = \"yes\"\n", nil, confcheck.Warning, "network of your own", "from outside"},
		"no address":               {"listen = \":7447\"\n", nil, confcheck.Warning, "no address is announced", "set address"},
		"trusts all":               {"trust-proxy = [\"0.0.0.0/0\"]\n", nil, confcheck.Error, "everybody may say", "the proxy's own"},
		"past the proxy":           {"listen = \":7447\"\naddress = [\"https://relay.example.org\"]\ntrust-proxy = [\"10.0.0.1\"]\n", nil, confcheck.Warning, "past the proxy", "127.0.0.1"},
		"ACME elsewhere":           {"listen = \":443\"\naddress = [\"https://relay.example.org\", \"https://b.example\"]\ntls-acme = [\"relay.example.org\"]\n", nil, confcheck.Error, "asks for no certificate", "add b.example"},
		"ACME for nobody":          {public + "tls-acme = [\"relay.example.org\", \"b.example\"]\n", nil, confcheck.Warning, "not announced", "add https://b.example"},
		"certificate ended":        {public + pair(ended, ended), nil, confcheck.Error, "ended at", "renew"},
		"certificate ends":         {public + pair(soon, soon), nil, confcheck.Warning, "ends at", "renew"},
		"another's key":            {public + pair(valid, soon), nil, confcheck.Error, "does not match", "belongs to it"},
		"certificate of another":   {"listen = \":443\"\naddress = [\"https://other.example.org\"]\n" + pair(valid, valid), nil, confcheck.Error, "not for it", "get a certificate for other.example.org"},
		"no certificate":           {public + "tls-cert = \"" + valid + ".crt\"\ntls-key = \"/nowhere/x.key\"\n", nil, confcheck.Error, "no such file", "see that it is there"},
		"credentials are a folder": {"nats = [\"nats://10.0.0.1\"]\nnats-credentials = \"/etc\"\n", nil, confcheck.Error, "is a folder", "name a file"},
		"a path that is not whole": {"nats = [\"nats://10.0.0.1\"]\nnats-credentials = \"check_test.go\"\n", nil, confcheck.Warning, "depends on where", "whole path"},
		"no Postgres":              {"postgres-bin = \"" + files + "\"\n", nil, confcheck.Error, "postgres", "see that it is there"},
		"small bucket":             {"burst-key = 10\n", nil, confcheck.Warning, "burst-key is 10", "100 or more"},
		"streams of one":           {"max-listeners = 5\n", nil, confcheck.Warning, "one reader", "listeners-per-key"},
		"short time":               {"body-timeout = \"2s\"\n", nil, confcheck.Warning, "8 MiB", "15s"},
		"long end":                 {"shutdown-timeout = \"5m\"\n", nil, confcheck.Warning, "systemd", "TimeoutStopSec"},
		"huge reserve":             {"disk-free = \"900TB\"\n", nil, confcheck.Warning, "early", "lower disk-free"},
		"generous":                 {"volunteer-stored = \"80TB\"\n", nil, confcheck.Warning, "for nothing", "volunteer-accounts"},
		"of no effect":             {"database-url = \"postgres://db.example/x\"\ndisk-free = \"2GiB\"\n", nil, confcheck.Warning, "only matter with the private", "take"},
		"no seed": {"bitcoin-rpc = \"127.0.0.1:1\"\nbitcoin-cookie-file = \"/etc/hostname\"\n", nil, confcheck.Error,
			"bitcoin.words", "relayd wallet init"},
		"no key":                {"", func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "relay.key"))) }, confcheck.Error, "no relay key", "relayd init"},
		"key for all":           {"", func(t *testing.T, dir string) { must(t, os.Chmod(filepath.Join(dir, "relay.key"), 0o644)) }, confcheck.Error, "others can read", "chmod 600"},
		"folder for all":        {"", func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o777)) }, confcheck.Error, "others can write", "chmod go-w"},
		"password for all":      {"database-url = \"postgres://u:secret@db.example/x\"\n", func(t *testing.T, dir string) { must(t, os.Chmod(filepath.Join(dir, "relayd.toml"), 0o644)) }, confcheck.Warning, "a password stands in it", "chmod 600"},
		"expected at its place": {"database-url = \"postgres://u:secret@db.example/x\"\n", nil, "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := checkFolder(t, test.config)
			if test.spoil != nil {
				test.spoil(t, dir)
			}
			got := relayd(t, fewFiles(test.config), "config", "check", "--json", "--dir", dir)
			var shown struct {
				Settings []struct{ Setting, From string }
				Findings []confcheck.Finding
			}
			if err := json.Unmarshal([]byte(got.out), &shown); err != nil {
				t.Fatalf("%v: %s%s", err, got.out, got.err)
			}
			if len(shown.Settings) != len(newSettings(nil).all) || strings.Contains(got.out+got.err, "secret") {
				t.Errorf("it shows %s", got.out)
			}
			code := 0
			if test.level == confcheck.Error {
				code = exitUsage
			}
			if got.code != code {
				t.Errorf("exit code %d: %s", got.code, got.err)
			}
			if test.level == "" {
				if len(shown.Findings) > 0 {
					t.Errorf("it finds %+v", shown.Findings)
				}
				return
			}
			found := false
			for _, f := range shown.Findings {
				if strings.Contains(f.Says, test.says) {
					found = true
					if f.Level != test.level || !strings.Contains(f.Do, test.do) || len(f.Settings) == 0 && !strings.Contains(f.Says, "is no setting") {
						t.Errorf("it says %+v", f)
					}
				}
			}
			if !found {
				t.Errorf("it finds %+v", shown.Findings)
			}
		})
	}
}

// fewFiles has a relay be content with the files that any user may open, unless the configuration says something else.
func fewFiles(config string) []string {
	if strings.Contains(config, "max-listeners") {
		return nil
	}
	return []string{"RELAYD_MAX_LISTENERS=100", "RELAYD_MAX_REQUESTS=100"}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// All mistakes at once, for people: what is in force, then what is wrong. Nothing is made or started.
func TestConfigCheckForPeople(t *testing.T) {
	dir := checkFolder(t, "listn = \":1\"\nmax-pulls = 0\ncontact = \"ann\"\n")
	got := relayd(t, []string{"RELAYD_RATE_KEYS=1"}, "config", "check", "--dir", dir, "--log-level", "warn")
	for _, want := range []string{"did you mean listen?", "max-pulls: \"0\" is not a whole number", "RELAYD_RATE_KEYS is no setting"} {
		if !strings.Contains(got.out, want) && !strings.Contains(got.out, strings.TrimPrefix(want, "did you mean listen?")) {
			t.Errorf("it lacks %q\n%s", want, got.out)
		}
	}
	if got.code != exitUsage || strings.Count(got.out, "error: ") != 3 || !strings.Contains(got.out, "  write listen\n") || !strings.Contains(got.out, "  write RELAYD_RATE_KEY\n") {
		t.Errorf("exit code %d\n%s", got.code, got.out)
	}
	if line := shownFrom(got.out, "contact"); line != "contact ann file" {
		t.Error(line)
	}
	if line := shownFrom(got.out, "log-level"); line != "log-level warn flag" {
		t.Error(line)
	}
	quiet := relayd(t, fewFiles(""), "config", "check", "--quiet", "--dir", checkFolder(t, ""))
	if quiet.code != 0 || quiet.out != "" || quiet.err != "" {
		t.Errorf("of nothing it says: exit code %d\n%s%s", quiet.code, quiet.out, quiet.err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("it made something: %v (%v)", left, err)
	}
}

// shownFrom is a row of the table, its fields with one space between.
func shownFrom(out, name string) string {
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] == name {
			return strings.Join(fields, " ")
		}
	}
	return ""
}
