package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// result is how relayd ended, run in this process.
type result struct {
	code     int
	out, err string
}

func relayd(t *testing.T, environ []string, args ...string) result {
	t.Helper()
	var out, errors bytes.Buffer
	p := program{environ: environ, out: &out, err: &errors}
	code := p.run(t.Context(), args)
	return result{code, out.String(), errors.String()}
}

func writeConfig(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "relayd.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// shown finds a setting in what relayd config prints.
func shown(t *testing.T, out, name string) string {
	t.Helper()
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] == name {
			return strings.Join(fields[1:len(fields)-1], " ")
		}
	}
	t.Fatalf("no %s in\n%s", name, out)
	return ""
}

func TestPrecedence(t *testing.T) {
	for name, test := range map[string]struct {
		file    string
		environ []string
		args    []string
		setting string
		want    string
	}{
		"default":                {"", nil, nil, "listen", "127.0.0.1:7447 default"},
		"file":                   {`listen = "127.0.0.1:1"`, nil, nil, "listen", "127.0.0.1:1 file"},
		"environment over file":  {`listen = "127.0.0.1:1"`, []string{"RELAYD_LISTEN=127.0.0.1:2"}, nil, "listen", "127.0.0.1:2 environment"},
		"flag over all":          {`listen = "127.0.0.1:1"`, []string{"RELAYD_LISTEN=127.0.0.1:2"}, []string{"--listen", "127.0.0.1:3"}, "listen", "127.0.0.1:3 flag"},
		"flag over file":         {`listen = "127.0.0.1:1"`, nil, []string{"--listen", "127.0.0.1:3"}, "listen", "127.0.0.1:3 flag"},
		"flag that is default":   {`max-pulls = 3`, nil, []string{"--max-pulls", "10000"}, "max-pulls", "10000 flag"},
		"hyphens":                {"", []string{"RELAYD_OPERATOR_LISTEN=127.0.0.1:2"}, nil, "operator-listen", "127.0.0.1:2 environment"},
		"empty in environment":   {`contact = "x"`, []string{"RELAYD_CONTACT="}, nil, "contact", "environment"},
		"number":                 {"max-pulls = 7", nil, nil, "max-pulls", "7 file"},
		"number as text":         {`max-pulls = "7"`, nil, nil, "max-pulls", "7 file"},
		"size":                   {`record-bytes = "2MiB"`, nil, nil, "record-bytes", "2MiB file"},
		"size as number":         {"record-bytes = 1500000", nil, nil, "record-bytes", "1500kB file"},
		"days":                   {`lifetime = "30d"`, nil, nil, "lifetime", "30d file"},
		"list in file":           {`address = ["https://a.example", "https://b.example"]`, nil, nil, "address", "https://a.example,https://b.example file"},
		"list in environment":    {`address = ["https://a.example"]`, []string{"RELAYD_ADDRESS=https://c.example, https://d.example"}, nil, "address", "https://c.example,https://d.example environment"},
		"flag twice":             {`address = ["https://a.example"]`, nil, []string{"--address", "https://b.example", "--address", "https://c.example"}, "address", "https://b.example,https://c.example flag"},
		"one address as network": {"", nil, []string{"--trust-proxy", "127.0.0.1"}, "trust-proxy", "127.0.0.1/32 flag"},
		"password hidden":        {`database-url = "postgres://u:secret@h/d"`, nil, nil, "database-url", "postgres://u:xxxxx@h/d file"},
		"password in query":      {`database-url = "postgres://h/d?password=secret"`, nil, nil, "database-url", "postgres://h/d?password=xxxxx file"},
		"NATS password hidden":   {`nats = ["nats://u:secret@h", "tls://secret@h:1"]`, nil, nil, "nats", "nats://u:xxxxx@h,tls://xxxxx@h:1 file"},
		"NATS in environment":    {"", []string{"RELAYD_NATS=nats://a, nats://b"}, nil, "nats", "nats://a,nats://b environment"},
		"no NATS listener":       {`nats-listen = ""`, nil, nil, "nats-listen", "file"},
		"key=value URL hidden":   {`database-url = "host=h password=secret"`, nil, nil, "database-url", "(set) file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeConfig(t, dir, test.file)
			got := relayd(t, test.environ, append([]string{"config", "--dir", dir}, test.args...)...)
			if got.code != 0 || got.err != "" {
				t.Fatalf("exit code %d: %s", got.code, got.err)
			}
			if line := shown(t, got.out, test.setting); line != test.want {
				t.Errorf("%s is %q, want %q", test.setting, line, test.want)
			}
			if strings.Contains(got.out, "secret") {
				t.Errorf("it shows a password:\n%s", got.out)
			}
		})
	}
}

func TestRefusedSettings(t *testing.T) {
	for name, test := range map[string]struct {
		file    string
		environ []string
		args    []string
		says    string
	}{
		"unknown key":            {`listn = "127.0.0.1:1"`, nil, nil, "listn is no setting of relayd: did you mean listen?"},
		"underscore":             {`operator_listen = "127.0.0.1:1"`, nil, nil, "did you mean operator-listen?"},
		"nothing like it":        {`colour = "red"`, nil, nil, "relayd config lists them all"},
		"dir in file":            {`dir = "/tmp"`, nil, nil, "dir is no setting"},
		"table":                  {"[limits]\nmax-pulls = 1", nil, nil, "limits is no setting"},
		"unknown variable":       {"", []string{"RELAYD_LISTNE=x"}, nil, "RELAYD_LISTNE is no setting of relayd: did you mean RELAYD_LISTEN?"},
		"no TOML":                {"listen = ", nil, nil, "is no TOML"},
		"fraction":               {"max-pulls = 1.5", nil, nil, "a whole number"},
		"list for one":           {`listen = ["127.0.0.1:1"]`, nil, nil, "one value, not a list"},
		"list of numbers":        {"address = [1]", nil, nil, "a list of texts"},
		"no port":                {"", []string{"RELAYD_LISTEN=localhost"}, nil, "host:port"},
		"port too large":         {"", nil, []string{"--listen", "127.0.0.1:70000"}, "no port from 0 to 65535"},
		"address with path":      {"", nil, []string{"--address", "https://a.example/x"}, "nothing may follow host and port"},
		"plain address":          {"", nil, []string{"--address", "http://a.example"}, "use https://"},
		"proxy":                  {`trust-proxy = ["10.0.0.0/40"]`, nil, nil, "neither an address nor a network"},
		"NATS URL":               {"", nil, []string{"--nats", "10.0.0.1:4222"}, "nats: a NATS URL cannot be read: write for example nats://10.0.0.1:4222"},
		"NATS scheme":            {"", []string{"RELAYD_NATS=http://u:secret@h"}, nil, "begins with nats://"},
		"NATS port":              {`nats = ["nats://u:secret@h:0"]`, nil, nil, "nats://u:xxxxx@h:0 has no port from 1 to 65535"},
		"NATS here and there":    {`nats = ["nats://h"]`, nil, []string{"--nats-listen", ":4222"}, "set one of the two"},
		"NATS listener":          {`nats-listen = "4222"`, nil, nil, "is not host:port"},
		"credentials for nobody": {`nats-credentials = "x.creds"`, nil, nil, "name them with nats"},
		"size without number":    {"", nil, []string{"--record-bytes", "MB"}, "is no size"},
		"record too large":       {`record-bytes = "9MiB"`, nil, nil, "it can be 1 to 8MiB"},
		"too little room":        {`disk-free = "1MiB"`, nil, nil, "at least 64MiB"},
		"admitted over record":   {`admitted-bytes = "2MiB"`, nil, nil, "up to record-bytes"},
		"no lifetime":            {`lifetime = "0s"`, nil, nil, "nothing could be stored"},
		"time without unit":      {`body-timeout = "15"`, nil, nil, "is no time"},
		"less than a second":     {`header-timeout = "10ms"`, nil, nil, "at least a second"},
		"volunteer for all":      {`volunteer = ["everybody"]`, nil, nil, "neither keys nor topics"},
		"volunteer twice":        {"", nil, []string{"--volunteer", "keys,keys+ads"}, "names keys twice"},
		"unknown condition":      {"", []string{"RELAYD_VOLUNTEER=topics+tracking"}, nil, "conditions are plaintext and ads"},
		"ads without a notice":   {`volunteer = "keys+ads"`, nil, nil, "need a notice"},
		"negative rate":          {"rate-key = -1", nil, nil, "from 0 to"},
		"log level":              {"", []string{"RELAYD_LOG_LEVEL=loud"}, nil, "none of debug"},
		"log format":             {"", nil, []string{"--log-format", "xml"}, "neither text nor json"},
		"unknown flag":           {"", nil, []string{"--listne", "x"}, "unknown flag"},
		"contact too long":       {`contact = "` + strings.Repeat("ä", 201) + `"`, nil, nil, "at most 200"},
		"unexpected argument":    {"", nil, []string{"everything"}, "unknown command"},
		"too few connections":    {"database-connections = 1", nil, nil, "from 4 to"},
		"lifetime beyond reason": {`lifetime = "99999999d"`, nil, nil, "whole days go from"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeConfig(t, dir, test.file)
			got := relayd(t, test.environ, append([]string{"config", "--dir", dir}, test.args...)...)
			if got.code != exitUsage || !strings.Contains(got.err, test.says) || got.out != "" || strings.Contains(got.err, "secret") {
				t.Errorf("exit code %d, it says %q and %q; want %d and %q", got.code, got.err, got.out, exitUsage, test.says)
			}
		})
	}
}

// What init writes must be what is true without it: each line, with its # taken away, is a setting with its
// default.
func TestTemplate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "relay")
	if got := relayd(t, nil, "init", "--dir", dir); got.code != 0 {
		t.Fatalf("init: exit code %d: %s", got.code, got.err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "relayd.toml"))
	if err != nil {
		t.Fatal(err)
	}
	defaults := relayd(t, nil, "config", "--dir", dir)
	live := regexp.MustCompile(`(?m)^#([a-z-]+ = )`).ReplaceAllString(string(text), "$1")
	if err := os.WriteFile(filepath.Join(dir, "relayd.toml"), []byte(live), 0o600); err != nil {
		t.Fatal(err)
	}
	got := relayd(t, nil, "config", "--dir", dir)
	if got.code != 0 {
		t.Fatalf("every setting uncommented: %s", got.err)
	}
	for _, item := range newSettings(nil).all {
		want := strings.Replace(shown(t, defaults.out, item.name), " default", " file", 1)
		if want == "default" {
			want = "file"
		}
		if item.section == "" {
			want = dir + " flag"
		}
		if line := shown(t, got.out, item.name); line != want {
			t.Errorf("%s is %q, want %q", item.name, line, want)
		}
	}
}

// docs/operators.md lists every setting with its default.
func TestSettingsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/operators.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range newSettings([]string{"HOME=/home/you"}).all {
		if item.section == "" {
			continue
		}
		row := "| `" + item.name + "` | `" + item.literal() + "` |"
		if !strings.Contains(string(page), row) {
			t.Errorf("docs/operators.md has no row that begins with %s", row)
		}
	}
}

func TestDefaultFolder(t *testing.T) {
	for name, test := range map[string]struct {
		environ []string
		uid     int
		want    string
	}{
		"root":         {[]string{"HOME=/root"}, 0, "/var/lib/relayd"},
		"user":         {[]string{"HOME=/home/ann"}, 1000, "/home/ann/.local/share/relayd"},
		"XDG":          {[]string{"HOME=/home/ann", "XDG_DATA_HOME=/data"}, 1000, "/data/relayd"},
		"XDG relative": {[]string{"HOME=/home/ann", "XDG_DATA_HOME=data"}, 1000, "/home/ann/.local/share/relayd"},
	} {
		if got := defaultDir(test.environ, test.uid); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}
