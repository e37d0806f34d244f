package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"
)

// sizeLine is a point measured with a table, and with an empty one.
type sizeLine struct {
	Name       string  `json:"name"`
	Rows       int     `json:"rows"`
	Bytes      int     `json:"bytes"` // of the records that are written and pulled
	Conns      int     `json:"conns"`
	PerSecond  float64 `json:"per_s"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	RSS        float64 `json:"rss_mb"`
	EmptyPerS  float64 `json:"empty_per_s"`
	EmptyP50   float64 `json:"empty_p50_ms"`
	EmptyP99   float64 `json:"empty_p99_ms"`
	Ratio      float64 `json:"ratio"` // per_s / empty_per_s
	PostgresUS float64 `json:"postgres_us"`
	EmptyUS    float64 `json:"empty_postgres_us"`
}

// loadLine is how quickly a table was loaded.
type loadLine struct {
	Name      string  `json:"name"`
	Rows      int     `json:"rows"`
	Bytes     int     `json:"bytes"`
	PerSecond float64 `json:"per_s"`
}

// storageLine is what a record takes on disk, in bytes.
type storageLine struct {
	Name    string             `json:"name"`
	Rows    int64              `json:"rows"`
	Bytes   int                `json:"bytes"` // of its envelope
	Record  float64            `json:"record_bytes"`
	Heap    float64            `json:"heap_bytes"`
	Indexes map[string]float64 `json:"index_bytes"`
	Total   int64              `json:"total_bytes"`
}

// logLine is what a written record adds to the write-ahead log, in bytes.
type logLine struct {
	Name   string  `json:"name"`
	Rows   int     `json:"rows"`
	Bytes  int     `json:"bytes"`
	Record float64 `json:"record_bytes"`
	Empty  float64 `json:"empty_record_bytes"` // with an empty table
}

// sweepLine is a sweep, and what it does to writes.
type sweepLine struct {
	Name       string  `json:"name"`
	Rows       int     `json:"rows"`
	Bytes      int     `json:"bytes"`
	PerSecond  float64 `json:"per_s"`       // rows removed beside writes at 64 connections
	AlonePerS  float64 `json:"alone_per_s"` // and beside nothing; 0: there was nothing left
	LogBytes   float64 `json:"log_bytes"`   // of the write-ahead log, for each of those
	WritePerS  float64 `json:"write_per_s"`
	WriteP99   float64 `json:"write_p99_ms"`
	WriteMax   float64 `json:"write_max_ms"`
	BeforePerS float64 `json:"before_write_per_s"` // without a sweep
	BeforeP99  float64 `json:"before_write_p99_ms"`
	BeforeMax  float64 `json:"before_write_max_ms"`
	Ratio      float64 `json:"ratio"` // of the write rates
}

// spaceLine is whether space is given back.
type spaceLine struct {
	Name     string  `json:"name"`
	Rows     int     `json:"rows"`
	Bytes    int     `json:"bytes"`
	Reusable float64 `json:"reusable_s"` // from the end of the sweep to that of vacuum
	Refilled int     `json:"refilled"`   // rows, until there were as many as before
	Before   sizes   `json:"before"`
	After    sizes   `json:"after"`
	Ratio    float64 `json:"ratio"` // of the whole sizes, after to before
}

// sizeReport writes each figure as a line of JSON when it is known, and all of them as tables at the end.
type sizeReport struct {
	out    io.Writer
	opts   options
	lines  []sizeLine
	stores []storageLine
	logs   []logLine
	sweeps []sweepLine
	spaces []spaceLine
}

func (r *sizeReport) tell(line any) error {
	text, err := json.Marshal(line)
	if err == nil {
		_, err = fmt.Fprintf(r.out, "%s\n", text)
	}
	return err
}

func (r *sizeReport) point(t table, size int, p point, full, empty []result) error {
	at, free := summarize(p, size, full), summarize(p, size, empty)
	line := sizeLine{Name: p.name, Rows: t.rows, Bytes: size, Conns: p.conns,
		PerSecond: at.PerSecond, P50: at.P50, P99: at.P99, EmptyPerS: free.PerSecond, EmptyP50: free.P50, EmptyP99: free.P99,
		Ratio: round(at.PerSecond / free.PerSecond), PostgresUS: round(at.cpu[1]), EmptyUS: round(free.cpu[1])}
	if at.RSS != nil {
		line.RSS = *at.RSS
	}
	r.lines = append(r.lines, line)
	return r.tell(line)
}

func (r *sizeReport) loaded(t table, rows int, took time.Duration) error {
	return r.tell(loadLine{"load", rows, t.bytes, round(float64(rows) / took.Seconds())})
}

func (r *sizeReport) storage(t table, rows int64, s sizes) error {
	each := func(bytes int64) float64 { return round(float64(bytes) / float64(rows)) }
	line := storageLine{"storage", rows, t.bytes, each(s.total()), each(s.Heap + s.Toast), make(map[string]float64), s.total()}
	for name, bytes := range s.Indexes {
		line.Indexes[name] = each(bytes)
	}
	r.stores = append(r.stores, line)
	return r.tell(line)
}

func (r *sizeReport) logPerRecord(t table, size int, full, empty logFigures) error {
	line := logLine{"log", t.rows, size, full.perRecord(), empty.perRecord()}
	r.logs = append(r.logs, line)
	return r.tell(line)
}

func (r *sizeReport) sweep(t table, f *sweepFigures) error {
	line := sweepLine{Name: "sweep", Rows: t.rows, Bytes: t.bytes,
		PerSecond: round(float64(f.swept) / f.sweptIn.Seconds()),
		WritePerS: round(f.during.perSecond()), WriteP99: round(milliseconds(quantile(f.during.latencies, 0.99))), WriteMax: round(milliseconds(quantile(f.during.latencies, 1))),
		BeforePerS: round(f.without.perSecond()), BeforeP99: round(milliseconds(quantile(f.without.latencies, 0.99))), BeforeMax: round(milliseconds(quantile(f.without.latencies, 1))),
		Ratio: round(f.during.perSecond() / f.without.perSecond())}
	if f.rest > 0 {
		line.AlonePerS, line.LogBytes = round(float64(f.rest)/f.restTook.Seconds()), round(float64(f.logged)/float64(f.rest))
	}
	space := spaceLine{"space", t.rows, t.bytes, round(f.reusable.Seconds()), f.refilled, f.before, f.after, round(float64(f.after.total()) / float64(f.before.total()))}
	r.sweeps, r.spaces = append(r.sweeps, line), append(r.spaces, space)
	if err := r.tell(line); err != nil {
		return err
	}
	return r.tell(space)
}

// leastRatio is the target for writes.
const leastRatio = 0.8

// table is for people.
func (r *sizeReport) table() error {
	if r.opts.json || len(r.lines) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "\npoint\trows\tbytes\tconns\tper s\tp50 ms\tp99 ms\tempty: per s\tp50 ms\tp99 ms\tratio\tµs/record: Postgres\tempty\t")
	for _, at := range r.lines {
		verdict := ""
		if at.Name == "write" {
			verdict = " NOT met"
			if at.Ratio >= leastRatio {
				verdict = " met"
			}
		}
		_, _ = fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%.0f\t%.3g\t%.3g\t%.0f\t%.3g\t%.3g\t%.3g%s\t%.3g\t%.3g\t\n", at.Name, at.Rows, at.Bytes, at.Conns, at.PerSecond, at.P50, at.P99,
			at.EmptyPerS, at.EmptyP50, at.EmptyP99, at.Ratio, verdict, at.PostgresUS, at.EmptyUS)
	}
	r.storageTable(t)
	_, _ = fmt.Fprintln(t, "\nsweep\trows\tbytes\tper s beside writes\talone\tlog bytes/row\twrites per s\tp99 ms\tmax ms\twithout: per s\tp99 ms\tmax ms\tratio\t")
	for _, at := range r.sweeps {
		_, _ = fmt.Fprintf(t, "\t%d\t%d\t%.0f\t%.0f\t%.0f\t%.0f\t%.3g\t%.3g\t%.0f\t%.3g\t%.3g\t%.3g\t\n", at.Rows, at.Bytes, at.PerSecond, at.AlonePerS, at.LogBytes,
			at.WritePerS, at.WriteP99, at.WriteMax, at.BeforePerS, at.BeforeP99, at.BeforeMax, at.Ratio)
	}
	_, _ = fmt.Fprintln(t, "\nspace\trows\tbytes\tMB before\tafter sweep and refill\tratio\trows refilled\treusable after s\t")
	for _, at := range r.spaces {
		_, _ = fmt.Fprintf(t, "\t%d\t%d\t%.0f\t%.0f\t%.3g\t%d\t%.0f\t\n", at.Rows, at.Bytes, float64(at.Before.total())/1e6, float64(at.After.total())/1e6, at.Ratio, at.Refilled, at.Reusable)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(r.out, "Medians of %d × %s. docs/performance.md says what each figure means.\n", r.opts.repeats, r.opts.duration)
	return err
}

func (r *sizeReport) storageTable(t *tabwriter.Writer) {
	names := slices.Sorted(maps.Keys(r.stores[0].Indexes))
	_, _ = fmt.Fprint(t, "\nbytes a record\trows\tenvelope\tall\theap\t")
	for _, name := range names {
		_, _ = fmt.Fprintf(t, "%s\t", name)
	}
	_, _ = fmt.Fprintln(t, "log of a write\tempty\t")
	for i, at := range r.stores {
		_, _ = fmt.Fprintf(t, "\t%d\t%d\t%.0f\t%.0f\t", at.Rows, at.Bytes, at.Record, at.Heap)
		for _, name := range names {
			_, _ = fmt.Fprintf(t, "%.0f\t", at.Indexes[name])
		}
		_, _ = fmt.Fprintf(t, "%.0f\t%.0f\t\n", r.logs[i].Record, r.logs[i].Empty)
	}
}
