package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"relaymarket/client"
)

// healedLine is one relay in JSON.
type healedLine struct {
	Address string  `json:"address"`
	Key     string  `json:"key"`
	Listed  int     `json:"listed"`
	Lost    int64   `json:"lost"`
	Added   int64   `json:"added"`
	Put     int64   `json:"put"`
	Failed  int64   `json:"failed"`
	Error   *string `json:"error"`
}

func (p *program) healCommand() *cobra.Command {
	var o client.HealOptions
	cmd := &cobra.Command{
		Use: "heal", Short: "Put back what your relays have lost", Args: cobra.NoArgs,
		Long: `Asks each of your relays what it has of you, and puts back what it lost and what it never had, because it is new among your relays:
the same records, so nobody gets anything twice. What your friend has confirmed is left alone, unless you say --delivered, for other
devices of his. Pieces of a file are made from the file: it has to be where it was.

When a relay is lost for good, add another and heal: relay relays rm OLD, relay relays add NEW, relay heal.`,
		Example: "  relay heal\n  relay heal --delivered",
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.heal(cmd.Context(), o) },
	}
	cmd.Flags().BoolVar(&o.Delivered, "delivered", false, "also what your friends have confirmed")
	return cmd
}

func (p *program) heal(ctx context.Context, o client.HealOptions) error {
	c, contracts, err := p.openWatching(ctx)
	if err != nil {
		return err
	}
	defer endWatching(c, contracts)
	defer p.glance(ctx, contracts)
	boundMemory()
	o.Files.Due = p.paysDue(contracts)
	shown := p.fileProgress()
	if !p.json {
		o.Files.Progress = shown.show
	}
	healed, err := c.Heal(ctx, o)
	shown.end()
	if healed == nil {
		return err
	}
	lines := make([]healedLine, 0, len(healed))
	rows := [][]string{{"RELAY", "HAS", "LOST", "NEW", "SENT", "NOTE"}}
	var reports []client.RelayReport
	for _, h := range healed {
		line := healedLine{Address: h.Address, Key: h.Relay.String(), Listed: h.Listed, Lost: h.Lost, Added: h.Added, Put: h.Put, Failed: h.Failed}
		note := ""
		if h.Failed > 0 {
			note = fmt.Sprintf("%d pieces of files that are not here any more cannot be put back", h.Failed)
		}
		if h.Err != nil {
			text := h.Err.Error()
			line.Error, note = &text, "failed"
		}
		lines = append(lines, line)
		rows = append(rows, []string{h.Address, fmt.Sprint(h.Listed), fmt.Sprint(h.Lost), fmt.Sprint(h.Added), fmt.Sprint(h.Put), note})
		reports = append(reports, client.RelayReport{Relay: h.Relay, Address: h.Address, Err: h.Err})
	}
	if p.json {
		err = errors.Join(err, p.printJSON(map[string]any{"relays": lines}))
	} else {
		err = errors.Join(err, p.table(rows))
	}
	return errors.Join(err, p.failures(reports))
}
