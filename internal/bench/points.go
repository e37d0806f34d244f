package main

import (
	"context"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// Connections of the points that have no number of their own in their name. The listeners are those of one reader.
const (
	manyConns  = 64
	batchConns = 16
	pageConns  = 16
	copyConns  = 2
	readConns  = 16
	listeners  = 200
	idleConns  = 10_000
)

const (
	batchLines  = 32  // records in one request of write_batch
	pageRecords = 100 // records in one page of pull_page
	copyRows    = 500 // rows in one COPY of limit_copy
	selectRows  = 50  // rows in one SELECT of limit_select50
)

// point is one thing that is measured.
type point struct {
	name     string
	conns    int
	limit    string  // name of the point that bounds it; empty: it is a limit itself
	target   float64 // least ratio, or for listen_fanout the largest; 0: none
	metered  bool    // senders pay by contract: the ledger is written behind
	sizeless bool    // the size of records does not matter: measured once
	extra    bool    // measured only when it is named
	guess    int     // requests a second at most, for the first moments
	open     func(context.Context, *bench, point, int) (workload, error)
}

// sender is the role of who writes.
func (p point) sender() string {
	if p.metered {
		return rolePayer
	}
	return roleSender
}

func (p point) isLimit() bool { return p.limit == "" && !p.extra }

// id tells points of one name apart.
func (p point) id() string { return p.name + "@" + strconv.Itoa(p.conns) }

// points are all of them, in the order they are measured in: each soon after its limit, as the speed of a machine drifts within minutes.
func points() []point {
	return []point{
		{name: "limit_echo", conns: manyConns, open: openEcho},
		{name: "limit_insert", conns: 1, open: openInsert},
		{name: "write", conns: 1, limit: "limit_insert", guess: 3000, open: openWrites(1)},
		{name: "limit_insert", conns: manyConns, open: openInsert},
		{name: "write", conns: manyConns, limit: "limit_insert", target: 0.7, guess: 15_000, open: openWrites(1)},
		{name: "write_metered", conns: manyConns, limit: "write", target: 0.85, metered: true, guess: 15_000, open: openWrites(1)},
		{name: "limit_copy", conns: copyConns, open: openCopy},
		{name: "write_batch", conns: batchConns, limit: "limit_insert", target: 1.1, guess: 1000, open: openWrites(batchLines)},
		{name: "batch_metered", conns: batchConns, limit: "write_batch", target: 0.85, metered: true, guess: 1000, open: openWrites(batchLines)},
		{name: "limit_select", conns: readConns, open: openSelect(1)},
		{name: "limit_verify", conns: runtime.NumCPU(), sizeless: true, open: openVerify},
		{name: "pull", conns: manyConns, limit: "limit_verify", target: 0.25, guess: 8000, open: openPulls(1)},
		{name: "pull_metered", conns: manyConns, limit: "pull", target: 0.85, metered: true, guess: 8000, open: openPulls(1)},
		{name: "limit_select50", conns: readConns, open: openSelect(selectRows)},
		{name: "pull_page", conns: pageConns, limit: "limit_select50", target: 0.4, guess: 1000, open: openPulls(pageRecords)},
		{name: "page_metered", conns: pageConns, limit: "pull_page", target: 0.85, metered: true, guess: 1000, open: openPulls(pageRecords)},
		{name: "limit_nats_fanout", conns: listeners, sizeless: true, guess: 2000, open: openNATS},
		{name: "listen_fanout", conns: listeners, limit: "limit_nats_fanout", target: 1, guess: 2000, open: openListen},
		{name: "bare_write", conns: 1, limit: "limit_insert", extra: true, guess: 5000, open: openBareWrites(1)},
		{name: "bare_write", conns: manyConns, limit: "limit_insert", extra: true, guess: 20_000, open: openBareWrites(1)},
		{name: "bare_batch", conns: batchConns, limit: "limit_insert", extra: true, guess: 1500, open: openBareWrites(batchLines)},
		{name: "bare_pull", conns: manyConns, limit: "limit_verify", extra: true, guess: 15_000, open: openBarePulls},
		{name: "idle_listeners", conns: idleConns, extra: true, guess: 3000, open: openIdle},
	}
}

// limitOf is the point that bounds p: of the same number of connections if there is one, else of the most.
func limitOf(p point, of []point) (point, bool) {
	var found point
	for _, l := range of {
		if l.name == p.limit && (l.conns == p.conns || found.conns != p.conns && l.conns > found.conns) {
			found = l
		}
	}
	return found, found.name != ""
}

// others is the points that are measured with another size than the first, for a whole run to end in time: those that speak of the size, and
// their limits. The lines of a ledger are as long for any record. What was named is measured with each.
func others(chosen []point, named bool) []point {
	kept := slices.DeleteFunc(slices.Clone(chosen), func(p point) bool { return p.sizeless || p.metered && !named })
	limits := map[string]bool{}
	for _, p := range kept {
		if l, ok := limitOf(p, kept); ok {
			limits[l.id()] = true
		}
	}
	return slices.DeleteFunc(kept, func(p point) bool { return p.isLimit() && !named && !limits[p.id()] })
}

// choose is the points of those names, and their limits.
func choose(names []string) ([]point, error) {
	all := points()
	if len(names) == 0 {
		return slices.DeleteFunc(all, func(p point) bool { return p.extra }), nil
	}
	wanted := map[string]bool{}
	for _, name := range names {
		known := false
		for _, p := range all {
			if name != p.name && name != p.id() {
				continue
			}
			known, wanted[p.id()] = true, true
			if l, ok := limitOf(p, all); ok {
				wanted[l.id()] = true
			}
		}
		if !known {
			return nil, usagef("-points: there is no %q; there are %s", name, strings.Join(pointNames(all), ", "))
		}
	}
	return slices.DeleteFunc(all, func(p point) bool { return !wanted[p.id()] }), nil
}

func pointNames(all []point) []string {
	var names []string
	for _, p := range all {
		if !slices.Contains(names, p.name) {
			names = append(names, p.name)
		}
	}
	return names
}
