package books

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// sumsEvery is how often the sums of all contracts are read for the metrics.
const sumsEvery = 30 * time.Second

// sums are what all contracts come to, in msat. Whose they are is nobody's business who reads metrics.
type sums struct {
	owed, earned, reserved, paid, writtenOff atomic.Int64
	refused                                  atomic.Int64 // lines that are disputed
}

// Register adds the sums of all contracts to the metrics; [Store.Run] keeps them.
func (s *Store) Register(registry prometheus.Registerer) error {
	gauge := func(account, help string, value *atomic.Int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "relaymarket", Subsystem: "ledger", Name: account, Help: help},
			func() float64 { return float64(value.Load()) })
	}
	for _, c := range []prometheus.Collector{
		gauge("owed_msat", "Used or reserved under contracts and not paid.", &s.sums.owed),
		gauge("earned_msat", "Used under contracts, and not coming back.", &s.sums.earned),
		gauge("reserved_msat", "Reserved under contracts.", &s.sums.reserved),
		gauge("paid_msat", "Paid for usage by states of contracts.", &s.sums.paid),
		gauge("written_off_msat", "Refused and dropped, or never paid.", &s.sums.writtenOff),
		gauge("disputed_lines", "Lines of bills that payers refuse and that were not dropped.", &s.sums.refused),
	} {
		if err := registry.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// readSums brings the metrics up to date.
func (s *Store) readSums(ctx context.Context) error {
	var owed, earned, reserved, paid, writtenOff, refused int64
	err := s.db.Pool().QueryRow(ctx, `SELECT coalesce(sum(owed), 0)::bigint, -coalesce(sum(earned), 0)::bigint, -coalesce(sum(reserved), 0)::bigint,
		coalesce(sum(paid), 0)::bigint, coalesce(sum(written_off), 0)::bigint, (SELECT count(*) FROM ledger_refusals WHERE NOT dropped) FROM ledger_entries`).
		Scan(&owed, &earned, &reserved, &paid, &writtenOff, &refused)
	if err != nil {
		return wrap(err, "add up what contracts owe")
	}
	s.sums.owed.Store(owed)
	s.sums.earned.Store(earned)
	s.sums.reserved.Store(reserved)
	s.sums.paid.Store(paid)
	s.sums.writtenOff.Store(writtenOff)
	s.sums.refused.Store(refused)
	return nil
}
