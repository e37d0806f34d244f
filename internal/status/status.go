// Package status is what a running relay tells its operator at one moment: what it did since it started, and how it is. The relay
// makes it from its own metrics (see [Collect]) and adds what is no metric, because it names keys or asks the database; it is served as
// JSON on the operator's listener, to whoever has the relay's key. Package top shows it.
//
// What is counted only rises as long as Started stays the same.
package status

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"relaymarket/protocol"
)

// Status is one look at a relay. Bytes and counts are whole numbers, times of day in UTC.
type Status struct {
	At      time.Time          `json:"at"`
	Started time.Time          `json:"started"`
	Key     protocol.PublicKey `json:"key"`

	// Since it started.
	Written     int64                `json:"written"`     // records
	Pulled      int64                `json:"pulled"`      // records
	Received    int64                `json:"received"`    // bytes of bodies
	Sent        int64                `json:"sent"`        // bytes of bodies
	Requests    map[string]int64     `json:"requests"`    // answered, by operation
	RefusedAll  int64                `json:"refusedAll"`  // requests, and lines of batches
	Refused     map[string]int64     `json:"refused"`     // the same by code, those that occurred
	Dropped     map[string]int64     `json:"dropped"`     // for lack of room, by reason
	Latency     map[string]Histogram `json:"latency"`     // by operation
	CPUSeconds  float64              `json:"cpuSeconds"`  // of this process, without its database
	SweptBehind float64              `json:"sweptBehind"` // seconds that expiry is late

	// At this moment.
	Listeners  int64     `json:"listeners"`
	Working    int64     `json:"working"`    // requests
	BodyBytes  int64     `json:"bodyBytes"`  // held for bodies
	WriteQueue int64     `json:"writeQueue"` // writes that wait for the database
	PullQueue  int64     `json:"pullQueue"`
	Database   Database  `json:"database"`
	Disk       *Disk     `json:"disk,omitempty"` // nil with a database elsewhere
	Memory     Memory    `json:"memory"`
	Accounts   []Account `json:"accounts"`   // that moved most this month, most first
	AccountsAt time.Time `json:"accountsAt"` // when they were read
	Bitcoin    *Bitcoin  `json:"bitcoin,omitempty"`
}

// Histogram counts by upper bounds in seconds, the counts cumulative; the last count is of all.
type Histogram struct {
	Bounds []float64 `json:"bounds"`
	Counts []int64   `json:"counts"` // one more than bounds
}

// Database is how Postgres is.
type Database struct {
	Answers     bool    `json:"answers"`
	Why         string  `json:"why,omitempty"` // it does not
	Millis      float64 `json:"millis"`        // that it took to answer
	Connections int64   `json:"connections"`
	Busy        int64   `json:"busy"` // of them
	Most        int64   `json:"most"`
	TableBytes  int64   `json:"tableBytes"` // rows and indexes of what the relay stores
}

// Disk is that of a private database.
type Disk struct {
	Free int64 `json:"free"`
	Keep int64 `json:"keep"` // of it, that new records do not get
	// PerDay is how many bytes it loses a day, by what was seen over Seen; nil: too little was seen to tell.
	PerDay *int64 `json:"perDay,omitempty"`
	// FullIn is when Keep is reached at that speed, in seconds; nil: never, or it cannot be told.
	FullIn *int64  `json:"fullIn,omitempty"`
	Seen   float64 `json:"seen"` // seconds
}

// Memory is what the process holds.
type Memory struct {
	Resident   int64 `json:"resident"`
	Heap       int64 `json:"heap"`
	Goroutines int64 `json:"goroutines"`
	Files      int64 `json:"files"`
	MaxFiles   int64 `json:"maxFiles"`
}

// Account is one that moves much.
type Account struct {
	Key    protocol.PublicKey `json:"key"`
	Kind   string             `json:"kind"` // grant or contract
	Note   string             `json:"note,omitempty"`
	Stored int64              `json:"stored"`
	Moved  int64              `json:"moved"`  // this month, reserved pulls included
	Active bool               `json:"active"` // writes are taken
}

// Bitcoin is what contracts rest on.
type Bitcoin struct {
	NodeAnswers bool  `json:"nodeAnswers"`
	Height      int64 `json:"height"`
	Contracts   int64 `json:"contracts"` // that are not over
}

// sample is one value of a metric.
type sample struct {
	labels map[string]string
	value  float64
	hist   Histogram
}

// Collect makes a status from metrics. What is no metric is the caller's to add.
func Collect(g prometheus.Gatherer) (*Status, error) {
	all, err := gather(g)
	if err != nil {
		return nil, err
	}
	s := &Status{
		Written: all.sum("relaymarket_records_written_total"), Pulled: all.sum("relaymarket_records_pulled_total"),
		Received: all.sum("relaymarket_api_received_bytes_total"), Sent: all.sum("relaymarket_api_sent_bytes_total"),
		Requests: all.by("relaymarket_api_requests_total", "operation"), RefusedAll: all.sum("relaymarket_api_refusals_total"),
		Refused: all.by("relaymarket_api_refusals_total", "code"), Dropped: all.by("relaymarket_api_dropped_total", "reason"),
		Latency: map[string]Histogram{}, CPUSeconds: all.first("process_cpu_seconds_total"), SweptBehind: all.first("relaymarket_records_sweep_behind_seconds"),
		Listeners: all.sum("relaymarket_api_listeners"), Working: all.sum("relaymarket_api_working"), BodyBytes: all.sum("relaymarket_api_body_bytes"),
		WriteQueue: all.sum("relaymarket_records_write_queue"), PullQueue: all.sum("relaymarket_records_pull_queue"),
		Database: Database{TableBytes: all.sum("relaymarket_records_table_bytes")},
		Memory: Memory{Resident: all.sum("process_resident_memory_bytes"), Heap: all.sum("go_memstats_heap_inuse_bytes"),
			Goroutines: all.sum("go_goroutines"), Files: all.sum("process_open_fds"), MaxFiles: all.sum("process_max_fds")},
		Accounts: []Account{},
	}
	for _, one := range all["relaymarket_api_request_seconds"] {
		s.Latency[one.labels["operation"]] = one.hist
	}
	if up, ok := all["relaymarket_chain_up"]; ok && len(up) > 0 {
		s.Bitcoin = &Bitcoin{NodeAnswers: up[0].value == 1, Height: all.sum("relaymarket_chain_height"), Contracts: all.sum("relaymarket_contracts")}
	}
	return s, nil
}

// samples are those of each metric, by its name.
type samples map[string][]sample

func gather(g prometheus.Gatherer) (samples, error) {
	families, err := g.Gather()
	if err != nil {
		return nil, err
	}
	all := samples{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			one := sample{labels: map[string]string{}}
			for _, label := range m.GetLabel() {
				one.labels[label.GetName()] = label.GetValue()
			}
			switch {
			case m.GetCounter() != nil:
				one.value = m.GetCounter().GetValue()
			case m.GetGauge() != nil:
				one.value = m.GetGauge().GetValue()
			case m.GetUntyped() != nil:
				one.value = m.GetUntyped().GetValue()
			case m.GetHistogram() != nil:
				h := m.GetHistogram()
				for _, bucket := range h.GetBucket() {
					one.hist.Bounds = append(one.hist.Bounds, bucket.GetUpperBound())
					one.hist.Counts = append(one.hist.Counts, int64(bucket.GetCumulativeCount()))
				}
				one.hist.Counts = append(one.hist.Counts, int64(h.GetSampleCount()))
			}
			all[family.GetName()] = append(all[family.GetName()], one)
		}
	}
	return all, nil
}

func (all samples) first(name string) float64 {
	if of := all[name]; len(of) > 0 {
		return of[0].value
	}
	return 0
}

func (all samples) sum(name string) int64 {
	total := 0.0
	for _, one := range all[name] {
		total += one.value
	}
	return int64(total)
}

// by are the values that are not 0, by a label.
func (all samples) by(name, label string) map[string]int64 {
	values := map[string]int64{}
	for _, one := range all[name] {
		if one.value != 0 {
			values[one.labels[label]] += int64(one.value)
		}
	}
	return values
}
