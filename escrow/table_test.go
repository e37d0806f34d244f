package escrow

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"relaymarket/protocol"
)

// allEvents are the events of the table.
func allEvents() []Event {
	seen := map[Event]bool{}
	for _, events := range transitions {
		for e := range events {
			seen[e] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// The diagram in docs/contract.md is the table, arrow by arrow.
func TestDiagram(t *testing.T) {
	text, err := os.ReadFile("../docs/contract.md")
	if err != nil {
		t.Fatal(err)
	}
	_, diagram, found := strings.Cut(string(text), "stateDiagram-v2\n")
	diagram, _, closed := strings.Cut(diagram, "```")
	if !found || !closed {
		t.Fatal("docs/contract.md has no diagram")
	}
	drawn := map[string]bool{}
	for line := range strings.Lines(diagram) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "[*]") {
			continue
		}
		drawn[line] = true
	}
	for from, events := range transitions {
		to := map[State][]string{}
		for e, next := range events {
			if next != from {
				to[next] = append(to[next], string(e))
			}
		}
		for next, names := range to {
			slices.Sort(names)
			arrow := fmt.Sprintf("%s --> %s: %s", from, next, strings.Join(names, ", "))
			if !drawn[arrow] {
				t.Errorf("the diagram lacks\n    %s", arrow)
			}
			delete(drawn, arrow)
		}
	}
	for arrow := range drawn {
		t.Errorf("the table lacks %s", arrow)
	}
}

func TestTable(t *testing.T) {
	for s, events := range transitions {
		for _, e := range allEvents() {
			next, err := Next(s, e)
			want, ok := events[e]
			if ok && (err != nil || next != want) || !ok && next != s {
				t.Errorf("%s on %s: %s, %v", s, e, next, err)
			}
			if !ok {
				wantCode(t, err, protocol.CodeContractState)
			}
			if _, known := transitions[next]; !known {
				t.Errorf("%s on %s leads out of the table, to %s", s, e, next)
			}
		}
	}
	_, err := Next("sleeping", Signed)
	wantCode(t, err, protocol.CodeContractState)
}

// From every state but the last one the end is reached, and nothing is taken on the way back from a
// released closing signature (rule 2) other than by the funding of a renewal leaving its block.
func TestTableProperties(t *testing.T) {
	for s := range transitions {
		if !reaches(s, Archived) {
			t.Errorf("%s never ends", s)
		}
		if Final(s) != (s == Archived) {
			t.Errorf("%s: final is %v", s, Final(s))
		}
		if TakesUsage(s) && transitions[s][SettlementStarted] != Settling {
			t.Errorf("%s takes usage and cannot be settled", s)
		}
		if s != Opening && s != Archived && s != Abandoned && s != Closed && transitions[s][SpendSeen] != Settling {
			t.Errorf("%s does not see that its escrow is spent", s)
		}
	}
	for _, s := range []State{PaymentRequested, RefundRequested} {
		if TakesUsage(s) || TakesPayments(s) {
			t.Errorf("%s takes usage or payments", s)
		}
		for e, next := range transitions[s] {
			if TakesUsage(next) {
				t.Errorf("after a closing signature is out, %s on %s takes usage again", s, e)
			}
		}
	}
	if Final("sleeping") || TakesUsage(Settling) || TakesUsage(Opening) || !TakesUsage(Renewing) || !TakesPayments(Active) {
		t.Error("what a state takes is wrong")
	}
}

func reaches(from, to State) bool {
	seen := map[State]bool{from: true}
	for queue := []State{from}; len(queue) > 0; queue = queue[1:] {
		if queue[0] == to {
			return true
		}
		for _, next := range transitions[queue[0]] {
			if !seen[next] {
				seen[next] = true
				queue = append(queue, next)
			}
		}
	}
	return false
}
