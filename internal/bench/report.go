package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"
)

// line is a point as JSON. What does not apply is null: a limit has no limit, a bare client no memory.
type line struct {
	Name      string   `json:"name"`
	Bytes     *int     `json:"bytes"` // of a record; null: the point does not depend on it
	Conns     int      `json:"conns"`
	PerSecond float64  `json:"per_s"` // records; of a fan-out: records told
	P50       float64  `json:"p50_ms"`
	P99       float64  `json:"p99_ms"`
	RSS       *float64 `json:"rss_mb"` // of relayd, or the bare server; MB are 10^6 bytes
	Limit     *string  `json:"limit"`
	LimitPerS *float64 `json:"limit_per_s"`
	Ratio     *float64 `json:"ratio"`
}

// row is a point as people read it.
type row struct {
	line
	p        point
	p99Ratio float64       // against the limit's p99
	spread   float64       // (largest − smallest) / median of per_s over the repeats
	cpu      [3]float64    // µs a record: server, Postgres, generator
	idle     float64       // share of the machine
	whole    time.Duration // median p50 of a fan-out from the request on
}

type report struct {
	out  io.Writer
	opts options
	rows []row
}

func newReport(out io.Writer, o options) *report { return &report{out: out, opts: o} }

// add writes the lines of one size. Points that do not depend on it are told with the first.
func (r *report) add(points []point, size int, results, fixed map[string][]result, first bool) error {
	rows := map[string]row{}
	for _, p := range points {
		measured := results[p.id()]
		if p.sizeless {
			measured = fixed[p.id()]
		}
		if len(measured) > 0 {
			rows[p.id()] = summarize(p, size, measured)
		}
	}
	for _, p := range points {
		at, measured := rows[p.id()]
		if !measured {
			continue
		}
		if limit, ok := limitOf(p, points); ok {
			at.compare(rows[limit.id()])
		}
		if p.sizeless && !first {
			continue
		}
		r.rows = append(r.rows, at)
		text, err := json.Marshal(at.line)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(r.out, "%s\n", text); err != nil {
			return err
		}
	}
	return nil
}

// summarize takes medians over the repeats, of each figure by itself; of memory the most.
func summarize(p point, size int, repeats []result) row {
	at := row{p: p, line: line{
		Name: p.name, Conns: p.conns,
		PerSecond: round(median(repeats, result.perSecond)),
		P50:       round(median(repeats, func(r result) float64 { return milliseconds(quantile(r.latencies, 0.50)) })),
		P99:       round(median(repeats, func(r result) float64 { return milliseconds(quantile(r.latencies, 0.99)) })),
	}}
	if !p.sizeless {
		at.Bytes = &size
	}
	var rss int64
	for _, r := range repeats {
		rss = max(rss, r.rss)
	}
	if rss > 0 {
		mb := round(float64(rss) / 1e6)
		at.RSS = &mb
	}
	for i, of := range []func(usage) time.Duration{
		func(u usage) time.Duration { return u.server },
		func(u usage) time.Duration { return u.postgres },
		func(u usage) time.Duration { return u.generator },
	} {
		at.cpu[i] = median(repeats, func(r result) float64 { return float64(of(r.cpu).Microseconds()) / float64(r.records) })
	}
	at.idle = median(repeats, func(r result) float64 { return r.cpu.idleShare() })
	rates := make([]float64, len(repeats))
	for i, r := range repeats {
		rates[i] = r.perSecond()
	}
	at.spread = (slices.Max(rates) - slices.Min(rates)) / at.PerSecond
	at.whole = time.Duration(median(repeats, func(r result) float64 { return float64(quantile(r.wholes, 0.50)) }))
	return at
}

// compare sets what a limit says of the point: for a fan-out how much longer it takes, for the others how much of the
// limit it reaches.
func (at *row) compare(limit row) {
	at.Limit, at.LimitPerS = &limit.Name, &limit.PerSecond
	ratio := at.PerSecond / limit.PerSecond
	if at.p.conns == listeners {
		ratio = max(at.P50/limit.P50, at.P99/limit.P99)
	}
	at.p99Ratio = at.P99 / limit.P99
	ratio = round(ratio)
	at.Ratio = &ratio
}

// table is for people.
func (r *report) table() error {
	if r.opts.json {
		return nil
	}
	t := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "\npoint\tbytes\tconns\tper s\t±\tp50 ms\tp99 ms\tRSS MB\tratio\tof\ttarget\tµs/record: server\tPostgres\tgenerator\tidle\t")
	for _, at := range r.rows {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%d\t%.0f\t%.0f%%\t%.3g\t%.3g\t%s\t%s\t%s\t%s\t%.3g\t%.3g\t%.3g\t%.0f%%\t\n",
			at.Name, dash(at.Bytes), at.Conns, at.PerSecond, 50*at.spread, at.P50, at.P99, dash(at.RSS), dash(at.Ratio), dash(at.Limit),
			at.verdict(r.opts.sizes[0]), at.cpu[0], at.cpu[1], at.cpu[2], 100*at.idle)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, at := range r.rows {
		switch {
		case at.whole > 0 && at.p.extra:
			_, _ = fmt.Fprintf(r.out, "%s, until the writer has his reply: p50 %.3g ms\n", at.Name, milliseconds(at.whole))
		case at.whole > 0:
			_, _ = fmt.Fprintf(r.out, "%s, from the request on: p50 %.3g ms\n", at.Name, milliseconds(at.whole))
		}
	}
	_, err := fmt.Fprintf(r.out, "Medians of %d × %s. docs/performance.md says what each figure means.\n", r.opts.repeats, r.opts.duration)
	return err
}

// verdict is the target and whether it is met, for the size that targets speak of.
func (at *row) verdict(size int) string {
	if at.Bytes == nil || *at.Bytes != size || at.p.isLimit() || at.Ratio == nil && at.Name != "idle_listeners" {
		return ""
	}
	switch {
	case at.Name == "idle_listeners":
		return at.memory()
	case at.p.extra:
		return ""
	}
	met := func(yes bool) string {
		if yes {
			return " met"
		}
		return " NOT met"
	}
	switch {
	case at.p.conns == listeners:
		return fmt.Sprintf("≤ %.3g%s", at.p.target, met(*at.Ratio <= at.p.target))
	case at.p.target == 0:
		// One connection: its latency is what counts, and rate and latency are one thing.
		return "≥ 0.4" + met(*at.Ratio >= 0.4)
	case at.Name == "write":
		return fmt.Sprintf("≥ %.3g%s, p99 ≤ 4 ×%s", at.p.target, met(*at.Ratio >= at.p.target), met(at.p99Ratio <= 4))
	}
	return fmt.Sprintf("≥ %.3g%s", at.p.target, met(*at.Ratio >= at.p.target))
}

// memory is the target of the point that is about memory, and whether it is met.
func (at *row) memory() string {
	switch {
	case at.RSS == nil:
		return ""
	case *at.RSS < idleMemory/1e6:
		return fmt.Sprintf("RSS < %.0f met", idleMemory/1e6)
	}
	return fmt.Sprintf("RSS < %.0f NOT met", idleMemory/1e6)
}

func dash[T any](v *T) string {
	if v == nil {
		return "-"
	}
	if f, ok := any(*v).(float64); ok {
		return fmt.Sprintf("%.3g", f)
	}
	return fmt.Sprint(*v)
}

func median(of []result, figure func(result) float64) float64 {
	values := make([]float64, len(of))
	for i, r := range of {
		values[i] = figure(r)
	}
	slices.SortFunc(values, cmp.Compare[float64])
	if n := len(values); n%2 == 0 {
		return (values[n/2-1] + values[n/2]) / 2
	}
	return values[len(values)/2]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// round keeps four digits: what is beyond is noise.
func round(v float64) float64 {
	if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}
