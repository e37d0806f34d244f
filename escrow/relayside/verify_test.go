package relayside_test

import (
	"strings"
	"testing"

	"relaymarket/escrow"
)

// What a database holds of a contract is enough to settle it, and it is seen when it is not: another seed, a state that was not signed.
func TestVerify(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	d := h.user().active(100_000, 1500)
	if _, err := d.pay(6_000, nil); err != nil {
		t.Fatal(err)
	}
	verified := func(says string) {
		t.Helper()
		n, err := h.manager.Verify(t.Context())
		if says == "" && (n != 1 || err != nil) || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%d contracts, %v; want %q", n, err, says)
		}
	}
	verified("")
	seed := h.branch
	h.branch = branch(t)
	verified("these words do not give")
	h.branch = seed
	if _, err := h.db.Pool().Exec(t.Context(), `UPDATE contracts SET amount = amount + 1`); err != nil {
		t.Fatal(err)
	}
	verified("the highest state")
	if _, err := h.db.Pool().Exec(t.Context(), `UPDATE contracts SET amount = amount - 1`); err != nil {
		t.Fatal(err)
	}
	d.reaches(escrow.Active)
}
