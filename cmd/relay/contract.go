package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"relaymarket/escrow"
	"relaymarket/escrow/userside"
	"relaymarket/protocol"
)

func (p *program) contractCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "contract", Aliases: []string{"contracts"}, Short: "Pay relays by contract", Args: subcommand, SuggestionsMinimumDistance: 2,
		Long: `A contract locks a deposit of yours for some weeks, in an output that you and the relay spend together. What you use is
paid out of it; the rest comes back when both agree, or to you alone from a block on that is fixed from the start. Before
anything is signed you are told what it costs and what you can lose.

  relay contract open ADDRESS --deposit SATOSHI   lock a deposit, and use the relay
  relay contract list                             what you have, and what it is worth
  relay contract pay CONTRACT SATOSHI             pay for what you use
  relay contract policy --pay auto --limit N      let it pay by itself what it audited
  relay contract close CONTRACT                   get the rest back, with the relay
  relay contract refund CONTRACT                  get it back alone, when the time has come

A CONTRACT is given by the first digits of its id.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(p.contractOpenCommand(), p.contractResumeCommand(), p.contractListCommand(), p.contractShowCommand(),
		p.contractPayCommand(), p.contractCloseCommand(), p.contractBumpCommand(), p.contractRefundCommand(), p.contractRenewCommand(),
		p.contractConsentCommand(), p.contractBackupCommand(), p.contractPolicyCommand(), p.contractWatchCommand())
	return cmd
}

// findContract finds one by the beginning of its id.
func findContract(ctx context.Context, store *userside.Store, typed string) (*userside.Record, error) {
	found, err := store.Find(ctx, typed)
	if err != nil {
		return nil, err
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w: %s", userside.ErrNoContract, typed)
	case 1:
		return &found[0], nil
	}
	return nil, fmt.Errorf("%d contracts begin with %q: give more digits", len(found), typed)
}

// onContract runs a command about one contract, and then tells what was done.
func (p *program) onContract(ctx context.Context, typed string, withWallet bool, do func(*money, *userside.Record) error) error {
	run := p.withMoney
	if withWallet {
		run = p.withWallet
	}
	return run(ctx, func(m *money) error {
		r, err := findContract(ctx, m.store, typed)
		if err != nil {
			return err
		}
		return do(m, r)
	})
}

// contractItem is a contract in JSON. Amounts are satoshi, heights are those of blocks.
type contractItem struct {
	ID           string            `json:"id"`
	Network      protocol.Network  `json:"network"`
	Relay        string            `json:"relay"`
	Address      string            `json:"address"`
	State        string            `json:"state"`
	Step         string            `json:"step"`
	Deposit      int64             `json:"deposit"`
	Bond         int64             `json:"bond"`
	OpeningPrice int64             `json:"openingPrice"`
	CreditLimit  int64             `json:"creditLimit"`
	Paid         int64             `json:"paid"`      // A, the highest that is signed
	Allowance    int64             `json:"allowance"` // what payments may go up to
	Accepted     string            `json:"acceptedMsat"`
	Cushion      int64             `json:"cushion"`
	Seq          int64             `json:"seq"`
	Expiry       int64             `json:"expiry"`    // T
	LastUsage    int64             `json:"lastUsage"` // T − M
	Owed         *int64            `json:"owed"`      // what the relay counts; null if it said nothing
	Due          *int64            `json:"due"`       // what it asks to be paid
	Closing      *int64            `json:"closing"`   // at what it asks to end the contract
	Descriptor   string            `json:"descriptor"`
	Transactions []transactionLine `json:"transactions"`
	RenewedBy    *string           `json:"renewedBy"`
	Fault        *string           `json:"fault"`
	Created      *string           `json:"created"`
	Journal      []journalLine     `json:"journal,omitempty"`
}

type transactionLine struct {
	Kind   string  `json:"kind"`
	TxID   string  `json:"txid"`
	Height *uint32 `json:"height"`
	Fee    int64   `json:"fee"`
}

type journalLine struct {
	At   *string `json:"at"`
	Text string  `json:"text"`
}

func contractJSON(r *userside.Record) contractItem {
	item := contractItem{ID: r.ID.String(), Network: r.Network, Relay: r.Relay.String(), Address: r.Address, State: string(r.State),
		Step: string(r.Step), Allowance: int64(r.Allowance()), Accepted: r.Accepted.String(), Cushion: int64(r.Cushion),
		Created: stamp(r.Created), Transactions: []transactionLine{}}
	last, _ := r.Last()
	item.Paid, item.Seq = int64(last.Amount), last.Seq
	if c, _, ok := r.Terms(); ok {
		item.Deposit, item.Bond, item.OpeningPrice, item.CreditLimit = int64(c.Deposit), int64(c.Bond), int64(c.OpeningPrice), int64(c.CreditLimit)
		item.Expiry, item.LastUsage, item.Descriptor = int64(c.Expiry), int64(c.LastUsage()), c.Descriptor()
	}
	for _, t := range r.Transactions {
		item.Transactions = append(item.Transactions, transactionLine{Kind: t.Kind, TxID: t.TxID.String(), Height: t.Height, Fee: int64(t.Fee)})
	}
	if s, err := r.Status(); err == nil && s != nil {
		owed := int64(s.Owed)
		item.Owed = &owed
		if s.Due != nil {
			due := int64(s.Due.Amount)
			item.Due = &due
		}
		if s.Closing != nil {
			closing := int64(s.Closing.Amount)
			item.Closing = &closing
		}
	}
	if r.Renewed != nil {
		id := r.Renewed.String()
		item.RenewedBy = &id
	}
	if r.Fault != "" {
		item.Fault = &r.Fault
	}
	return item
}

// inBlocks says when a height comes, as a person reckons.
func inBlocks(height, tip uint32) string {
	if height <= tip {
		return "now"
	}
	away := time.Duration(height-tip) * 10 * time.Minute
	return fmt.Sprintf("about %s", time.Now().Add(away).Local().Format("2006-01-02"))
}

// stateText says a state in words.
func stateText(r *userside.Record) string {
	switch r.State {
	case escrow.Opening:
		return "being opened"
	case escrow.FundingSent:
		return "waits for the next block"
	case escrow.PaymentRequested:
		return "the relay asks to be paid"
	case escrow.RefundRequested:
		return "closing"
	case escrow.Renewing:
		return "being renewed"
	case escrow.Settling:
		return "ending"
	case escrow.Abandoned:
		return "came to nothing"
	}
	return string(r.State)
}
