package relaynode_test

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"relaymarket/internal/regtest"
	"relaymarket/internal/relaynode"
	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

// board is what a test looks at of docs/grafana/relayd.json.
type board struct {
	UID           string `json:"uid"`
	Title         string `json:"title"`
	SchemaVersion int    `json:"schemaVersion"`
	Templating    struct {
		List []struct {
			Name       string          `json:"name"`
			Type       string          `json:"type"`
			Query      json.RawMessage `json:"query"`
			Definition string          `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
	Panels []panel `json:"panels"`
}

type panel struct {
	ID         int    `json:"id"`
	Type       string `json:"type"`
	Title      string `json:"title"`
	Datasource *struct {
		UID string `json:"uid"`
	} `json:"datasource"`
	GridPos struct{ H, W, X, Y int } `json:"gridPos"`
	Targets []struct {
		RefID string `json:"refId"`
		Expr  string `json:"expr"`
	} `json:"targets"`
}

func readBoard(t *testing.T) board {
	t.Helper()
	text, err := os.ReadFile("../../docs/grafana/relayd.json")
	if err != nil {
		t.Fatal(err)
	}
	var b board
	if err := json.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	return b
}

// The board is one that Grafana imports: a uid, a datasource to choose, panels that do not overlap, each with queries of that datasource.
func TestBoardIsWellFormed(t *testing.T) {
	b := readBoard(t)
	if b.UID != "relaymarket-relayd" || b.Title == "" || b.SchemaVersion < 36 {
		t.Errorf("uid %q, title %q, schema %d", b.UID, b.Title, b.SchemaVersion)
	}
	kinds := map[string]string{}
	for _, v := range b.Templating.List {
		kinds[v.Name] = v.Type
	}
	if kinds["datasource"] != "datasource" || kinds["instance"] != "query" {
		t.Errorf("its variables are %v", kinds)
	}
	seen := map[int]bool{}
	for i, p := range b.Panels {
		if p.ID == 0 || seen[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 || p.GridPos.W < 1 || p.GridPos.H < 1 {
			t.Errorf("panel %d %q: %+v", p.ID, p.Title, p.GridPos)
		}
		seen[p.ID] = true
		for _, other := range b.Panels[:i] {
			a, o := p.GridPos, other.GridPos
			if a.X < o.X+o.W && o.X < a.X+a.W && a.Y < o.Y+o.H && o.Y < a.Y+a.H {
				t.Errorf("%q lies over %q", p.Title, other.Title)
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Datasource == nil || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("%q has no queries of the datasource that is chosen", p.Title)
		}
		for _, q := range p.Targets {
			if q.RefID == "" || !strings.Contains(q.Expr, `instance=~"$instance"`) || strings.Count(q.Expr, "(") != strings.Count(q.Expr, ")") ||
				strings.Count(q.Expr, "{") != strings.Count(q.Expr, "}") {
				t.Errorf("%q asks for %q", p.Title, q.Expr)
			}
		}
	}
	if len(b.Panels) < 20 {
		t.Errorf("it has %d panels", len(b.Panels))
	}
}

var metricName = regexp.MustCompile(`\b(?:relaymarket|process|go)_[a-z_]+\b`)

// Every metric that the board shows, with its labels, and every one that docs/operators.md names, is on /metrics of a relay that has
// all parts; and every metric of the relay's own is in docs/operators.md.
func TestMetricsOfBoardAndDocumentsExist(t *testing.T) {
	bitcoin := regtest.Start(t)
	n := testnode.Start(t, testnode.Options{Setup: func(c *relaynode.Config) {
		testnode.Contracts(t, bitcoin.Node)(c)
		c.NATS = relaynode.NATS{Listen: "127.0.0.1:0"}
		c.Market = relaynode.Market{Network: protocol.Regtest, Hub: &relaynode.Hub{Listen: "127.0.0.1:0", Folder: t.TempDir()}}
		c.Database.Cluster.Dir = ""
	}})
	do(t, http.MethodGet, n.URL+"/.well-known/relaymarket", nil)
	b := readBoard(t)
	asked := map[string][]string{} // labels by metric
	labels := regexp.MustCompile(`(?:sum|max|min) by \(([a-z, ]+)\)`)
	for _, p := range b.Panels {
		for _, q := range p.Targets {
			names := metricName.FindAllString(q.Expr, -1)
			if len(names) != 1 {
				t.Errorf("%q: %q has not one metric", p.Title, q.Expr)
			}
			for _, name := range names {
				if by := labels.FindStringSubmatch(q.Expr); by != nil {
					asked[name] = append(asked[name], strings.Split(by[1], ", ")...)
				} else {
					asked[name] = append(asked[name], "")
				}
			}
		}
	}
	page, err := os.ReadFile("../../docs/operators.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range metricName.FindAllString(string(page), -1) {
		if strings.HasPrefix(name, "relaymarket_") {
			asked[name] = append(asked[name], "")
		}
	}
	// With a database elsewhere nobody looks at a disk, a chain without contracts has none to settle, and nobody has made a backup yet.
	absent := []string{"relaymarket_disk_free_bytes", "relaymarket_backup_age_seconds", "relaymarket_contracts_blocks_to_settlement", "relaymarket_contracts_blocks_to_expiry"}
	var text string
	has := func(name, label string) bool {
		for line := range strings.Lines(text) {
			rest, found := strings.CutPrefix(line, name)
			rest = strings.TrimPrefix(rest, "_count") // of a histogram
			if found && (strings.HasPrefix(rest, "{") || strings.HasPrefix(rest, " ")) &&
				(label == "" || label == "instance" || strings.Contains(rest, label+`="`)) {
				return true
			}
		}
		return false
	}
	var missing []string
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		_, text = do(t, http.MethodGet, n.OperatorURL+"/metrics", nil)
		missing = nil
		for name, by := range asked {
			for _, label := range by {
				if !has(name, label) && !slices.Contains(absent, name) {
					missing = append(missing, name+" by "+label)
				}
			}
		}
		if len(missing) == 0 {
			break
		}
		if time.Now().After(deadline) {
			slices.Sort(missing)
			t.Fatalf("nobody measures %s", strings.Join(slices.Compact(missing), "\n  "))
		}
	}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 4 && fields[1] == "TYPE" && strings.HasPrefix(fields[2], "relaymarket_") && !documented(string(page), fields[2]) {
			t.Errorf("docs/operators.md does not say what %s is", fields[2])
		}
	}
}

// documented tells whether a metric is named, perhaps after another as …_its_last_words.
func documented(page, name string) bool {
	if strings.Contains(page, "`"+name) {
		return true
	}
	for i, c := range name {
		if c == '_' && strings.Contains(page, "`…"+name[i:]) {
			return true
		}
	}
	return false
}
