// Package top shows a running relay to its operator, as top(1) shows a machine: what it does at this moment, how fast, and what it is
// short of. It looks at the relay's status each second, and what it shows is made of two looks.
//
// On a terminal a screen is redrawn until q is pressed; elsewhere a screen follows another, or with JSON an object a line. Relayd's
// command of the same name runs it.
package top

import (
	"math"
	"slices"
	"strings"
	"time"

	"relaymarket/internal/status"
	"relaymarket/protocol"
)

// View is what a relay did between two looks, and how it was at the second. It is what is shown as JSON; rates are a second.
type View struct {
	At      time.Time          `json:"at"`
	Over    float64            `json:"over"` // seconds between the looks; 0: there was one, and rates are those since the start
	Up      float64            `json:"up"`   // seconds since the start
	Key     protocol.PublicKey `json:"key"`
	Rates   Rates              `json:"rates"`
	Latency []Latency          `json:"latency"`
	Refused []Refusal          `json:"refused"`
	Dropped []Refusal          `json:"dropped"`

	Listeners  int64           `json:"listeners"`
	Working    int64           `json:"working"`
	BodyBytes  int64           `json:"bodyBytes"`
	WriteQueue int64           `json:"writeQueue"`
	PullQueue  int64           `json:"pullQueue"`
	Behind     float64         `json:"sweptBehind"`
	CPU        float64         `json:"cpu"` // processors in use
	Database   status.Database `json:"database"`
	Disk       *status.Disk    `json:"disk,omitempty"`
	Memory     status.Memory   `json:"memory"`
	Bitcoin    *status.Bitcoin `json:"bitcoin,omitempty"`
	Accounts   []Account       `json:"accounts"`
}

// Rates are a second.
type Rates struct {
	Writes   float64 `json:"writes"`   // records stored
	Pulls    float64 `json:"pulls"`    // records served
	Listens  float64 `json:"listens"`  // streams that were asked for
	Requests float64 `json:"requests"` // answered
	Refused  float64 `json:"refused"`
	Received float64 `json:"received"` // bytes
	Sent     float64 `json:"sent"`     // bytes
}

// Latency is how long requests of some kind took, in milliseconds. A quantile is that of the bucket it falls into, divided evenly.
type Latency struct {
	Kind     string  `json:"kind"` // writes, pulls or others
	Requests float64 `json:"requests"`
	P50      float64 `json:"p50"`
	P99      float64 `json:"p99"`
}

// Refusal is how often a code, or a reason, occurred.
type Refusal struct {
	Code  string  `json:"code"`
	Rate  float64 `json:"rate"`
	Total int64   `json:"total"`
}

// Account is one that moves much. Moving is what of it is new since it was read before.
type Account struct {
	status.Account
	Moving float64 `json:"moving"` // bytes a second
}

// Between makes a view of two looks at the same relay; before is nil for the first.
func Between(before, now *status.Status) View {
	over := 0.0
	if before == nil || !before.Started.Equal(now.Started) || !before.At.Before(now.At) {
		before = &status.Status{}
	} else {
		over = now.At.Sub(before.At).Seconds()
	}
	up := now.At.Sub(now.Started).Seconds()
	span := over
	if span == 0 {
		span = max(up, 1)
	}
	rate := func(was, is int64) float64 { return max(float64(is-was), 0) / span }
	v := View{At: now.At, Over: over, Up: up, Key: now.Key, Listeners: now.Listeners, Working: now.Working, BodyBytes: now.BodyBytes,
		WriteQueue: now.WriteQueue, PullQueue: now.PullQueue, Behind: now.SweptBehind, Database: now.Database, Disk: now.Disk, Memory: now.Memory, Bitcoin: now.Bitcoin,
		CPU: max(now.CPUSeconds-before.CPUSeconds, 0) / span,
		Rates: Rates{Writes: rate(before.Written, now.Written), Pulls: rate(before.Pulled, now.Pulled), Requests: rate(all(before.Requests), all(now.Requests)),
			Listens: rate(before.Requests["listen"], now.Requests["listen"]),
			Refused: rate(before.RefusedAll, now.RefusedAll), Received: rate(before.Received, now.Received), Sent: rate(before.Sent, now.Sent)},
		Refused: refusals(before.Refused, now.Refused, span), Dropped: refusals(before.Dropped, now.Dropped, span),
		Latency: latencies(before.Latency, now.Latency, span), Accounts: []Account{},
	}
	moved := map[protocol.PublicKey]int64{}
	for _, a := range before.Accounts {
		moved[a.Key] = a.Moved
	}
	for _, a := range now.Accounts {
		shown := Account{Account: a}
		if was, known := moved[a.Key]; known && now.AccountsAt.After(before.AccountsAt) {
			shown.Moving = max(float64(a.Moved-was), 0) / now.AccountsAt.Sub(before.AccountsAt).Seconds()
		}
		v.Accounts = append(v.Accounts, shown)
	}
	return v
}

func all(counts map[string]int64) (sum int64) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

// refusals are those that occurred, the most frequent at this moment first.
func refusals(before, now map[string]int64, span float64) []Refusal {
	found := []Refusal{}
	for code, total := range now {
		found = append(found, Refusal{Code: code, Rate: max(float64(total-before[code]), 0) / span, Total: total})
	}
	slices.SortFunc(found, func(a, b Refusal) int {
		switch {
		case a.Rate != b.Rate:
			return int(math.Copysign(1, b.Rate-a.Rate))
		case a.Total != b.Total:
			return int(math.Copysign(1, float64(b.Total-a.Total)))
		}
		return strings.Compare(a.Code, b.Code)
	})
	return found
}

// kindOf sorts operations into what people think of.
func kindOf(operation string) string {
	switch operation {
	case "writeRecord", "writeBatch":
		return "writes"
	case "pull", "readRecord", "got":
		return "pulls"
	}
	return "others"
}

func latencies(before, now map[string]status.Histogram, span float64) []Latency {
	kinds := map[string]status.Histogram{}
	for operation, h := range now {
		kind := kindOf(operation)
		kinds[kind] = add(kinds[kind], h, 1)
		kinds[kind] = add(kinds[kind], before[operation], -1)
	}
	all := make([]Latency, 0, 3)
	for _, kind := range []string{"writes", "pulls", "others"} {
		h := kinds[kind]
		all = append(all, Latency{Kind: kind, Requests: float64(histogramTotal(h)) / span, P50: 1000 * quantile(h, .5), P99: 1000 * quantile(h, .99)})
	}
	return all
}

// add adds the counts of a histogram of the same bounds, or none, to another.
func add(to, h status.Histogram, sign int64) status.Histogram {
	if len(to.Counts) == 0 {
		to = status.Histogram{Bounds: h.Bounds, Counts: make([]int64, len(h.Counts))}
	}
	if len(h.Counts) == len(to.Counts) {
		for i, n := range h.Counts {
			to.Counts[i] += sign * n
		}
	}
	return to
}

func histogramTotal(h status.Histogram) int64 {
	if len(h.Counts) == 0 {
		return 0
	}
	return h.Counts[len(h.Counts)-1]
}

// quantile is the time within which a share of the requests was answered, in seconds; 0 if there were none. Beyond the last bound it is that.
func quantile(h status.Histogram, share float64) float64 {
	total := histogramTotal(h)
	if total <= 0 {
		return 0
	}
	wanted := share * float64(total)
	low, under := 0.0, int64(0)
	for i, bound := range h.Bounds {
		if i >= len(h.Counts) {
			break
		}
		if in := h.Counts[i] - under; float64(h.Counts[i]) >= wanted && in > 0 {
			return low + (bound-low)*(wanted-float64(under))/float64(in)
		}
		low, under = bound, h.Counts[i]
	}
	return low
}
