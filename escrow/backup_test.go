package escrow

import (
	"bytes"
	"strings"
	"testing"

	"relaymarket/protocol"
)

func plainBackup(t testing.TB) *Backup {
	t.Helper()
	d := plain(t)
	d.contract.Writers = []protocol.PublicKey{{3}, {4}}
	tx := d.fund(t)
	return &Backup{Contract: *d.contract, Funding: d.outpoint(t), Tx: tx.MsgTx}
}

// What the document says is enough for a refund with the key of the seed words, and nothing else.
func TestBackupRefunds(t *testing.T) {
	for name, change := range map[string]func(*Backup){
		"with the funding":    func(*Backup) {},
		"before it is signed": func(b *Backup) { b.Tx = nil },
		"without writers":     func(b *Backup) { b.Contract.Writers = nil },
		"of a renewal":        func(b *Backup) { b.Contract.Renews = &ID{9} },
	} {
		t.Run(name, func(t *testing.T) {
			b := plainBackup(t)
			change(b)
			data, err := b.Encode()
			if err != nil {
				t.Fatal(err)
			}
			read, err := ParseBackup(data)
			if err != nil {
				t.Fatal(err)
			}
			again, err := read.Encode()
			if err != nil || !bytes.Equal(again, data) {
				t.Errorf("what is read is not what was written (%v)\n%s\n%s", err, data, again)
			}
			tx, err := Refund(&read.Contract, read.Funding, read.Contract.UserScript, testFeerate, testKey("plain user"))
			if err != nil {
				t.Fatal(err)
			}
			checkTx(t, "refund", tx, testFeerate)
		})
	}
}

func TestBackupMutations(t *testing.T) {
	data, err := plainBackup(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	other := newDeal(t, "other", func(*deal) {})
	swap := func(from, to string) string {
		if !strings.Contains(text, from) {
			t.Fatalf("the backup has no %s", from)
		}
		return strings.Replace(text, from, to, 1)
	}
	for name, c := range map[string]struct {
		text string
		code protocol.Code
	}{
		"as it should be":     {text, ""},
		"version 2":           {swap(`"version":1`, `"version":2`), protocol.CodeMalformed},
		"no JSON":             {text[1:], protocol.CodeMalformed},
		"newline":             {text + "\n", protocol.CodeNotCanonical},
		"key twice":           {swap(`"version":1`, `"version":1,"version":1`), protocol.CodeMalformed},
		"no member":           {`{}`, protocol.CodeMalformed},
		"text for a number":   {swap(`"bond":10000`, `"bond":"10000"`), protocol.CodeMalformed},
		"descriptor":          {swap(`after(10000)`, `after(10001)`), protocol.CodeWrongScript},
		"expiry":              {swap(`"expiry":10000`, `"expiry":10001`), protocol.CodeWrongScript},
		"expiry of 2^32":      {swap(`"expiry":10000`, `"expiry":4294977296`), protocol.CodeContractExpiry},
		"expiry 0":            {swap(`"expiry":10000`, `"expiry":0`), protocol.CodeContractExpiry},
		"deposit":             {swap(`"deposit":100000`, `"deposit":100001`), protocol.CodeWrongAmount},
		"network":             {swap(`"regtest"`, `"simnet"`), protocol.CodeNetwork},
		"another user's key":  {swap(`"userKey":"`+KeyOf(testKey("plain user")).String(), `"userKey":"`+other.contract.UserKey.String()), protocol.CodeWrongScript},
		"another funding":     {swap(`"fundingTxid":"`, `"fundingTxid":"00`)[:0] + strings.Replace(text, `"fundingTxid":"`+WireTxID(plain(t).outpoint(t).Hash).String(), `"fundingTxid":"`+WireTxID(other.outpoint(t).Hash).String(), 1), protocol.CodeWrongInput},
		"no transaction":      {strings.Replace(text, `"fundingTx":"02`, `"fundingTx":"`, 1), protocol.CodeMalformed},
		"bytes after the end": {strings.Replace(text, `","fundingTxid"`, `00","fundingTxid"`, 1), protocol.CodeMalformed},
		"no writers":          {strings.Replace(text, `,"writers":[`, `,"writerz":[`, 1), protocol.CodeMalformed},
		"member of tomorrow":  {strings.Replace(text, `,"writers":[`, `,"tomorrow":1,"writers":[`, 1), protocol.CodeNotCanonical},
		"unknown member":      {strings.Replace(text, `,"writers":[`, `,"usual":1,"writers":[`, 1), protocol.CodeNotCanonical},
		"unknown last member": {strings.TrimSuffix(text, "}") + `,"zzz":1}`, protocol.CodeMalformed},
		"no opening price":    {strings.Replace(text, `"openingPrice":2000,`, ``, 1), protocol.CodeMalformed},
		"too large":           {text + strings.Repeat(" ", MaxBackupSize), protocol.CodeTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseBackup([]byte(c.text))
			wantCode(t, err, c.code)
		})
	}
	b := plainBackup(t)
	b.Funding.Index = 1
	_, err = b.Encode()
	wantCode(t, err, protocol.CodeWrongOutput)
	b = plainBackup(t)
	b.Contract.Expiry++
	_, err = b.Encode()
	wantCode(t, err, protocol.CodeWrongScript)
}
