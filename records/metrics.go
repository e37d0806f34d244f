package records

import "github.com/prometheus/client_golang/prometheus"

// metrics are the figures of this package. None has a public key as a label.
type metrics struct {
	written, pulled, swept, shed, full, pullShed, careful, pullCareful, behind prometheus.Counter
	readOn, hints                                                              *prometheus.CounterVec
	sweepBehind                                                                prometheus.Gauge
	tableRows, tableBytes                                                      *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer, s *Store) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "relaymarket_records_" + name, Help: help})
		if r != nil {
			r.MustRegister(c)
		}
		return c
	}
	by := func(name, label, help string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "relaymarket_records_" + name, Help: help}, []string{label})
		if r != nil {
			r.MustRegister(c)
		}
		return c
	}
	m := &metrics{
		written:     counter("written_total", "Records committed, repeats not counted."),
		pulled:      counter("pulled_total", "Records served in pages, pages served again counted again."),
		swept:       counter("swept_total", "Rows removed after their records ended."),
		shed:        counter("write_shed_total", "Write requests refused because the write queue was full."),
		full:        counter("write_full_total", "Write requests refused because the disk was nearly full."),
		pullShed:    counter("pull_shed_total", "Pulls refused because the pull queue was full."),
		careful:     counter("write_careful_total", "Transactions run again because a write turned out to be a repeat."),
		pullCareful: counter("pull_careful_total", "Transactions run again because a pull had the id of an old page."),
		behind:      counter("listen_behind_total", "Listeners ended because they did not keep up."),
		readOn:      by("read_on_total", "cause", "Records that listeners wait for, read from the database, by what asked for the look."),
		hints:       by("hints_total", "outcome", "Hints of other processes' commits, by what became of them."),
	}
	// Shown from the start, as zero.
	for _, cause := range []readCause{readGap, readHint, readPoll} {
		m.readOn.WithLabelValues(string(cause))
	}
	for _, outcome := range []hintOutcome{hintFollowed, hintKnown, hintIdle, hintDeaf, hintFalse} {
		m.hints.WithLabelValues(string(outcome))
	}
	m.sweepBehind = prometheus.NewGauge(prometheus.GaugeOpts{Name: "relaymarket_records_sweep_behind_seconds",
		Help: "How long ago what is being swept should have been, 0 when nothing waits."})
	m.tableRows = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "relaymarket_records_table_rows",
		Help: "Rows of a table, tombstones included, as vacuum last counted them."}, []string{"table"})
	m.tableBytes = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "relaymarket_records_table_bytes",
		Help: "What the rows of a table and its indexes take on disk, space to be used again included."}, []string{"table", "part"})
	if r != nil {
		r.MustRegister(m.sweepBehind, m.tableRows, m.tableBytes,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "relaymarket_records_write_queue", Help: "Writes waiting for a committer."},
				func() float64 { return float64(s.queue.depth()) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "relaymarket_records_pull_queue", Help: "Pulls waiting for a transaction."},
				func() float64 { return float64(s.pulls.depth()) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "relaymarket_records_listeners", Help: "Listeners connected."},
				func() float64 { return float64(s.tail.listening()) }),
		)
	}
	return m
}

func (m *metrics) hint(o hintOutcome) { m.hints.WithLabelValues(string(o)).Inc() }
