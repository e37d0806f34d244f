package state

import (
	"context"
	"database/sql"
	"slices"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// Audit is the audit of one report: a transaction, so that what it found is stored with how far it came, or not at all.
// It is a [ledger.Memory]. What lines ask for is looked up for many of them at once ([Audit.Expect]), and what changes is
// written in the order of its keys when all is judged: one statement a line would cost more than all of its checks.
type Audit struct {
	ctx      context.Context
	tx       *sql.Tx
	contract protocol.ContractID
	relay    protocol.PublicKey
	owner    protocol.PublicKey

	own       *lookup
	standings *lookup
	claims    *lookup
	refuse    *sql.Stmt

	known   map[protocol.Hash]*ledger.Own // nil: nothing is known of it
	stood   map[protocol.Hash]ledger.Standing
	changed map[protocol.Hash]*ledger.Standing // not stored yet
	claimed map[claim]int64                    // line; 0: none
	made    []claim                            // not stored yet

	writers map[protocol.PublicKey]bool // who write on this account, the owner among them
	waits   map[protocol.Hash]bool      // writes of this report that wait for their writer's word
}

// claim is a pull that is billed: a record's place in a page.
type claim struct {
	hash protocol.Hash
	page protocol.PageID
}

var _ ledger.Memory = (*Audit)(nil)

// AuditReport runs the audit of one report, on a contract that pays for these writers beside the owner. An error of do
// leaves everything as it was.
func (s *Store) AuditReport(ctx context.Context, contract protocol.ContractID, relay protocol.PublicKey, writers []protocol.PublicKey, do func(*Audit) error) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		// A context that can end costs every statement two goroutines. The transaction ends with its own.
		a := &Audit{ctx: context.WithoutCancel(ctx), tx: tx, contract: contract, relay: relay, owner: s.owner,
			known: make(map[protocol.Hash]*ledger.Own), stood: make(map[protocol.Hash]ledger.Standing),
			changed: make(map[protocol.Hash]*ledger.Standing), claimed: make(map[claim]int64),
			writers: s.writersOf(writers), waits: make(map[protocol.Hash]bool)}
		defer a.close()
		if err := a.prepare(); err != nil {
			return err
		}
		return do(a)
	})
}

// selectOwn is what is known of envelopes on a relay: those that we signed here, those that we pulled, of somebody whom we
// admit or of another device of ours, and those that another writer says he wrote. When a message was removed, its copy is gone from when the
// relay said so.
const selectOwn = `SELECT w.column1, NULL, o.receiver, o.record_id, a.bytes, a.signed, o.expires, o.max_pulls,
	CASE WHEN c.state = 'gone' AND o.removed IS NOT NULL THEN c.changed ELSE 0 END
	FROM wanted w CROSS JOIN attempts a ON a.hash = w.column1 AND a.relay = ?1 AND a.bytes > 0
	JOIN outbox o ON o.n = a.n JOIN copies c ON c.n = a.n AND c.relay = a.relay
	UNION ALL SELECT w.column1, sender, NULL, record_id, bytes, signed, expires, max_pulls, 0
	FROM wanted w CROSS JOIN received r ON r.relay = ?1 AND r.hash = w.column1
	UNION ALL SELECT w.column1, sender, receiver, record_id, bytes, signed, expires, max_pulls, deleted
	FROM wanted w CROSS JOIN writings r ON r.relay = ?1 AND r.hash = w.column1`

const standingColumns = `line, written, expires, bytes, max_pulls, pulled, returned, end_line, ended`

func (a *Audit) prepare() (err error) {
	if a.own, err = newLookup(a.ctx, a.tx, 1, selectOwn, a.relay[:]); err != nil {
		return err
	}
	if a.standings, err = newLookup(a.ctx, a.tx, 1, `SELECT w.column1, `+standingColumns+`
		FROM wanted w CROSS JOIN standings s ON s.contract = ?1 AND s.hash = w.column1`, a.contract[:]); err != nil {
		return err
	}
	if a.claims, err = newLookup(a.ctx, a.tx, 2, `SELECT w.column1, w.column2, c.line
		FROM wanted w CROSS JOIN claims c ON c.contract = ?1 AND c.hash = w.column1 AND c.page = w.column2`, a.contract[:]); err != nil {
		return err
	}
	a.refuse, err = a.tx.PrepareContext(a.ctx, insertRefusal)
	return err
}

func (a *Audit) close() {
	for _, l := range []*lookup{a.own, a.standings, a.claims} {
		if l != nil {
			_ = l.stmt.Close()
		}
	}
	if a.refuse != nil {
		_ = a.refuse.Close()
	}
}

// Expect looks up what the next lines will ask for: records by their envelopes' hashes, and pulls by hash and page. Without
// it each is looked up alone.
func (a *Audit) Expect(records []protocol.Hash, pulled []protocol.Hash, pages []protocol.PageID) error {
	var keys [][]any
	for _, h := range records {
		if _, ok := a.known[h]; !ok {
			a.known[h] = nil
			keys = append(keys, []any{h[:]})
		}
	}
	if err := a.own.each(a.ctx, keys, a.scanOwn); err != nil {
		return err
	}
	if err := a.standings.each(a.ctx, keys, a.scanStanding); err != nil {
		return err
	}
	keys = keys[:0]
	for i, h := range pulled {
		c := claim{h, pages[i]}
		if _, ok := a.claimed[c]; !ok {
			a.claimed[c] = 0
			keys = append(keys, []any{c.hash[:], c.page})
		}
	}
	return a.claims.each(a.ctx, keys, func(rows *sql.Rows) error {
		var envelope []byte
		var c claim
		var line int64
		err := rows.Scan(&envelope, &c.page, &line)
		c.hash = hash(envelope)
		a.claimed[c] = line
		return err
	})
}

func (a *Audit) scanOwn(rows *sql.Rows) error {
	own := &ledger.Own{}
	var envelope, sender, receiver []byte
	if err := rows.Scan(&envelope, &sender, &receiver, &own.Path.ID, &own.Bytes, &own.Signed, &own.Expires, &own.MaxPulls, &own.Deleted); err != nil {
		return err
	}
	if own.Path.Sender, own.Path.Receiver = a.owner, a.owner; sender != nil {
		own.Path.Sender = publicKey(sender)
	}
	if receiver != nil {
		own.Path.Receiver = publicKey(receiver)
	}
	if sender != nil && receiver != nil && !a.writers[own.Path.Sender] {
		return nil // the word of somebody who does not write on this account
	}
	if h := hash(envelope); a.known[h] == nil { // the first counts: what we signed ourselves
		a.known[h] = own
	}
	return nil
}

func (a *Audit) scanStanding(rows *sql.Rows) error {
	var envelope []byte
	s, err := scanStanding(func(to ...any) error { return rows.Scan(append([]any{&envelope}, to...)...) })
	a.stood[hash(envelope)] = s
	return err
}

func scanStanding(scan func(...any) error, more ...any) (ledger.Standing, error) {
	var s ledger.Standing
	err := scan(append([]any{&s.Write, &s.Written, &s.Expires, &s.Bytes, &s.MaxPulls, &s.Pulled, &s.Returned, &s.End, &s.Ended}, more...)...)
	return s, err
}

// Own implements [ledger.Memory].
func (a *Audit) Own(h protocol.Hash) (*ledger.Own, error) {
	if own, ok := a.known[h]; ok {
		return own, nil
	}
	err := a.Expect([]protocol.Hash{h}, nil, nil)
	return a.known[h], err
}

// Standing implements [ledger.Memory].
func (a *Audit) Standing(h protocol.Hash) (ledger.Standing, error) {
	if s := a.changed[h]; s != nil {
		return *s, nil
	}
	if _, ok := a.known[h]; !ok {
		if err := a.Expect([]protocol.Hash{h}, nil, nil); err != nil {
			return ledger.Standing{}, err
		}
	}
	return a.stood[h], nil
}

// SetStanding implements [ledger.Memory].
func (a *Audit) SetStanding(h protocol.Hash, s ledger.Standing) error {
	a.changed[h] = &s
	return nil
}

// Claim implements [ledger.Memory].
func (a *Audit) Claim(h protocol.Hash, page protocol.PageID, seq int64) (bool, error) {
	c := claim{h, page}
	if _, ok := a.claimed[c]; !ok {
		if err := a.Expect(nil, []protocol.Hash{h}, []protocol.PageID{page}); err != nil {
			return false, err
		}
	}
	if a.claimed[c] != 0 {
		return false, nil
	}
	a.claimed[c] = seq
	a.made = append(a.made, c)
	return true, nil
}

// Done stores how far the audit came: the report, and what of it was accepted.
func (a *Audit) Done(e *protocol.Envelope, first int64, after ledger.Place, accepted ledger.Totals, now protocol.Timestamp) error {
	if err := a.write(); err != nil {
		return err
	}
	claimed, err := totalsText(after.Totals)
	if err != nil {
		return err
	}
	taken, err := totalsText(accepted)
	if err != nil {
		return err
	}
	if _, err := a.tx.ExecContext(a.ctx, `INSERT INTO reports VALUES (?, ?, ?, ?)`, a.contract[:], first, after.Last, e.Bytes()); err != nil {
		return err
	}
	_, err = a.tx.ExecContext(a.ctx, `INSERT INTO bills VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (contract) DO UPDATE SET
		last = excluded.last, report = excluded.report, claimed = excluded.claimed, accepted = excluded.accepted, audited = excluded.audited`,
		a.contract[:], a.relay[:], after.Last, after.Report[:], claimed, taken, now)
	return err
}

// write stores what records came to and which pulls are billed, in the order of the tables' keys.
func (a *Audit) write() error {
	hashes := make([]protocol.Hash, 0, len(a.changed))
	for h := range a.changed {
		hashes = append(hashes, h)
	}
	slices.SortFunc(hashes, func(x, y protocol.Hash) int { return slices.Compare(x[:], y[:]) })
	standings := make([][]any, 0, len(hashes))
	for _, h := range hashes {
		s := a.changed[h]
		var path protocol.Path // a record that is not remembered any more, of which something is dropped, has its row already
		if own := a.known[h]; own != nil {
			path = own.Path
		}
		standings = append(standings, []any{a.contract[:], h[:], path.Sender[:], path.Receiver[:], path.ID, s.Write, s.Written, s.Expires, s.Bytes,
			s.MaxPulls, s.Pulled, s.Returned, s.End, s.Ended})
	}
	if err := insertAll(a.ctx, a.tx, `INSERT INTO standings VALUES `, ` ON CONFLICT (contract, hash)
		DO UPDATE SET pulled = excluded.pulled, returned = excluded.returned, end_line = excluded.end_line, ended = excluded.ended`, standings); err != nil {
		return err
	}
	slices.SortFunc(a.made, func(x, y claim) int { return slices.Compare(x.hash[:], y.hash[:]) })
	claims := make([][]any, 0, len(a.made))
	for i := range a.made {
		c := &a.made[i]
		claims = append(claims, []any{a.contract[:], c.hash[:], c.page, a.claimed[*c]})
	}
	return insertAll(a.ctx, a.tx, `INSERT INTO claims VALUES `, ``, claims)
}
