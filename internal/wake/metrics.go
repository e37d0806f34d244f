package wake

import "github.com/prometheus/client_golang/prometheus"

// metrics are the figures of this package.
type metrics struct {
	sent, received prometheus.Counter
	dropped        *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		sent:     prometheus.NewCounter(prometheus.CounterOpts{Name: "relaymarket_wake_sent_total", Help: "Wake-ups sent to other processes on the database."}),
		received: prometheus.NewCounter(prometheus.CounterOpts{Name: "relaymarket_wake_received_total", Help: "Wake-ups from other processes on the database."}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "relaymarket_wake_dropped_total",
			Help: "Wake-ups not sent or not heard, by reason."}, []string{"reason"}),
	}
	if r != nil {
		r.MustRegister(m.sent, m.received, m.dropped)
	}
	// Shown from the start, as zero.
	for _, reason := range []dropReason{dropAway, dropNewer, dropMalformed, dropFlood} {
		m.dropped.WithLabelValues(string(reason))
	}
	return m
}

func (m *metrics) drop(reason dropReason) { m.dropped.WithLabelValues(string(reason)).Inc() }
