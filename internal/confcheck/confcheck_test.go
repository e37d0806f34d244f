package confcheck

import (
	"strings"
	"testing"
	"time"
)

// What depends on the machine is looked at here; relayd config check is tested with the program.
func TestMachine(t *testing.T) {
	for name, test := range map[string]struct {
		files uint64
		says  string
	}{
		"enough":    {20_712, ""},
		"too few":   {20_711, "may take 20712 files, and this user may have 20711 open"},
		"not known": {0, ""},
	} {
		c := Config{Limits: Limits{MaxListeners: 20_000, MaxRequests: 512, ListenersPerKey: 1, OpenFiles: test.files, BodyTimeout: time.Minute}}
		c.Files = Files{Folder: t.TempDir()}
		c.Files.Key = c.Files.Folder // which is there, and its owner's alone
		var says []string
		for _, f := range Check(c) {
			if strings.Contains(f.Says, "files") {
				says = append(says, f.Says)
			}
		}
		if test.says == "" && len(says) > 0 || test.says != "" && (len(says) != 1 || !strings.Contains(says[0], test.says)) {
			t.Errorf("%s: it says %q", name, says)
		}
	}
}

// A relay's ports: who listens everywhere listens there too, and port 0 is any.
func TestPorts(t *testing.T) {
	for name, test := range map[string]struct {
		a, b  string
		clash bool
	}{
		"the same":      {"127.0.0.1:1", "127.0.0.1:1", true},
		"everywhere":    {":1", "127.0.0.1:1", true},
		"unspecified":   {"[::]:1", "10.0.0.1:1", true},
		"two addresses": {"10.0.0.1:1", "10.0.0.2:1", false},
		"two ports":     {":1", ":2", false},
		"any port":      {":0", ":0", false},
		"by name":       {"localhost:1", "127.0.0.1:1", true},
		"mapped":        {"[::ffff:127.0.0.1]:1", "127.0.0.1:1", true},
	} {
		n := Network{Listens: []Listen{{"a", test.a}, {"b", test.b}}}
		var found findings
		n.ports(&found)
		if (len(found) == 1) != test.clash {
			t.Errorf("%s: %+v", name, found)
		}
	}
}
