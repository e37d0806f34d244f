package relayside

import (
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"
	"pgregory.net/rapid"

	"relaymarket/escrow"
	"relaymarket/protocol"
)

// Whatever was paid and carried: what may be owed beyond what the relay has for sure is the credit limit at most, and a
// funding that can still be undone gives nothing for sure.
func TestCreditIsBounded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		amount := func(name string) btcutil.Amount {
			return btcutil.Amount(rapid.Int64Range(0, 1_000_000_000).Draw(t, name))
		}
		opening := amount("opening")
		limit := amount("limit")
		paid := amount("paid")
		carried := protocol.Msat(rapid.Int64Range(-1_000_000, 1_000_000_000).Draw(t, "carried"))
		r := &record{terms: escrow.Contract{OpeningPrice: opening, CreditLimit: limit}, held: escrow.Payment{Amount: opening + paid}, carried: carried}
		var secured *protocol.Msat // what the old escrow is worth more, in msat
		if rapid.Bool().Draw(t, "renewal of an escrow that stands") {
			more := protocol.Msat(amount("secured")) * 1000
			secured = &more
		}
		confirmations := rapid.Int64Range(0, 10).Draw(t, "confirmations")
		credit, err := r.credit(r.held.Amount, confirmations, secured)
		if err != nil {
			t.Fatal(err)
		}
		sure := protocol.Msat(0)
		if secured != nil {
			sure = *secured
		}
		if confirmations >= escrow.FullCredit {
			sure = protocol.Msat(paid) * 1000
		}
		if owed := credit + r.carried; owed > protocol.Msat(limit)*1000+sure {
			t.Fatalf("%d msat may be owed, of a limit of %d and %d for sure", owed, limit, sure)
		}
		if confirmations == 0 && secured == nil && credit > 0 {
			t.Fatalf("%d msat before the funding is in a block", credit)
		}
		deeper, err := r.credit(r.held.Amount, confirmations+1, secured)
		if err != nil || deeper < credit && secured == nil {
			t.Fatalf("a block more lowers the credit from %d to %d, %v", credit, deeper, err)
		}
	})
}
