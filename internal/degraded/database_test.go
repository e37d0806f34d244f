package degraded_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/internal/localpg"
	"relaymarket/internal/scenario"
	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
)

// postgres is every process of a relay's private cluster, the postmaster first.
func postgres(t *testing.T, p *testnode.Process) []int {
	t.Helper()
	folder, err := localpg.Locate(localpg.Config{Dir: filepath.Join(p.Dir, "db")})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(folder, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	postmaster, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	pids := []int{postmaster}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil && fields[1] == first {
			pids = append(pids, pid)
		}
	}
	return pids
}

func signal(t *testing.T, pids []int, sig syscall.Signal) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && err != syscall.ESRCH {
			t.Fatal(err)
		}
	}
}

// Postgres stands still for ten seconds. Requests wait or are told to come back, what waits is bounded and counted, and
// then all is as before.
func TestDatabaseStandsStill(t *testing.T) {
	t.Parallel()
	const (
		standstill = 10 * time.Second
		room       = 64  // requests at work
		writers    = 128 // so that some find no place
	)
	p := testnode.StartProcess(t, testnode.ProcessOptions{Args: []string{"--max-requests", strconv.Itoa(room)}})
	alice, bob := scenario.NewPerson(t, p.Key), scenario.NewPerson(t, p.Key)
	p.Grant(t, alice.Key.Public())
	f := &traffic{t: t, url: p.URL, sender: alice, to: bob.Key.Public(), polite: true}
	f.start(writers)
	until(t, "traffic", func() bool { return f.count() > 100 })

	pids := postgres(t, p)
	signal(t, pids, syscall.SIGSTOP)
	t.Cleanup(func() { signal(t, pids, syscall.SIGCONT) }) // or the relay could not end
	began, before, memory, waiting := time.Now(), f.count(), 0.0, 0.0
	ready := 200
	for time.Since(began) < standstill {
		memory = max(memory, residentMB(t, p.PID()))
		waiting = max(waiting, metric(t, p.OperatorURL, "relaymarket_api_working", ""))
		ready = max(ready, status(t, p.OperatorURL+"/readyz"))
	}
	during := f.count() - before
	signal(t, pids, syscall.SIGCONT)
	continued := time.Now()
	until(t, "traffic to go on", func() bool { return f.count() > before+during+200 })
	recovered := time.Since(continued)
	until(t, "/readyz to be green", func() bool { return status(t, p.OperatorURL+"/readyz") == 200 })
	f.end()
	t.Logf("%d writers: %d stored, %d told to come back, %d cut; longest wait %s; at work %v at most, %.0f MB; 200 more stored %s after it went on",
		writers, len(f.stored), f.refused, f.cut, f.longest.Round(time.Millisecond), waiting, memory, recovered.Round(time.Millisecond))
	f.check(bob, p.Account(t, alice.Key.Public()).Stored)
	// A request is counted as at work for the moment that it takes to see that there is no place for it. What waits is
	// given up after thirty seconds, and connections that are lost are found out about after as many.
	if f.refused == 0 || waiting > room+room/4 || f.longest > standstill+30*time.Second || memory > 200 || recovered > 25*time.Second {
		t.Errorf("%d refused, %v at work, longest wait %s, %.0f MB, recovered after %s", f.refused, waiting, f.longest, memory, recovered)
	}
	if ready != 503 {
		t.Error("/readyz stayed green")
	}
	if dropped := metric(t, p.OperatorURL, "relaymarket_api_dropped_total", `"writer"`); dropped == 0 || int(dropped) > f.refused {
		t.Errorf("%v requests count as dropped, %d were refused", dropped, f.refused)
	}
}

// Postgres ends the relay's connections one after the other, in the middle of whatever they do.
func TestDatabaseConnectionsCut(t *testing.T) {
	const length, writers, readers = 4 * time.Second, 16, 4
	const enoughCuts, enoughStored = 50, 200
	node := testnode.Start(t, testnode.Options{})
	alice := scenario.NewPerson(t, node.Key)
	bob := scenario.NewPerson(t, node.Key)
	node.Grant(t, alice.Key.Public())
	f := &traffic{t: t, url: node.URL, sender: alice, to: bob.Key.Public()}
	f.start(writers)
	until(t, "traffic", func() bool { return f.count() > 100 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pulls := &polling{t: t, url: node.URL, sender: alice.Key.Public()}
	for range readers {
		pulls.start(ctx, scenario.NewPerson(t, node.Key))
	}
	began := time.Now()
	cuts := cutConnections(t, node.DSN, func(cuts int) bool {
		over := time.Since(began)
		return over > length && cuts >= enoughCuts && f.count() >= enoughStored && pulls.done.Load() > 0 || over > patience
	})
	took := time.Since(began)
	cancel()
	pulls.all.Wait()
	f.end()
	t.Logf("%d connections cut in %s: %d writes stored, %d told to come back, longest %s; %d pulls, %d of them told to come back",
		cuts, took.Round(time.Millisecond), len(f.stored), f.refused, f.longest.Round(time.Millisecond), pulls.done.Load(), pulls.refused.Load())
	f.check(bob, node.Account(t, alice.Key.Public()).Stored)
	if cuts < enoughCuts || len(f.stored) < enoughStored || f.longest > 25*time.Second || pulls.done.Load() == 0 {
		t.Errorf("%d cuts, %d stored, longest %s, %d pulls", cuts, len(f.stored), f.longest, pulls.done.Load())
	}
	if each := node.Account(t, alice.Key.Public()).Stored / int64(len(f.stored)); each < 400 || each > 600 {
		t.Errorf("each of %d records is charged with %d bytes", len(f.stored), each)
	}
}

// cutConnections ends one of the relay's connections after the other until that is enough, and counts them.
func cutConnections(t *testing.T, dsn string, enough func(cuts int) bool) (cuts int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), testpg.Shared(t).AdminURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	for ; !enough(cuts); time.Sleep(20 * time.Millisecond) {
		var cut bool
		err := conn.QueryRow(t.Context(), `SELECT coalesce(bool_or(pg_terminate_backend(pid)), false) FROM (
			SELECT pid FROM pg_stat_activity WHERE datname = $1 AND application_name LIKE 'relayd%' ORDER BY random() LIMIT 1) one`, config.Database).Scan(&cut)
		if err != nil {
			t.Fatal(err)
		}
		if cut {
			cuts++
		}
	}
	return cuts
}
