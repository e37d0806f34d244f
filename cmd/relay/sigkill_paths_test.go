package main

import (
	"encoding/json"
	"fmt"

	"relaymarket/protocol"
)

// path is one way a contract can go, from its opening to its end.
type path struct {
	name  string
	bond  int // percent of the deposit
	live  func(*lives) bill
	relay []string // steps that the relay reaches after the turn
}

// bill is what a life comes to: its transactions in the order of their blocks, and what the relay was paid in all.
type bill struct {
	kinds []string
	paid  int64
}

var paths = []path{
	{name: "cooperative close", live: (*lives).closes, relay: []string{"offered", "signed", "sent", "block", "advanced", "paid", "closing"}},
	{name: "with a bond", bond: 20, live: (*lives).closes, relay: []string{"offered", "signed", "kept", "funded", "sent", "block", "advanced", "paid", "closing"}},
	{name: "payment request", live: (*lives).requests, relay: []string{"block", "advanced"}},
	{name: "unilateral settlement", live: (*lives).settles, relay: []string{"advanced", "sent", "block"}},
	{name: "refund at T", live: (*lives).refunds, relay: []string{"block", "advanced"}},
	{name: "renewal", live: (*lives).renews, relay: []string{"offered", "signed", "sent", "block", "advanced", "paid", "closing"}},
}

// closes is opened, written under, paid and closed by both.
func (l *lives) closes() bill {
	l.turn()
	l.opens("contract", "open", l.relay.URL, "--deposit", fmt.Sprint(lifeDeposit), "--feerate", "2", "--wait", "0", "--yes")
	l.written()
	l.pays(lifePayment)
	l.does(func() []string { return []string{"contract", "close", l.id(), "--feerate", "2", "--yes"} })
	l.mined(1)
	l.ends()
	return bill{[]string{protocol.TxFunding, protocol.TxClosing}, lifeOpening + lifePayment}
}

// requests is ended by the relay, which asks for what is due, and by the user, who agrees.
func (l *lives) requests() bill {
	l.established()
	l.turn()
	l.operates("request")
	l.does(func() []string {
		if r := l.record(l.id()); r.Confirmed(protocol.TxClosing) != nil || len(r.Transactions) > 1 {
			return []string{"contract", "watch", "--once"} // agreed to, and perhaps not sent
		}
		return []string{"contract", "close", l.id(), "--feerate", "2", "--yes"}
	})
	l.mined(1)
	l.ends()
	return bill{[]string{protocol.TxFunding, protocol.TxClosing}, lifeOpening + lifePayment}
}

// settles is ended by the relay alone. What that leaves is swept by the user.
func (l *lives) settles() bill {
	l.established()
	l.turn()
	l.operates("settle")
	l.mined(1)
	l.does(func() []string { return []string{"contract", "watch", "--once"} })
	l.mined(1)
	l.ends()
	return bill{[]string{protocol.TxFunding, protocol.TxSettlement, protocol.TxSweep}, lifeOpening + lifePayment}
}

// refunds is ended by the user alone, at T, as the relay is gone. The relay comes back when it is over.
func (l *lives) refunds() bill {
	l.established("--days", "6")
	terms, _, _ := l.record(l.id()).Terms()
	l.revive()
	l.relay.Kill()
	l.armed, l.away = true, true
	l.bitcoin.Mine(int(terms.Expiry) - l.bitcoin.Height())
	l.does(func() []string { return []string{"contract", "refund", l.id(), "--yes"} })
	l.mined(1)
	l.away = false
	l.starts(l.relayDies)
	l.ends()
	return bill{[]string{protocol.TxFunding, protocol.TxRefund}, 0}
}

// renews goes on in a second contract, whose funding spends the first one's escrow; paid meanwhile, and closed.
func (l *lives) renews() bill {
	l.established()
	l.bitcoin.Mine(5)
	l.until("the relay gives the credit of six confirmations", func() bool { return l.relayHeight() == l.bitcoin.Height() })
	old := l.id()
	l.turn()
	l.opens("contract", "renew", old, "--feerate", "2", "--wait", "0", "--yes")
	const more = 300
	l.payTo(old, lifeOpening+lifePayment+more, more)
	l.mined(1)
	l.until("the new contract is active", func() bool { return l.state(l.id()) == string(protocol.StateActive) })
	l.written()
	l.does(func() []string { return []string{"contract", "close", l.id(), "--feerate", "2", "--yes"} })
	l.mined(1)
	l.ends()
	return bill{[]string{protocol.TxFunding, protocol.TxRenewal, protocol.TxClosing}, lifeOpening + lifePayment + lifeOpening + more}
}

// established has a contract that is paid and written under, with nobody dying.
func (l *lives) established(flags ...string) {
	l.t.Helper()
	l.opens(append([]string{"contract", "open", l.relay.URL, "--deposit", fmt.Sprint(lifeDeposit), "--feerate", "2", "--wait", "0", "--yes"}, flags...)...)
	l.written()
	l.pays(lifePayment)
}

// opens opens a contract, or renews one.
func (l *lives) opens(args ...string) {
	l.t.Helper()
	l.does(func() []string {
		switch c := l.mine(); {
		case c == nil:
			return args
		case c.Step == "taken":
			return nil
		default:
			return []string{"contract", "resume", c.ID, "--wait", "0"}
		}
	})
	l.ids = append(l.ids, l.mine().ID)
	if args[1] == "renew" {
		return
	}
	l.mined(1)
	l.until("the contract is active", func() bool { return l.state(l.id()) == string(protocol.StateActive) })
	l.does(func() []string { return []string{"contract", "resume", l.id()} }) // notes the funding's block, and adds the relay
}

// written has a message stored under the contract.
func (l *lives) written() {
	l.t.Helper()
	sent := false
	l.does(func() []string {
		if sent {
			return []string{"inbox"} // sends what was not delivered
		}
		sent = true
		return []string{"send", "me", l.words()}
	})
}

// words are the message of this life under its newest contract.
func (l *lives) words() string { return fmt.Sprintf("words of life %d, contract %d", l.n, len(l.ids)) }

// pays pays the newest contract, which has paid its opening.
func (l *lives) pays(more int64) { l.payTo(l.id(), lifeOpening+more, more) }

// payTo brings a contract's amount up to what is given, by paying more, and looks at what the relay has and lets be used.
func (l *lives) payTo(id string, amount, more int64) {
	l.t.Helper()
	credit := l.credit()
	l.does(func() []string {
		if last, _ := l.record(id).Last(); int64(last.Amount) == amount {
			return []string{"contract", "pay", id, "0", "--yes"} // it is signed, and perhaps not sent
		}
		return []string{"contract", "pay", id, fmt.Sprint(more), "--yes"}
	})
	var held int64
	l.sql(&held, `SELECT amount FROM contracts WHERE encode(id, 'hex') = $1`, id)
	if more := l.credit() - credit; held != amount || more != (amount-lifeOpening)*1000 && more != 300_000 {
		l.t.Errorf("life %d: %d sat were paid; the relay holds a state of %d, and the account has credit for %d msat more", l.n, amount, held, more)
	}
}

// ends waits until what ended the contracts is deep enough, in everybody's eyes.
func (l *lives) ends() {
	l.t.Helper()
	l.bitcoin.Mine(5)
	for _, id := range l.ids {
		l.until("contract "+id+" is closed", func() bool { return l.state(id) == string(protocol.StateClosed) })
	}
	l.does(func() []string { return []string{"contract", "watch", "--once"} })
	for _, id := range l.ids {
		if r := l.record(id); r.State != protocol.StateClosed {
			l.t.Errorf("life %d: the user has contract %s as %s", l.n, id, r.State)
		}
	}
}

// state is a contract's in the relay's database.
func (l *lives) state(id string) (state string) {
	l.t.Helper()
	l.sql(&state, `SELECT state FROM contracts WHERE encode(id, 'hex') = $1`, id)
	return state
}

// relayHeight is the newest block that the relay has seen, and done with its contracts what follows from it; 0 while there is more to do.
func (l *lives) relayHeight() (height int) {
	l.t.Helper()
	l.sql(&height, `SELECT coalesce(max(height), 0) FROM contract_blocks b WHERE NOT EXISTS (SELECT FROM contracts WHERE look_at <= b.height)`)
	return height
}

// credit is the account's, in millisatoshi.
func (l *lives) credit() (msat int64) {
	l.t.Helper()
	l.sql(&msat, `SELECT credit FROM accounts WHERE contract IS NOT NULL`)
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

// reads finds each message of this life, once. What was written under a contract that is over is still there.
func (l *lives) reads() {
	l.t.Helper()
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
	found := map[string]int{}
	for _, m := range in.Messages {
		found[m.Text]++
	}
	for n := range l.ids {
		text := fmt.Sprintf("words of life %d, contract %d", l.n, n+1)
		if found[text] != 1 {
			l.t.Errorf("life %d: %q is there %d times: %s", l.n, text, found[text], out)
		}
	}
}
