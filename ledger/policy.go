package ledger

import (
	"fmt"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/protocol"
)

// Mode is whether a payer pays by himself.
type Mode string

// The modes.
const (
	PayAuto  Mode = "auto"  // within the limit, without asking
	PayAsk   Mode = "ask"   // nothing without asking
	PayNever Mode = "never" // nothing, and no question either
)

// Policy is how a payer wants to pay for what his audits accept.
type Policy struct {
	Mode    Mode
	Limit   btcutil.Amount // for the whole contract, beyond the opening price: so much is paid without asking
	Daily   btcutil.Amount // and so much within 24 hours; 0: there is no such limit
	Cushion btcutil.Amount // how far payments run ahead of what was accepted: his stated risk
}

// Validate checks that the policy says something.
func (p Policy) Validate() error {
	switch p.Mode {
	case PayAuto, PayAsk, PayNever:
	default:
		return fmt.Errorf("a policy is %s, %s or %s, not %q", PayAuto, PayAsk, PayNever, p.Mode)
	}
	if p.Limit < 0 || p.Limit > btcutil.MaxSatoshi || p.Daily < 0 || p.Daily > btcutil.MaxSatoshi || p.Cushion < 0 || p.Cushion > btcutil.MaxSatoshi {
		return fmt.Errorf("limits and a cushion are 0 to %d satoshi", int64(btcutil.MaxSatoshi))
	}
	return nil
}

// Standings of payments, satoshi. All amounts are totals of the contract.
type Paying struct {
	Opening  btcutil.Amount // c₀
	Paid     btcutil.Amount // A, the highest state that was signed
	Today    btcutil.Amount // what of it was signed in the last 24 hours
	Most     btcutil.Amount // the highest A that the contract allows
	Accepted protocol.Msat  // usage that audits accepted
	Due      btcutil.Amount // the A that the relay asks for; 0: it does not
}

// Decision is what to do now.
type Decision struct {
	Pay btcutil.Amount // raise A to this now; 0: do not
	Ask btcutil.Amount // and ask the user whether to raise it to this; 0: there is nothing to ask
	// Short is how much less the relay gets than it asks for even if the user agrees: reservations beyond the cushion, or
	// what is disputed.
	Short btcutil.Amount
}

// Unasked is the highest A that is paid without asking, whatever was accepted.
func (p Policy) Unasked(s Paying) btcutil.Amount {
	if p.Mode != PayAuto {
		return 0
	}
	most := s.Opening + p.Limit
	if p.Daily > 0 {
		most = min(most, s.Paid+max(p.Daily-s.Today, 0))
	}
	return most
}

// Decide says what to pay. It never goes above what was accepted and the cushion, nor above what the contract allows,
// and without asking not above the limits. So that not every audit makes a payment, A is raised when less than half of the cushion is
// left of it, or the relay asks for more than it has; then it is raised by all that there is.
func (p Policy) Decide(s Paying) Decision {
	if p.Mode == PayNever {
		return Decision{Short: max(s.Due-s.Paid, 0)}
	}
	accepted := s.Opening + Sat(s.Accepted)
	target := min(accepted+p.Cushion, s.Most)
	d := Decision{Short: max(s.Due-max(target, s.Paid), 0)}
	if target <= s.Paid || s.Paid-accepted > p.Cushion/2 && s.Due <= s.Paid {
		return d
	}
	if p.Mode == PayAsk {
		d.Ask = target
		return d
	}
	if pay := min(target, p.Unasked(s)); pay > s.Paid {
		d.Pay = pay
	}
	if target > max(d.Pay, s.Paid) {
		d.Ask = target
	}
	return d
}
