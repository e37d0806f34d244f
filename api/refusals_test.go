package api

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"relaymarket/api/refusals"
	"relaymarket/internal/testlog"
	"relaymarket/protocol"
	"relaymarket/records"
)

// operatorMetric is a value on /metrics; −1: it is not there.
func operatorMetric(t *testing.T, s *Server, series string) float64 {
	t.Helper()
	reply := httptest.NewRecorder()
	s.Operator().ServeHTTP(reply, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(reply.Body.String()) {
		if text, found := strings.CutPrefix(line, series+" "); found {
			value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	return -1
}

func refusalsOf(t *testing.T, s *Server, code string) float64 {
	t.Helper()
	return operatorMetric(t, s, `relaymarket_api_refusals_total{code="`+code+`"}`)
}

// Every code of the table is on /metrics before it occurs, is counted under its own name when it does, and is in the log at its level, whatever
// kind of error it comes as. A code of no table is counted as unknown, and told.
func TestEveryRefusalIsCountedAndLogged(t *testing.T) {
	log := &testlog.Log{}
	g := newRig(t, func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	refuse := func(err error) {
		t.Helper()
		x := g.server.begin(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/x", nil))
		r := httptest.NewRequest(http.MethodGet, "/x", nil).WithContext(&x.context)
		g.server.refuse(x, r, err)
		g.server.end(x, r)
	}
	for i, code := range protocol.Codes() {
		if n := refusalsOf(t, g.server, string(code)); n != 0 {
			t.Errorf("%s is %v before it occurred", code, n)
		}
		switch i % 3 {
		case 0:
			refuse(protocol.Errorf(code, "why"))
		case 1:
			refuse(fmt.Errorf("at the end of the world: %w", protocol.Errorf(code, "why")))
		default:
			refuse(&records.PageError{Code: code, Detail: "why"})
		}
		if n := refusalsOf(t, g.server, string(code)); n != 1 {
			t.Errorf("%s is counted %v times", code, n)
		}
		if n := operatorMetric(t, g.server, `relaymarket_api_requests_total{code="`+string(code)+`",operation="none"}`); n != 1 {
			t.Errorf("%s is among the requests %v times", code, n)
		}
		line := regexp.MustCompile(`level=` + refusals.Level(code).String() + ` msg="refused; [^"]*" request=\w+ code=` + string(code) + ` operation=none told=why\n`)
		if len(line.FindAllString(log.String(), -1)) != 1 {
			t.Errorf("%s is not logged as %s", line, log.String())
		}
	}
	refuse(protocol.Code("of_the_future"))
	if n := refusalsOf(t, g.server, "unknown"); n != 1 {
		t.Errorf("a code of no table is counted %v times", n)
	}
	if !strings.Contains(log.String(), "given=of_the_future") || operatorMetric(t, g.server, `relaymarket_api_requests_total{code="of_the_future",operation="none"}`) >= 0 {
		t.Error("a code of no table is a label, or is not told")
	}
}

// Lines of a batch are refused one by one, and counted so.
func TestRefusedLinesAreCounted(t *testing.T) {
	g := newRig(t)
	from, to := newKey(t), newKey(t)
	var body strings.Builder
	for i := range 5 {
		body.Write(g.write(from, to, "id"+strconv.Itoa(i)).Bytes())
		body.WriteString("\n")
	}
	got := g.send(http.MethodPost, "/"+from.Public().String()+"/outbox", mediaLines, body.String()+"nonsense\n")
	if got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	if n, m := refusalsOf(t, g.server, "no_account"), refusalsOf(t, g.server, "malformed"); n != 5 || m != 1 {
		t.Errorf("of 5 lines without an account %v are counted, of 1 that is no envelope %v", n, m)
	}
	if n := operatorMetric(t, g.server, `relaymarket_api_requests_total{code="ok",operation="writeBatch"}`); n != 1 {
		t.Errorf("the batch is answered %v times", n)
	}
	if told := strings.Count(g.log.String(), "code=no_account"); told != 1 {
		t.Errorf("the log tells of it %d times\n%s", told, g.log)
	}
}

// A code is logged once a minute at most, with how often it occurred; another's silence is its own. A clock that goes back silences nobody.
func TestRefusalsAreLoggedSeldom(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	log := &testlog.Log{}
	logger := slog.New(slog.NewTextHandler(log, nil))
	c, err := refusals.New(prometheus.NewRegistry(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	refuse := func(code protocol.Code) { c.Refused(t.Context(), logger, "pull", code, strings.Repeat("x", 1000)) }
	lines := func() []string { return strings.Split(strings.TrimSpace(log.String()), "\n") }
	for range 1000 {
		refuse(protocol.CodeRateAddress)
	}
	refuse(protocol.CodeNoAccount)
	if all := lines(); len(all) != 2 || strings.Contains(all[0], "times=") || len(all[0]) > 500 {
		t.Fatalf("after a thousand:\n%s", log)
	}
	now = now.Add(refusals.Every)
	refuse(protocol.CodeRateAddress)
	if all := lines(); len(all) != 3 || !strings.Contains(all[2], "code=rate_address") || !strings.Contains(all[2], "times=1000 within=1m0s") {
		t.Errorf("a minute later:\n%s", log)
	}
	now = now.Add(-time.Hour)
	refuse(protocol.CodeRateAddress)
	if len(lines()) != 4 {
		t.Errorf("an hour back:\n%s", log)
	}
	refuse(protocol.CodeGone) // routine, and this log begins at info
	if len(lines()) != 4 {
		t.Errorf("what is routine is told:\n%s", log)
	}
}
