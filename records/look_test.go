package records_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"relaymarket/protocol"
	"relaymarket/records"
)

// endedBatch is how many records that ended lie between those that did not, in graveyard.
const endedBatch = records.MaxLook + 2500

// graveyard is what two people left for bob: long rows of records that expired or were used up and are not swept yet,
// with a few live ones between them. It returns the live ones' ids in order.
func graveyard(t *testing.T, h *house, bob protocol.PublicKey, senders ...*protocol.PrivateKey) (live []string) {
	t.Helper()
	for round := range 4 {
		for i, s := range senders {
			sender := s.Public()
			expires := h.now().Add(time.Hour)
			if round%2 == 0 {
				expires = h.now().Add(-time.Second)
			}
			if _, err := h.db.Pool().Exec(t.Context(), `WITH c AS (UPDATE relay_cursor SET n = n + $5 RETURNING n),
				ended AS (INSERT INTO records (n, sender, receiver, id, account, bytes, timestamp, expires, written, max_pulls, request_hash, hash, envelope)
				  SELECT c.n - $5 + i, $1, $2, 'ended-' || c.n || '-' || i, $1, 1, 0, $3, 0, 1, $1, $1, '' FROM c, generate_series(1, $5::bigint) i
				  RETURNING n)
				INSERT INTO pulls (receiver, sender, first, upto, remaining, last) SELECT $2, $1, n, n, 0, $4 FROM ended WHERE $3 > $4`,
				sender[:], bob[:], int64(expires), int64(h.now()), int64(endedBatch)); err != nil {
				t.Fatal(err)
			}
			for k := range 3 {
				id := fmt.Sprintf("live-%d-%d-%d", round, i, k)
				h.mustWrite(h.compose(s, bob, id))
				live = append(live, id)
			}
		}
	}
	return live
}

// walked is how many entries of the indexes of records were read, and rows otherwise. Connections tell their figures
// when they are closed: see gone.
func (h *house) walked() int64 {
	return h.count(`SELECT (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'records') +
		(SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'records')::bigint`)
}

// Whoever begins before thousands of records that ended a moment ago reads no more of them at once than anybody may,
// and comes to what lies behind them, each once and in order.
func TestOneLookIsBounded(t *testing.T) {
	h := newHouse(t)
	alice, carol, bob := h.account(), h.account(), key(t)
	live := graveyard(t, h, bob.Public(), alice, carol)
	both := []protocol.PublicKey{alice.Public(), carol.Public()}
	crowd := slices.Clone(both) // who read little of each at first
	for range 300 {
		crowd = append(crowd, key(t).Public())
	}
	half := []string{} // alice's
	for i := 0; i < len(live); i += 6 {
		half = append(half, live[i:i+3]...)
	}

	pullAll := func(limit int64, senders []protocol.PublicKey, together bool) func(*testing.T, *house) ([]string, int) {
		return func(t *testing.T, h *house) (got []string, looks int) {
			r := &reader{h: h, key: bob}
			if last := h.count(openPages+` AND p.reader = $1`, bytesOf(bob)); last > 0 {
				t.Fatal("a page is open")
			}
			for more := true; more; looks++ {
				request := r.request(limit, senders...)
				page, err := (*records.Page)(nil), error(nil)
				if together {
					var pages []*records.Page
					var errs []error
					pages, errs, _ = h.store.PullTogether(t.Context(), request, (&reader{h: h, key: key(t)}).request(1, senders...))
					page, err = pages[0], errs[0]
				} else {
					page, err = h.store.Pull(t.Context(), request)
				}
				if err != nil {
					t.Fatal(err)
				}
				if r.open, more = nil, page.Header.More; page.Header.Records > 0 {
					r.open = &page.Header
				}
				got, r.after = append(got, ids(t, page)...), &page.Header.Cursor
			}
			if r.open != nil {
				if err := h.store.Got(t.Context(), bob.Public(), *r.ack(*r.open)); err != nil {
					t.Fatal(err)
				}
			}
			return got, looks
		}
	}
	for _, c := range []struct {
		name string
		want []string
		all  func(*testing.T, *house) (got []string, looks int)
	}{
		{"pull", live, pullAll(1000, both, false)},
		{"pull of one", half, pullAll(1000, both[:1], false)},
		{"pull of a crowd", live, pullAll(1000, crowd, false)},
		{"pull in fours", live, pullAll(4, both, false)},
		{"pull together", live, pullAll(5, both, true)},
		{"listen", live, func(t *testing.T, h *house) (got []string, looks int) {
			sub, err := h.store.Listen(t.Context(), bob.Public(), both, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer sub.Close()
			for caught := false; !caught; looks++ {
				if caught, err = sub.CatchUp(t.Context()); err != nil {
					t.Fatal(err)
				}
				for e, ok := sub.Poll(); ok; e, ok = sub.Poll() {
					got = append(got, string(e.Entry.ID))
				}
			}
			return got, looks
		}},
		{"listen and wait", live, func(t *testing.T, h *house) (got []string, looks int) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			return listenFor(ctx, t, h, bob, both, len(live)), 100
		}},
		{"inventory", half, func(t *testing.T, h *house) (got []string, looks int) {
			to := bob.Public()
			return listAll(t, h, records.ListRequest{Sender: alice.Public(), Receiver: &to, Limit: 1000})
		}},
		{"inventory in threes", half, func(t *testing.T, h *house) (got []string, looks int) {
			return listAll(t, h, records.ListRequest{Sender: alice.Public(), Limit: 3})
		}},
	} {
		var looks int
		var looked []uint32
		before := h.walked()
		t.Run(c.name, func(t *testing.T) {
			other := joinHouse(t, h.url, h.relay, h.offset)
			var got []string
			if got, looks = c.all(t, other); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			looked = other.backendsOfPools()
		})
		h.gone(looked)
		if n := h.walked() - before; n == 0 || n > int64(looks)*(records.MaxLook*3/2) {
			t.Errorf("%s: %d looks read %d entries", c.name, looks, n)
		}
	}
}

func bytesOf(k *protocol.PrivateKey) []byte {
	public := k.Public()
	return public[:]
}

func listAll(t *testing.T, h *house, request records.ListRequest) (got []string, looks int) {
	t.Helper()
	for more := true; more; looks++ {
		l, err := h.store.List(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range l.Entries {
			got = append(got, string(e.ID))
		}
		more, request.After = l.More, &l.Cursor
	}
	return got, looks
}
