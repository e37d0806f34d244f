package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// options are what the command line says.
type options struct {
	points     []string // names, or name@connections; empty: all
	duration   time.Duration
	repeats    int
	sizes      []int
	json       bool
	keep       bool
	url        string
	relayd     string
	inProcess  bool
	second     string
	cpuProfile string
	keys       bool
	tables     []table // not empty: how the relay grows with its table is measured, and nothing else
}

// usageError is a mistake on the command line.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// errHelp: the command line asked for help, and got it.
var errHelp = errors.New("help was asked for")

// The least record holds its envelope; the largest still fits a page with others.
const (
	minSize = 700
	maxSize = 1 << 20
)

const helpText = `bench measures a relay beside the limits of this machine.

  bench                                  everything, in under 25 minutes
  bench -points write,pull -seconds 3 -repeats 1
  bench -url http://127.0.0.1:7447       a relay that runs already
  bench -size -rows 1e6                  with a million records in the table; some 6 minutes

Flags:
`

func parseOptions(args []string, errOut io.Writer) (options, error) {
	var o options
	var points, sizes, rows string
	var size bool
	var seconds float64
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&points, "points", "", "points to measure, as write,pull or write@64; each brings its limit (default all)")
	set.Float64Var(&seconds, "seconds", 10, "how long each point is measured, after a warm-up of a quarter of it (1 s at most)")
	set.IntVar(&o.repeats, "repeats", 3, "how often each point is measured; medians are reported")
	set.StringVar(&sizes, "sizes", "1300,2400", "bytes of a record's envelope; 2400 is a sealed \"hi\"")
	set.BoolVar(&o.json, "json", false, "only the JSON lines, no table")
	set.BoolVar(&o.keep, "keep", false, "keep the relay's folder, and say where it is")
	set.StringVar(&o.url, "url", "", "a relay that runs already, instead of one of its own; it must grant the keys that -keys prints")
	set.BoolVar(&o.keys, "keys", false, "print the senders' keys, which a relay named with -url must grant, and end")
	set.StringVar(&o.relayd, "relayd", "bin/relayd", "the program that is measured")
	set.BoolVar(&o.inProcess, "inprocess", false, "run the relay in this process, for -cpuprofile; its figures are not those of relayd")
	set.StringVar(&o.second, "second", "", "listen_fanout's streams are at a second relayd on the same database, which hears through NATS (nats) or looks (poll)")
	set.StringVar(&o.cpuProfile, "cpuprofile", "", "folder for a CPU profile of each of the relay's points, with -inprocess")
	set.BoolVar(&size, "size", false, "measure how the relay grows with its table, and nothing else")
	set.StringVar(&rows, "rows", defaultTables, "with -size: rows of the tables, as 1e6,1e7,5e7:200; after a colon the bytes of a record (1300)")
	if err := set.Parse(args); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			return o, &usageError{err}
		}
		_, _ = io.WriteString(errOut, helpText)
		set.SetOutput(errOut)
		set.PrintDefaults()
		return o, errHelp
	}
	if set.NArg() > 0 {
		return o, usagef("%q is not a flag", set.Arg(0))
	}
	o.duration = time.Duration(seconds * float64(time.Second))
	if points != "" {
		o.points = strings.Split(points, ",")
	}
	for text := range strings.SplitSeq(sizes, ",") {
		size, err := strconv.Atoi(text)
		if err != nil || size < minSize || size > maxSize {
			return o, usagef("-sizes %s: each is %d to %d bytes", sizes, minSize, maxSize)
		}
		o.sizes = append(o.sizes, size)
	}
	if size {
		if err := o.forTables(set, rows); err != nil {
			return o, err
		}
	}
	return o, o.check()
}

func (o *options) check() error {
	if o.duration < 50*time.Millisecond || o.duration > 4*time.Minute {
		return usagef("-seconds is 0.05 to 240: what is signed before a measurement is too old after five minutes")
	}
	if o.repeats < 1 || o.repeats > 100 {
		return usagef("-repeats is 1 to 100")
	}
	if o.cpuProfile != "" && !o.inProcess {
		return usagef("-cpuprofile goes with -inprocess: another process cannot be profiled from here; use perf for it")
	}
	if o.url != "" && (o.inProcess || o.keep) {
		return usagef("-url names a relay that runs already: -inprocess and -keep do not go with it")
	}
	if o.second != "" && o.second != secondByNATS && o.second != secondByPoll {
		return usagef("-second is %s or %s", secondByNATS, secondByPoll)
	}
	if o.second != "" && (o.inProcess || o.url != "") {
		return usagef("-second goes with neither -inprocess nor -url")
	}
	if u, err := url.Parse(o.url); o.url != "" && (err != nil || u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "") {
		return usagef("-url is http://host:port, without a path: the generator speaks plain HTTP")
	}
	_, err := choose(o.points)
	return err
}

// warmUp is how long a point runs before the clock starts.
func (o *options) warmUp() time.Duration { return min(o.duration/4, time.Second) }
