package main

import (
	"math/rand/v2"
	"time"
)

// fault is one way to break a relay.
type fault int

const (
	faultRelayd   fault = iota // SIGKILL of relayd
	faultPostgres              // SIGKILL of all of Postgres at once: its shared memory is lost
	faultPower                 // all processes, and what the filesystem has not flushed
	faultWire                  // connections, within requests and within replies
	faultRush                  // the same, while 64 at once want what few can have
	faults                     // how many there are
)

func (f fault) String() string { return [...]string{"relayd", "postgres", "power", "wire", "rush"}[f] }

// layout is how a relay is set up.
type layout int

const (
	layoutPrivate layout = iota // one relayd, which runs its own Postgres
	layoutShared                // two relayd on one Postgres, which is not theirs
	layouts
)

func (l layout) String() string { return [...]string{"private database", "two relayd"}[l] }

// maxRoundsOnOne bounds what one relay goes through, so that a long run meets new databases too, and the check of
// all that was ever written at its end stays short.
const maxRoundsOnOne = 50

// segment is some rounds of one fault on one relay.
type segment struct {
	fault  fault
	layout layout
	rounds int
	seed   [2]uint64
}

// segments divides a run, both layouts for each fault where there are rounds enough.
func segments(o options) []segment {
	var all []segment
	for f := range faults {
		left := o.rounds[f]
		pieces := max((left+maxRoundsOnOne-1)/maxRoundsOnOne, min(left, int(layouts)))
		for i := range pieces {
			rounds := left / (pieces - i)
			left -= rounds
			all = append(all, segment{fault: f, layout: layout((i + 1) % int(layouts)), rounds: rounds,
				seed: [2]uint64{o.seed, uint64(f)<<32 | uint64(i)}})
		}
	}
	return all
}

// plan is the schedule of one round.
type plan struct {
	number int
	after  int           // acknowledged requests until the fault
	jitter time.Duration // and a moment more
	victim int           // of several relayd: which one dies; as many as there are: all
	twice  bool          // the fault strikes again while the relay comes back
	delay  time.Duration // until it does
	later  int           // acknowledged requests after the fault, before people stop
	seed   [2]uint64     // of the people
}

// newPlan draws a plan. The draws are always as many, so that one schedule is another's beginning.
func newPlan(r *rand.Rand, number, relays int) plan {
	return plan{
		number: number,
		after:  20 + r.IntN(250),
		jitter: time.Duration(r.IntN(5000)) * time.Microsecond,
		victim: r.IntN(relays + 1),
		twice:  r.IntN(6) == 0,
		delay:  time.Duration(r.IntN(400)) * time.Millisecond,
		later:  20 + r.IntN(60),
		seed:   [2]uint64{r.Uint64(), r.Uint64()},
	}
}

// people's draws are of the round and of what they are, not of how many the others made.
func (p plan) random(worker int) *rand.Rand {
	return rand.New(rand.NewPCG(p.seed[0], p.seed[1]+uint64(worker)))
}
