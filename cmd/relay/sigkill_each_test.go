package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// everywhere is the variable that asks, with the value "all", for a death at every step. Without it there are some on each path,
// others each day; a number asks for those of another day.
const everywhere = "SIGKILL"

// seed is what the steps of a sample are chosen by.
func seed(t *testing.T) int {
	t.Helper()
	text := os.Getenv(everywhere)
	if text == "" {
		return int(time.Now().Unix() / (24 * 60 * 60))
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		t.Fatalf("%s=%q is neither a number nor all", everywhere, text)
	}
	return n
}

// moments are the numbers of the steps that a death is worth trying at: of a run of steps that are all alike, as blocks are that come
// one after the other, the first two and the last two.
func moments(steps []string) (at []int) {
	for i := range steps {
		alike := func(d int) bool { return i+d >= 0 && i+d < len(steps) && steps[i+d] == steps[i] }
		if alike(-2) && alike(-1) && alike(1) && alike(2) {
			continue
		}
		at = append(at, i+1)
	}
	return at
}

// A contract is opened, used, and ended in each way there is, again and again; each time the relay, or each command of the user, is
// ended by SIGKILL at another durable step, and started again. Each time it comes out as if nothing had happened, and at the moment of
// each death the rules hold.
func TestKilledAtEachStep(t *testing.T) {
	if os.Getenv(everywhere) != "all" {
		t.Logf("%s=%d has these deaths again", everywhere, seed(t))
	}
	for _, p := range paths {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			l := newLives(t, p.bond)
			if os.Getenv(everywhere) == "all" {
				l.everywhere(p)
			} else {
				l.sample(p, seed(t))
			}
			t.Logf("killed %d times in %d lives", l.deaths, l.n)
		})
	}
}

// lives one life in which the relay and the user die at these steps after the turn, 0 for not at all, and counts. Whether they come so far is
// a matter of moments: blocks that come together are one step to a contract, what two send at once is sent twice, and a command that the relay's
// death cut short goes on as another one. But whoever comes so far dies.
func (l *lives) lives(p path, relayDies, aliceDies int) {
	l.t.Helper()
	l.n++
	l.relayDies, l.aliceDies, l.armed, l.relaySteps, l.aliceSteps, l.ids = relayDies, aliceDies, false, nil, nil, nil
	l.relayDied, l.aliceDied = relayDies == 0, aliceDies == 0
	l.before, l.began = l.alice.balance(), l.bitcoin.Height()
	want := p.live(l)
	l.counts(want)
	l.reads()
	l.rules()
	l.revive()
	if !l.relayDied && came(l.relay.Log(), relayDies) {
		l.until(fmt.Sprintf("the relay dies at its step %d", relayDies), func() bool { l.revive(); return l.relayDied })
	}
	l.relaySteps = append(l.relaySteps, stepsIn(l.relay.Log())...)
	if !l.relayDied || !l.aliceDied {
		l.t.Logf("life %d: of the deaths at steps %d and %d there were: %t and %t", l.n, relayDies, aliceDies, l.relayDied, l.aliceDied)
	}
}

// sample has a life in which each command of the user dies at one of the first two steps, which every command has; then one in which
// both die, at others.
func (l *lives) sample(p path, seed int) {
	l.t.Helper()
	l.lives(p, 0, 1+seed%2)
	l.passes(p)
	at, aliceSteps := moments(l.relaySteps), len(l.aliceSteps)
	l.lives(p, at[seed%len(at)], 3+seed%max(aliceSteps-2, 1))
}

// everywhere has a life for each step of the relay and for each of the user's longest command.
func (l *lives) everywhere(p path) {
	l.t.Helper()
	l.lives(p, 0, 0)
	l.passes(p)
	relaySteps, aliceSteps := l.relaySteps, l.aliceSteps
	l.t.Logf("a command of the user has up to %d steps: %s", len(aliceSteps), strings.Join(aliceSteps, ", "))
	for _, n := range moments(relaySteps) {
		l.lives(p, n, 0)
	}
	for n := range aliceSteps {
		l.lives(p, 0, n+1)
	}
}

// passes checks that the relay came by the steps that the path is about.
func (l *lives) passes(p path) {
	l.t.Helper()
	l.t.Logf("the relay has %d steps: %s", len(l.relaySteps), strings.Join(slices.Compact(slices.Clone(l.relaySteps)), ", "))
	for _, step := range p.relay {
		if !slices.Contains(l.relaySteps, step) {
			l.t.Errorf("the step %q was not reached", step)
		}
	}
}
