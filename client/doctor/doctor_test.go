package doctor

import (
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/client/files"
	"relaymarket/client/state"
	"relaymarket/protocol"
)

func level(t *testing.T, all []Finding, check string, want Level) {
	t.Helper()
	for _, f := range all {
		if f.Check != check {
			continue
		}
		if f.Level != want || (f.Level != OK && f.Do == "") {
			t.Errorf("%+v, want %s", f, want)
		}
		return
	}
	t.Errorf("nothing about %s in %+v", check, all)
}

func TestClocks(t *testing.T) {
	for off, want := range map[time.Duration]Level{0: OK, 20 * time.Second: OK, -2 * time.Minute: Warn, 2 * time.Minute: Warn, 10 * time.Minute: Fail, -time.Hour: Fail} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
			_, _ = w.Write([]byte("{}"))
		}))
		all := Relay(t.Context(), client.Relay{Address: server.URL}, nil, time.Now)
		level(t, all, "clock", want)
		level(t, all, "relay", Fail) // it is none
		server.Close()
	}
}

func TestWhatIsNoRelay(t *testing.T) {
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	for name, test := range map[string]struct{ address, says string }{
		"certificate of nobody": {secure.URL, "certificate"},
		"nothing there":         {gone.URL, "404"},
	} {
		all := Relay(t.Context(), client.Relay{Address: test.address}, nil, time.Now)
		level(t, all, "relay", Fail)
		if !strings.Contains(all[len(all)-1].Text, test.says) {
			t.Errorf("%s: %+v", name, all)
		}
	}
	gone.Close()
	level(t, Relay(t.Context(), client.Relay{Address: gone.URL}, nil, time.Now), "relay", Fail)
}

func TestCertificates(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		begun, ends time.Duration
		want        Level
	}{{-day, 80 * day, OK}, {-80 * day, 10 * day, Warn}, {-5 * day, day, OK}} {
		leaf := &x509.Certificate{NotBefore: now.Add(test.begun), NotAfter: now.Add(test.ends)}
		level(t, certificate("https://relay.example", leaf, now), "certificate", test.want)
	}
}

func TestBackupsGrowOld(t *testing.T) {
	owner := protocol.PublicKey{1}
	s, err := state.Open(t.Context(), state.Config{Path: filepath.Join(t.TempDir(), "state.db"), Owner: &owner})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now := time.Now()
	level(t, []Finding{Backup(t.Context(), s, now, false)}, "backup", OK) // of nothing
	if err := s.PutRelay(t.Context(), protocol.PublicKey{2}, "https://relay.example", 1); err != nil {
		t.Fatal(err)
	}
	level(t, []Finding{Backup(t.Context(), s, now, false)}, "backup", Warn)
	level(t, []Finding{Backup(t.Context(), s, now, true)}, "backup", Fail)
	for _, age := range []time.Duration{40 * day, day} {
		if err := s.NoteBackup(t.Context(), state.Backup{At: protocol.TimestampOf(now.Add(-age)), Place: "/media/stick/backup"}); err != nil {
			t.Fatal(err)
		}
		want := OK
		if age > staleBackup {
			want = Warn
		}
		level(t, []Finding{Backup(t.Context(), s, now, true)}, "backup", want)
	}
}

func TestDiskLasts(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	free, known := files.Room(dir)
	if !known || free < littleRoom {
		t.Fatal("the disk of TMPDIR is full: make room, a forecast needs some")
	}
	grew := func(bytes int64) state.Health {
		return state.Health{Grown: bytes, Since: protocol.TimestampOf(now.Add(-10 * day))}
	}
	level(t, []Finding{Disk(dir, grew(0), now)}, "disk", OK)
	level(t, []Finding{Disk(dir, grew(free/100), now)}, "disk", OK)
	level(t, []Finding{Disk(dir, grew(free), now)}, "disk", Warn) // ten days more
	level(t, []Finding{Disk(dir, grew(1<<45), now)}, "disk", Warn)
}
