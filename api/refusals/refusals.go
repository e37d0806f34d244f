// Package refusals counts what a relay refuses, by code, and logs it seldom enough that nobody can fill a disk by asking for
// nonsense.
//
// Every code of [protocol.Codes] is a label from the start, as zero, and no other string ever becomes one: what is in no table is
// counted as "unknown". A code is logged when it occurs, and then again after a minute at the earliest, with how often it occurred
// meanwhile. No label names a key, a contract or an address; a line in the log holds what the user was told, which may name his key.
//
// api tells it of every refusal: of requests, and of single lines of a batch.
package refusals

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"relaymarket/protocol"
)

const (
	// Every is between two lines in the log about one code.
	Every = time.Minute
	// unknown is the label of a code that is in no table, which would be a mistake of ours.
	unknown = "unknown"
)

// Counter counts and logs. It is safe for concurrent use.
type Counter struct {
	clock func() time.Time
	codes map[protocol.Code]*code // never written to after New
	other *code
}

// code is what is known of one of them.
type code struct {
	name  string
	level slog.Level
	total prometheus.Counter

	mu     sync.Mutex
	told   time.Time
	untold int64 // since then
}

// New makes a counter, whose metric registry takes.
func New(registry prometheus.Registerer, clock func() time.Time) (*Counter, error) {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "relaymarket", Subsystem: "api", Name: "refusals_total",
		Help: "Refusals by code: of requests, and of single lines of batches."}, []string{"code"})
	c := &Counter{clock: clock, codes: map[protocol.Code]*code{}}
	for _, known := range protocol.Codes() {
		c.codes[known] = &code{name: string(known), level: Level(known), total: vec.WithLabelValues(string(known))}
	}
	c.other = &code{name: unknown, level: slog.LevelError, total: vec.WithLabelValues(unknown)}
	return c, registry.Register(vec)
}

// Level is that of the lines about a code.
func Level(c protocol.Code) slog.Level {
	switch c {
	case protocol.CodeInternal:
		return slog.LevelError
	case protocol.CodeOverloaded, protocol.CodeDiskFull, protocol.CodeChainStale, protocol.CodeNoCoins, protocol.CodeBroadcast:
		return slog.LevelWarn // the relay could not, and its operator can do something about it
	case protocol.CodeNotFound, protocol.CodeMethodNotAllowed, protocol.CodeGone, protocol.CodeConflict, protocol.CodePageOpen, protocol.CodePageSpent,
		protocol.CodeCursorEpoch, protocol.CodeCardOlder, protocol.CodeNoContracts:
		return slog.LevelDebug // answers that clients of good faith get every day
	}
	if c.Status() >= http.StatusInternalServerError && c.Status() != http.StatusInsufficientStorage {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// Label is the code as a label: itself, or "unknown" if it is in no table.
func (c *Counter) Label(refused protocol.Code) string { return c.of(refused).name }

func (c *Counter) of(refused protocol.Code) *code {
	if known := c.codes[refused]; known != nil {
		return known
	}
	return c.other
}

// Refused counts a refusal of an operation, and logs it if this code was not logged lately. What the user is told may be text that he sent.
func (c *Counter) Refused(ctx context.Context, log *slog.Logger, operation string, refused protocol.Code, told string) {
	k := c.of(refused)
	k.total.Inc()
	if !log.Enabled(ctx, k.level) {
		return
	}
	since, times := k.due(c.clock())
	if times == 0 {
		return
	}
	attributes := []slog.Attr{slog.String("code", k.name), slog.String("operation", operation), slog.String("told", bounded(told))}
	if k == c.other {
		attributes = append(attributes, slog.String("given", bounded(string(refused))))
	}
	if times > 1 {
		attributes = append(attributes, slog.Int64("times", times), slog.Duration("within", since.Round(time.Second)))
	}
	log.LogAttrs(ctx, k.level, "refused; a code is told at most once a minute", attributes...)
}

// due is how often the code occurred since it was logged, this time included; 0: it is not to be logged now.
func (k *code) due(now time.Time) (since time.Duration, times int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.untold++
	since = now.Sub(k.told)
	if !k.told.IsZero() && since >= 0 && since < Every { // a clock that went back must not silence it
		return 0, 0
	}
	times = k.untold
	k.told, k.untold = now, 0
	return since, times
}

// maxTold bounds what of the user's words gets into the log.
const maxTold = 200

func bounded(text string) string {
	if len(text) > maxTold {
		return text[:maxTold] + "…"
	}
	return text
}
