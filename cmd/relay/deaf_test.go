package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow/relayside"
	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

// instead stands before a relay and answers instead of it what is asked of one route. All else it passes on.
func instead(t *testing.T, node *testnode.Node, route string, answer http.HandlerFunc) *httptest.Server {
	t.Helper()
	behind, err := url.Parse(node.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(behind)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, route) {
			answer(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	return front
}

// deafTo answers a relay's route of refusals like one that has no such route.
func deafTo(t *testing.T, node *testnode.Node) (address string) {
	t.Helper()
	return instead(t, node, "/refusals", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"type":"about:blank","title":"Not Found","status":404,"code":"` + string(protocol.CodeNotFound) + `"}`))
	}).URL
}

// Bad faith: a relay pads its bill and wants to hear of no refusal: it neither drops the lines nor ends the contract. Who watches with
// --close-on-dispute ends it from this side, at what was accepted; the relay does not take part in that either, and settles with what
// it was paid, and no more. Under the policy "ask" the same watch tells what there is to pay, and pays nothing.
func TestBadFaithRelayThatHearsNoRefusal(t *testing.T) {
	bitcoin, node, alice, asOperator := operatedMarket(t)
	address := deafTo(t, node)
	var opened contractItem
	alice.json(&opened, "contract", "open", address, "--deposit", "100000", "--wait", "0", "--yes")
	bitcoin.Mine(7) // full credit
	node.Follows(t, bitcoin)
	id := opened.ID
	alice.reaches(id, "active")
	contract, err := contractID(id)
	if err != nil {
		t.Fatal(err)
	}
	alice.runs("relays", "add", address)
	alice.stdin = alice.runs("id", "--card", "-")
	alice.runs("friend", "add", "-", "--name", "me")
	alice.stdin = strings.Repeat("what was really sent ", 2000)
	alice.runs("send", "me", "--ttl", "1h", "-")
	node.Posted(t, contract)

	alice.runs("contract", "policy", "--pay", "ask", "--close-on-dispute")
	_, errs, code := alice.types("contract", "watch", "--once")
	paid := alice.contract(id).Paid
	if code != 0 || !strings.Contains(errs, "are accepted") || !strings.Contains(errs, "more are to be paid") || paid != opened.OpeningPrice {
		t.Fatalf("watch, asking: exit %d, %d paid\n%s", code, paid, errs)
	}

	alice.runs("contract", "policy", "--pay", "auto", "--limit", "50000", "--cushion", "0", "--close-on-dispute")
	pads(t, node, contract, 3, testnode.NewKey(t).Public())
	out, errs, code := alice.types("audit", "--pay", "policy")
	if code != 0 {
		t.Logf("exit %d: %s", code, errs)
	}
	for _, says := range []string{"could not be told which lines are refused", "could not be ended with the relay", "relay contract refund " + id[:8]} {
		if !strings.Contains(out, says) {
			t.Errorf("the audit does not say %q:\n%s", says, out)
		}
	}
	item := alice.reaches(id, "refund_requested")
	paid = item.Paid
	asOperator(func(ctx context.Context, m *relayside.Manager) error { return m.Settle(ctx, contract) }) // with what it holds, as in time by itself
	for deadline := time.Now().Add(patience); alice.contract(id).State != "closed" && time.Now().Before(deadline); {
		bitcoin.Mine(1)
	}
	if item = alice.reaches(id, "closed"); item.Paid != paid || paid <= opened.OpeningPrice {
		t.Errorf("it got %d sat, %d were paid", item.Paid, paid)
	}
	// Funding and settlement are all there is on the chain: what was not paid came back.
	fees := int64(0)
	for _, tx := range item.Transactions {
		if tx.Height != nil {
			fees += int64(tx.Fee)
		}
	}
	if spent := btcutil.SatoshiPerBitcoin/10 - int64(alice.balance()); spent < paid || spent > paid+fees {
		t.Errorf("%d sat were spent: %d paid, %d of fees", spent, paid, fees)
	}
}
