package records_test

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/protocol"
	"relaymarket/records"
)

// BenchmarkPulls is what a pull costs in processor time, Postgres' and this process's by themselves: unlike what a
// clock tells, that is nearly the same beside other programs. Each group is one transaction of so many readers, who
// acknowledge their page before and get the next records of 1,300 bytes, or after some the first ones again. Metered ones are posted after
// every twenty groups, which is told apart.
func BenchmarkPulls(b *testing.B) {
	for _, c := range []struct {
		readers, limit, again int
		metered               bool
	}{{readers: 1, limit: 1}, {readers: 16, limit: 1}, {readers: 32, limit: 1}, {readers: 64, limit: 1}, {readers: 8, limit: 100}, {readers: 32, limit: 1, again: 20}, {readers: 32, limit: 1, again: 1000},
		{readers: 8, limit: 100, again: 5}, {readers: 32, limit: 1, again: 20, metered: true}, {readers: 8, limit: 100, again: 5, metered: true}} {
		name := fmt.Sprintf("%d readers of %d", c.readers, c.limit)
		if c.again > 0 {
			name += fmt.Sprintf(" again after %d", c.again)
		}
		if c.metered {
			name += " metered"
		}
		b.Run(name, func(b *testing.B) { benchmarkPulls(b, c.readers, int64(c.limit), c.again, c.metered) })
	}
}

func benchmarkPulls(b *testing.B, people int, limit int64, again int, metered bool) {
	pages := b.N
	if again > 0 {
		pages = min(pages, again)
	}
	h := newHouse(b)
	alice, bill := h.account(), (*int64)(nil)
	if metered {
		alice, bill = h.payer().key, new(int64)
		if err := h.db.Pool().QueryRow(b.Context(), `UPDATE bills SET reserved_pulled = 1e15 RETURNING id`).Scan(bill); err != nil {
			b.Fatal(err)
		}
	}
	readers := make([]*reader, people)
	keys := make([][]byte, people)
	for i := range readers {
		readers[i] = &reader{h: h, key: key(b)}
		keys[i] = bytesOf(readers[i].key)
	}
	envelope := make([]byte, 1300)
	_, _ = rand.Read(envelope)
	if _, err := h.db.Pool().Exec(b.Context(), `WITH c AS (UPDATE relay_cursor SET n = n + $3 * cardinality($2::bytea[]))
		INSERT INTO records (n, sender, receiver, id, account, bytes, timestamp, expires, written, max_pulls, request_hash, hash, envelope, bill)
		SELECT (i - 1) * cardinality($2::bytea[]) + r, $1, k, 'a-name-of-36-bytes-like-a-uuid-' || i, $1, length($5::bytea), 0, $4, 0, 1000000, sha256(i::text::bytea), sha256(i::text::bytea), $5, $6
		FROM generate_series(1, $3::bigint) i, unnest($2::bytea[]) WITH ORDINALITY AS t (k, r)`,
		bytesOf(alice), keys, limit*int64(pages), int64(h.now().Add(time.Hour)), envelope, bill); err != nil {
		b.Fatal(err)
	}
	if _, err := h.db.Pool().Exec(b.Context(), `VACUUM ANALYZE records`); err != nil {
		b.Fatal(err)
	}
	if _, err := h.db.Pool().Exec(b.Context(), `UPDATE ledger_posted SET n = (SELECT n FROM relay_cursor)`); err != nil {
		b.Fatal(err)
	}
	var postgres, self, posting, poster time.Duration
	for n := range b.N {
		requests := make([]records.PullRequest, people)
		for i, r := range readers {
			if n%pages == 0 {
				r.after = nil
			}
			requests[i] = r.request(limit, alice.Public())
		}
		p0, s0 := h.postgresTime(), selfTime()
		served, errs, alone := h.store.PullTogether(b.Context(), requests...)
		self += selfTime() - s0
		postgres += h.postgresTime() - p0
		for i, r := range readers {
			if errs[i] != nil || len(served[i].Lines) != int(limit) || alone > 0 {
				b.Fatal(n, alone, errs[i], served[i])
			}
			r.open, r.after = &served[i].Header, &served[i].Header.Cursor
		}
		if metered && (n%20 == 19 || n == b.N-1) {
			p0, s0 := h.postgresTime(), selfTime()
			if err := h.books.Post(b.Context()); err != nil {
				b.Fatal(err)
			}
			poster += selfTime() - s0
			posting += h.postgresTime() - p0
		}
	}
	each := float64(b.N*people) * float64(limit) * 1000
	b.ReportMetric(float64(postgres)/each, "postgres-µs/record")
	b.ReportMetric(float64(self)/each, "self-µs/record")
	if metered {
		b.ReportMetric(float64(posting)/each, "posting-µs/line")
		b.ReportMetric(float64(poster)/each, "poster-µs/line")
	}
}

// BenchmarkWrites is what a write costs in processor time: records of 1,300 bytes of so many senders, each another's, in one transaction.
func BenchmarkWrites(b *testing.B) {
	for _, senders := range []int{1, 2, 4, 8, 16, 32, 64, 256} {
		b.Run(fmt.Sprint(senders), func(b *testing.B) {
			h := newHouse(b)
			keys := make([]*protocol.PrivateKey, senders)
			for i := range keys {
				keys[i] = h.account()
			}
			to := key(b).Public()
			body := make([]byte, 600)
			_, _ = rand.Read(body)
			text := content(base64.StdEncoding.EncodeToString(body)) // the envelope has some 1,300 bytes
			var postgres, self time.Duration
			const warmUp = 20
			for n := range warmUp + b.N {
				if n == warmUp { // all connections are there now
					h.backends, postgres, self = nil, 0, 0
				}
				group := make([]records.Incoming, senders)
				for i, k := range keys {
					group[i] = h.compose(k, to, fmt.Sprintf("a-name-of-36-bytes-like-a-uuid-%d", n), text)
				}
				p0, s0 := h.postgresTime(), selfTime()
				outcomes := h.store.Write(b.Context(), group)
				self += selfTime() - s0
				postgres += h.postgresTime() - p0
				for _, o := range outcomes {
					if o.Err != nil {
						b.Fatal(o.Err)
					}
				}
			}
			each := float64(b.N*senders) * 1000
			b.ReportMetric(float64(postgres)/each, "postgres-µs/record")
			b.ReportMetric(float64(self)/each, "self-µs/record")
		})
	}
}

// BenchmarkLines is what it costs the relay to tell a payer the lines of his bill, which are pulls in pages of so many records.
func BenchmarkLines(b *testing.B) {
	for _, limit := range []int64{100, 1} {
		b.Run(fmt.Sprintf("pages of %d", limit), func(b *testing.B) {
			h := newHouse(b)
			p, bob := h.payer(), &reader{h: h, key: key(b)}
			const written, times = 1000, 5
			var batch []records.Incoming
			for i := range written {
				batch = append(batch, h.compose(p.key, bob.key.Public(), fmt.Sprintf("a-name-of-36-bytes-like-a-uuid-%d", i), pulls(times)))
			}
			h.write(batch...)
			for range times {
				bob.after = nil
				for range written / limit {
					if page, err := bob.pull(b.Context(), limit, p.key.Public()); err != nil || len(page.Lines) != int(limit) {
						b.Fatal(page, err)
					}
				}
			}
			if err := h.books.Post(b.Context()); err != nil {
				b.Fatal(err)
			}
			report, err := h.books.Report(b.Context(), p.key.Public(), p.contract, 0, p.sign)
			if err != nil {
				b.Fatal(err)
			}
			lines := 0
			p0, s0 := h.postgresTime(), selfTime()
			for b.Loop() {
				if err := h.books.Lines(b.Context(), report, func([]byte) error { lines++; return nil }); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(h.postgresTime()-p0)/float64(lines)/1000, "postgres-µs/line")
			b.ReportMetric(float64(selfTime()-s0)/float64(lines)/1000, "self-µs/line")
			b.ReportMetric(float64(b.Elapsed())/float64(lines)/1000, "µs/line")
		})
	}
}

func selfTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// postgresTime is what the connections of the house have used.
func (h *house) postgresTime() (all time.Duration) {
	if h.backends == nil {
		rows, err := h.db.Pool().Query(h.t.Context(), `SELECT pid FROM pg_stat_activity WHERE datname = current_database()`)
		if err != nil {
			h.t.Fatal(err)
		}
		if h.backends, err = pgx.CollectRows(rows, pgx.RowTo[int]); err != nil {
			h.t.Fatal(err)
		}
	}
	for _, pid := range h.backends {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
		ran, _, _ := strings.Cut(string(text), " ")
		n, _ := strconv.ParseInt(ran, 10, 64)
		all += time.Duration(n)
	}
	return all
}
