package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// What cannot work together is refused with the names of the settings, and nothing that is secret is shown.
func TestMarketSettings(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "relay")
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"no address":           {[]string{"--hubs", "tls://hub.example:4222"}, "set address"},
		"no port":              {[]string{"--address", "https://r.example", "--hubs", "tls://hub.example"}, "4222"},
		"a web address":        {[]string{"--address", "https://r.example", "--hubs", "https://hub.example"}, "nats://"},
		"secret and no port":   {[]string{"--address", "https://r.example", "--hubs", "tls://me:hunter2@hub.example"}, "xxxxx"},
		"two places":           {[]string{"--hub-listen", ":4222", "--hub-nats", "nats://10.0.0.1:4222"}, "hub-nats"},
		"half a certificate":   {[]string{"--hub-listen", ":4222", "--hub-certificate", "cert.pem"}, "hub-key"},
		"TLS for nothing":      {[]string{"--hub-certificate", "cert.pem", "--hub-key", "key.pem"}, "hub-listen"},
		"peers of no hub":      {[]string{"--hub-peers", "tls://hub.example:4222"}, "hub-listen"},
		"credentials for none": {[]string{"--hub-nats-credentials", "x.creds"}, "hub-nats"},
		"a secret announced":   {[]string{"--hub-listen", ":4222", "--hub-address", "tls://me:hunter2@hub.example:4222"}, "hub-address"},
	} {
		got := relayd(t, nil, append([]string{"config", "--dir", dir}, c.args...)...)
		if got.code != exitUsage || !strings.Contains(got.err, c.says) || strings.Contains(got.err, "hunter2") {
			t.Errorf("%s: exit code %d: %s", name, got.code, got.err)
		}
	}
	got := relayd(t, []string{"RELAYD_HUBS=tls://me:hunter2@hub.example:4222", "RELAYD_ADDRESS=https://r.example"}, "config", "--dir", dir)
	if got.code != 0 || strings.Contains(got.out, "hunter2") || !strings.Contains(got.out, "hub.example:4222") {
		t.Errorf("config: exit code %d\n%s%s", got.code, got.out, got.err)
	}
}

// What hub-policy prints is a configuration that a NATS server takes.
func TestHubPolicy(t *testing.T) {
	got := relayd(t, nil, "hub-policy", "--dir", t.TempDir(), "--bitcoin-network", "signet")
	if got.code != 0 || !strings.Contains(got.out, policyPassword) || !strings.Contains(got.out, "relaymarket.v1.signet.ingest") {
		t.Fatalf("exit code %d\n%s%s", got.code, got.out, got.err)
	}
	var options server.Options
	if err := options.ProcessConfigString(got.out); err != nil {
		t.Fatalf("%v\n%s", err, got.out)
	}
	if !options.JetStream || options.MaxPayload != 8000 && options.MaxPayload != 8<<10 || len(options.Users) != 2 || options.NoAuthUser != "public" {
		t.Errorf("it means %d users, payloads of %d", len(options.Users), options.MaxPayload)
	}
}
