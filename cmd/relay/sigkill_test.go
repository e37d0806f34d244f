package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/internal/killpoint"
	"relaymarket/internal/regtest"
	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
	"relaymarket/protocol"
)

const (
	lifeDeposit  = 100_000 // satoshi
	lifeOpening  = 1_000
	lifePayment  = 250
	lifePatience = time.Minute
)

// lives are contracts of one user with one relay, one after the other, on one chain and one database. The relay and the user are
// real processes, which SIGKILL ends where the test wants it.
type lives struct {
	t       *testing.T
	bitcoin *regtest.Test
	relay   *testnode.Process
	alice   *terminal
	db      *pgx.Conn

	n      int // the number of the life
	deaths int // of the relay and of the user, in all lives
	// Of this life: when the relay and the user die (0: they do not), and the steps that they reached.
	relayDies, aliceDies int
	relaySteps           []string
	aliceSteps           map[string][]string // by command
	id                   string
}

func newLives(t *testing.T) *lives {
	t.Helper()
	l := &lives{t: t, bitcoin: regtest.Start(t, regtest.Plain)}
	dir := testnode.Folder(t)
	for _, args := range [][]string{{"init", "--dir", dir}, {"wallet", "init", "--dir", dir}} {
		if out, err := exec.Command(filepath.Join(testnode.Mortal(t), "relayd"), args...).CombinedOutput(); err != nil {
			t.Fatalf("relayd %v: %v\n%s", args, err, out)
		}
	}
	password := filepath.Join(t.TempDir(), "rpc.password")
	if err := os.WriteFile(password, []byte(regtest.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dsn := testpg.New(t)
	l.relay = testnode.StartProcess(t, testnode.ProcessOptions{Dir: dir, DSN: dsn, Mortal: true, Args: []string{
		"--bitcoin-rpc", l.bitcoin.Host(), "--bitcoin-tls", "no", "--bitcoin-user", regtest.User, "--bitcoin-password-file", password,
		"--bitcoin-network", "regtest", "--opening-price", fmt.Sprint(lifeOpening), "--credit-limit", "800", "--min-deposit", "10000"}})
	var err error
	if l.db, err = pgx.Connect(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.db.Close(t.Context()) })

	l.alice = user(t)
	l.alice.program = filepath.Join(testnode.Mortal(t), "relay")
	l.alice.connects(l.bitcoin)
	// A process that dies before it has written the contract down leaves its coins reserved for half an hour.
	for range 4 {
		l.alice.earns(l.bitcoin, 3*lifeDeposit)
	}
	l.alice.stdin = l.alice.runs("id", "--card", "-")
	l.alice.runs("friend", "add", "-", "--name", "me")
	l.alice.stdin = ""
	return l
}

// sql reads one value of the relay's database.
func (l *lives) sql(into any, query string, args ...any) {
	l.t.Helper()
	if err := l.db.QueryRow(l.t.Context(), query, args...).Scan(into); err != nil {
		l.t.Fatalf("%s: %v", query, err)
	}
}

var passed = regexp.MustCompile(`(?m)^killpoint \d+ (.+)$`)

func stepsIn(log string) (steps []string) {
	for _, match := range passed.FindAllStringSubmatch(log, -1) {
		steps = append(steps, match[1])
	}
	return steps
}

// revive starts the relay again if it has died, and tells whether it had.
func (l *lives) revive() bool {
	l.t.Helper()
	if !l.relay.Ended() {
		return false
	}
	if code := l.relay.Wait(); code != -1 {
		l.t.Fatalf("relayd was not killed, but ended with %d\n%s", code, l.relay.Log())
	}
	l.relaySteps = append(l.relaySteps, stepsIn(l.relay.Log())...)
	l.deaths++
	l.stored()
	l.relay.KillAt = 0
	l.relay.Start()
	return true
}

// stored holds the mempool against the database of the dead relay: what was sent is stored, in the same instant.
func (l *lives) stored() {
	l.t.Helper()
	rpc, err := l.bitcoin.RPC()
	if err != nil {
		l.t.Fatal(err)
	}
	waiting, err := rpc.GetRawMempool()
	if err != nil {
		l.t.Fatal(err)
	}
	for _, id := range waiting {
		var known bool
		if l.sql(&known, `SELECT EXISTS (SELECT FROM contract_transactions WHERE txid = $1)`, id[:]); !known {
			l.t.Errorf("life %d: the relay died, and %v is sent and not stored", l.n, id)
		}
	}
}

// until waits, and starts the relay again when it dies meanwhile.
func (l *lives) until(what string, done func() bool) {
	l.t.Helper()
	for deadline := time.Now().Add(lifePatience); !done(); time.Sleep(30 * time.Millisecond) {
		l.revive()
		if time.Now().After(deadline) {
			l.t.Fatalf("life %d: it does not come to this: %s\n%s", l.n, what, l.relay.Log())
		}
	}
}

// types types a command. If the user is to die, it is killed at its step number aliceDies; killed tells so.
func (l *lives) types(args ...string) (out, errs string, code int, killed bool) {
	l.t.Helper()
	l.revive()
	l.alice.env = []string{"RELAY_PASSPHRASE=" + passphrase, fmt.Sprintf("%s=%d", killpoint.Variable, l.aliceDies)}
	out, errs, code = l.alice.types(args...)
	if l.aliceSteps != nil {
		name := strings.Join(args[:min(2, len(args))], " ")
		l.aliceSteps[name] = append(l.aliceSteps[name], stepsIn(errs)...)
	}
	if killed = code == -1; killed {
		l.deaths++
	}
	return out, errs, code, killed
}

// does types a command until it succeeds: whoever was killed repeats it, or what next makes of it.
func (l *lives) does(next func() []string) {
	l.t.Helper()
	dies := l.aliceDies
	defer func() { l.aliceDies = dies }()
	for deadline := time.Now().Add(lifePatience); ; {
		args := next()
		if args == nil {
			return
		}
		out, errs, code, killed := l.types(args...)
		if code == 0 {
			return
		}
		l.aliceDies = 0 // once in a command
		if time.Now().After(deadline) {
			l.t.Fatalf("life %d: relay %s: exit %d\n%s%s\n%s", l.n, strings.Join(args, " "), code, out, errs, l.relay.Log())
		}
		if !killed {
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// mine is the contract of this life, as the user has it; nil if there is none.
func (l *lives) mine() *contractItem {
	l.t.Helper()
	var list struct{ Contracts []contractItem }
	dies := l.aliceDies
	l.aliceDies = 0
	l.alice.env = l.alice.env[:1]
	l.alice.json(&list, "contract", "list")
	l.aliceDies = dies
	for i := range list.Contracts {
		if c := &list.Contracts[i]; c.State != string(protocol.StateClosed) {
			return c
		}
	}
	return nil
}

// life is a contract from its opening to its end: a paid write, a payment, and a cooperative closing. Then everything is
// counted.
func (l *lives) life() {
	l.t.Helper()
	l.n++
	l.relaySteps, l.aliceSteps = nil, map[string][]string{}
	before, height := l.balance(), l.bitcoin.Height()
	if l.n == 1 || l.relayDies > 0 || l.relay.KillAt > 0 {
		l.relay.Kill()
		l.relay.KillAt = l.relayDies
		l.relay.Start()
	}

	l.does(func() []string {
		switch c := l.mine(); {
		case c == nil:
			return []string{"contract", "open", l.relay.URL, "--deposit", fmt.Sprint(lifeDeposit), "--wait", "0", "--yes"}
		case c.Step == "taken":
			return nil
		default:
			return []string{"contract", "resume", c.ID, "--wait", "0"}
		}
	})
	l.id = l.mine().ID
	l.mined(1)
	l.until("the contract is active", func() bool { return l.state() == string(protocol.StateActive) })
	l.does(func() []string { return []string{"contract", "resume", l.id} }) // notes the funding's block, and adds the relay
	text := fmt.Sprintf("words of life %d", l.n)
	sent := false
	l.does(func() []string {
		if sent {
			return []string{"inbox"} // sends what was not delivered
		}
		sent = true
		return []string{"send", "me", text}
	})

	const amount = lifeOpening + lifePayment
	credit := l.credit()
	l.does(func() []string {
		if l.mine().Paid == amount {
			return []string{"contract", "pay", l.id, "0", "--yes"} // it is signed, and perhaps not sent
		}
		return []string{"contract", "pay", l.id, fmt.Sprint(lifePayment), "--yes"}
	})
	var held int64
	l.sql(&held, `SELECT amount FROM contracts WHERE encode(id, 'hex') = $1`, l.id)
	if more := l.credit() - credit; held != amount || more != lifePayment*1000 {
		l.t.Errorf("life %d: %d sat were paid; the relay holds a state of %d, and the account has credit for %d msat more", l.n, amount, held, more)
	}

	l.does(func() []string { return []string{"contract", "close", l.id, "--yes"} })
	l.mined(6)
	l.until("the contract is closed", func() bool { return l.state() == string(protocol.StateClosed) })
	l.does(func() []string { return []string{"contract", "watch", "--once"} })
	l.counts(height, before, amount)
	l.reads(text)
	if !l.revive() {
		l.relaySteps = append(l.relaySteps, stepsIn(l.relay.Log())...)
	}
}

// state is the contract's in the relay's database.
func (l *lives) state() (state string) {
	l.t.Helper()
	l.sql(&state, `SELECT state FROM contracts WHERE encode(id, 'hex') = $1`, l.id)
	return state
}

// credit is the account's, in millisatoshi.
func (l *lives) credit() (msat int64) {
	l.t.Helper()
	l.sql(&msat, `SELECT credit FROM accounts WHERE encode(contract, 'hex') = $1`, l.id)
	return msat
}

// mined waits for a transaction of the contract in the mempool, and mines.
func (l *lives) mined(blocks int) {
	l.t.Helper()
	rpc, err := l.bitcoin.RPC()
	if err != nil {
		l.t.Fatal(err)
	}
	l.until("a transaction is sent", func() bool {
		waiting, err := rpc.GetRawMempool()
		if err != nil {
			l.t.Fatal(err)
		}
		return len(waiting) > 0
	})
	l.bitcoin.Mine(blocks)
}

func (l *lives) balance() btcutil.Amount {
	l.t.Helper()
	l.alice.env = []string{"RELAY_PASSPHRASE=" + passphrase}
	return l.alice.balance()
}

// counts holds the chain of this life against what was agreed: one funding, one closing and nothing else, each satoshi
// where it belongs.
func (l *lives) counts(from int, before, paid btcutil.Amount) {
	t := l.t
	t.Helper()
	rpc, err := l.bitcoin.RPC()
	if err != nil {
		t.Fatal(err)
	}
	var txs []*wire.MsgTx
	for height := from + 1; height <= l.bitcoin.Height(); height++ {
		hash, err := rpc.GetBlockHash(int64(height))
		if err != nil {
			t.Fatal(err)
		}
		block, err := rpc.GetBlock(hash)
		if err != nil {
			t.Fatal(err)
		}
		txs = append(txs, block.Transactions[1:]...)
	}
	if len(txs) != 2 || len(txs[1].TxIn) != 1 || txs[1].TxIn[0].PreviousOutPoint != (wire.OutPoint{Hash: txs[0].TxHash()}) {
		t.Fatalf("life %d: %d transactions were mined, not a funding and a closing of it: %v", l.n, len(txs), txs)
	}
	var script []byte
	l.sql(&script, `SELECT decode(terms->>'RelayScript', 'hex') FROM contracts WHERE encode(id, 'hex') = $1`, l.id)
	var relay, fees btcutil.Amount
	for _, tx := range txs {
		for _, in := range tx.TxIn {
			fees += btcutil.Amount(l.bitcoin.Transaction(in.PreviousOutPoint.Hash).TxOut[in.PreviousOutPoint.Index].Value)
		}
		for _, out := range tx.TxOut {
			fees -= btcutil.Amount(out.Value)
			if slices.Equal(out.PkScript, script) {
				relay += btcutil.Amount(out.Value)
			}
		}
	}
	if escrow := txs[0].TxOut[0]; escrow.Value != lifeDeposit || txscript.GetScriptClass(escrow.PkScript) != txscript.WitnessV0ScriptHashTy {
		t.Errorf("life %d: the escrow is %+v", l.n, escrow)
	}
	if spent := before - l.balance(); relay != paid || spent != paid+fees {
		t.Errorf("life %d: %d sat were paid; the relay has %d of them on the chain, and the user is %d poorer, %d of them for fees", l.n, paid, relay, spent, fees)
	}
}

// reads finds the record of this life, once.
func (l *lives) reads(text string) {
	l.t.Helper()
	l.alice.env = []string{"RELAY_PASSPHRASE=" + passphrase}
	var out string
	l.until("the inbox is read", func() bool {
		read, _, code := l.alice.types("inbox", "--all", "--json")
		out = read
		return code == 0
	})
	var in struct{ Messages []struct{ Text string } }
	if err := json.Unmarshal([]byte(out), &in); err != nil {
		l.t.Fatalf("%v in %s", err, out)
	}
	n := 0
	for _, m := range in.Messages {
		if m.Text == text {
			n++
		}
	}
	if n != 1 {
		l.t.Errorf("life %d: the message is there %d times: %s", l.n, n, out)
	}
}

// everywhere is the variable that asks, with the value "all", for a death at every step; without it there are some.
const everywhere = "SIGKILL"

// moments are those of 1 to last at which a test kills: the first two, the last, and some between.
func moments(last int) []int {
	const some = 3
	between := make([]int, 0, last)
	for n := 3; n < last; n++ {
		between = append(between, n)
	}
	draw := rand.New(rand.NewPCG(7, uint64(last)))
	draw.Shuffle(len(between), func(i, j int) { between[i], between[j] = between[j], between[i] })
	picked := append([]int{1, 2, last}, between[:min(some, len(between))]...)
	slices.Sort(picked)
	return picked
}

// dies lives with a death at step n, for the first, the last of those known, and some between; or for every n until a life
// passes without a death.
func (l *lives) dies(last int, at *int) {
	l.t.Helper()
	began, tried := l.deaths, 0
	defer func() {
		*at = 0
		l.t.Logf("killed %d times in %d lives", l.deaths-began, tried)
	}()
	try := func(n int) bool {
		before := l.deaths
		tried++
		*at = n
		l.life()
		// Whether the last step is reached before the test has seen enough is a matter of moments.
		if l.deaths == before && n < last {
			l.t.Errorf("life %d: nobody died at step %d of %d", l.n, n, last)
		}
		return l.deaths > before
	}
	if os.Getenv(everywhere) == "all" {
		for n := 1; try(n) || n < last; n++ {
			continue
		}
		return
	}
	for _, n := range moments(last) {
		try(n)
	}
}

// A contract is opened, used, paid and closed, again and again; each time the relay, or each command of the user, is ended by SIGKILL
// at another durable step, and started again. Each time it comes out as if nothing had happened.
func TestKilledAtEachStep(t *testing.T) {
	l := newLives(t)
	l.life()
	l.killsRelay()
	l.killsUser()
}

func (l *lives) killsRelay() {
	l.t.Helper()
	steps := l.relaySteps
	l.t.Logf("the relay has %d steps: %s", len(steps), strings.Join(steps, ", "))
	for _, step := range []string{"offered", "signed", "sent", "block", "advanced", "paid", "closing"} {
		if !slices.Contains(steps, step) {
			l.t.Errorf("the step %q was not reached", step)
		}
	}
	l.dies(len(steps), &l.relayDies)
}

func (l *lives) killsUser() {
	l.t.Helper()
	l.life() // as the later ones are: there were others before it
	last := 0
	for _, command := range []string{"contract open", "contract pay", "contract close"} {
		steps := l.aliceSteps[command]
		l.t.Logf("%s has %d steps: %s", command, len(steps), strings.Join(steps, ", "))
		if !slices.Contains(steps, "writing") || !slices.Contains(steps, "written") {
			l.t.Errorf("%s has no steps", command)
		}
		last = max(last, len(steps))
	}
	l.dies(last, &l.aliceDies)
}
