package client

import (
	"context"

	"relaymarket/client/state"
	"relaymarket/ledger"
	"relaymarket/protocol"
)

// PaymentPolicy is how the user wants to pay for a contract, or for all that have no policy of their own.
type PaymentPolicy = state.Policy

// SetPaymentPolicy stores a policy. It needs no keys.
func (c *Client) SetPaymentPolicy(ctx context.Context, p PaymentPolicy) error {
	check := ledger.Policy{Mode: p.Mode, Limit: p.Limit, Daily: p.Daily}
	if p.Cushion != nil {
		check.Cushion = *p.Cushion
	}
	if err := check.Validate(); err != nil {
		return err
	}
	return c.state.SetPolicy(ctx, p)
}

// ForgetPaymentPolicy removes the policy of a contract, or with nil the general one. It is false if there was none.
func (c *Client) ForgetPaymentPolicy(ctx context.Context, contract *protocol.ContractID) (bool, error) {
	return c.state.ForgetPolicy(ctx, contract)
}

// PaymentPolicies lists them, the general one first. It needs no keys.
func (c *Client) PaymentPolicies(ctx context.Context) ([]PaymentPolicy, error) {
	return c.state.Policies(ctx)
}

// PaymentPolicy is the one that holds for a contract: its own, or the general one; nil if the user said nothing. It needs no
// keys.
func (c *Client) PaymentPolicy(ctx context.Context, contract protocol.ContractID) (*PaymentPolicy, error) {
	policies, err := c.state.Policies(ctx)
	if err != nil {
		return nil, err
	}
	var general *PaymentPolicy
	for i := range policies {
		switch p := &policies[i]; {
		case p.Contract == nil:
			general = p
		case *p.Contract == contract:
			return p, nil
		}
	}
	return general, nil
}

// LastAudit is when a contract was audited last; 0: never.
func (c *Client) LastAudit(ctx context.Context, contract protocol.ContractID) (protocol.Timestamp, error) {
	return c.state.LastAudit(ctx, contract)
}
