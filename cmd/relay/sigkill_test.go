package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/jackc/pgx/v5"

	"relaymarket/escrow/userside"
	"relaymarket/internal/killpoint"
	"relaymarket/internal/regtest"
	"relaymarket/internal/testnode"
	"relaymarket/internal/testpg"
	"relaymarket/protocol"
)

const (
	lifeDeposit = 100_000 // satoshi
	lifeOpening = 1_000
	lifePayment = 250
	lifeCredit  = 800
)

// lives are contracts of one user with one relay, one after the other, on one chain and one database. The relay, its operator's
// commands and the user are real processes, which SIGKILL ends where the test wants it.
type lives struct {
	t       *testing.T
	bitcoin *regtest.Test
	relay   *testnode.Process
	alice   *terminal
	db      *pgx.Conn
	node    []string           // flags of relayd's commands
	key     protocol.PublicKey // the user's
	scripts [][]byte           // that the relay was paid to beside its contracts

	n      int // the number of the life
	deaths int // of the relay, its operator and the user, in all lives
	// Of this life.
	relayDies, aliceDies int // the steps after the turn at which they die; 0: they do not
	relayDied, aliceDied bool
	armed                bool     // the turn has come
	away                 bool     // the relay is gone, and nobody starts it again
	relaySteps           []string // that it reached since the turn
	aliceSteps           []string // of her command that had most
	ids                  []string // its contracts, in the order they were opened
	began                int      // height
	before               btcutil.Amount
}

func newLives(t *testing.T, bond int) *lives {
	t.Helper()
	l := &lives{t: t, bitcoin: regtest.Start(t, regtest.Plain)}
	dir, dsn, password := testnode.Folder(t), testpg.New(t), filepath.Join(t.TempDir(), "rpc.password")
	if err := os.WriteFile(password, []byte(regtest.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.node = []string{"--bitcoin-rpc", l.bitcoin.Host(), "--bitcoin-tls", "no", "--bitcoin-user", regtest.User, "--bitcoin-password-file", password,
		"--bitcoin-network", "regtest", "--feerate-ceiling", "2000"}
	for _, args := range [][]string{{"init", "--dir", dir}, {"wallet", "init", "--dir", dir}} {
		if out, err := exec.Command(filepath.Join(testnode.Mortal(t), "relayd"), args...).CombinedOutput(); err != nil {
			t.Fatalf("relayd %v: %v\n%s", args, err, out)
		}
	}
	l.relay = testnode.StartProcess(t, testnode.ProcessOptions{Dir: dir, DSN: dsn, Mortal: true, Args: append([]string{"--opening-price", fmt.Sprint(lifeOpening),
		"--credit-limit", fmt.Sprint(lifeCredit), "--min-deposit", "10000", "--bond-percent", fmt.Sprint(bond)}, l.node...)})
	var err error
	if l.db, err = pgx.Connect(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.db.Close(t.Context()) })
	if bond > 0 {
		l.relayEarns(3 * lifeDeposit)
	}
	l.alice = user(t)
	l.alice.program = filepath.Join(testnode.Mortal(t), "relay")
	l.key = l.alice.key()
	l.alice.connects(l.bitcoin)
	l.alice.earns(l.bitcoin, 4*lifeDeposit)
	l.alice.stdin = l.alice.runs("id", "--card", "-")
	l.alice.runs("friend", "add", "-", "--name", "me")
	l.alice.stdin = ""
	return l
}

// relayEarns pays to the relay's wallet.
func (l *lives) relayEarns(amount btcutil.Amount) {
	l.t.Helper()
	args := append([]string{"wallet", "--json", "--dir", l.relay.Dir, "--operator-listen", strings.TrimPrefix(l.relay.OperatorURL, "http://")}, l.node...)
	out, err := exec.Command(filepath.Join(testnode.Mortal(l.t), "relayd"), args...).Output()
	if err != nil {
		l.t.Fatalf("relayd wallet: %v", err)
	}
	var view struct{ Address string }
	if err := json.Unmarshal(out, &view); err != nil {
		l.t.Fatal(err)
	}
	to, err := address.DecodeAddress(view.Address, &chaincfg.RegressionNetParams)
	if err != nil {
		l.t.Fatal(err)
	}
	script, err := txscript.PayToAddrScript(to)
	if err != nil {
		l.t.Fatal(err)
	}
	l.scripts = append(l.scripts, script)
	l.bitcoin.Fund(to, amount)
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

// came tells whether a program came to the step at which it is to die.
func came(log string, dies int) bool {
	return dies > 0 && strings.Contains(log, fmt.Sprintf("killpoint %d ", dies))
}

// starts has the relay start, to die at its step n; 0: it does not.
func (l *lives) starts(n int) {
	l.t.Helper()
	l.relay.KillAt = n
	l.relay.Start()
}

// revive starts the relay again if it has died.
func (l *lives) revive() {
	l.t.Helper()
	if l.away || !l.relay.Ended() {
		return
	}
	if code := l.relay.Wait(); code != -1 {
		l.t.Fatalf("relayd was not killed, but ended with %d\n%s", code, l.relay.Log())
	}
	l.relaySteps = append(l.relaySteps, stepsIn(l.relay.Log())...)
	l.deaths++
	l.relayDied = true
	l.rules()
	l.starts(0)
}

// turn is where the steps begin at which a life is interrupted. The relay is killed here in any case.
func (l *lives) turn() {
	l.t.Helper()
	l.revive()
	l.relay.Kill()
	l.armed = true
	l.starts(l.relayDies)
}

// until waits, and starts the relay again when it dies meanwhile.
func (l *lives) until(what string, done func() bool) {
	l.t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		l.revive()
		if time.Now().After(deadline) {
			l.t.Fatalf("life %d: it does not come to this: %s\n%s", l.n, what, l.relay.Log())
		}
	}
}

// types types a command. If the user is to die, it is killed at its step number dies.
func (l *lives) types(dies int, args ...string) (out, errs string, code int) {
	l.t.Helper()
	l.revive()
	l.alice.env = []string{"RELAY_PASSPHRASE=" + passphrase, fmt.Sprintf("%s=%d", killpoint.Variable, dies)}
	out, errs, code = l.alice.types(args...)
	l.alice.env = l.alice.env[:1]
	if steps := stepsIn(errs); l.armed && len(steps) > len(l.aliceSteps) {
		l.aliceSteps = steps
	}
	if came(errs, dies) && code != -1 {
		l.t.Errorf("life %d: relay %s was to die at step %d, and ended with exit %d:\n%s", l.n, strings.Join(args, " "), dies, code, errs)
	}
	if code == -1 {
		l.deaths++
		l.aliceDied = true
		l.rules()
	}
	return out, errs, code
}

// does types a command until it succeeds: who was killed repeats it, or what next makes of it. It is killed once.
func (l *lives) does(next func() []string) {
	l.t.Helper()
	dies := 0
	if l.armed {
		dies = l.aliceDies
	}
	for deadline := time.Now().Add(patience); ; {
		args := next()
		if args == nil {
			return
		}
		out, errs, code := l.types(dies, args...)
		if code == 0 {
			return
		}
		dies = 0
		if time.Now().After(deadline) {
			l.t.Fatalf("life %d: relay %s: exit %d\n%s%s\n%s", l.n, strings.Join(args, " "), code, out, errs, l.relay.Log())
		}
		if code != -1 {
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// operates types a command of the operator on the newest contract. Its process dies once what it asks for is durable; then it is
// typed again.
func (l *lives) operates(command string) {
	l.t.Helper()
	l.revive()
	args := append([]string{"contracts", command, l.id(), "--dir", l.relay.Dir, "--database-url", l.relay.DSN}, l.node...)
	for _, dies := range []int{1, 0} {
		cmd := exec.Command(filepath.Join(testnode.Mortal(l.t), "relayd"), args...)
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", killpoint.Variable, dies))
		out, err := cmd.CombinedOutput()
		if died := cmd.ProcessState.ExitCode() == -1; died {
			l.deaths++
		} else if dies > 0 || err != nil {
			l.t.Fatalf("life %d: relayd contracts %s, killed at step %d: %v\n%s", l.n, command, dies, err, out)
		}
	}
}

// id is the newest contract's.
func (l *lives) id() string { return l.ids[len(l.ids)-1] }

// mine is the contract that is being opened, as the user has it; nil if there is none.
func (l *lives) mine() *contractItem {
	l.t.Helper()
	var list struct{ Contracts []contractItem }
	l.alice.json(&list, "contract", "list")
	for i := range list.Contracts {
		c := &list.Contracts[i]
		if l.opened(c.ID) || c.State == string(protocol.StateClosed) {
			continue
		}
		return c
	}
	return nil
}

func (l *lives) opened(id string) bool {
	for _, known := range l.ids {
		if known == id {
			return true
		}
	}
	return false
}

// record is a contract on the user's disk.
func (l *lives) record(id string) *userside.Record {
	l.t.Helper()
	store, err := userside.OpenStore(l.t.Context(), filepath.Join(l.alice.dir, contractsFile), nil, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	found, err := store.Find(l.t.Context(), id)
	if err != nil || len(found) != 1 {
		l.t.Fatalf("contract %s: %d found, %v", id, len(found), err)
	}
	return &found[0]
}
