package main

import (
	"strings"
	"testing"
)

// How relays are paid is stored, shown and forgotten; half a policy is refused, with what is missing.
func TestPolicy(t *testing.T) {
	alice := user(t)
	if out := alice.runs("contract", "policy"); !strings.Contains(out, "You stored no policy") {
		t.Errorf("without one: %s", out)
	}
	for _, c := range []struct{ typed, says string }{
		{"contract policy --pay sometimes", "auto, ask or never"},
		{"contract policy --pay auto", "needs a --limit"},
		{"contract policy --limit 5", "say --pay"},
		{"contract policy --pay auto --limit much", "not an amount"},
		{"contract policy --pay ask --forget", "forget"},
	} {
		if _, errs, code := alice.types(strings.Fields(c.typed)...); code != exitUsage || !strings.Contains(errs, c.says) {
			t.Errorf("%s: exit %d\n%s", c.typed, code, errs)
		}
	}
	var got struct{ Policies []policyItem }
	alice.json(&got, "contract", "policy", "--pay", "auto", "--limit", "20,000", "--daily", "2000", "--close-on-dispute")
	if len(got.Policies) != 1 || got.Policies[0] != (policyItem{Pay: "auto", Limit: 20_000, Daily: 2000, CloseOnDispute: true}) {
		t.Errorf("%+v", got)
	}
	out := alice.runs("contract", "policy", "--pay", "ask", "--cushion", "300")
	if !strings.Contains(out, "all others") || !strings.Contains(out, "300 sat") || strings.Contains(out, "20,000") {
		t.Errorf("stored anew:\n%s", out)
	}
	if _, errs, code := alice.types("contract", "policy", "1a2b", "--pay", "ask"); code != exitFailed {
		t.Errorf("for a contract that is not there: exit %d\n%s", code, errs)
	}
	if out := alice.runs("contract", "policy", "--forget"); !strings.Contains(out, "You stored no policy") {
		t.Errorf("forgotten: %s", out)
	}
	if _, errs, code := alice.types("contract", "policy", "--forget"); code != exitFailed || !strings.Contains(errs, "no such policy") {
		t.Errorf("forgotten again: exit %d\n%s", code, errs)
	}
}
