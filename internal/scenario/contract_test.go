package scenario_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow"
	"relaymarket/internal/regtest"
	"relaymarket/internal/scenario"
	"relaymarket/internal/testnode"
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
	m.problem(alice.post(path+"/refund", alice.closing(owed-1, 3_000)), protocol.CodeWrongAmount)
	alice.answer(alice.post(path+"/refund", alice.closing(owed, 3_000)), &status)
	m.problem(m.call(laptop, laptop.Write(bob.Key.Public(), "late", 8)), protocol.CodeContractEnded)
	m.mined(alice, 6)
	closed := alice.reaches(protocol.StateClosed)
	if got := m.paidBy(alice, closed, protocol.TxClosing); got != owed {
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

// Of two relayd on one database one keeps the wallet. The other opens a contract on an announcement of the first, takes writes
// and payments under it, and does so while the first is away.
func TestContractBesideTheWallet(t *testing.T) {
	keeper := newMarket(t, dear)
	other := keeper.beside()
	alice, laptop, bob := other.payer(), scenario.NewPerson(t, other.relay.Key), scenario.NewPerson(t, other.relay.Key)
	refused := keeper.problem(keeper.call(alice.Person, alice.Write(bob.Key.Public(), "early", 8)), protocol.CodeNoAccount)
	alice.plan(refused.Announcement, 100_000, 1000, laptop)
	var offer protocol.ContractServerInputs
	alice.answer(alice.open(), &offer)
	var status protocol.ContractStatus
	path := "/contracts/" + alice.asked.Contract.String()
	alice.answer(alice.post(path+"/signed", alice.agree(&offer)), &status)
	other.mined(alice, 6)
	alice.reaches(protocol.StateActive)
	keeper.relay.Stop()
	for i, id := range []string{"one", "two", "three"} {
		reply := other.call(laptop, laptop.Write(bob.Key.Public(), id, 8))
		if i < 2 {
			if reply.Status != http.StatusCreated {
				t.Fatalf("%d %s", reply.Status, reply.Body)
			}
			continue
		}
		other.problem(reply, protocol.CodePaymentDue) // to the millisatoshi, whoever keeps the wallet
	}
	alice.answer(alice.post(path+"/payments", alice.payment(alice.status().Owed)), &status)
	if reply := other.call(laptop, laptop.Write(bob.Key.Public(), "three", 8)); reply.Status != http.StatusCreated {
		t.Errorf("%d %s", reply.Status, reply.Body)
	}
	keeper.relay.Restart()
	if reply := keeper.call(alice.Person, alice.Write(bob.Key.Public(), "four", 8)); reply.Status != http.StatusCreated {
		t.Errorf("%d %s", reply.Status, reply.Body)
	}
}

// mined puts the funding, or what spends it, into a block as soon as the relay has sent it, and blocks on top.
func (m *market) mined(p *payer, blocks int) {
	m.t.Helper()
	var sent *protocol.ContractTx
	for deadline := time.Now().Add(chainPatience); sent == nil; time.Sleep(50 * time.Millisecond) {
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

// paidBy is what a transaction of the contract in the chain pays to the relay.
func (m *market) paidBy(p *payer, s *protocol.ContractStatus, kind string) (sum btcutil.Amount) {
	m.t.Helper()
	for _, tx := range s.Transactions {
		if tx.Kind != kind || tx.Confirmations == 0 {
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

// operate runs relayd contracts on the relay's database, as its operator does while it serves.
func (m *market) operate(dir string, args ...string) string {
	m.t.Helper()
	cmd := testnode.Command(m.t, append(append([]string{"contracts"}, args...), "--dir", dir, "--database-url", m.relay.DSN,
		"--bitcoin-rpc", m.coins.Host(), "--bitcoin-network", "regtest", "--bitcoin-tls", "no", "--bitcoin-user", regtest.User,
		"--bitcoin-password-file", filepath.Join(dir, "rpc.password"))...)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		_ = errors.As(err, &exit)
		m.t.Fatalf("relayd contracts %v: %v: %s", args, err, exit.Stderr)
	}
	return string(out)
}

// An operator looks at a contract whose user has paid once and vanished, exports it, and settles it: the relay broadcasts the
// highest state that the user signed, and has that on the chain, less the fee.
func TestOperatorSettles(t *testing.T) {
	m := newMarket(t, dear)
	alice, bob := m.payer(), scenario.NewPerson(t, m.relay.Key)
	refused := m.problem(m.call(alice.Person, alice.Write(bob.Key.Public(), "early", 8)), protocol.CodeNoAccount)
	alice.plan(refused.Announcement, 100_000, 1000)
	var offer protocol.ContractServerInputs
	alice.answer(alice.open(), &offer)
	id := alice.asked.Contract.String()
	var status protocol.ContractStatus
	alice.answer(alice.post("/contracts/"+id+"/signed", alice.agree(&offer)), &status)
	m.mined(alice, 6)
	alice.reaches(protocol.StateActive)
	if reply := m.call(alice.Person, alice.Write(bob.Key.Public(), "one", 8)); reply.Status != http.StatusCreated {
		t.Fatalf("%d %s", reply.Status, reply.Body)
	}
	const paid = 3_700
	alice.answer(alice.post("/contracts/"+id+"/payments", alice.payment(paid)), &status)

	dir := filepath.Join(testnode.Folder(t), "operator")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	secret := m.relay.Secret.Secret()
	for name, text := range map[string]string{"relay.key": hex.EncodeToString(secret[:]), "rpc.password": regtest.Password} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Its own seed signs nothing here: what is asked for is done by the relay that runs.
	if out, err := testnode.Command(t, "wallet", "init", "--dir", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if list := m.operate(dir, "list"); !strings.Contains(list, id) || !strings.Contains(list, "active") || !strings.Contains(list, "1 contracts, 1 live") {
		t.Errorf("%s", list)
	}
	if details := m.operate(dir, "show", id); !strings.Contains(details, alice.terms.Descriptor()) {
		t.Errorf("%s", details)
	}
	var export struct {
		Amount    btcutil.Amount             `json:"amount"`
		Seq       int64                      `json:"seq"`
		Signature protocol.ContractSignature `json:"signature"`
	}
	if err := json.Unmarshal([]byte(m.operate(dir, "export", id)), &export); err != nil || export.Amount != paid || export.Seq != 1 {
		t.Fatalf("%+v %v", export, err)
	}
	if err := escrow.VerifyState(&alice.terms, alice.out, export.Amount, export.Signature); err != nil {
		t.Errorf("with the export nobody can settle: %v", err)
	}
	m.operate(dir, "settle", id)
	m.mined(alice, 6)
	closed := alice.reaches(protocol.StateClosed)
	if got := m.paidBy(alice, closed, protocol.TxSettlement); got >= paid || got < paid-1_000 {
		t.Errorf("the relay has %d on the chain of %d", got, paid)
	}
	m.problem(m.call(alice.Person, alice.Write(bob.Key.Public(), "late", 8)), protocol.CodeNoAccount) // it is settled and forgotten
}
