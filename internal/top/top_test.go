package top

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"relaymarket/internal/status"
	"relaymarket/protocol"
)

// look is a relay that has run for an hour.
func look(t *testing.T) *status.Status {
	t.Helper()
	key, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return &status.Status{At: at, Started: at.Add(-time.Hour), Key: key.Public(), Written: 1000, Pulled: 500, Received: 1 << 20, Sent: 1 << 21,
		Requests: map[string]int64{"writeRecord": 1000, "listen": 10}, RefusedAll: 5, Refused: map[string]int64{"no_account": 4, "gone": 1}, Dropped: map[string]int64{},
		Latency:   map[string]status.Histogram{"writeRecord": {Bounds: []float64{0.001, 0.01, 0.1}, Counts: []int64{900, 990, 1000, 1000}}},
		Listeners: 7, Database: status.Database{Answers: true, Millis: 0.4, Most: 18}, Disk: &status.Disk{Free: 50e9, Keep: 1e9},
		Memory: status.Memory{Resident: 130e6, Files: 33, MaxFiles: 65536}, AccountsAt: at,
		Accounts: []status.Account{{Key: key.Public(), Kind: "grant", Note: "Ann\x1b[2J", Moved: 1e9, Stored: 1e6, Active: true}}}
}

// after is the same relay some seconds later.
func after(s *status.Status, seconds int) *status.Status {
	next := *s
	next.At = s.At.Add(time.Duration(seconds) * time.Second)
	return &next
}

func TestBetween(t *testing.T) {
	before := look(t)
	now := after(before, 2)
	now.Written, now.Pulled, now.Sent = 1100, 501, before.Sent+4e6
	now.Requests = map[string]int64{"writeRecord": 1100, "listen": 14}
	now.RefusedAll, now.Refused = 15, map[string]int64{"no_account": 4, "gone": 1, "stale": 10}
	now.Latency = map[string]status.Histogram{"writeRecord": {Bounds: []float64{0.001, 0.01, 0.1}, Counts: []int64{900, 1090, 1100, 1100}}}
	now.AccountsAt = before.AccountsAt.Add(10 * time.Second)
	now.Accounts = []status.Account{{Key: before.Key, Moved: 1e9 + 5e6}, {Moved: 7}}
	v := Between(before, now)
	if r := v.Rates; v.Over != 2 || r.Writes != 50 || r.Pulls != 0.5 || r.Listens != 2 || r.Requests != 52 || r.Refused != 5 || r.Sent != 2e6 {
		t.Errorf("rates are %+v over %v", r, v.Over)
	}
	if v.Refused[0] != (Refusal{"stale", 5, 10}) || v.Refused[1].Code != "no_account" || v.Refused[2].Code != "gone" {
		t.Errorf("refused are %+v", v.Refused)
	}
	// All hundred new ones took between 1 and 10 ms.
	if l := v.Latency[0]; l.Kind != "writes" || l.Requests != 50 || l.P50 < 5 || l.P50 > 6 || l.P99 < 9.8 || l.P99 > 10 {
		t.Errorf("latency is %+v", l)
	}
	if v.Accounts[0].Moving != 5e5 || v.Accounts[1].Moving != 0 {
		t.Errorf("accounts are %+v", v.Accounts)
	}
	// A relay that was started anew counts from zero, and so does the first look.
	restarted := after(now, 10)
	restarted.Started, restarted.Written = now.At.Add(5*time.Second), 10
	if v := Between(now, restarted); v.Over != 0 || v.Rates.Writes != 2 {
		t.Errorf("after a restart: %v over %v", v.Rates, v.Over)
	}
	if v := Between(nil, before); v.Over != 0 || v.Up != 3600 || v.Rates.Writes < 0.27 || v.Rates.Writes > 0.28 {
		t.Errorf("of one look: %+v", v.Rates)
	}
}

// A screen keeps to its width, and nothing in it gives orders to a terminal but what is ours.
func TestScreen(t *testing.T) {
	full, week := int64(7*86400), int64(6e9)
	s := look(t)
	s.Disk.FullIn, s.Disk.PerDay = &full, &week
	s.Bitcoin = &status.Bitcoin{Height: 900_000}
	v := Between(nil, s)
	for _, want := range []string{"50.0 GB free, 1.00 GB kept  6.00 GB less a day, enough for 7d 0h", "no_account", "the node does not answer", "up 1h 0m", "33 of 65536 files", "Ann[2J"} {
		if all := strings.Join(screen(&v, 0, false), "\n"); !strings.Contains(all, want) || strings.Contains(all, "\x1b") {
			t.Errorf("it lacks %q\n%s", want, all)
		}
	}
	for _, line := range screen(&v, 40, false) {
		if n := len([]rune(line)); n > 40 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	s.Database.Answers, s.Database.Why = false, "connection refused\x07"
	v = Between(nil, s)
	if all := strings.Join(screen(&v, 0, true), "\n"); !strings.Contains(all, "\x1b[1;31mDatabase   does not answer: connection refused\x1b[0m") {
		t.Errorf("%q", all)
	}
}

// terminal is a pair of ends of a terminal: the user's and the program's.
func terminal(t *testing.T) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = user.Close() })
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	if err := unix.IoctlSetWinsize(int(user.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 12, Col: 60}); err != nil {
		t.Fatal(err)
	}
	return user, program
}

// shown is what a terminal was sent.
type shown struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *shown) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *shown) follow(from io.Reader) {
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		s.mu.Lock()
		s.text.Write(buffer[:n])
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// On a terminal the screen is drawn anew in place and cut to its size, a relay that goes away is shown as that, and q ends it and
// leaves the terminal as it was.
func TestOnTerminal(t *testing.T) {
	user, program := terminal(t)
	before, err := term.GetState(int(program.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	s, away := look(t), false
	ask := func(context.Context) (*status.Status, error) {
		mu.Lock()
		defer mu.Unlock()
		if away {
			return nil, errors.New("the relay does not run\x1b[31m")
		}
		s = after(s, 1)
		s.Written += 77
		return s, nil
	}
	screen := &shown{}
	go screen.follow(user)
	done := make(chan error, 1)
	go func() {
		done <- Run(t.Context(), Config{Ask: ask, Every: 5 * time.Millisecond, In: program, Out: program})
	}()
	wait := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); !strings.Contains(screen.String(), want); time.Sleep(2 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("it does not show %q\n%q", want, screen)
			}
		}
	}
	wait(enter)
	wait("77.0 written/s")
	wait("q: quit")
	if _, err := user.WriteString("x"); err != nil { // is no key
		t.Fatal(err)
	}
	mu.Lock()
	away = true
	mu.Unlock()
	wait("the relay does not answer")
	wait("the relay does not run[31m")
	if _, err := user.WriteString("q"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	wait(leave)
	for _, frame := range strings.Split(screen.String(), home)[1:] {
		if rows := strings.Count(frame, "\r\n"); rows > 11 {
			t.Errorf("a screen of %d rows on a terminal of 12", rows+1)
		}
	}
	if now, err := term.GetState(int(program.Fd())); err != nil || *now != *before {
		t.Errorf("the terminal is not as it was (%v)", err)
	}
}

// Without a terminal, screens follow each other until the relay's operator has seen enough, and JSON tells of failures too.
func TestWithoutTerminal(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		s, looks := look(t), 0
		var out bytes.Buffer
		err := Run(ctx, Config{Every: time.Millisecond, JSON: asJSON, Out: &out, In: strings.NewReader("q"), Ask: func(context.Context) (*status.Status, error) {
			looks++
			switch looks {
			case 3:
				return nil, errors.New("gone for a moment")
			case 6:
				cancel()
			}
			s = after(s, 1)
			return s, nil
		}})
		if err != nil || strings.Contains(out.String(), "\x1b") {
			t.Errorf("%v\n%s", err, &out)
		}
		want := map[bool]string{true: `"error":"gone for a moment"`, false: "gone for a moment\n\n"}[asJSON]
		if !strings.Contains(out.String(), want) || strings.Count(out.String(), s.Key.String())+strings.Count(out.String(), "relayd "+s.Key.Bech32()) < 2 {
			t.Errorf("it shows\n%s", &out)
		}
		cancel()
	}
	failing := Config{Once: true, Every: time.Millisecond, Ask: func(context.Context) (*status.Status, error) { return nil, errors.New("not there") }}
	if err := Run(t.Context(), failing); err == nil || err.Error() != "not there" {
		t.Errorf("%v", err)
	}
}
