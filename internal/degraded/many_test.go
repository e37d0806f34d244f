package degraded_test

import (
	"bufio"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"relaymarket/internal/scenario"
	"relaymarket/internal/testnode"
)

// A thousand listeners at rest cost little memory, and one of them is told as quickly as if there were no others.
// Ten thousand are a point of the benchmark: bin/bench -points idle_listeners.
func TestIdleListeners(t *testing.T) {
	const many, told = 1000, 50
	p := testnode.StartProcess(t, testnode.ProcessOptions{})
	alice := scenario.NewPerson(t, p.Key)
	p.Grant(t, alice.Key.Public())
	before := residentMB(t, p.PID())
	began := time.Now()
	readers, lines := make([]*scenario.Person, many), make([]*bufio.Reader, many)
	for i := range many {
		readers[i] = scenario.NewPerson(t, p.Key)
		conn := dial(t, p.URL)
		ask(t, conn, readers[i], p.URL, readers[i].Listen(alice.Key.Public()))
		lines[i] = bufio.NewReaderSize(conn, 1<<10)
		if line, err := lines[i].ReadString('\n'); err != nil || !strings.Contains(line, "200") {
			t.Fatalf("listener %d: %q %v", i, line, err)
		}
	}
	opened := time.Since(began)
	if n := metric(t, p.OperatorURL, "relaymarket_api_listeners", ""); n != many {
		t.Fatalf("%v streams are open", n)
	}
	var writes, tells []time.Duration
	for i := range told {
		n := i * 7919 % many
		id := fmt.Sprint("r", i)
		at := time.Now()
		if r := send(t, alice, p.URL, alice.Write(readers[n].Key.Public(), id, 2)); r.Status != http.StatusCreated {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		writes = append(writes, time.Since(at))
		for line := ""; !strings.Contains(line, `"`+id+`"`); {
			var err error
			if line, err = lines[n].ReadString('\n'); err != nil {
				t.Fatalf("listener %d: %v", n, err)
			}
		}
		tells = append(tells, time.Since(at))
	}
	slices.Sort(writes)
	slices.Sort(tells)
	// What opening them left over is given back in time, which is the collector's.
	each, after := 0.0, 0.0
	for deadline := time.Now().Add(3 * patience); ; time.Sleep(100 * time.Millisecond) {
		after = residentMB(t, p.PID())
		if each = (after - before) * 1000 / many; each <= 60 || time.Now().After(deadline) {
			break
		}
	}
	t.Logf("%d listeners opened in %s; %.0f → %.0f MB, %.0f kB each; write p50 %s, told p50 %s, longest %s", many, opened.Round(time.Millisecond),
		before, after, each, writes[told/2].Round(time.Microsecond), tells[told/2].Round(time.Microsecond), tells[told-1].Round(time.Microsecond))
	if each > 60 || tells[told/2] > 2*time.Second {
		t.Errorf("%.0f kB a listener, told after %s", each, tells[told/2])
	}
}

// Five times the writers that keep the relay busy, who all try again at once: those who get in are served in a bounded
// time, the others are told to come back, and counted. Speed is compared in a few rounds: what else the machine does meanwhile
// spoils some, and a relay that breaks down under load has no good one.
func TestOverload(t *testing.T) {
	const busy, length, rounds = 32, 2 * time.Second, 6
	p := testnode.StartProcess(t, testnode.ProcessOptions{Args: []string{"--max-requests", strconv.Itoa(2 * busy)}})
	load := func(writers int) (*traffic, float64) {
		alice, bob := scenario.NewPerson(t, p.Key), scenario.NewPerson(t, p.Key)
		p.Grant(t, alice.Key.Public())
		f := &traffic{t: t, url: p.URL, sender: alice, to: bob.Key.Public()}
		began := time.Now()
		f.start(writers)
		memory := 0.0
		for time.Since(began) < length {
			memory = max(memory, residentMB(t, p.PID()))
			time.Sleep(50 * time.Millisecond)
		}
		f.end()
		took := time.Since(began)
		f.check(bob, p.Account(t, alice.Key.Public()).Stored)
		t.Logf("%d writers: %.0f stored a second, p50 %s, p99 %s; %d told to come back; %.0f MB", writers, float64(len(f.stored))/took.Seconds(),
			f.quantile(0.5).Round(time.Microsecond), f.quantile(0.99).Round(time.Microsecond), f.refused, memory)
		return f, memory
	}
	refused, writers := 0, 5*busy
	for round := range rounds {
		calm, _ := load(busy)
		if calm.refused > 0 {
			t.Errorf("%d are refused without need", calm.refused)
		}
		full, memory := load(writers)
		refused += full.refused
		if dropped := int(metric(t, p.OperatorURL, "relaymarket_api_dropped_total", `"writer"`)); dropped != refused {
			t.Errorf("%d were told to come back, %d are counted", refused, dropped)
		}
		if memory > 200 {
			t.Errorf("it takes %.0f MB", memory)
		}
		if full.refused == 0 {
			writers = min(2*writers, 20*busy) // where writers are slower than the relay it takes more of them
			continue
		}
		if t.Failed() || len(full.stored) >= len(calm.stored)/5 && full.quantile(0.99) <= 20*calm.quantile(0.99)+time.Second {
			return
		}
		t.Logf("round %d: %d stored, %d when calm; p99 %s, %s when calm", round, len(full.stored), len(calm.stored), full.quantile(0.99), calm.quantile(0.99))
	}
	t.Errorf("in %d rounds, %d were told to come back, and it never stored a fifth of what it does when calm in a bounded time meanwhile", rounds, refused)
}
