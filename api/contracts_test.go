package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"relaymarket/ledger"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// TestNoContracts: a relay without a Bitcoin node says so on every route of contracts, and announces none.
func TestNoContracts(t *testing.T) {
	g := newRig(t)
	payer, id := newKey(t), protocol.ContractID{1}
	for _, path := range []string{"/contracts", "/contracts/" + id.String()} {
		g.refused(g.signed(payer, "GET", path, protocol.TypeContractRead), protocol.CodeNoContracts)
	}
	for _, path := range []string{"", "/" + id.String() + "/signed", "/" + id.String() + "/payments", "/" + id.String() + "/refund"} {
		g.refused(g.send("POST", "/contracts"+path, mediaEnvelope, "{}"), protocol.CodeNoContracts)
	}
	g.refused(g.send("POST", "/contracts/00/signed", mediaEnvelope, "{}"), protocol.CodeBadPath)
	g.refused(g.send("POST", "/contracts/"+id.String()+"/signed/more", mediaEnvelope, "{}"), protocol.CodeBadPath)
	g.refused(g.send("POST", "/contracts/"+id.String()+"/refund", mediaEnvelope, strings.Repeat("x", maxStateBody+1)), protocol.CodeTooLarge)
	_, a, err := protocol.ParseAnnouncement(g.send("GET", "/.well-known/relaymarket", "", "").body, g.now())
	if err != nil || a.Contracts != nil || a.Network != "" {
		t.Errorf("%+v %v", a, err)
	}
}

// refused asserts the code of a refusal.
func (g *rig) refused(a answer, code protocol.Code) Problem {
	g.t.Helper()
	var p Problem
	if err := json.Unmarshal(a.body, &p); err != nil || p.Code != code || a.status != code.Status() {
		g.t.Errorf("%d %s, want %s", a.status, a.body, code)
	}
	return p
}

// TestContractAccount: an account that is a contract tells what it has used and may, to its payer and to a writer that it
// lists; without credit the refusal carries the relay's offer.
func TestContractAccount(t *testing.T) {
	g := newRig(t)
	payer, laptop, bob := newKey(t), newKey(t), newKey(t)
	id := protocol.ContractID{7}
	prices := ledger.Prices{Storage: 1_000_000_000, Bandwidth: 1_000_000_000}
	credit := func(msat protocol.Msat) {
		t.Helper()
		err := g.db.Tx(t.Context(), func(tx pgx.Tx) error {
			o := books.Opening{ID: id, Payer: payer.Public(), Writers: []protocol.PublicKey{laptop.Public()}, Prices: prices}
			if err := g.books.OpenContract(t.Context(), tx, o); err != nil {
				return err
			}
			return g.books.SetCredit(t.Context(), tx, payer.Public(), id, msat)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	credit(0)
	path := recordPath(laptop, bob, "one")
	if p := g.refused(g.put(path, g.write(laptop, bob, "one")), protocol.CodePaymentDue); p.Announcement == nil {
		t.Error("402 without the relay's announcement")
	}
	credit(1e9)
	e := g.store(laptop, bob, "one")
	for _, k := range []*protocol.PrivateKey{payer, laptop} {
		var account Account
		got := g.signed(k, "GET", "/account", protocol.TypeAccount)
		if err := json.Unmarshal(got.body, &account); err != nil || got.status != http.StatusOK {
			t.Fatalf("%d %s: %v", got.status, got.body, err)
		}
		c := account.Contract
		if account.Kind != AccountKindContract || account.Key != payer.Public() || !account.Active || c == nil || account.Stored != e.Size() {
			t.Fatalf("%s", got.body)
		}
		if c.Contract != id || !c.Taking || c.CreditMsat != "1000000000" || c.BytesMoved != fmt.Sprint(9*e.Size()) || c.CostMsat == "0" {
			t.Errorf("%s", got.body)
		}
	}
	if err := g.db.Tx(t.Context(), func(tx pgx.Tx) error {
		return g.books.StopTaking(t.Context(), tx, payer.Public(), id)
	}); err != nil {
		t.Fatal(err)
	}
	for _, k := range []*protocol.PrivateKey{payer, laptop} {
		if p := g.refused(g.put(recordPath(k, bob, "two"), g.write(k, bob, "two")), protocol.CodeContractEnded); p.Announcement == nil {
			t.Error("402 without the relay's announcement")
		}
	}
	g.refused(g.put(recordPath(bob, payer, "three"), g.write(bob, payer, "three")), protocol.CodeNoAccount)
}
