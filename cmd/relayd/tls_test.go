package main

import (
	"strings"
	"testing"
)

// The three ways exclude each other, and each says what it lacks.
func TestTLSSettings(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"tls-own = \"yes\"\n": "certifies the hosts of address",
		"tls-own = \"yes\"\naddress = [\"https://203.0.113.5\"]\n":                                   "",
		"tls-cert = \"a.pem\"\n":                                                                     "belong together",
		"tls-key = \"a.pem\"\n":                                                                      "belong together",
		"tls-cert = \"a.pem\"\ntls-key = \"b.pem\"\n":                                                "",
		"tls-cert = \"a.pem\"\ntls-key = \"b.pem\"\ntls-acme = [\"relay.example.org\"]\n":            "three ways",
		"tls-acme = [\"203.0.113.5\"]\n":                                                             "is an IP address",
		"tls-acme = [\"no name\"]\n":                                                                 "is no host name",
		"tls-acme-email = \"a@example.org\"\n":                                                       "which is not set",
		"tls-acme = [\"relay.example.org\"]\ntls-own = \"yes\"\naddress = [\"https://a.example\"]\n": "three ways",
	} {
		dir := t.TempDir()
		writeConfig(t, dir, text)
		r := relayd(t, nil, "config", "--dir", dir)
		if want == "" && r.code != 0 || want != "" && (r.code == 0 || !strings.Contains(r.err, want)) {
			t.Errorf("%q: %d, %s, not %q", text, r.code, r.err, want)
		}
	}
}
