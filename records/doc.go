// Package records keeps the outboxes of a relay in Postgres: it writes, pulls, lists, tells
// listeners, deletes and expires records, and keeps the pages it served with their evidence.
//
// The package api calls it with requests that are parsed, verified and authorized; it calls
// ledger/books, inside its own transactions, for what a record costs.
//
// # Guarantees
//
//   - An acknowledged write is committed with synchronous_commit=on.
//   - A record is immutable, and a repeated request has the effect of one.
//   - Every committed record has one place in one order, the cursor. The row of relay_cursor is
//     locked last before COPY and COMMIT, so places are handed out in commit order, whatever number
//     of processes share the database: whoever sees place n sees everything below it.
//   - maxPulls and quotas are exact under concurrency.
//   - Nothing is served after it expired. Nothing is destroyed before it expired an hour ago, was
//     used up ten minutes ago, or was deleted by its sender.
//
// # Groups
//
// Writes that wait are one transaction, and so are pulls (queue.go, pullqueue.go). What is usual goes in two
// round trips (insert.go, pullgroup.go), pulls of one record in one (single.go); what has to be judged by itself, in transactions that lock
// first (write.go, pull.go).
//
// # Life of a record
//
//	write ──► live ──► expires ────────────── + 1 h ──► row removed
//	           │ ├── last pull ── + 10 min ──► used up, bytes freed ──► row removed at expires + 1 h
//	           │ └── deleted, bytes freed ───────────────────────────► row removed at expires + 1 h
//
// A row without bytes is a tombstone: it answers 410 to the same write, so that nothing is
// resurrected or charged again.
//
// # Life of a page
//
//	asked ──► open (served 1 … 3 times) ──► acknowledged ── + 35 d ──► row removed
//	           └── all it names expired ─────────────────── + 35 d ──► row removed
//
// A reader's pages go in the order they were made: the row of the next one, which may have the acknowledgement of a page, stays
// longer than that page. So does the row of a page that a bill names instead of saying what is in it, for as long as that. They
// are looked for from reader to reader, once an hour (sweeppages.go).
//
// One page may be open for each reader. While it is, another one is refused with its id. What acknowledges a page is mostly the
// row of the next one (acks.go).
package records
