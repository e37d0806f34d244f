package scenario_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/internal/scenario"
	"relaymarket/protocol"
)

// dear makes a small record cost some 670 satoshi.
var dear = protocol.ContractOffer{StorageMsatPerGBDay: 1_000_000_000, BandwidthMsatPerGB: 150_000_000_000, OpeningPrice: 3_000, CreditLimit: 1_500, MinPrepay: 20_000}

// A stranger writes and is refused with the relay's offer. He opens a contract on it, over HTTP and a real Bitcoin node,
// writes himself and from another key, runs out of credit, pays, writes on, and ends the contract: the relay has on the
// chain what he paid, to the satoshi, and takes no more writes, while what is stored is still read.
func TestContractOverHTTP(t *testing.T) {
	m := newMarket(t, dear)
	alice, laptop, bob := m.payer(), scenario.NewPerson(t, m.relay.Key), scenario.NewPerson(t, m.relay.Key)

	// 402 carries the offer.
	refused := m.problem(m.call(alice.Person, alice.Write(bob.Key.Public(), "early", 8)), protocol.CodeNoAccount)
	alice.plan(refused.Announcement, 100_000, 1000, laptop)

	var offer, again protocol.ContractServerInputs
	alice.answer(alice.open(), &offer)
	alice.answer(alice.post("/contracts", alice.asked), &again)
	if again.PSBT != offer.PSBT || again.RelayKey != offer.RelayKey {
		t.Error("the same opening again is answered differently")
	}
	signed := alice.agree(&offer)
	path := "/contracts/" + alice.asked.Contract.String()
	var status protocol.ContractStatus
	alice.answer(alice.post(path+"/signed", signed), &status)
	alice.answer(alice.post(path+"/signed", signed), &status)
	if status.State != protocol.StateFunding || status.Amount != dear.OpeningPrice {
		t.Fatalf("%+v", status)
	}

	// No credit before the funding is confirmed.
	if p := m.problem(m.call(alice.Person, alice.Write(bob.Key.Public(), "unconfirmed", 8)), protocol.CodePaymentDue); p.Announcement == nil {
		t.Error("402 without the offer")
	}
	m.mined(alice, 6)
	alice.reaches(protocol.StateActive)
	for i, by := range []*scenario.Person{alice.Person, laptop} {
		if reply := m.call(by, by.Write(bob.Key.Public(), "paid", 8)); reply.Status != http.StatusCreated {
			t.Fatalf("write %d: %d %s", i, reply.Status, reply.Body)
		}
	}
	account := m.account(laptop)
	if account.Kind != "contract" || account.Key != alice.Key.Public() || account.Contract.Contract != alice.asked.Contract || account.Contract.CreditMsat != "1500000" {
		t.Errorf("%+v", account)
	}

	// The credit is used; a payment gives more.
	m.problem(m.call(alice.Person, alice.Write(bob.Key.Public(), "third", 8)), protocol.CodePaymentDue)
	status = *alice.status()
	if status.Owed <= dear.OpeningPrice || status.Owed > dear.OpeningPrice+dear.CreditLimit || status.Due == nil {
		t.Fatalf("%+v", status)
	}
	pay := alice.payment(status.Due.Amount)
	for range 2 {
		alice.answer(alice.post(path+"/payments", pay), &status)
		if status.Seq != 1 || status.Amount != pay.Amount {
			t.Fatalf("%+v", status)
		}
	}
	if reply := m.call(alice.Person, alice.Write(bob.Key.Public(), "third", 8)); reply.Status != http.StatusCreated {
		t.Fatalf("%d %s", reply.Status, reply.Body)
	}

	// The end: too little is refused, what is owed ends it.
	owed := alice.status().Owed
	m.problem(alice.post(path+"/refund", alice.closing(owed-1, 1_000)), protocol.CodeWrongAmount)
	alice.answer(alice.post(path+"/refund", alice.closing(owed, 1_000)), &status)
	m.problem(m.call(laptop, laptop.Write(bob.Key.Public(), "late", 8)), protocol.CodeContractEnded)
	m.mined(alice, 6)
	closed := alice.reaches(protocol.StateClosed)
	if got := m.paidByClosing(alice, closed); got != owed {
		t.Errorf("the relay has %d on the chain, was owed %d", got, owed)
	}
	reply := m.call(bob, bob.Pull("page-1", nil, 10, alice.Key.Public(), laptop.Key.Public()))
	if page, err := protocol.ReadPage(bytes.NewReader(reply.Body)); err != nil || len(page.Lines) != 3 {
		t.Errorf("what is stored is not read: %d %s %v", reply.Status, reply.Body, err)
	}
	var list protocol.ContractList
	alice.answer(alice.read("/contracts"), &list)
	if len(list.Contracts) != 1 || list.Contracts[0].Contract != alice.asked.Contract {
		t.Errorf("%+v", list)
	}
}

// Steps that do not belong together are refused with their code, and nothing comes of them.
func TestContractRefusals(t *testing.T) {
	m := newMarket(t, dear)
	alice, mallory := m.payer(), m.payer()
	refused := m.problem(m.call(alice.Person, alice.Write(mallory.Key.Public(), "early", 8)), protocol.CodeNoAccount)
	alice.plan(refused.Announcement, 100_000, 1000)
	path := "/contracts/" + alice.asked.Contract.String()
	var offer protocol.ContractServerInputs
	alice.answer(alice.open(), &offer)
	signed := alice.agree(&offer)

	// Nobody else learns that it exists, and another's signature is not hers.
	m.problem(mallory.read(path), protocol.CodeNotFound)
	m.problem(mallory.post(path+"/signed", signed), protocol.CodeNotFound)
	// The path and the body name one contract.
	other := *signed
	other.Contract[0] ^= 1
	m.problem(alice.post(path+"/signed", &other), protocol.CodeMismatch)
	m.problem(alice.post(path+"/payments", signed), protocol.CodeWrongType)
	m.problem(alice.post(path+"/payments", alice.payment(4_000)), protocol.CodeNotFound)
	// Other content under the same id.
	changed := *alice.asked
	changed.Deposit++
	m.problem(alice.post("/contracts", &changed), protocol.CodeConflict)
	// An announcement that is not the relay's.
	foreign := *alice.asked
	foreign.Contract[0] ^= 1
	foreign.Announcement[0] ^= 1
	m.problem(alice.post("/contracts", &foreign), protocol.CodeTerms)
	m.problem(alice.read("/contracts/"+foreign.Contract.String()), protocol.CodeNotFound)
	// A writer whom nobody asked.
	unasked := *alice.asked
	unasked.Contract[1] ^= 1
	consent, err := protocol.Sign(mallory.Key, m.relay.Key, protocol.TimestampOf(time.Now()), &protocol.ContractConsent{Contract: alice.asked.Contract, Payer: alice.Key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	unasked.Writers = []protocol.ContractWriter{{Key: mallory.Key.Public(), Consent: consent.Bytes()}}
	m.problem(alice.post("/contracts", &unasked), protocol.CodeConsent)

	// The node goes away: nothing new is opened, what is open goes on.
	var status protocol.ContractStatus
	alice.answer(alice.post(path+"/signed", signed), &status)
	m.mined(alice, 6)
	alice.reaches(protocol.StateActive)
	m.coins.Stop()
	next := *alice.asked
	next.Contract[2] ^= 1
	m.problem(mallory.post("/contracts", &next), protocol.CodeChainStale)
	if reply := m.call(alice.Person, alice.Write(mallory.Key.Public(), "meanwhile", 8)); reply.Status != http.StatusCreated {
		t.Errorf("%d %s", reply.Status, reply.Body)
	}
}

// mined puts the funding, or what spends it, into a block as soon as the relay has sent it, and blocks on top.
func (m *market) mined(p *payer, blocks int) {
	m.t.Helper()
	var sent *protocol.ContractTx
	for deadline := time.Now().Add(30 * time.Second); sent == nil; time.Sleep(50 * time.Millisecond) {
		for _, tx := range p.status().Transactions {
			if tx.Confirmations == 0 && m.coins.InMempool(wireID(tx.TxID)) {
				sent = &tx
			}
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("nothing of the contract is in the mempool: %+v", p.status())
		}
	}
	m.coins.Mine(blocks)
}

// paidByClosing is what the closing transaction in the chain pays to the relay.
func (m *market) paidByClosing(p *payer, s *protocol.ContractStatus) (sum btcutil.Amount) {
	m.t.Helper()
	for _, tx := range s.Transactions {
		if tx.Kind != protocol.TxClosing || tx.Confirmations == 0 {
			continue
		}
		for _, out := range m.coins.Transaction(wireID(tx.TxID)).TxOut {
			if string(out.PkScript) == string(p.terms.RelayScript) {
				sum += btcutil.Amount(out.Value)
			}
		}
	}
	return sum
}

func wireID(id protocol.TxID) (hash [32]byte) {
	for i, b := range id {
		hash[len(id)-1-i] = b
	}
	return hash
}

// account is what GET /account says.
func (m *market) account(p *scenario.Person) (a struct {
	Key      protocol.PublicKey `json:"key"`
	Kind     string             `json:"kind"`
	Contract struct {
		Contract   protocol.ContractID `json:"contract"`
		CreditMsat string              `json:"creditMsat"`
		CostMsat   string              `json:"costMsat"`
	} `json:"contract"`
}) {
	m.t.Helper()
	reply := m.call(p, scenario.Call{Method: http.MethodGet, Path: "/account", Type: protocol.TypeAccount})
	if err := json.Unmarshal(reply.Body, &a); err != nil || reply.Status != http.StatusOK {
		m.t.Fatalf("%d %s", reply.Status, reply.Body)
	}
	return a
}
