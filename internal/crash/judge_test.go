package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relaymarket/api"
	"relaymarket/protocol"
)

// known is a cohort with one record that was acknowledged, and its row as it should be.
func known(t *testing.T) (*cohort, *record, *row) {
	t.Helper()
	relay, err := protocol.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	c, err := newCohort(0, relay.Public(), &tally{})
	if err != nil {
		t.Fatal(err)
	}
	r := wrote(t, c, "one", 7)
	e := r.tried[r.stored.hash].envelope
	return c, r, &row{n: 7, path: r.path, account: r.path.Sender, bytes: e.Size(), maxPulls: 3, left: 3, hash: e.Hash(), request: e.RequestHash(), envelope: e.Bytes()}
}

func wrote(t *testing.T, c *cohort, id protocol.RecordID, n int64) *record {
	t.Helper()
	w := &protocol.Write{Relay: c.relay, RecordID: id, Expires: now() + recordLifetime, MaxPulls: 3, Content: base64.StdEncoding.EncodeToString([]byte(id))}
	e, err := protocol.Sign(c.senders[0], c.readers[0].Public(), now(), w)
	if err != nil {
		t.Fatal(err)
	}
	r := c.try(e, w)
	c.acknowledged(r, e.RequestHash(), e.Hash(), fmt.Sprintf("epoch.%d", n))
	return r
}

// Everything that can be wrong with a row is found, and as what it is.
func TestRowsAreJudged(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*cohort, *record, *row) []*row
		want   promise
	}{
		"as it was written": {func(_ *cohort, _ *record, r *row) []*row { return []*row{r} }, ""},
		"pulled":            {func(_ *cohort, k *record, r *row) []*row { k.pages, r.pages, r.left = 1, 1, 2; return []*row{r} }, ""},
		"deleted": {func(_ *cohort, k *record, r *row) []*row {
			k.deleting, k.deleted, r.state = true, true, stateDeleted
			return []*row{r}
		}, ""},
		"used up": {func(_ *cohort, k *record, r *row) []*row {
			k.pages, r.pages, r.left, r.state = 3, 3, 0, stateUsedUp
			return []*row{r}
		}, ""},
		"missing":          {func(*cohort, *record, *row) []*row { return nil }, promiseKept},
		"twice":            {func(_ *cohort, _ *record, r *row) []*row { other := *r; other.n = 8; return []*row{r, &other} }, promiseOnce},
		"elsewhere":        {func(_ *cohort, _ *record, r *row) []*row { r.n = 8; return []*row{r} }, promiseKept},
		"another envelope": {func(_ *cohort, _ *record, r *row) []*row { r.hash[0]++; return []*row{r} }, promiseKept},
		"other bytes": {func(_ *cohort, _ *record, r *row) []*row {
			r.envelope = slices.Clone(r.envelope)
			r.envelope[9]++
			return []*row{r}
		}, promiseKept},
		"another size":           {func(_ *cohort, _ *record, r *row) []*row { r.bytes++; return []*row{r} }, promiseKept},
		"deleted by nobody":      {func(_ *cohort, _ *record, r *row) []*row { r.state = stateDeleted; return []*row{r} }, promiseDeleted},
		"back after its delete":  {func(_ *cohort, k *record, r *row) []*row { k.deleting, k.deleted = true, true; return []*row{r} }, promiseDeleted},
		"pulled and not counted": {func(_ *cohort, k *record, r *row) []*row { k.pages, r.pages = 1, 1; return []*row{r} }, promisePage},
		"counted and no page":    {func(_ *cohort, _ *record, r *row) []*row { r.left = 2; return []*row{r} }, promisePage},
		"a page forgotten":       {func(_ *cohort, k *record, r *row) []*row { k.pages = 1; return []*row{r} }, promisePage},
		"said to have ended":     {func(_ *cohort, k *record, r *row) []*row { k.ended = true; return []*row{r} }, promiseRefuse},
		"refused and stored":     {func(_ *cohort, k *record, r *row) []*row { k.stored = nil; return []*row{r} }, promiseSettle},
		"written by nobody":      {func(c *cohort, k *record, r *row) []*row { delete(c.records, k.path); return []*row{r} }, promiseGenuine},
		"forged": {func(c *cohort, k *record, r *row) []*row {
			delete(c.records, k.path)
			c.forged[k.path] = true
			return []*row{r}
		}, promiseGenuine},
	} {
		t.Run(name, func(t *testing.T) {
			c, k, r := known(t)
			c.checkRows(test.change(c, k, r))
			wantBroken(t, c, test.want)
		})
	}
}

func wantBroken(t *testing.T, c *cohort, want promise) {
	t.Helper()
	found := promisesOf(c.verdict())
	if want == "" && len(found) > 0 || want != "" && !slices.Contains(found, want) {
		t.Errorf("found %v, want %q", c.verdict(), want)
	}
}

// An acknowledgement is held against those before it.
func TestAcknowledgementsAreJudged(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*record) (request, hash protocol.Hash, cursor string)
		want   promise
	}{
		"again":     {func(r *record) (protocol.Hash, protocol.Hash, string) { return requestOf(r), r.stored.hash, "epoch.7" }, ""},
		"elsewhere": {func(r *record) (protocol.Hash, protocol.Hash, string) { return requestOf(r), r.stored.hash, "epoch.8" }, promiseOnce},
		"another": {func(r *record) (protocol.Hash, protocol.Hash, string) {
			return requestOf(r), protocol.Hash{1}, "epoch.7"
		}, promiseGenuine},
		"not its own": {func(r *record) (protocol.Hash, protocol.Hash, string) {
			return protocol.Hash{1}, r.stored.hash, "epoch.7"
		}, promiseOnce},
		"no cursor": {func(r *record) (protocol.Hash, protocol.Hash, string) { return requestOf(r), r.stored.hash, "7" }, promiseOrder},
		"deleted": {func(r *record) (protocol.Hash, protocol.Hash, string) {
			r.deleted = true
			return requestOf(r), r.stored.hash, "epoch.7"
		}, promiseDeleted},
	} {
		t.Run(name, func(t *testing.T) {
			c, r, _ := known(t)
			request, hash, cursor := test.change(r)
			c.acknowledged(r, request, hash, cursor)
			wantBroken(t, c, test.want)
		})
	}
}

func requestOf(r *record) protocol.Hash { return r.tried[r.stored.hash].envelope.RequestHash() }

// Places follow time: who begins after another's acknowledgement stands after him, and no place is taken twice.
func TestCommitOrderIsJudged(t *testing.T) {
	at := time.Now()
	for name, test := range map[string]struct {
		began, acked time.Time // of a second record, in seconds around the first one's
		n            int64
		want         promise
	}{
		"after":              {at.Add(2 * time.Second), at.Add(3 * time.Second), 8, ""},
		"at the same time":   {at.Add(500 * time.Millisecond), at.Add(3 * time.Second), 6, ""},
		"after and before":   {at.Add(2 * time.Second), at.Add(3 * time.Second), 6, promiseOrder},
		"in the same place":  {at.Add(500 * time.Millisecond), at.Add(3 * time.Second), 7, promiseOrder},
		"before it was done": {at.Add(-time.Second), at.Add(-time.Millisecond), 8, promiseOrder},
	} {
		t.Run(name, func(t *testing.T) {
			c, first, _ := known(t)
			first.began, first.acked = at, at.Add(time.Second)
			second := wrote(t, c, "two", test.n)
			second.began, second.acked = test.began, test.acked
			c.checkCommitOrder()
			wantBroken(t, c, test.want)
		})
	}
}

// A listener is told each record once, in order, as it was acknowledged.
func TestStreamsAreJudged(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*api.Record)
		again  bool
		want   promise
	}{
		"as acknowledged": {func(*api.Record) {}, false, ""},
		"twice":           {func(*api.Record) {}, true, promiseOrder},
		"elsewhere":       {func(r *api.Record) { r.Cursor = "epoch.9" }, false, promiseOnce},
		"another":         {func(r *api.Record) { r.Hash[0]++ }, false, promiseGenuine},
		"nobody's":        {func(r *api.Record) { r.RecordId = "two" }, false, promiseGenuine},
	} {
		t.Run(name, func(t *testing.T) {
			c, r, row := known(t)
			l := &listener{caller: &caller{cohort: c}, key: c.readers[0], heard: map[protocol.Path]int64{}}
			told := api.Record{Cursor: "epoch.7", From: r.path.Sender, To: r.path.Receiver, RecordId: string(r.path.ID), Hash: row.hash}
			test.change(&told)
			l.take(api.ListenLine{Record: &told})
			if test.again {
				l.take(api.ListenLine{Record: &told})
			}
			wantBroken(t, c, test.want)
		})
	}
}

// A mistake whose place in the code has moved is not quietly no mistake.
func TestBreakagesMustFindTheirPlace(t *testing.T) {
	root, work := t.TempDir(), t.TempDir()
	b := breakages()[0]
	file := filepath.Join(root, b.edits[0].file)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"": false, b.edits[0].old: true, b.edits[0].old + "\n" + b.edits[0].old: false,
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := writeOverlay(root, work, b.name); (err == nil) != want {
			t.Errorf("with %q: %v", text, err)
		}
	}
}

func TestSchedules(t *testing.T) {
	o := parsed(t, "-seed", "5", "-size", "soak", "-fraction", "0.1", "-faults", "relayd,postgres,wire")
	if o.rounds != [faults]int{100, 30, 0, 20, 0} {
		t.Errorf("a tenth of a soak has %v rounds", o.rounds)
	}
	rounds := [faults]int{}
	met := map[string]bool{}
	seeds := map[[2]uint64]bool{}
	for _, s := range segments(o) {
		rounds[s.fault] += s.rounds
		met[s.fault.String()+s.layout.String()] = true
		if s.rounds < 1 || s.rounds > maxRoundsOnOne || seeds[s.seed] {
			t.Errorf("%+v", s)
		}
		seeds[s.seed] = true
		if a, b := newPlan(newRandom(s.seed), 3, 2), newPlan(newRandom(s.seed), 3, 2); a != b {
			t.Errorf("one seed, two plans: %+v %+v", a, b)
		}
	}
	if rounds != o.rounds || len(met) != 6 {
		t.Errorf("%v rounds of %v, %v", rounds, o.rounds, met)
	}
}

func TestCommandLine(t *testing.T) {
	for line, want := range map[string]string{
		"-size huge":                   "-size is ci or soak",
		"-fraction 2":                  "-fraction",
		"-faults flood":                "there are relayd, postgres, power, wire and rush",
		"-rounds -1":                   "-rounds",
		"-parallel 0":                  "-parallel",
		"-patience 1ms":                "-patience",
		"-broken windows":              "there is no mistake named",
		"-broken repeat -relayd /bin/": "does not go with it",
		"now":                          "not a flag",
		"-seed x":                      "invalid value",
	} {
		var said strings.Builder
		_, err := parseOptions(strings.Fields(line), &said)
		if err == nil || !strings.Contains(err.Error(), want) || exitCode(err) != 2 {
			t.Errorf("crash %s: %v, want %q and exit code 2", line, err, want)
		}
	}
	var said strings.Builder
	if _, err := parseOptions([]string{"-help"}, &said); exitCode(err) != 0 || !strings.Contains(said.String(), "-fraction") {
		t.Errorf("help: %v %s", err, said.String())
	}
}
