package main

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
)

// crash kills a relay with SIGKILL during a stream of writes, a number of times. After each restart no
// acknowledged record may be missing; once the writes without answer are repeated, everything is there exactly once
// and counted exactly once.
func crash(t *testing.T, o testnode.ProcessOptions, rounds int) {
	p := testnode.StartProcess(t, o)
	s := newStream(t)
	p.Grant(t, s.sender.Public())
	unheard := 0
	for round := range rounds {
		group := s.run(context.Background(), p.Key, p.URL, 8)
		time.Sleep(time.Duration(20+rand.IntN(150)) * time.Millisecond)
		p.Kill()
		group.Wait()
		unheard += len(s.unheard)
		p.Start()
		s.checkAcknowledged(s.stored(p.Key, p.URL))
		s.settle(p.URL)
		s.checkSettled(s.stored(p.Key, p.URL), p.Account(t, s.sender.Public()))
		if t.Failed() {
			t.Fatalf("in round %d\n%s", round, p.Log())
		}
	}
	t.Logf("%d rounds, %d records, %d of them without an answer", rounds, s.next, unheard)
	if s.next < 20*rounds || unheard == 0 {
		t.Errorf("%d records in %d rounds, %d without an answer: the relay was not killed while it worked", s.next, rounds, unheard)
	}
	if code := p.Terminate(); code != 0 {
		t.Errorf("exit code %d after SIGTERM\n%s", code, p.Log())
	}
}

func TestCrash(t *testing.T) {
	t.Run("database stays", func(t *testing.T) { crash(t, testnode.ProcessOptions{DSN: testpg.New(t)}, 20) })
	t.Run("private database", func(t *testing.T) { crash(t, testnode.ProcessOptions{}, 3) })
}
