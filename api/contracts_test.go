package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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
	for _, path := range []string{"", "/" + id.String() + "/signed", "/" + id.String() + "/payments", "/" + id.String() + "/refusals", "/" + id.String() + "/refund"} {
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

// forgetful keeps announcements until it does not: the database is away. Nothing else of it is asked.
type forgetful struct {
	Contracts
	away atomic.Bool
	kept map[protocol.Hash]bool
}

func (f *forgetful) Announce(_ context.Context, e *protocol.Envelope, _ *protocol.Announcement) error {
	if f.away.Load() {
		return protocol.Errorf(protocol.CodeOverloaded, "the database is away")
	}
	f.kept[e.Hash()] = true
	return nil
}

// TestAnnouncedIsKept: nobody is told of terms that the relay may forget. While it cannot keep new ones it tells the old ones, as
// long as they have an hour to go.
func TestAnnouncedIsKept(t *testing.T) {
	contracts := &forgetful{kept: map[protocol.Hash]bool{}}
	offer := &protocol.ContractOffer{StorageMsatPerGBDay: 1, BandwidthMsatPerGB: 2, OpeningPrice: 3, CreditLimit: 4, BondPercent: 5, MinPrepay: 6}
	g := newRig(t, func(c *Config) { c.Contracts, c.Network, c.Offer = contracts, protocol.Regtest, offer })
	told := func() (answer, protocol.Hash) {
		a := g.send("GET", "/.well-known/relaymarket", "", "")
		e, said, err := protocol.ParseAnnouncement(a.body, g.now())
		if err != nil {
			return a, protocol.Hash{}
		}
		if said.Network != protocol.Regtest || *said.Contracts != *offer || said.Terms[0].Type != "contract" || !said.Terms[0].Payment {
			t.Errorf("%s", a.body)
		}
		if !contracts.kept[e.Hash()] {
			t.Error("what is told was not kept")
		}
		return a, e.Hash()
	}
	_, first := told()
	contracts.away.Store(true)
	g.offset.Store(int64(22 * time.Hour))
	if _, still := told(); still != first {
		t.Error("the one before is not told while the database is away")
	}
	g.offset.Store(int64(23 * time.Hour))
	a, _ := told()
	g.refused(a, protocol.CodeOverloaded)
	contracts.away.Store(false)
	if _, next := told(); next == first || next == (protocol.Hash{}) {
		t.Error("with the database back there is no new one")
	}
}

// TestContractStepShape: a step is checked like any other request before anybody who runs contracts is asked.
func TestContractStepShape(t *testing.T) {
	g := newRig(t, func(c *Config) { c.Contracts = &forgetful{} }) // which would panic
	payer, id := newKey(t), protocol.ContractID{1}
	refund := &protocol.ContractRefund{Contract: id, Amount: 1, Fee: 1, Signature: make(protocol.ContractSignature, 70)}
	post := func(path string, e *protocol.Envelope) answer {
		return g.send("POST", path, mediaEnvelope, string(e.Bytes()))
	}
	at := "/contracts/" + id.String() + "/refund"
	g.refused(post("/contracts/"+protocol.ContractID{2}.String()+"/refund", g.sign(payer, g.key.Public(), refund)), protocol.CodeMismatch)
	g.refused(post(at, g.sign(payer, payer.Public(), refund)), protocol.CodeWrongAudience)
	g.refused(post("/contracts/"+id.String()+"/payments", g.sign(payer, g.key.Public(), refund)), protocol.CodeWrongType)
	g.refused(g.send("POST", at, mediaLines, "{}"), protocol.CodeContentType)
	g.refused(g.send("POST", at, mediaEnvelope, "{}"), protocol.CodeMalformed)
	g.refused(g.send("POST", at+"?x=1", mediaEnvelope, "{}"), protocol.CodeBadQuery)
	stale, err := protocol.Sign(payer, g.key.Public(), g.now().Add(-time.Hour), refund)
	if err != nil {
		t.Fatal(err)
	}
	g.refused(post(at, stale), protocol.CodeStale)
	forged := strings.Replace(string(g.sign(payer, g.key.Public(), refund).Bytes()), `"amount":1`, `"amount":2`, 1)
	g.refused(g.send("POST", at, mediaEnvelope, forged), protocol.CodeBadSignature)
	g.refused(g.signed(payer, "GET", "/contracts", protocol.TypeAccount), protocol.CodeWrongType)
	g.refused(g.send("GET", "/contracts", "", ""), protocol.CodeUnauthorized)
}

// TestOpeningsAreDear: an opening counts for many requests in the rates.
func TestOpeningsAreDear(t *testing.T) {
	g := newRig(t, func(c *Config) {
		c.Contracts = &forgetful{}
		c.Rates = Rates{Address: Rate{PerSecond: 0.001, Burst: openCost + 5}}
	})
	payer := newKey(t)
	open := &protocol.ContractOpen{Contract: protocol.ContractID{1}, Deposit: 1, Expiry: 1, Feerate: 1000, UserKey: protocol.ContractKey(append([]byte{2}, contractPoint(t)...)),
		UserScript: append(protocol.Script{0, 20}, make([]byte, 20)...), PSBT: "cHNidP8=", Writers: []protocol.ContractWriter{}}
	forged := strings.Replace(string(g.sign(payer, g.key.Public(), open).Bytes()), `"deposit":1`, `"deposit":2`, 1)
	g.refused(g.send("POST", "/contracts", mediaEnvelope, forged), protocol.CodeBadSignature)
	for range 5 {
		g.refused(g.signed(payer, "GET", "/account", protocol.TypeAccount), protocol.CodeNoAccount)
	}
	g.refused(g.signed(payer, "GET", "/account", protocol.TypeAccount), protocol.CodeRateAddress)
}

// contractPoint is the x coordinate of a point on the curve.
func contractPoint(t *testing.T) []byte {
	k := newKey(t).Public()
	return k[:]
}
