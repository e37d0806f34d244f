package state

import (
	"context"
	"time"

	"relaymarket/protocol"
)

// Health is what tells how a state fares.
type Health struct {
	// Waiting are messages that no relay has and that are still to be sent, Oldest when the first of them was written; 0 for none.
	Waiting int64
	Oldest  protocol.Timestamp
	// Failed are messages of the last week, not expired, that no relay took, and none will be asked to.
	Failed int64
	// Grown is how many bytes of messages came and were written in the last 30 days.
	Grown int64
	// Since is from when on that is known; less than 30 days ago in a young state.
	Since protocol.Timestamp
}

// Health looks at messages; receipts and the pieces of files, which have commands of their own, are left out.
func (s *Store) Health(ctx context.Context) (h Health, err error) {
	now := s.now()
	week, month := now.Add(-7*24*time.Hour), now.Add(-30*24*time.Hour)
	const message = `o.tag <> 'ack' AND o.upload IS NULL AND o.removed IS NULL AND o.expires > ?1`
	const stored = `EXISTS (SELECT 1 FROM copies c WHERE c.n = o.n AND c.state IN ('stored', 'gone', 'removing'))`
	err = s.sql.QueryRowContext(ctx, `SELECT count(*), coalesce(min(created), 0) FROM outbox o WHERE `+message+`
		AND EXISTS (SELECT 1 FROM copies c WHERE c.n = o.n AND c.state = 'queued') AND NOT `+stored, now).Scan(&h.Waiting, &h.Oldest)
	if err != nil {
		return h, err
	}
	err = s.sql.QueryRowContext(ctx, `SELECT count(*) FROM outbox o WHERE `+message+` AND o.created > ?2
		AND EXISTS (SELECT 1 FROM copies c WHERE c.n = o.n AND c.state = 'failed')
		AND NOT EXISTS (SELECT 1 FROM copies c WHERE c.n = o.n AND c.state = 'queued') AND NOT `+stored, now, week).Scan(&h.Failed)
	if err != nil {
		return h, err
	}
	err = s.sql.QueryRowContext(ctx, `SELECT coalesce(sum(bytes), 0), max(?1, coalesce(min(at), ?2)) FROM (
		SELECT length(body) AS bytes, received AS at FROM messages WHERE body IS NOT NULL AND received > ?1
		UNION ALL SELECT length(body) + coalesce(length(sealed), 0), created FROM outbox WHERE created > ?1)`, month, now).Scan(&h.Grown, &h.Since)
	return h, err
}
