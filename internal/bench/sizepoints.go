package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// sizePoints are measured with each table, and with an empty one in turns.
var sizePoints = []string{"write@64", "write_batch", "pull", "pull_page"}

// points measures each on the empty and on the full table, as often as there are repeats.
func (r *tables) points(ctx context.Context, t table) error {
	size := max(t.bytes, minSize)
	chosen, err := choose(sizePoints)
	if err != nil {
		return err
	}
	chosen = slices.DeleteFunc(chosen, point.isLimit)
	full, empty := map[string][]result{}, map[string][]result{}
	var log, emptyLog logFigures
	for repeat := range r.opts.repeats {
		for i, p := range chosen {
			r.say.step(fmt.Sprintf("%d rows of %d bytes, repeat %d of %d, point %d of %d: %s", t.rows, t.bytes, repeat+1, r.opts.repeats, i+1, len(chosen), p.id()))
			if err := r.empty.clear(ctx); err != nil {
				return err
			}
			one, err := r.empty.onceLogged(ctx, p, size, repeat, &emptyLog)
			if err != nil {
				return fmt.Errorf("%s on an empty table: %w", p.id(), err)
			}
			empty[p.id()] = append(empty[p.id()], one)
			if one, err = r.full.onceLogged(ctx, p, size, repeat, &log); err != nil {
				return fmt.Errorf("%s: %w", p.id(), err)
			}
			full[p.id()] = append(full[p.id()], one)
		}
	}
	r.say.clear()
	for _, p := range chosen {
		if err := r.report.point(t, size, p, full[p.id()], empty[p.id()]); err != nil {
			return err
		}
	}
	return r.report.logPerRecord(t, size, log, emptyLog)
}

// logFigures are what single writes added to the write-ahead log.
type logFigures struct{ bytes, records int64 }

func (l logFigures) perRecord() float64 { return round(float64(l.bytes) / float64(max(l.records, 1))) }

// onceLogged is once, and adds what it wrote if it is the point of single writes.
func (g *grown) onceLogged(ctx context.Context, p point, size, repeat int, into *logFigures) (result, error) {
	before, err := g.logged(ctx)
	if err != nil {
		return result{}, err
	}
	r, err := g.once(ctx, p, size, repeat)
	if err != nil || p.name != "write" {
		return r, err
	}
	after, err := g.logged(ctx)
	into.bytes, into.records = into.bytes+after.log-before.log, into.records+after.cursor-before.cursor
	return r, err
}

// progressOf is how far a relay's database is.
type progressOf struct{ log, cursor int64 } // bytes of write-ahead log, and records, ever

func (g *grown) logged(ctx context.Context) (p progressOf, err error) {
	err = g.db.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn() - '0/0', (SELECT n FROM relay_cursor)`).Scan(&p.log, &p.cursor)
	return p, err
}

// clear empties the table, as if nothing had been written.
func (g *grown) clear(ctx context.Context) error {
	_, err := g.db.Exec(ctx, `TRUNCATE records, pulls, pages; UPDATE accounts SET stored = 0, moved = 0`)
	return err
}

// sizes are bytes on disk.
type sizes struct {
	Heap    int64            `json:"heap"`
	Toast   int64            `json:"toast"`
	Indexes map[string]int64 `json:"indexes"`
}

func (s sizes) total() int64 {
	n := s.Heap + s.Toast
	for _, bytes := range s.Indexes {
		n += bytes
	}
	return n
}

// sizes of the table of records. The maps of free space and of visibility count as its heap.
func (g *grown) sizes(ctx context.Context) (s sizes, err error) {
	s.Indexes = make(map[string]int64)
	if err := g.db.QueryRow(ctx, `SELECT pg_table_size(oid) - coalesce(pg_total_relation_size(nullif(reltoastrelid, 0)), 0), coalesce(pg_total_relation_size(nullif(reltoastrelid, 0)), 0)
		FROM pg_class WHERE oid = 'records'::regclass`).Scan(&s.Heap, &s.Toast); err != nil {
		return s, err
	}
	rows, err := g.db.Query(ctx, `SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index WHERE indrelid = 'records'::regclass`)
	if err != nil {
		return s, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var bytes int64
		if err := rows.Scan(&name, &bytes); err != nil {
			return s, err
		}
		s.Indexes[name] = bytes
	}
	return s, rows.Err()
}

func (g *grown) bytesOnDisk(ctx context.Context) (int64, error) {
	s, err := g.sizes(ctx)
	return s.total(), err
}

// storage reports what a record takes, as it was loaded: row by row, with all indexes in place.
func (r *tables) storage(ctx context.Context, t table) error {
	s, err := r.full.sizes(ctx)
	if err != nil {
		return err
	}
	var rows int64
	// The refills of a smaller table stand in places that were swept: rows are counted, not taken from the plan.
	if err := r.full.db.QueryRow(ctx, `SELECT count(*) FROM records`).Scan(&rows); err != nil {
		return err
	}
	return r.report.storage(t, rows, s)
}

// settle waits until vacuum has been where the sweeper was, and tells how long that took.
func (r *tables) settle(ctx context.Context, t table) (time.Duration, error) {
	var from time.Time
	if err := r.full.db.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&from); err != nil {
		return 0, err
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for began := time.Now(); ; {
		var dead, least int64
		var running bool
		var last time.Time
		// Below the least, vacuum does not come for dead rows.
		err := r.full.db.QueryRow(ctx, `SELECT s.n_dead_tup, `+vacuumFrom+`, greatest(s.last_autovacuum, $1),
			EXISTS (SELECT 1 FROM pg_stat_progress_vacuum p WHERE p.relid = s.relid)
			FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid WHERE s.relid = 'records'::regclass`, from).Scan(&dead, &least, &last, &running)
		if err != nil {
			return 0, err
		}
		if time.Since(began) > statisticsLate && dead <= least && !running {
			return last.Sub(from), nil
		}
		r.say.step(fmt.Sprintf("%d rows of %d bytes: waiting for vacuum, %d dead rows", t.rows, t.bytes, dead))
		if time.Since(began) > vacuumPatience {
			return 0, fmt.Errorf("autovacuum has left %d dead rows for %s", dead, vacuumPatience)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-ticker.C:
		}
	}
}

// statisticsLate is how long a connection may take to tell how many rows it has removed.
const statisticsLate = 12 * time.Second

const vacuumPatience = 30 * time.Minute

// vacuumFrom is how many dead rows bring autovacuum.
const vacuumFrom = `(SELECT coalesce(max(option_value) FILTER (WHERE option_name = 'autovacuum_vacuum_threshold')::float, current_setting('autovacuum_vacuum_threshold')::float)
	+ greatest(c.reltuples, 0) * coalesce(max(option_value) FILTER (WHERE option_name = 'autovacuum_vacuum_scale_factor')::float, current_setting('autovacuum_vacuum_scale_factor')::float)
	FROM pg_options_to_table(c.reloptions))::bigint`
