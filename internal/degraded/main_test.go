package degraded_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relaymarket/internal/scenario"
	"relaymarket/internal/testpg"
	"relaymarket/protocol"
)

func TestMain(m *testing.M) { testpg.Main(m) }

// patience bounds what must come to an end by itself.
const patience = time.Minute

// until waits for something that must become true.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain waited for %s for %s", what, patience)
		}
	}
}

// send sends a call that must get a whole reply.
func send(t *testing.T, p *scenario.Person, url string, c scenario.Call) *scenario.Reply {
	t.Helper()
	r, err := p.Send(t.Context(), url, c)
	if err != nil {
		t.Fatalf("%s %s: %v", c.Method, c.Path, err)
	}
	return r
}

// insist sends a call again while it is told to come back: after a fault a connection that was cut may be found out about
// only by who is to use it.
func insist(t *testing.T, p *scenario.Person, url string, c scenario.Call) (r *scenario.Reply) {
	t.Helper()
	until(t, "a call to be taken", func() bool {
		r = send(t, p, url, c)
		return r.Status != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" || code(r) != protocol.CodeOverloaded
	})
	return r
}

// code is the code of a refusal.
func code(r *scenario.Reply) protocol.Code {
	var problem struct{ Code protocol.Code }
	_ = json.Unmarshal(r.Body, &problem)
	return problem.Code
}

// bulk does not compress. It is made once: with the race detector that takes as long as sending it.
var bulk = sync.OnceValue(func() string {
	data := make([]byte, 192<<10)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	return base64.StdEncoding.EncodeToString(data)
})

// large is a write whose content is n bytes, 192 kB at most.
func large(p *scenario.Person, to protocol.PublicKey, id string, n int) scenario.Call {
	c := p.Write(to, id, 8)
	c.Body[0].(*protocol.Write).Content = bulk()[:n/3*4]
	return c
}

// page is a pulled page.
type page struct {
	Root    *protocol.Hash `json:"root"`
	Cursor  string         `json:"cursor"`
	Records []string       `json:"-"`
}

// readPage reads a page's reply: its header, then its envelopes.
func readPage(t *testing.T, r *scenario.Reply) page {
	t.Helper()
	if r.Status != http.StatusOK {
		t.Fatalf("pull: %d %.300s", r.Status, r.Body)
	}
	head, rest, _ := strings.Cut(string(r.Body), "\n")
	var p page
	if err := json.Unmarshal([]byte(head), &p); err != nil {
		t.Fatalf("page header %.300s: %v", head, err)
	}
	for line := range strings.Lines(rest) {
		// Not parsed: with the race detector that takes minutes for what fills a disk.
		_, rest, found := strings.Cut(line, `"recordId":"`)
		id, _, _ := strings.Cut(rest, `"`)
		if !found {
			t.Fatalf("record of a page: %.300s", line)
		}
		p.Records = append(p.Records, id)
	}
	return p
}

// pullAll is the ids of all that a sender left for a reader, in order.
func pullAll(t *testing.T, reader *scenario.Person, url string, sender protocol.PublicKey) []string {
	t.Helper()
	var ids []string
	var after *string
	for n := 0; ; n++ {
		name := fmt.Sprintf("all%d-%d", rand.Uint64(), n)
		p := readPage(t, insist(t, reader, url, reader.Pull(name, after, 1000, sender)))
		if len(p.Records) == 0 {
			return ids
		}
		ids, after = append(ids, p.Records...), &p.Cursor
		if r := insist(t, reader, url, reader.Got(protocol.PageID(name), *p.Root)); r.Status != http.StatusNoContent {
			t.Fatalf("got: %d %s", r.Status, r.Body)
		}
	}
}

// metric is a figure of /metrics, summed over its labels' values that contain text.
func metric(t *testing.T, operator, name, text string) (sum float64) {
	t.Helper()
	reply, err := http.Get(operator + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		rest, found := strings.CutPrefix(strings.TrimSpace(line), name)
		if labels, value, ok := strings.Cut(rest, " "); found && ok && (labels == "" || labels[0] == '{') && strings.Contains(labels, text) {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += v
		}
	}
	return sum
}

// residentMB is the memory of a process.
func residentMB(t *testing.T, pid int) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(text))[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * float64(os.Getpagesize()) / 1e6
}

// traffic is writers at work: each stores its records one after the other, and repeats what was refused or cut until
// it is stored.
type traffic struct {
	t       *testing.T
	url     string
	sender  *scenario.Person
	to      protocol.PublicKey
	polite  bool // waits between tries, not as long as it is told, but so long that others get in
	mu      sync.Mutex
	stored  []string
	took    []time.Duration // of what was stored, from the try that succeeded
	refused int
	cut     int
	longest time.Duration // of any single try
	next    atomic.Int64
	stop    atomic.Bool
	all     sync.WaitGroup
}

// start starts n writers.
func (f *traffic) start(n int) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: n, DisableCompression: true}, Timeout: patience}
	for range n {
		f.all.Go(func() {
			for !f.stop.Load() {
				f.store(client, fmt.Sprintf("t%d", f.next.Add(1)))
			}
		})
	}
	f.t.Cleanup(client.CloseIdleConnections)
}

func (f *traffic) store(client *http.Client, id string) {
	call := f.sender.Write(f.to, id, 2)
	for tries := 0; ; tries++ {
		began := time.Now()
		reply, err := f.sender.SendWith(f.t.Context(), client, f.url, call)
		took := time.Since(began)
		f.mu.Lock()
		f.longest = max(f.longest, took)
		switch {
		case errors.Is(err, scenario.ErrCut):
			f.cut++
		case err != nil:
			f.t.Errorf("%s: %v", id, err)
		case reply.Status == http.StatusCreated || reply.Status == http.StatusOK:
			f.stored, f.took = append(f.stored, id), append(f.took, took)
			f.mu.Unlock()
			return
		case reply.Status == http.StatusServiceUnavailable && reply.Header.Get("Retry-After") != "" && code(reply) == protocol.CodeOverloaded:
			f.refused++
		default:
			f.t.Errorf("%s: %d Retry-After %q %s", id, reply.Status, reply.Header.Get("Retry-After"), reply.Body)
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		if f.t.Context().Err() != nil || tries > 2000 {
			f.t.Errorf("%s was never stored", id)
			return
		}
		if f.polite {
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// end waits until all that was begun is stored.
func (f *traffic) end() {
	f.stop.Store(true)
	f.all.Wait()
}

// check sees that everything stored is there once and charged once.
func (f *traffic) check(reader *scenario.Person, charged int64) {
	f.t.Helper()
	got := pullAll(f.t, reader, f.url, f.sender.Key.Public())
	slices.Sort(got)
	slices.Sort(f.stored)
	if !slices.Equal(got, f.stored) {
		f.t.Errorf("%d records were acknowledged, %d are there", len(f.stored), len(got))
	}
	if charged <= 0 || len(f.stored) == 0 {
		f.t.Errorf("%d records are charged with %d bytes", len(f.stored), charged)
	}
}

func (f *traffic) quantile(share float64) time.Duration {
	if len(f.took) == 0 {
		return 0
	}
	slices.Sort(f.took)
	return f.took[min(int(share*float64(len(f.took))), len(f.took)-1)]
}

// count is how many are stored.
func (f *traffic) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.stored)
}

// polling is readers who ask for a page over and over, and say that they got it.
type polling struct {
	t             *testing.T
	url           string
	sender        protocol.PublicKey
	all           sync.WaitGroup
	done, refused atomic.Int64
	mu            sync.Mutex
	longest       time.Duration
}

// start has a reader ask until ctx is done.
func (f *polling) start(ctx context.Context, reader *scenario.Person) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	f.t.Cleanup(client.CloseIdleConnections)
	f.all.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			began := time.Now()
			reply, err := reader.SendWith(f.t.Context(), client, f.url, reader.Pull(fmt.Sprintf("p%d", n), nil, 10, f.sender))
			f.mu.Lock()
			f.longest = max(f.longest, time.Since(began))
			f.mu.Unlock()
			switch {
			case err != nil:
				f.t.Errorf("pull: %v", err)
			case reply.Status == http.StatusServiceUnavailable && reply.Header.Get("Retry-After") != "":
				f.refused.Add(1)
			case reply.Status != http.StatusOK:
				f.t.Errorf("pull: %d %s", reply.Status, reply.Body)
			}
			f.done.Add(1)
		}
	})
}

// status is how a path is answered.
func status(t *testing.T, url string) int {
	t.Helper()
	reply, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	_ = reply.Body.Close()
	return reply.StatusCode
}
