package broadcast_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"relaymarket/broadcast"
	"relaymarket/internal/testhub"
	"relaymarket/protocol"
)

// resign signs the request of an announcement again after it was changed, so that only the change is wrong with it.
func resign(t *testing.T, key *protocol.PrivateKey, e *protocol.Envelope, from, to string) []byte {
	t.Helper()
	request := strings.Replace(string(e.Request), from, to, 1)
	if request == string(e.Request) {
		t.Fatalf("%q is not in %s", from, e.Request)
	}
	again, err := protocol.SignRaw(key, key.Public(), e.Timestamp, []byte(request), [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	return again.Bytes()
}

// prove makes the proof right for a request that Announce would not make.
func prove(t *testing.T, key *protocol.PrivateKey, to protocol.PublicKey, at protocol.Timestamp, change func(request string) string) []byte {
	t.Helper()
	a := announcement("relay.example", 5)
	a.Contracts = &protocol.ContractOffer{StorageMsatPerGBDay: 1000, OpeningPrice: 5000}
	return testhub.Forge(t, key, to, at, a, change)
}

func TestCheckRefuses(t *testing.T) {
	key, other := newKey(t), newKey(t)
	good := announce(t, key, announcement("relay.example", 5), 8)
	if _, err := rules.Check(good.Bytes(), now, nil); err != nil {
		t.Fatal(err)
	}
	public := broadcast.Rules{Network: protocol.Mainnet, Bits: 8}
	replace := func(from, to string) func(string) string {
		return func(s string) string {
			if !strings.Contains(s, from) {
				t.Fatalf("%q is not in %s", from, s)
			}
			return strings.Replace(s, from, to, 1)
		}
	}
	same := func(s string) string { return s }
	self := key.Public()
	cases := map[string]struct {
		data   []byte
		reason broadcast.Reason
	}{
		"empty":             {nil, broadcast.ReasonMalformed},
		"noise":             {bytes.Repeat([]byte{0xff}, 4096), broadcast.ReasonMalformed},
		"a newline behind":  {append(bytes.Clone(good.Bytes()), '\n'), broadcast.ReasonMalformed},
		"4,097 bytes":       {bytes.Repeat([]byte("x"), 4097), broadcast.ReasonSize},
		"another type":      {resign(t, key, good, `"serverBroadcast"`, `"identity"`), broadcast.ReasonType},
		"to another":        {prove(t, key, other.Public(), now, same), broadcast.ReasonAudience},
		"from the future":   {prove(t, key, self, now.Add(301*time.Second), same), broadcast.ReasonFuture},
		"long ago":          {prove(t, key, self, now.Add(-8*24*time.Hour), same), broadcast.ReasonExpired},
		"expired":           {prove(t, key, self, now, replace(`"validUntil":1763769600000`, `"validUntil":1763683199999`)), broadcast.ReasonExpired},
		"valid for ever":    {prove(t, key, self, now, replace(`"validUntil":1763769600000`, `"validUntil":9007199254740991`)), broadcast.ReasonFuture},
		"no work":           {resign(t, key, good, string(powOf(good)), ``), broadcast.ReasonNoWork},
		"too little work":   {announce(t, key, announcement("relay.example", 5), 7).Bytes(), broadcast.ReasonLittle},
		"more claimed":      {resign(t, key, good, `"bits":8`, `"bits":60`), broadcast.ReasonNoWork},
		"more than a hash":  {resign(t, key, good, `"bits":8`, `"bits":257`), broadcast.ReasonNoWork},
		"negative work":     {resign(t, key, good, `"bits":8`, `"bits":-1`), broadcast.ReasonNoWork},
		"another network":   {prove(t, key, self, now, replace(`"regtest"`, `"mainnet"`)), broadcast.ReasonNetwork},
		"unknown network":   {prove(t, key, self, now, replace(`"regtest"`, `"litecoin"`)), broadcast.ReasonInvalid},
		"negative seq":      {prove(t, key, self, now, replace(`"seq":5`, `"seq":-5`)), broadcast.ReasonInvalid},
		"seq over 2^53":     {bytes.Replace(good.Bytes(), []byte(`"seq":5`), []byte(`"seq":9007199254740993`), 1), broadcast.ReasonMalformed},
		"a negative price":  {prove(t, key, self, now, replace(`"storageMsatPerGBDay":1000`, `"storageMsatPerGBDay":-1`)), broadcast.ReasonInvalid},
		"a price over 2^53": {bytes.Replace(good.Bytes(), []byte(`"seq":5`), []byte(`"seq":5,"storageMsatPerGBDay":9007199254740993`), 1), broadcast.ReasonMalformed},
		"all coins twice":   {prove(t, key, self, now, replace(`"openingPriceSat":5000`, `"openingPriceSat":4200000000000000`)), broadcast.ReasonInvalid},
		"a bond of 101 %":   {prove(t, key, self, now, replace(`"bondPercent":0`, `"bondPercent":101`)), broadcast.ReasonInvalid},
		"half an offer":     {prove(t, key, self, now, replace(`"creditLimitSat":0,`, ``)), broadcast.ReasonInvalid},
		"no limits":         {prove(t, key, self, now, replace(`"limits":`, `"limit":`)), broadcast.ReasonInvalid},
		"no address":        {prove(t, key, self, now, replace(`["https://relay.example"]`, `[]`)), broadcast.ReasonAddress},
		"an address a page": {prove(t, key, self, now, replace(`https://relay.example`, `https://relay.example/x`)), broadcast.ReasonInvalid},
		"signature changed": {flip(good.Bytes()), broadcast.ReasonSignature},
		"another's key":     {stolen(t, prove(t, key, self, now, same), self), broadcast.ReasonNoWork},
	}
	for name, c := range cases {
		_, err := rules.Check(c.data, now, nil)
		var refusal *broadcast.Refusal
		if !errors.As(err, &refusal) || refusal.Reason != c.reason || refusal.Detail == "" {
			t.Errorf("%s: %v, want %s", name, err, c.reason)
		}
	}
	for _, address := range []string{"http://127.0.0.1:7447", "https://192.168.0.1", "https://[fe80::1]", "http://localhost:7447", "https://0.0.0.0"} {
		a := announcement("x", 5)
		a.Network, a.Addresses = protocol.Mainnet, []string{"https://relay.example", address}
		if _, err := public.Check(announce(t, key, a, 8).Bytes(), now, nil); broadcast.ReasonOf(err) != broadcast.ReasonAddress {
			t.Errorf("on mainnet %s: %v", address, err)
		}
	}
}

// stolen is an announcement under another key, for which its proof of work is none. It is one for one key in 256.
func stolen(t *testing.T, data []byte, from protocol.PublicKey) []byte {
	t.Helper()
	for {
		other := bytes.ReplaceAll(data, []byte(from.String()), []byte(newKey(t).Public().String()))
		e, err := protocol.ParseEnvelope(other)
		if err != nil {
			t.Fatal(err)
		}
		subject, work, err := e.WorkSubject()
		if err != nil || work == nil {
			t.Fatal(work, err)
		}
		if work.Nonce.Bits(subject) < int(work.Bits) {
			return other
		}
	}
}

// flip changes the last digit of the signature.
func flip(data []byte) []byte {
	data = bytes.Clone(data)
	at := len(data) - 3
	data[at] = "01"[(data[at]+1)%2]
	return data
}

// powOf is the member with its comma.
func powOf(e *protocol.Envelope) []byte {
	from := bytes.Index(e.Request, []byte(`"pow":`))
	return e.Request[from : from+bytes.IndexByte(e.Request[from:], '}')+2]
}

// The higher seq wins, then the lower hash; the same again is a duplicate.
func TestOrder(t *testing.T) {
	key := newKey(t)
	offers := []*broadcast.Offer{}
	for range 8 {
		offers = append(offers, check(t, announce(t, key, announcement("relay.example", 7), 8)))
	}
	known := func(o *broadcast.Offer) func(protocol.PublicKey) broadcast.Known {
		return func(protocol.PublicKey) broadcast.Known {
			return broadcast.Known{Seq: o.Seq, Hash: o.Hash, Is: true}
		}
	}
	for _, a := range offers {
		for _, b := range offers {
			_, err := rules.Check(b.Envelope.Bytes(), now, known(a))
			switch {
			case a == b && broadcast.ReasonOf(err) == broadcast.ReasonDuplicate:
			case a != b && bytes.Compare(b.Hash[:], a.Hash[:]) < 0 && err == nil:
			case a != b && bytes.Compare(b.Hash[:], a.Hash[:]) > 0 && broadcast.ReasonOf(err) == broadcast.ReasonOld:
			default:
				t.Errorf("%s after %s: %v", b.Hash, a.Hash, err)
			}
		}
		if _, err := rules.Check(announce(t, key, announcement("relay.example", 6), 8).Bytes(), now, known(a)); broadcast.ReasonOf(err) != broadcast.ReasonOld {
			t.Errorf("an older seq: %v", err)
		}
		if _, err := rules.Check(announce(t, key, announcement("relay.example", 8), 8).Bytes(), now, known(a)); err != nil {
			t.Errorf("a newer seq: %v", err)
		}
	}
}

// What each kind of junk costs, beside one hash of 4 KiB and one good announcement.
func BenchmarkCheck(b *testing.B) {
	key := newKey(b)
	good := announce(b, key, announcement("relay.example", 5), 8)
	large := announcement("relay.example", 5)
	for len(large.Terms) < 15 {
		large.Terms = append(large.Terms, protocol.Terms{Type: "grant", Contact: strings.Repeat("c", 180)})
	}
	full := announce(b, key, large, 8)
	lazy := bytes.Replace(full.Bytes(), []byte(`"bits":8`), []byte(`"bits":90`), 1)
	for _, c := range []struct {
		name string
		data []byte
	}{{"good", good.Bytes()}, {"signature", flip(full.Bytes())}, {"work", lazy}, {"malformed", full.Bytes()[:len(full.Bytes())-1]}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.data)))
			for b.Loop() {
				_, _ = rules.Check(c.data, now, nil)
			}
		})
	}
	b.Run("hash", func(b *testing.B) {
		b.SetBytes(int64(len(full.Bytes())))
		for b.Loop() {
			protocol.TaggedHash(protocol.TagAnnouncement, full.Bytes())
		}
	})
}

func FuzzCheck(f *testing.F) {
	key := newKey(f)
	e := announce(f, key, announcement("relay.example", 5), 8)
	f.Add(e.Bytes())
	f.Add(flip(e.Bytes()))
	f.Add([]byte(strings.Replace(string(e.Bytes()), `"pow":`, `"poW":`, 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := rules.Check(data, now, nil)
		if err == nil && !bytes.Equal(o.Envelope.Bytes(), data) {
			t.Error("it took other bytes")
		}
		if err != nil && broadcast.ReasonOf(err) == broadcast.ReasonStore {
			t.Errorf("no reason: %v", err)
		}
	})
}
