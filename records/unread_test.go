package records_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger/books"
	"relaymarket/records"
)

// Pages that are on one bill and of one sender are posted unread, by what their acknowledgements note of them. Whatever is noted, the bill
// has what readers signed for: a page that is gone is on none, and a note that is wrong is not believed.
func TestPagesArePostedUnread(t *testing.T) {
	const none, half, all = 0, 1, 2
	for name, c := range map[string]struct {
		meddle string
		pulls  int64 // halves of them on the bill
	}{
		"as noted":       {`SELECT`, all},
		"nobody looks":   {`UPDATE pages SET names = '\xff'`, all}, // who reads them would leave them out
		"page is gone":   {`DELETE FROM pages WHERE turn = 1 AND ctid = (SELECT min(ctid) FROM pages)`, half},
		"not signed for": {`UPDATE pages SET got = NULL WHERE ctid = (SELECT min(ctid) FROM pages)`, half},
		"other bytes":    {`UPDATE ledger_acks SET bytes = bytes + 1`, all},
		"other bill":     {`UPDATE ledger_acks SET bill = (SELECT max(id) FROM bills) WHERE ctid = (SELECT min(ctid) FROM ledger_acks)`, all},
		"no such bill":   {`UPDATE ledger_acks SET bill = 1000000`, all},
		"less than none": {`UPDATE ledger_acks SET bytes = -1`, all},
		"damaged hashes": {`UPDATE pages SET hashes = substr(hashes, 2) WHERE ctid = (SELECT min(ctid) FROM pages)`, half},
		"odd senders":    {`UPDATE pages SET senders = substr(senders, 2) WHERE ctid = (SELECT min(ctid) FROM pages)`, half},
		"null for bills": {`UPDATE pages SET bills = '{NULL}'`, none},
		"more records":   {`UPDATE ledger_acks SET records = records + 1`, all},
		"nothing noted":  {`UPDATE ledger_acks SET bill = NULL, bytes = NULL`, all},
		"several on one": {`UPDATE pages SET bills = array_fill(bills[1], ARRAY[cardinality(ns)]), senders = decode(repeat(encode(senders, 'hex'), cardinality(ns)), 'hex')`, all},
	} {
		for _, size := range []int64{1, 20} {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				h := newHouse(t)
				p, other := h.payer(), h.payer()
				for range 2 {
					r := &reader{h: h, key: key(t)}
					var batch []records.Incoming
					for i := range size {
						in := h.compose(p.key, r.key.Public(), fmt.Sprint("r", i), content("aGVsbG8h"[:4*(i%2+1)]))
						p.wrote(in)
						batch = append(batch, in, h.compose(other.key, r.key.Public(), fmt.Sprint("r", i)))
					}
					h.write(batch...)
					page, err := r.pull(t.Context(), 100, p.key.Public())
					if err != nil || len(page.Lines) != int(size) {
						t.Fatal(page, err)
					}
					if err := h.store.Got(t.Context(), r.key.Public(), *r.ack(page.Header)); err != nil {
						t.Fatal(err)
					}
				}
				h.exec(c.meddle)
				if err := h.books.Post(t.Context()); err != nil {
					t.Fatal(err)
				}
				if n := h.count(`SELECT count(*) FROM ledger_acks`); n != 0 {
					t.Errorf("%d pages wait", n)
				}
				if n := h.count(`SELECT count(*) FROM ledger_blocks WHERE acked IS NOT NULL`); (n > 0) != (c.pulls > 0) {
					t.Errorf("%d blocks name pages", n)
				}
				if bill, err := h.books.Posted(t.Context(), p.contract); err != nil || bill.Last != 2*size+c.pulls*size {
					t.Errorf("%+v, %v", bill, err)
				}
				if bill, err := h.books.Posted(t.Context(), other.contract); err != nil || bill.Last != 2*size {
					t.Errorf("another's bill: %+v, %v", bill, err)
				}
				if c.pulls == all && name != "nobody looks" {
					p.check(t)
				}
			})
		}
	}
}

// The names of a page's records are the same to read, whichever of the two ways it was stored.
func TestNamesOfPages(t *testing.T) {
	h := newHouse(t)
	alice := h.account()
	for _, size := range []int{4, 200, 12_000} {
		r, id := &reader{h: h, key: key(t)}, fmt.Sprint("of-", size)
		in := h.compose(alice, r.key.Public(), id, content(strings.Repeat("AAAA", size/4)))
		h.mustWrite(in)
		for _, limit := range []int64{1, 2} { // the statement of single pulls, and that of the others
			r.after = nil
			if page, err := r.pull(t.Context(), limit, alice.Public()); err != nil || len(page.Lines) != 1 {
				t.Fatal(page, err)
			}
		}
		rows, err := h.db.Pool().Query(t.Context(), `SELECT names, bytes FROM pages WHERE reader = $1`, bytesOf(r.key))
		if err != nil {
			t.Fatal(err)
		}
		var names []byte
		var sum int64
		pages := 0
		if _, err := pgx.ForEachRow(rows, []any{&names, &sum}, func() error {
			pages++
			ids, sizes, err := books.ReadNames(names, 1)
			if err != nil || string(ids[0]) != id || int64(sizes[0]) != in.Envelope.Size() || sum != in.Envelope.Size() {
				t.Errorf("%q, %d, %d, %v", ids, sizes, sum, err)
			}
			return nil
		}); err != nil || pages != 2 {
			t.Fatal(pages, err)
		}
	}
}
