package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
)

// heapRoom is how large the heap may grow before it is collected, however little of it is in use. What a relay
// holds between requests is some ten megabytes, and each request leaves some kilobytes behind: Go's own
// rule, to collect when the heap has doubled, would mark those ten megabytes many times a second.
const heapRoom = 96 << 20

// Go's smallest heap is 4 MB at 100 %, and proportionally more above: at this percentage it is heapRoom.
const mostPercent = 100 * heapRoom / (4 << 20)

// collector sets the collector's percentage after each collection so that the next one comes at heapRoom, or when
// the heap has doubled, whichever is later. So a small heap is left alone, and a large one is treated as ever.
type collector struct {
	mu      sync.Mutex
	percent int
	stopped bool
}

// roomyCollector starts it, unless the operator has set the collector's variables himself; stop restores Go's own rule.
func roomyCollector(environ []string) (stop func()) {
	for _, setting := range environ {
		if strings.HasPrefix(setting, "GOGC=") || strings.HasPrefix(setting, "GOMEMLIMIT=") {
			return func() {}
		}
	}
	c := &collector{}
	c.adjust()
	return c.stop
}

// adjust sets the percentage for what was found in use, and has itself called after the next collection: a
// new object that nothing refers to is what that one finds first.
func (c *collector) adjust() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	if p := percentFor(inUse()); p != c.percent {
		c.percent = p
		debug.SetGCPercent(p)
	}
	runtime.AddCleanup(&struct{ sentinel *collector }{c}, func(c *collector) { c.adjust() }, c)
}

func (c *collector) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	debug.SetGCPercent(100)
}

// percentFor is the percentage at which a heap of which live bytes are in use, beside roots bytes of stacks and
// globals, grows to heapRoom: Go lets it grow by that share of both. In steps of ten, because each change stops
// the process for a moment.
func percentFor(live, roots uint64) int {
	if live >= heapRoom/2 || live+roots == 0 {
		return 100
	}
	percent := (heapRoom - live) * 100 / (live + roots)
	return int(min(max(percent/10*10, 100), mostPercent))
}

// inUse is what the last collection found, in bytes.
func inUse() (live, roots uint64) {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64() + samples[2].Value.Uint64()
}
