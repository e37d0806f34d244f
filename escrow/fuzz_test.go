package escrow

import (
	"bytes"
	"encoding/base64"
	"errors"
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/protocol"
)

// checkCoded fails on a refusal without a code, or one that repeats what it refuses.
func checkCoded(t *testing.T, err error) {
	t.Helper()
	var coded *protocol.Error
	if !errors.As(err, &coded) || coded.Code.Status() == 500 || coded.Detail == "" || len(coded.Detail) > 4096 {
		t.Fatalf("a refusal without a code of the table: %v", err)
	}
}

func FuzzDecodePSBT(f *testing.F) {
	raw := rawPSBT(f)
	f.Add(raw)
	f.Add(raw[:40])
	f.Add(decode64(f, plain(f).userSigned(f, sighashAll)))
	f.Add(append([]byte("psbt\xff"), pair([]byte{0}, txOf([]byte{0xfe, 0xff, 0xff, 0xff, 0x00}, []byte{0}))...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		packet, err := DecodePSBT(protocol.PSBT(base64.StdEncoding.EncodeToString(raw)))
		if err != nil {
			checkCoded(t, err)
			return
		}
		text, err := EncodePSBT(packet)
		if err != nil {
			checkCoded(t, err)
			return
		}
		again, err := DecodePSBT(text)
		if err != nil {
			t.Fatalf("what was written is not read: %v", err)
		}
		if last, err := EncodePSBT(again); err != nil || last != text {
			t.Fatalf("it changes by being read (%v)", err)
		}
		if part, err := ParseOffer(text); err != nil {
			checkCoded(t, err)
		} else if back, err := OfferPSBT(part); err != nil {
			t.Fatal(err)
		} else if same, err := ParseOffer(back); err != nil || len(same.Coins) != len(part.Coins) {
			t.Fatalf("an offer changes by being read (%v)", err)
		}
	})
}

// Whatever a relay proposes, what the user signs costs him his deposit, his share of the fee, and at
// most a change too small to pay out.
func FuzzVerifyFunding(f *testing.F) {
	d := plain(f)
	f.Add(rawPSBT(f))
	f.Add(decode64(f, d.userSigned(f, sighashAll)))
	for _, c := range offers {
		packet, err := d.funding.Packet()
		if err != nil {
			f.Fatal(err)
		}
		clonePrevious(packet)
		c.change(d, packet)
		if text, err := EncodePSBT(packet); err == nil {
			f.Add(decode64(f, text))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := VerifyFunding(encode64(raw), d.contract, testFeerate, d.funding.User, nil)
		if err != nil {
			checkCoded(t, err)
			return
		}
		tx, err := got.Tx()
		if err != nil {
			t.Fatal(err)
		}
		out := btcutil.Amount(tx.TxOut[1].Value) + d.contract.Deposit
		share, _ := got.Fees()
		if paid := d.funding.User.Coins[0].Value - out; paid < share || paid > share+got.slack() {
			t.Fatalf("the user pays %d beside his deposit, his share is %d", paid, share)
		}
		if tx.Fee() < testFeerate.Fee(got.Weight()) {
			t.Fatalf("the fee is %d", tx.Fee())
		}
	})
}

// Whatever a user returns, the relay broadcasts nothing that nodes refuse.
func FuzzMergeUser(f *testing.F) {
	d := plain(f)
	f.Add(rawPSBT(f))
	f.Add(decode64(f, d.userSigned(f, sighashAll)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		packet, err := d.funding.MergeUser(encode64(raw))
		if err != nil {
			checkCoded(t, err)
			return
		}
		walletSign(t, packet, sighashAll, d.relayCoin)
		tx, err := d.funding.Finish(packet, nil)
		if err != nil {
			t.Fatal(err)
		}
		checkTx(t, "funding", tx, testFeerate)
	})
}

// Whatever state a user signs, what the relay takes for good settles.
func FuzzVerifyPayment(f *testing.F) {
	d := plain(f)
	held := d.payment(f, 1, 20_000)
	next := d.payment(f, 2, 30_000)
	f.Add(int64(2), int64(30_000), []byte(next.Signature))
	f.Add(int64(1), int64(30_000), []byte(next.Signature))
	f.Add(int64(3), int64(20_000), []byte(held.Signature))
	f.Add(int64(2), int64(99_001), highS(next.Signature))
	at := d.outpoint(f)
	f.Fuzz(func(t *testing.T, seq, amount int64, sig []byte) {
		p := Payment{seq, btcutil.Amount(amount), sig}
		if err := VerifyPayment(d.contract, at, held, p); err != nil {
			checkCoded(t, err)
			return
		}
		u := Unsettled{d.contract, at, p}
		tx, err := Settle([]Unsettled{u}, nil, d.contract.RelayScript, testFeerate)
		if err != nil {
			t.Fatal(err)
		}
		if err := SignSettlement(tx, 0, u, d.relayKey); err != nil {
			t.Fatal(err)
		}
		checkTx(t, "settlement", tx, testFeerate)
	})
}

func FuzzParseBackup(f *testing.F) {
	data, err := plainBackup(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(bytes.Replace(data, []byte(`"expiry":10000`), []byte(`"expiry":4294977296`), 1))
	f.Add(bytes.Replace(data, []byte(`"version":1`), []byte(`"version":2`), 1))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ParseBackup(data)
		if err != nil {
			checkCoded(t, err)
			return
		}
		again, err := b.Encode()
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("what is read is not what was written (%v)", err)
		}
	})
}

func FuzzDecodeTx(f *testing.F) {
	f.Add((&Tx{MsgTx: plainBackup(f).Tx}).Bytes())
	f.Add([]byte{2, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		tx, err := DecodeTx(raw)
		if err != nil {
			checkCoded(t, err)
			return
		}
		again, err := DecodeTx((&Tx{MsgTx: tx}).Bytes())
		if err != nil || again.TxHash() != tx.TxHash() {
			t.Fatalf("it changes by being read (%v)", err)
		}
	})
}
