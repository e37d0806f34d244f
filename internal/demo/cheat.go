package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
)

// twice is what the operator does to his own database: all that was pulled and billed is to be billed again.
const twice = `INSERT INTO ledger_acks (reader, page_id, upto, records, at)
	SELECT reader, page_id, ns[cardinality(ns)], cardinality(ns), at FROM (
	  SELECT *, coalesce(got_at, lead(made) OVER (PARTITION BY reader ORDER BY turn)) AS at FROM pages) p WHERE at IS NOT NULL AND bills IS NOT NULL`

func aCheat(ctx context.Context, s *stage, c *cast) error {
	scene("The operator of south pads his ledger: he bills twice what was pulled once. His relay signs it.")
	k, err := c.with(c.south)
	if err != nil {
		return err
	}
	padded, err := c.south.meddle(ctx, twice)
	if err != nil {
		return err
	}
	tell("he enters %d pages a second time", padded)
	before, err := c.audits(ctx, k, "--dispute=false")
	a := before
	for err == nil && a.Disputed == "0" {
		if ctx.Err() != nil {
			return fmt.Errorf("the padded bill is not disputed: %+v", a)
		}
		a, err = c.audits(ctx, k, "--dispute=false")
	}
	if err != nil {
		return err
	}
	for _, r := range a.Reasons {
		c.sum.DisputedLines += r.Lines
		tell("the audit finds %d lines of the kind %q and refuses their %s msat", r.Lines, r.Reason, r.Msat)
	}
	// While the funding can still be undone, a relay writes nothing off.
	if _, err := s.node.Mine(6); err != nil {
		return err
	}
	for a.Dropped == 0 {
		if a, err = c.audits(ctx, k); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("the relay does not take the refused lines off the bill: %+v: %w", a, err)
		}
	}
	tell("she names them to the relay, which takes %d off the bill; what is left is paid", a.Dropped)
	if err := c.closes(ctx, s, k); err != nil {
		return err
	}
	said, err := c.alice.relay(ctx, "relays")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(said, "\n") {
		if strings.Contains(line, c.south.url) {
			tell("south lost its customer, and she remembers: %s", strings.Join(strings.Fields(line), " "))
		}
	}
	return nil
}

// meddle changes a relay's private database behind its back.
func (r *relay) meddle(ctx context.Context, statement string) (rows int64, err error) {
	db, err := pgx.Connect(ctx, fmt.Sprintf("host=%s user=relaymarket dbname=relaymarket", filepath.Join(r.dir, "db", "run")))
	if err != nil {
		return 0, err
	}
	defer func() { _ = db.Close(ctx) }()
	tag, err := db.Exec(ctx, statement)
	return tag.RowsAffected(), err
}
