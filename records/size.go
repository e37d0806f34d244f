package records

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// measureEvery is how often the sizes of the tables are looked up, which reads no table.
const measureEvery = time.Minute

func (s *Store) measureLoop(ctx context.Context) {
	t := time.NewTicker(measureEvery)
	defer t.Stop()
	for {
		if err := s.measure(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("measure tables", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// measure sets the gauges of what the tables take on disk. The number of rows is what the last vacuum or analyze found.
func (s *Store) measure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, measureEvery/2)
	defer cancel()
	rows, err := s.db.Pool().Query(ctx, `
		SELECT relname::text, greatest(reltuples, 0)::float8, pg_table_size(oid)::float8, pg_indexes_size(oid)::float8
		FROM pg_class WHERE oid = ANY(ARRAY['records', 'pulls', 'pages']::regclass[])`)
	if err != nil {
		return wrap(err, "measure tables")
	}
	var table string
	var tuples, heap, indexes float64
	_, err = pgx.ForEachRow(rows, []any{&table, &tuples, &heap, &indexes}, func() error {
		s.metrics.tableRows.WithLabelValues(table).Set(tuples)
		s.metrics.tableBytes.WithLabelValues(table, "rows").Set(heap)
		s.metrics.tableBytes.WithLabelValues(table, "indexes").Set(indexes)
		return nil
	})
	return wrap(err, "measure tables")
}
