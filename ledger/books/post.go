package books

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger"
	"relaymarket/protocol"
)

// The poster writes the ledgers behind the work they are about. What is to be posted is durable already, in the
// transaction that had the effect: a write is its row in records, an end and a lapse are rows of ledger_facts,
// an acknowledged page has one in ledger_acks. So no effect goes without its line, none has two, and nobody who writes
// or reads waits for any of it.

const (
	postEvery   = 500 * time.Millisecond // between looks when nothing is to do
	postTimeout = 30 * time.Second
	postRetry   = 20 * time.Millisecond
	postPlaces  = 5000 // records looked through in one transaction
	postFacts   = 5000
	postPages   = 2000   // acknowledged pages
	postDead    = 20_000 // rows that were taken off the queues, after which they are vacuumed

	vacuumTimeout = 5 * time.Second
	vacuumRest    = 20     // times as long as one took
	postPulls     = 20_000 // records in them, and those of one page more
	blockLines    = 2048   // lines of a block, and the rest of a page
)

// Run posts until ctx is done. One process of those that share a database posts at a time.
func (s *Store) Run(ctx context.Context) error {
	t := time.NewTicker(postEvery)
	defer t.Stop()
	ctx, cancel := context.WithCancel(ctx)
	var tidying sync.WaitGroup
	defer func() {
		cancel() // also when this one panics: a relay that posts nothing must not go on
		tidying.Wait()
	}()
	tidying.Go(func() { s.tidy(ctx) })
	var summed time.Time
	for {
		if err := s.post(ctx); err != nil && !errors.Is(err, errPosting) && ctx.Err() == nil {
			s.log.Warn("post the ledger: it is tried again", "err", err)
		}
		if now := s.clock(); now.Sub(summed).Abs() > sumsEvery {
			summed = now
			if err := s.readSums(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("the metrics of the ledger are old", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// tidy tidies from time to time, beside the posting: what is to be written out may take long.
func (s *Store) tidy(ctx context.Context) {
	t := time.NewTicker(postEvery)
	defer t.Stop()
	var tidied time.Time
	for {
		if now := s.clock(); now.Sub(tidied).Abs() > tidyEvery {
			tidied = now
			if err := s.Tidy(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("tidy the ledger: it is tried again", "err", err)
				tidied = now.Add(tidyAgain - tidyEvery)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// errPosting: another process posts.
var errPosting = errors.New("another process posts")

// Post posts all that is to be posted at this moment. [Store.Run] does so all the time; calling it at any other time is
// safe.
func (s *Store) Post(ctx context.Context) error {
	for {
		err := s.post(ctx)
		if !errors.Is(err, errPosting) {
			return wrap(err, "post the ledger")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(postRetry):
		}
	}
}

// post posts all, unless another process is at it, which is errPosting.
func (s *Store) post(ctx context.Context) error {
	for {
		more, err := s.postSome(ctx)
		if err == nil && s.dead.Load() >= postDead && time.Now().UnixNano() >= s.vacuumFrom.Load() {
			s.vacuum(ctx)
		}
		if err != nil || !more {
			return err
		}
	}
}

// vacuum makes room in the queues for what comes. What was taken off them is walked over by each look until then, and autovacuum
// comes some times a minute at most. Where a snapshot that somebody holds keeps all of it, this takes its share of the time and no more.
func (s *Store) vacuum(ctx context.Context) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, vacuumTimeout)
	defer cancel()
	if _, err := s.db.Pool().Exec(ctx, `VACUUM (SKIP_LOCKED, TRUNCATE false) ledger_acks, ledger_facts`); err != nil && ctx.Err() == nil {
		s.log.Warn("vacuum the queues of the ledger: it is tried again", "err", err)
	}
	s.dead.Store(0)
	s.vacuumFrom.Store(time.Now().Add(vacuumRest * time.Since(began)).UnixNano())
}

// round is what one transaction posts.
type round struct {
	upTo     int64 // writes up to this place are posted
	day      Day   // that it is posted on
	postings map[int64][]posting
	unread   []*pageRef // pages that are to be read
	facts    []factLine
	wary     bool // all pages are read
	full     bool // a bound was reached: there may be more
	taken    int  // rows off the queues
	log      *slog.Logger
}

// factLine is a line that comes after the pulls of its record.
type factLine struct {
	bill int64
	line ledger.Line
}

// leftOut is told of a line that is left out of a bill.
func (r *round) leftOut(err error) {
	r.log.Error("a pull is left out of a bill: nothing is reserved for it", "err", err)
}

// postSome posts some of what is to be posted. What was noted of a page is believed first.
func (s *Store) postSome(ctx context.Context) (more bool, err error) {
	if more, err = s.postRound(ctx, false); errors.Is(err, errPageGone) {
		s.log.Error("the ledger is posted page by page: what was noted of one is not true", "err", err)
		more, err = s.postRound(ctx, true)
	}
	return more, err
}

func (s *Store) postRound(ctx context.Context, wary bool) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	taken := 0
	err = s.db.Tx(ctx, func(tx pgx.Tx) error {
		more = false
		// What a crash undoes here is posted again: the queue comes back with it. And whoever relies on it waits for the
		// disk himself, by which time this is there too.
		if _, err := tx.Exec(ctx, `SET LOCAL synchronous_commit = off`); err != nil {
			return err
		}
		var from, head int64
		var billed bool
		// One statement, one moment: without a bill, no record up to head is on one.
		err := tx.QueryRow(ctx, `SELECT p.n, c.n, EXISTS (SELECT FROM bills) FROM ledger_posted p, relay_cursor c FOR UPDATE OF p SKIP LOCKED`).
			Scan(&from, &head, &billed)
		if errors.Is(err, pgx.ErrNoRows) {
			return errPosting
		}
		if err != nil {
			return err
		}
		r := round{upTo: head, day: DayOf(s.clock()), postings: make(map[int64][]posting), wary: wary, log: s.log}
		if billed {
			r.upTo = min(head, from+postPlaces)
			if err := r.read(ctx, tx, from); err != nil {
				return err
			}
		}
		if more = r.full || r.upTo < head; r.upTo > from {
			if _, err := tx.Exec(ctx, `UPDATE ledger_posted SET n = $1`, r.upTo); err != nil {
				return err
			}
		}
		taken = r.taken
		return r.write(ctx, tx)
	})
	if err == nil {
		s.dead.Add(int64(taken))
	}
	return more, err
}

// evidence is the acknowledgement of the page p: at the page itself, or where its reader's next page is.
const evidence = `coalesce(p.got, (SELECT got_before FROM pages n WHERE n.reader = p.reader AND n.turn > 0 AND n.turn > p.turn ORDER BY n.turn LIMIT 1))`

// read takes what is to be posted: writes after a place, then what came of records up to the last of them.
func (r *round) read(ctx context.Context, tx pgx.Tx, from int64) error {
	b := &pgx.Batch{}
	if r.upTo > from {
		b.Queue(`SELECT bill, sender, receiver, id, hash, bytes, written, expires, max_pulls FROM records
			WHERE n > $1 AND n <= $2 AND bill IS NOT NULL ORDER BY n`, from, r.upTo).Query(r.readWrites)
	}
	b.Queue(`DELETE FROM ledger_acks WHERE ctid = ANY(ARRAY(
		  SELECT id FROM (SELECT id, sum(records) OVER (ROWS UNBOUNDED PRECEDING) - records AS before
		    FROM (SELECT ctid AS id, records FROM ledger_acks WHERE upto <= $1 LIMIT $2) k) k WHERE before < $3)) RETURNING reader, page_id, at, records, bill, bytes`, r.upTo, postPages, postPulls).Query(r.readAcks)
	b.Queue(`DELETE FROM ledger_facts WHERE ctid = ANY(ARRAY(SELECT ctid FROM ledger_facts WHERE n <= $1 LIMIT $2))
		RETURNING `+factColumns, r.upTo, postFacts).Query(r.readFacts)
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	return readPages(ctx, tx, r.unread, r.add, r.log)
}

func (r *round) add(bill int64, p posting) { r.postings[bill] = append(r.postings[bill], p) }

func (r *round) readWrites(rows pgx.Rows) error {
	var bill, written, expires int64
	var sender, receiver, hash []byte
	var id string
	var size, pulls int32
	_, err := pgx.ForEachRow(rows, []any{&bill, &sender, &receiver, &id, &hash, &size, &written, &expires, &pulls}, func() error {
		l := lineOf(sender, receiver, id, hash, size)
		l.Kind, l.Written, l.Expires, l.MaxPulls = ledger.KindWrite, protocol.Timestamp(written), protocol.Timestamp(expires), int64(pulls)
		r.add(bill, posting{line: l})
		return nil
	})
	return err
}

func lineOf(sender, receiver []byte, id string, hash []byte, size int32) ledger.Line {
	return ledger.Line{From: protocol.PublicKey(sender), To: protocol.PublicKey(receiver), RecordID: protocol.RecordID(id),
		Hash: protocol.Hash(hash), Bytes: int64(size)}
}

// factColumns are what readFacts reads.
const factColumns = `bill, kind, sender, receiver, id, hash, bytes, written, expires, ended, pulls`

// Kinds of ledger_facts.
const (
	factEnd   = 1
	factLapse = 2
)

func (r *round) readFacts(rows pgx.Rows) error {
	var bill, written, expires, ended int64
	var sender, receiver, hash []byte
	var id string
	var size, pulls int32
	var kind int16
	facts := 0
	_, err := pgx.ForEachRow(rows, []any{&bill, &kind, &sender, &receiver, &id, &hash, &size, &written, &expires, &ended, &pulls}, func() error {
		facts++
		l := lineOf(sender, receiver, id, hash, size)
		l.Pulls = int64(pulls)
		if l.Kind = ledger.KindLapse; kind == factEnd {
			l.Kind, l.Written, l.Expires, l.Ended = ledger.KindEnd, protocol.Timestamp(written), protocol.Timestamp(expires), protocol.Timestamp(ended)
		}
		r.facts = append(r.facts, factLine{bill, l})
		return nil
	})
	r.full, r.taken = r.full || facts == postFacts, r.taken+facts
	return err
}

// write gives the postings their numbers, adds them up and stores them.
func (r *round) write(ctx context.Context, tx pgx.Tx) error {
	for i := range r.facts {
		r.add(r.facts[i].bill, posting{line: r.facts[i].line})
	}
	r.facts = nil
	if len(r.postings) == 0 {
		return nil
	}
	ids := make([]int64, 0, len(r.postings))
	for id := range r.postings {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	states, err := lockBills(ctx, tx, ids)
	if errors.Is(err, errBillsGone) && !r.wary {
		err = fmt.Errorf("%w: %w", errPageGone, err)
	}
	if err != nil {
		return err
	}
	b := &pgx.Batch{}
	noted := &notedPages{}
	for _, state := range states {
		state.log = r.log
		postings, err := state.undropped(ctx, tx, r.postings[state.id])
		if err != nil {
			return err
		}
		before := state.totals
		if postings, err = state.add(ctx, tx, postings, r.leftOut); err != nil {
			return err
		}
		noted.add(state.id, postings)
		state.append(b, postings)
		if err := state.queueSave(b, before, r.day); err != nil {
			return err
		}
	}
	noted.queue(b)
	return tx.SendBatch(ctx, b).Close()
}

// undropped leaves out what is about records that were taken off the bill: pages of theirs that were under way then.
func (s *billState) undropped(ctx context.Context, tx pgx.Tx, postings []posting) ([]posting, error) {
	if s.drops == 0 {
		return postings, nil
	}
	postings, err := s.read(ctx, tx, postings)
	if err != nil {
		return nil, err
	}
	hashes := make([][]byte, 0, len(postings))
	for i := range postings {
		p := &postings[i]
		if p.page == nil {
			hashes = append(hashes, p.line.Hash[:])
		}
		for _, at := range p.pulls {
			hashes = append(hashes, p.page.hashes[32*at:32*at+32])
		}
	}
	dropped, err := droppedOf(ctx, tx, s.id, hashes)
	if err != nil {
		return nil, err
	}
	left := postings[:0]
	for _, p := range postings {
		p.pulls = slices.DeleteFunc(p.pulls, func(at int32) bool { return dropped[p.page.hash(at)] })
		if p.page == nil && !dropped[p.line.Hash] || len(p.pulls) > 0 {
			left = append(left, p)
		}
	}
	return left, nil
}

// add adds the postings up. A pull of what is not reserved any more is left out: the payer is not billed for it, it is the relay's own loss,
// and neither the rest of this bill nor anybody else's waits for a mistake in it.
func (s *billState) add(ctx context.Context, tx pgx.Tx, postings []posting, leftOut func(error)) ([]posting, error) {
	added := make([]posting, 0, len(postings))
	for i := range postings {
		these := postings[i : i+1]
		if ref := these[0].ref; ref != nil {
			if s.totals.Apply(ref.line()) == nil {
				added = append(added, these[0])
				continue
			}
			var err error
			if these, err = s.read(ctx, tx, these); err != nil {
				return nil, err
			}
		}
		for _, p := range these {
			if err := s.addOne(&p, leftOut); err != nil {
				return nil, fmt.Errorf("bill %d: %w", s.id, err)
			}
			if p.lines() > 0 {
				added = append(added, p)
			}
		}
	}
	return added, nil
}

// addOne adds up a line, or the pulls of a page that was read.
func (s *billState) addOne(p *posting, leftOut func(error)) (err error) {
	if p.page == nil {
		return s.totals.Apply(&p.line)
	}
	p.pulls, err = s.addPulls(p.page, p.pulls, leftOut)
	return err
}

// addPulls adds up pulls of one page, together if all of them are reserved, which they nearly always are, and returns those that it added.
func (s *billState) addPulls(page *served, pulls []int32, leftOut func(error)) (added []int32, err error) {
	if s.totals.Apply(&ledger.Line{Kind: ledger.KindPull, Bytes: page.bytesOf(pulls)}) == nil {
		return pulls, nil
	}
	added = pulls[:0]
	for _, at := range pulls {
		switch err := s.totals.Apply(&ledger.Line{Kind: ledger.KindPull, Bytes: int64(page.sizes[at])}); {
		case errors.Is(err, ledger.ErrLine):
			leftOut(fmt.Errorf("bill %d: %w", s.id, err))
		case err != nil:
			return nil, err
		default:
			added = append(added, at)
		}
	}
	return added, nil
}

// append numbers the postings and queues their blocks.
func (s *billState) append(b *pgx.Batch, postings []posting) {
	for rest := postings; len(rest) > 0; {
		k, lines := blockEnd(rest)
		s.last += int64(lines)
		data, acked := encodeBlock(rest[:k])
		b.Queue(`INSERT INTO ledger_blocks (bill, last, lines, acked) VALUES ($1, $2, $3, $4)`, s.id, s.last, data, acked)
		rest = rest[k:]
	}
}

// blockEnd is how many of the postings the next block has, and how many lines these are. A page is not torn, so that its signature is
// stored once.
func blockEnd(postings []posting) (k, lines int) {
	for k < len(postings) && lines < blockLines {
		lines += postings[k].lines()
		k++
	}
	return k, lines
}

// billState is how far a bill is posted.
type billState struct {
	id, last int64
	totals   ledger.Totals
	prices   ledger.Prices
	closed   bool  // what is owed is final
	drops    int64 // records that were taken off it
	log      *slog.Logger
}

const totalsColumns = `written::text, pulled::text, stored::text, reserved_pulled::text, reserved_stored::text`

var errBillsGone = errors.New("bills are gone")

func lockBills(ctx context.Context, tx pgx.Tx, ids []int64) ([]*billState, error) {
	rows, err := tx.Query(ctx, `SELECT id, last, storage_price, bandwidth_price, closed, drops, `+totalsColumns+` FROM bills WHERE id = ANY($1) ORDER BY id FOR UPDATE`, ids)
	if err != nil {
		return nil, err
	}
	states, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*billState, error) {
		s := &billState{}
		var text [5]string
		if err := row.Scan(&s.id, &s.last, &s.prices.Storage, &s.prices.Bandwidth, &s.closed, &s.drops, &text[0], &text[1], &text[2], &text[3], &text[4]); err != nil {
			return nil, err
		}
		var err error
		s.totals, err = totalsOf(text)
		return s, err
	})
	if err == nil && len(states) != len(ids) {
		err = fmt.Errorf("%w: %d of %d", errBillsGone, len(ids)-len(states), len(ids))
	}
	slices.SortFunc(states, func(a, b *billState) int { return cmp.Compare(a.id, b.id) })
	return states, err
}

func totalsOf(text [5]string) (ledger.Totals, error) {
	d := func(i int) protocol.Decimal { return protocol.Decimal(text[i]) }
	return ledger.TotalsOf(protocol.UsageTotals{Written: d(0), Pulled: d(1), Stored: d(2), ReservedPulled: d(3), ReservedStored: d(4)})
}

// queueSave stores how far the bill is posted, and in the same statement what that means in money.
func (s *billState) queueSave(b *pgx.Batch, before ledger.Totals, day Day) error {
	e := entry{}
	if !s.closed {
		was, err := moneyOf(s.prices, before)
		if err != nil {
			return fmt.Errorf("bill %d: %w", s.id, err)
		}
		is, err := moneyOf(s.prices, s.totals)
		if err != nil {
			return fmt.Errorf("bill %d: %w", s.id, err)
		}
		e = is.since(was)
	}
	t := s.totals
	b.Queue(`WITH bill AS (UPDATE bills SET last = $2, written = $3::text::numeric, pulled = $4::text::numeric, stored = $5::text::numeric,
		  reserved_pulled = $6::text::numeric, reserved_stored = $7::text::numeric WHERE id = $1 RETURNING id)
		INSERT INTO ledger_entries AS e (bill, day, cause, owed, earned, reserved, paid, written_off, carried)
		SELECT id, $8::date, 'usage', $9, $10, $11, 0, 0, 0 FROM bill WHERE $12 `+addEntry,
		s.id, s.last, t.Written.String(), t.Pulled.String(), t.Stored.String(), t.ReservedPulled.String(), t.ReservedStored.String(),
		string(day), int64(e.owed), int64(e.earned), int64(e.reserved), e != entry{})
	return nil
}
