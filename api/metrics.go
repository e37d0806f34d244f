package api

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// dropReason is why something was dropped that a less loaded relay would have served.
type dropReason string

const (
	dropUnsigned         dropReason = "unsigned"          // no slot for an unsigned request
	dropReader           dropReason = "reader"            // no slot for a reader
	dropWriter           dropReason = "writer"            // no slot for a writer
	dropMemory           dropReason = "memory"            // bodies at work hold all the bytes they may
	dropRateAddress      dropReason = "rate_address"      // the address is over its rate
	dropRateKey          dropReason = "rate_key"          // the key is over its rate
	dropDatabase         dropReason = "database"          // the database was away, or undid the work
	dropDisk             dropReason = "disk"              // the disk was full, or nearly
	dropTooLong          dropReason = "too_long"          // the work was given up
	dropListenersTotal   dropReason = "listeners_total"   // as many streams as the relay keeps
	dropListenersKey     dropReason = "listeners_key"     // as many streams as one reader may have
	dropListenerSlow     dropReason = "listener_slow"     // a stream that was not read
	dropListenerBehind   dropReason = "listener_behind"   // a stream that fell behind
	dropListenerDraining dropReason = "listener_draining" // a stream refused or ended by shutdown
)

func dropReasons() []dropReason {
	return []dropReason{dropUnsigned, dropReader, dropWriter, dropMemory, dropRateAddress, dropRateKey, dropDatabase, dropDisk, dropTooLong,
		dropListenersTotal, dropListenersKey, dropListenerSlow, dropListenerBehind, dropListenerDraining}
}

var dropsByClass = [3]dropReason{classUnsigned: dropUnsigned, classReader: dropReader, classWriter: dropWriter}

// metrics are counted by operation and code, never by key or address: those are without bound, and private.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	received *prometheus.CounterVec
	sent     *prometheus.CounterVec
	dropped  *prometheus.CounterVec
}

func newMetrics(registry prometheus.Registerer, s *Server) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "relaymarket", Subsystem: "api", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, read func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "relaymarket", Subsystem: "api", Name: name, Help: help}, read)
	}
	m := &metrics{
		requests: counter("requests_total", "Requests answered, by operation and code of the refusal.", "operation", "code"),
		received: counter("received_bytes_total", "Bytes of bodies read.", "operation"),
		sent:     counter("sent_bytes_total", "Bytes of bodies sent.", "operation"),
		dropped:  counter("dropped_total", "What was dropped for lack of room, by reason.", "reason"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "relaymarket", Subsystem: "api", Name: "request_seconds",
			Help:    "From the headers' arrival to the end of the reply; streams are left out.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 15, 60},
		}, []string{"operation"}),
	}
	for _, reason := range dropReasons() { // shown from the start, as zero
		m.dropped.WithLabelValues(string(reason))
	}
	for _, c := range []prometheus.Collector{m.requests, m.received, m.sent, m.dropped, m.seconds,
		gauge("listeners", "Streams that are open.", func() float64 { return float64(s.listeners.count()) }),
		gauge("working", "Requests at work.", func() float64 { return float64(s.load.working.Load()) }),
		gauge("body_bytes", "Bytes held for bodies.", func() float64 { return float64(s.load.bytes.Load()) }),
	} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// counts are the metrics of one operation, which need not be looked up for each request.
type counts struct {
	ok, received, sent prometheus.Counter
	seconds            prometheus.Observer
}

// of makes an operation's metrics when it is first asked for, so that those of unused ones do not show.
func (m *metrics) of(x *exchange) *counts {
	if x.op != nil {
		if c := x.op.counts.Load(); c != nil {
			return c
		}
	}
	name := x.name()
	c := &counts{m.requests.WithLabelValues(name, "ok"), m.received.WithLabelValues(name), m.sent.WithLabelValues(name), m.seconds.WithLabelValues(name)}
	if x.op != nil {
		x.op.counts.Store(c)
	}
	return c
}

func (m *metrics) observe(x *exchange, code string) {
	c := m.of(x)
	if code == "ok" {
		c.ok.Inc()
	} else {
		m.requests.WithLabelValues(x.name(), code).Inc()
	}
	c.received.Add(float64(x.received))
	c.sent.Add(float64(x.sent))
	if x.name() != "listen" || code != "ok" {
		c.seconds.Observe(time.Since(x.started).Seconds())
	}
}

func (m *metrics) drop(reason dropReason) { m.dropped.WithLabelValues(string(reason)).Inc() }
