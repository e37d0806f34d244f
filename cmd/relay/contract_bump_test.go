package main

import (
	"strings"
	"testing"
)

// A closing that waits is hurried from the terminal.
func TestBumpTyped(t *testing.T) {
	bitcoin, node, alice := market(t)
	id := alice.opens(bitcoin, node).ID
	if _, errs, code := alice.types("contract", "bump", id); code != exitFailed || !strings.Contains(errs, "relay contract close "+id[:8]) {
		t.Errorf("with nothing to bump: exit %d\n%s", code, errs)
	}
	alice.closes(id)
	if _, errs, code := alice.types("contract", "bump", id, "--feerate", "1"); code != exitFailed || !strings.Contains(errs, "higher --feerate") {
		t.Errorf("at less than it pays: exit %d\n%s", code, errs)
	}
	if out := alice.runs("contract", "bump", id[:8], "--feerate", "100"); !strings.Contains(out, "relay contract show "+id[:8]) {
		t.Errorf("bump says\n%s", out)
	}
	bitcoin.Mine(1)
	item := alice.reaches(id, "settling")
	for _, transaction := range item.Transactions {
		if transaction.Height == nil || *transaction.Height > uint32(bitcoin.Height()) {
			t.Errorf("%s is in no block", transaction.Kind)
		}
	}
	if n := len(item.Transactions); n != 3 {
		t.Errorf("%d transactions: %+v", n, item.Transactions)
	}
	if _, errs, code := alice.types("contract", "bump", id); code != exitFailed || !strings.Contains(errs, "in block") {
		t.Errorf("after its block: exit %d\n%s", code, errs)
	}
}
