package main

import (
	"context"
	"time"

	"relaymarket/internal/db"
	"relaymarket/ledger"
	"relaymarket/ledger/books"
)

// checkBill wants every record of the contract on its bill once, every record of a page that was acknowledged once more,
// and nothing else; the bill to be what the account counts, and the double entry to say what that costs.
func (c *cohort) checkBill(ctx context.Context, d *db.DB) error {
	b := books.New(books.Config{DB: d, Clock: time.Now})
	if err := b.Post(ctx); err != nil {
		return err
	}
	payer, id := c.payer(), c.contract()
	bill, err := b.Posted(ctx, id)
	if err != nil {
		return err
	}
	use, err := b.Owed(ctx, d.Pool(), payer, id)
	if err != nil {
		return err
	}
	var written, pulled int64
	err = d.Pool().QueryRow(ctx, `SELECT coalesce((SELECT sum(bytes) FROM records WHERE account = $1), 0)::bigint,
		coalesce((SELECT sum(r.bytes) FROM (SELECT *, coalesce(got, lead(got_before) OVER (PARTITION BY reader ORDER BY turn)) AS evidence FROM pages) p CROSS JOIN LATERAL unnest(p.ns) AS n JOIN records r USING (n)
		  WHERE r.account = $1 AND p.evidence IS NOT NULL), 0)::bigint`, payer[:]).Scan(&written, &pulled)
	if err != nil {
		return err
	}
	if want := ledger.Times(written, 1); bill.Totals.Written != want {
		c.fault(promiseBill, "the bill has %s bytes written, and there are %s", bill.Totals.Written, want)
	}
	if want := ledger.Times(pulled, 1); bill.Totals.Pulled != want {
		c.fault(promiseBill, "the bill has %s bytes pulled, and readers have signed for %s", bill.Totals.Pulled, want)
	}
	if reserved, err := bill.Totals.Reserved(); err != nil || reserved != use.Used {
		c.fault(promiseBill, "the bill comes to %v, and the account counts %v (%v)", reserved, use.Used, err)
	}
	list, err := b.Statements(ctx, books.Filter{Contract: &id})
	if err != nil {
		return err
	}
	if len(list) != 1 || list[0].Owed != use.Cost || list[0].Billed != use.Cost {
		c.fault(promiseBill, "the account costs %d msat, and the journal says %+v", use.Cost, list)
	}
	return nil
}
