package hub

import (
	"github.com/prometheus/client_golang/prometheus"

	"relaymarket/broadcast"
)

// metrics are the figures of a hub.
type metrics struct {
	taken   prometheus.Counter
	dropped *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer, h *Hub) *metrics {
	m := &metrics{
		taken: prometheus.NewCounter(prometheus.CounterOpts{Name: "relaymarket_hub_taken_total", Help: "Announcements taken into the book."}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "relaymarket_hub_dropped_total",
			Help: "Announcements not taken, or displaced, by reason."}, []string{"reason"}),
	}
	// Shown from the start, as zero.
	for _, reason := range broadcast.Reasons() {
		m.dropped.WithLabelValues(string(reason))
	}
	if r != nil {
		r.MustRegister(m.taken, m.dropped,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "relaymarket_hub_relays", Help: "Relays in the hub's book, expired ones too."},
				func() float64 { relays, _ := h.Size(); return float64(relays) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "relaymarket_hub_bytes", Help: "Bytes of the announcements in the hub's book."},
				func() float64 { _, bytes := h.Size(); return float64(bytes) }))
	}
	return m
}

func (m *metrics) count(reason broadcast.Reason) { m.dropped.WithLabelValues(string(reason)).Inc() }
