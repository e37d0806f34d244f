package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress says on a terminal where the run is, in one line that is written over. Elsewhere it says so now and then.
type progress struct {
	out      io.Writer
	terminal bool
	began    time.Time

	mu   sync.Mutex
	last time.Time
}

// quietFor is how often progress is told where it is kept.
const quietFor = 15 * time.Second

func newProgress(f *os.File) *progress {
	return &progress{out: f, terminal: term.IsTerminal(int(f.Fd())), began: time.Now(), last: time.Now()}
}

// tell is for what is worth keeping.
func (p *progress) tell(format string, args ...any) {
	p.clear()
	_, _ = fmt.Fprintf(p.out, "crash: "+format+"\n", args...)
}

func (p *progress) clear() {
	if p.terminal {
		_, _ = fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// step is told after each round.
func (p *progress) step(o options, t *tally) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.terminal && time.Since(p.last) < quietFor {
		return
	}
	p.last = time.Now()
	var parts []string
	for f := range faults {
		if o.rounds[f] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d/%d", f, t.rounds[f].Load(), o.rounds[f]))
		}
	}
	parts = append(parts, fmt.Sprintf("%d writes acknowledged", t.acknowledged.Load()), fmt.Sprintf("%d outcomes unknown at first", t.unknown.Load()),
		time.Since(p.began).Round(time.Second).String())
	p.clear()
	_, _ = fmt.Fprint(p.out, "crash: "+strings.Join(parts, " · "))
	if !p.terminal {
		_, _ = fmt.Fprintln(p.out)
	}
}

// summary is what a run says at its end.
type summary struct {
	OK           bool           `json:"ok"`
	Seed         uint64         `json:"seed"`
	Rounds       map[string]int `json:"rounds"` // done, by fault
	Acknowledged int64          `json:"acknowledged"`
	Unknown      int64          `json:"unknown"`
	Repeats      int64          `json:"repeats"`
	Races        int64          `json:"races"`
	Conflicts    int64          `json:"conflicts"`
	Deletes      int64          `json:"deletes"`
	Forgeries    int64          `json:"forgeries"`
	Pages        int64          `json:"pages"`
	Served       int64          `json:"served"`
	Heard        int64          `json:"heard"`
	Reconnects   int64          `json:"reconnects"`
	Looked       int64          `json:"looked"`
	SlowestMs    int64          `json:"slowest_back_ms"`
	Seconds      float64        `json:"seconds"`
	Broken       []string       `json:"broken,omitempty"` // promises
}

func (t *tally) summary(o options, took time.Duration, broken []promise) *summary {
	s := &summary{OK: len(broken) == 0, Seed: o.seed, Rounds: map[string]int{}, Acknowledged: t.acknowledged.Load(), Unknown: t.unknown.Load(),
		Repeats: t.repeats.Load(), Races: t.races.Load(), Conflicts: t.conflicts.Load(), Deletes: t.deletes.Load(), Forgeries: t.forgeries.Load(),
		Pages: t.pages.Load(), Served: t.served.Load(), Heard: t.heard.Load(), Reconnects: t.reconnects.Load(), Looked: t.looked.Load(),
		SlowestMs: time.Duration(t.slowest.Load()).Milliseconds(), Seconds: took.Round(100 * time.Millisecond).Seconds()}
	for f := range faults {
		if o.rounds[f] > 0 {
			s.Rounds[f.String()] = int(t.rounds[f].Load())
		}
	}
	for _, p := range broken {
		s.Broken = append(s.Broken, string(p))
	}
	return s
}

func (s *summary) writeJSON(out io.Writer) error {
	line, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n", line)
	return err
}

func (s *summary) writeText(out io.Writer) error {
	verdict := "every promise was kept"
	if !s.OK {
		verdict = "BROKEN: " + strings.Join(s.Broken, "; ")
	}
	_, err := fmt.Fprintf(out, `%s
seed                      %d
rounds                    SIGKILL of relayd %d, SIGKILL of Postgres %d, power cut %d, cut connections %d, rush %d
writes acknowledged       %d
unknown outcomes          %d requests of all kinds, each repeated until it was answered
repeats and races         %d writes sent again, %d on two connections at once
refused                   %d conflicting writes, %d forgeries
deletes                   %d
pulled                    %d records in %d pages; %d told to listeners, who reconnected %d times
rows held against that    %d
slowest return            %d ms from the end of a fault to the next acknowledgement
time                      %.0f s
`, verdict, s.Seed, s.Rounds["relayd"], s.Rounds["postgres"], s.Rounds["power"], s.Rounds["wire"], s.Rounds["rush"], s.Acknowledged, s.Unknown, s.Repeats, s.Races,
		s.Conflicts, s.Forgeries, s.Deletes, s.Served, s.Pages, s.Heard, s.Reconnects, s.Looked, s.SlowestMs, s.Seconds)
	return err
}
