package main

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// options are what the command line says.
type options struct {
	seed     uint64
	rounds   [faults]int
	parallel int
	patience time.Duration
	relayd   string // empty: built from the source around this folder
	broken   string // name of a breakage, empty: none
	temp     string // where its folder is made
	keep     bool
	json     bool
}

// usageError is a mistake on the command line.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// errHelp: the command line asked for help, and got it.
var errHelp = errors.New("help was asked for")

// sizes are the rounds of a run, in the order of the faults.
var sizes = map[string][faults]int{
	"ci":   {faultRelayd: 20, faultPostgres: 10, faultPower: 5, faultWire: 500 / cutsOfRound, faultRush: 100},
	"soak": {faultRelayd: 1000, faultPostgres: 300, faultPower: 200, faultWire: 10_000 / cutsOfRound, faultRush: 1000},
}

const helpText = `crash breaks relays on purpose and checks that they keep what they promised.

  crash                                20 · 10 · 5 rounds of SIGKILL of relayd, SIGKILL of Postgres, power cut; 10 of 50 cut
                                       connections, 100 of 64 people who want what few can have
  crash -size soak -fraction 0.1       a tenth of 1000 · 300 · 200 · 200 · 1000
  crash -faults power -rounds 3 -seed 7
  crash -broken repeat                 a relayd with a known mistake: the run has to fail

Power cuts need root, for a filesystem of their own. A round that fails names the seed, the broken promise and the evidence.

Flags:
`

func parseOptions(args []string, errOut io.Writer) (options, error) {
	o := options{}
	var size, kinds string
	var fraction float64
	var rounds int
	set := flag.NewFlagSet("crash", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.Uint64Var(&o.seed, "seed", 0, "what decides the schedule; 0: a new one, which is printed")
	set.StringVar(&size, "size", "ci", "ci or soak: how many rounds")
	set.Float64Var(&fraction, "fraction", 1, "part of that size, rounded up")
	set.StringVar(&kinds, "faults", "", "only these, as relayd,postgres,power,wire,rush (default all)")
	set.IntVar(&rounds, "rounds", 0, "rounds of each fault, instead of -size")
	set.IntVar(&o.parallel, "parallel", 2, "relays that are broken at the same time")
	set.DurationVar(&o.patience, "patience", time.Minute, "how long a relay may take to be back, and a request to be answered")
	set.StringVar(&o.relayd, "relayd", "", "the program that is broken (default: built from the source that this runs in)")
	set.StringVar(&o.broken, "broken", "", "build relayd with a known mistake: "+strings.Join(breakageNames(), ", "))
	set.StringVar(&o.temp, "dir", os.TempDir(), "where the run makes its folder, a few GB for a soak")
	set.BoolVar(&o.keep, "keep", false, "keep the folder of what failed, and say where it is")
	set.BoolVar(&o.json, "json", false, "the summary as a line of JSON")
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
	if err := o.chooseRounds(size, fraction, kinds, rounds); err != nil {
		return o, err
	}
	return o, o.check()
}

func (o *options) chooseRounds(size string, fraction float64, kinds string, rounds int) error {
	of, known := sizes[size]
	if !known {
		return usagef("-size is ci or soak")
	}
	if fraction <= 0 || fraction > 1 {
		return usagef("-fraction is more than 0 and at most 1")
	}
	if rounds < 0 || rounds > 100_000 {
		return usagef("-rounds is 1 to 100000")
	}
	wanted := map[string]bool{}
	for name := range strings.SplitSeq(kinds, ",") {
		wanted[name] = true
	}
	for f := range faults {
		if kinds != "" && !wanted[f.String()] {
			continue
		}
		delete(wanted, f.String())
		o.rounds[f] = int(float64(of[f])*fraction + 0.999)
		if rounds > 0 {
			o.rounds[f] = rounds
		}
	}
	delete(wanted, "")
	for name := range wanted {
		return usagef("-faults %q: there are relayd, postgres, power, wire and rush", name)
	}
	return nil
}

func (o *options) check() error {
	if o.parallel < 1 || o.parallel > 64 {
		return usagef("-parallel is 1 to 64")
	}
	if o.patience < time.Second || o.patience > time.Hour {
		return usagef("-patience is 1s to 1h")
	}
	if o.broken != "" && o.relayd != "" {
		return usagef("-broken builds a relayd of its own: -relayd does not go with it")
	}
	if _, err := findBreakage(o.broken); o.broken != "" && err != nil {
		return &usageError{err}
	}
	if o.rounds[faultPower] > 0 && os.Geteuid() != 0 {
		return usagef("power cuts need root: run as root, or without them with -faults relayd,postgres,wire,rush")
	}
	if o.seed == 0 {
		var raw [8]byte
		if _, err := rand.Read(raw[:]); err != nil {
			return fmt.Errorf("read entropy: %w", err)
		}
		o.seed = binary.BigEndian.Uint64(raw[:])>>32 | 1 // short enough to be typed
	}
	return nil
}
