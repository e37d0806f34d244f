package relayside_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// accounted asserts, when a test is over, that the double entry says what contracts say: nothing is carried to nowhere, who was
// renewed owes nothing, and who ended owes what was final and not paid, or nothing when it is over.
func (h *house) accounted() {
	h.t.Helper()
	rows, err := h.db.Pool().Query(context.Background(), `SELECT c.id, c.state, c.final_owed,
		  EXISTS (SELECT FROM contracts n JOIN bills nb ON nb.contract = n.id WHERE n.id = c.renewed_by AND n.carried <> 0) AS heir,
		  coalesce(sum(e.owed), 0)::bigint, coalesce(sum(e.paid), 0)::bigint, b.closed,
		  coalesce((SELECT sum(carried) FROM ledger_entries), 0)::bigint
		FROM contracts c JOIN bills b ON b.contract = c.id LEFT JOIN ledger_entries e ON e.bill = b.id GROUP BY c.id, b.id`)
	if err != nil {
		h.t.Error(err)
		return
	}
	var id []byte
	var state escrow.State
	var final *int64
	var heir, closed bool
	var owed, paid, carried int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &state, &final, &heir, &owed, &paid, &closed, &carried}, func() error {
		over := state == escrow.Closed || state == escrow.Archived || state == escrow.Abandoned
		switch {
		case carried != 0:
			h.t.Errorf("%d msat were carried to nowhere", carried)
		case closed != (final != nil):
			h.t.Errorf("contract %x is %s, its account closed: %v", id[:4], state, closed)
		case heir && final != nil && owed != 0:
			h.t.Errorf("contract %x was renewed and owes %d", id[:4], owed)
		case over && owed > 0:
			h.t.Errorf("contract %x is %s and owes %d", id[:4], state, owed)
		case final != nil && !heir && !over && owed+paid != *final:
			h.t.Errorf("contract %x is %s and owes %d with %d paid, %d in the end", id[:4], state, owed, paid, *final)
		}
		return nil
	}); err != nil {
		h.t.Error(err)
	}
}

// write has a payer store a record of so many bytes with one pull, as the relay does: it costs twice the bytes, in msat.
func (h *house) write(payer protocol.PublicKey, size int64) error {
	h.t.Helper()
	ctx := h.t.Context()
	return h.db.Tx(ctx, func(tx pgx.Tx) error {
		charge := books.Charge{Owner: payer, Writer: payer, Bytes: size, Pulls: 1, Expires: h.now().Add(time.Hour)}
		b, err := h.books.Lock(ctx, tx, []books.Charge{charge})
		if err != nil {
			return err
		}
		if err := b.Charge(charge); err != nil {
			return err
		}
		var n int64
		if err := tx.QueryRow(ctx, `UPDATE relay_cursor SET n = n + 1 RETURNING n`).Scan(&n); err != nil {
			return err
		}
		hash := protocol.TaggedHash(protocol.TagLeaf, fmt.Append(nil, n))
		if _, err := tx.Exec(ctx, `INSERT INTO records (n, sender, receiver, id, account, bytes, timestamp, expires, written, max_pulls, request_hash, hash, envelope, bill)
			VALUES ($1, $2, $2, $3, $2, $4, $5, $6, $5, 1, $7, $7, '', $8)`,
			n, payer[:], fmt.Sprint("r", n), size, int64(h.now()), int64(charge.Expires), hash[:], b.Bill(payer)); err != nil {
			return err
		}
		return b.Save(ctx, tx)
	})
}

// report has all that was used reported, and gives the hash of the last report and its lines.
func (d *deal) report() (protocol.Hash, protocol.RefusedLines) {
	h := d.u.h
	h.t.Helper()
	if err := h.books.Post(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	for after := int64(0); ; {
		r, err := h.books.Report(h.t.Context(), d.u.key.Public(), d.id, after, func(to protocol.PublicKey, r *protocol.UsageReport) (*protocol.Envelope, error) {
			return protocol.Sign(h.key, to, h.now(), r)
		})
		if err != nil || r.Envelope == nil {
			h.t.Fatalf("no report after %d: %v", after, err)
		}
		if after = r.Last; r.More {
			continue
		}
		e, err := protocol.ParseEnvelope(r.Envelope)
		if err != nil {
			h.t.Fatal(err)
		}
		return e.Hash(), protocol.RefusedLines{First: r.First, Last: r.Last, Reason: "unknown"}
	}
}

// refuse refuses every line of the newest report.
func (d *deal) refuse() (*protocol.UsageRefused, error) {
	d.u.h.t.Helper()
	hash, lines := d.report()
	return d.refuseThese(hash, lines)
}

func (d *deal) refuseThese(report protocol.Hash, lines protocol.RefusedLines) (*protocol.UsageRefused, error) {
	return d.u.h.manager.Refuse(d.u.h.t.Context(), d.u.key.Public(), &protocol.UsageRefusal{Contract: d.id, Report: report, Lines: []protocol.RefusedLines{lines}})
}

// A sender who disputes everything: whatever he pays first, and however often he disputes, the relay serves him no more than
// its credit limit beyond what it has of him; under many names nothing is earned by it. The contract ends with the highest state.
func TestBadFaithDisputesEverything(t *testing.T) {
	t.Parallel()
	h := newHouse(t, standardOffer)
	for _, pays := range []protocol.Msat{0, 1_000_000, 20_000_000} {
		u := h.user()
		d := u.active(100_000, 1500)
		served := protocol.Msat(0)
		use := func(most int) {
			t.Helper()
			for range most {
				err := h.write(u.key.Public(), 250_000)
				if errors.Is(err, protocol.CodePaymentDue) || errors.Is(err, protocol.CodeContractEnded) || errors.Is(err, protocol.CodeNoAccount) {
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				served += 500_000
			}
		}
		for paid := protocol.Msat(0); paid < pays; {
			use(2)
			paid += 1_000_000
			if _, err := d.pay(d.terms.OpeningPrice+btcutil.Amount(paid/1000), nil); err != nil {
				t.Fatal(err)
			}
		}
		rounds := 0
		for outcome := protocol.RefusalDropped; outcome == protocol.RefusalDropped; rounds++ {
			use(1)
			answer, err := d.refuse()
			if err != nil {
				t.Fatal(err)
			}
			outcome = answer.Outcome
		}
		use(100)
		got := protocol.Msat(d.amount) * 1000
		if d.amount == 0 {
			got = protocol.Msat(d.terms.OpeningPrice) * 1000
		}
		if limit := protocol.Msat(d.terms.CreditLimit) * 1000; served > got+limit || pays == 0 && served > limit || rounds > 50 {
			t.Errorf("paid %d, served %d for %d with a limit of %d, in %d rounds", pays, served, got, limit, rounds)
		}
		d.reaches(escrow.Settling)
		h.inMempool(h.latest(d.id, protocol.TxSettlement).TxHash())
		h.mine(6)
		d.reaches(escrow.Closed)
	}
}

// What is refused of a contract that was renewed leaves what its successor owes, and a repetition takes nothing more.
func TestRefusedAfterARenewal(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bondOffer())
	h.fundWallet(50_000)
	u := h.user()
	old := u.active(200_000, 1500)
	for range 4 {
		if err := h.write(u.key.Public(), 500_000); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := old.pay(7_000, nil); err != nil {
		t.Fatal(err)
	}
	hash, lines := old.report()
	next := old.signedRenewal(100_000, 2000)
	h.mine(1)
	before := next.reaches(escrow.Active)
	if _, err := old.refuseThese(hash, protocol.RefusedLines{First: 2, Last: 2, Reason: "altered"}); !errors.Is(err, protocol.CodeContractState) {
		t.Errorf("written off before the funding is deep: %v", err)
	}
	h.mine(5)
	for range 2 {
		answer, err := old.refuseThese(hash, protocol.RefusedLines{First: 2, Last: 2, Reason: "altered"})
		if err != nil || answer.Outcome != protocol.RefusalDropped || answer.WrittenOff != 1_000_000 || answer.Most != 2_000_000 {
			t.Fatalf("%+v, %v", answer, err)
		}
		if s := next.status(); s.Owed != before.Owed-1000 {
			t.Fatalf("the successor owes %d, %d before", s.Owed, before.Owed)
		}
	}
	answer, err := old.refuseThese(hash, lines) // more than the old contract brought beyond the limit
	if err != nil || answer.Outcome != protocol.RefusalClosed || answer.Disputed != 3_000_000 {
		t.Fatalf("%+v, %v", answer, err)
	}
	next.reaches(escrow.Settling)
	wantCode(t, h.write(u.key.Public(), 1000), protocol.CodeNoAccount)
	h.inMempool(h.latest(next.id, protocol.TxSettlement).TxHash())
	h.mine(6)
	next.reaches(escrow.Closed)
}
