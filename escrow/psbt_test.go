package escrow

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"runtime"
	"strings"
	"testing"

	"relaymarket/protocol"
)

// rawPSBT is the plain funding as bytes, and where its parts start.
func rawPSBT(t testing.TB) []byte {
	t.Helper()
	text, err := plain(t).funding.PSBT()
	if err != nil {
		t.Fatal(err)
	}
	return decode64(t, text)
}

func decode64(t testing.TB, p protocol.PSBT) []byte {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(string(p))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func encode64(raw []byte) protocol.PSBT {
	return protocol.PSBT(base64.StdEncoding.EncodeToString(raw))
}

// pair is one key and value of a PSBT map.
func pair(key, value []byte) []byte {
	return append(append(appendSize(nil, len(key)), key...), append(appendSize(nil, len(value)), value...)...)
}

// txOf is an unsigned transaction that only claims to have so many inputs and outputs.
func txOf(inputs, outputs []byte) []byte {
	tx := append([]byte{2, 0, 0, 0}, inputs...)
	tx = append(tx, outputs...)
	return append(tx, 0, 0, 0, 0)
}

func TestHostilePSBTs(t *testing.T) {
	raw := rawPSBT(t)
	header := []byte("psbt\xff")
	global := raw[5 : 5+3+int(raw[7])] // 01 00 ‖ size ‖ transaction; its size fits a byte or this panics
	if raw[7] == 0xfd {
		global = raw[5 : 5+5+int(binary.LittleEndian.Uint16(raw[8:]))]
	}
	rest := raw[5+len(global):] // separator, maps
	with := func(parts ...[]byte) []byte { return append(bytes.Clone(header), bytes.Join(parts, nil)...) }
	// The first map of an input starts after the separator of the global one.
	input := rest[1:]
	first := input[:2+1+int(input[2])]
	for name, c := range map[string]struct {
		raw  []byte
		code protocol.Code
	}{
		"as it should be":               {raw, ""},
		"version 0 stated":              {with(global, pair([]byte{0xfb}, []byte{0, 0, 0, 0}), rest), ""},
		"unknown global key":            {with(global, pair([]byte{0xfc, 1}, []byte{1}), rest), ""},
		"unknown input key":             {with(global, []byte{0}, pair([]byte{0x77}, []byte{1}), input), ""},
		"previous transaction":          {with(global, []byte{0}, pair([]byte{0}, []byte{1, 2, 3}), input), ""}, // dropped unread
		"derivation":                    {with(global, []byte{0}, pair(append([]byte{6}, make([]byte, 33)...), []byte{1, 2, 3, 4}), input), ""},
		"odd partial signature":         {with(global, []byte{0}, pair([]byte{2, 1}, []byte{1}), input), ""},
		"version 2":                     {with(global, pair([]byte{0xfb}, []byte{2, 0, 0, 0}), rest), protocol.CodeBadPSBT},
		"no magic":                      {raw[1:], protocol.CodeBadPSBT},
		"nothing":                       {nil, protocol.CodeBadPSBT},
		"magic alone":                   {header, protocol.CodeBadPSBT},
		"no transaction":                {with([]byte{0}), protocol.CodeBadPSBT},
		"transaction twice":             {with(global, global, rest), protocol.CodeBadPSBT},
		"unknown key twice":             {with(global, pair([]byte{0xfc, 1}, nil), pair([]byte{0xfc, 1}, nil), rest), protocol.CodeBadPSBT},
		"input key twice":               {with(global, []byte{0}, first, input), protocol.CodeBadPSBT},
		"unknown input key twice":       {with(global, []byte{0}, pair([]byte{0x77}, nil), pair([]byte{0x77}, nil), input), protocol.CodeBadPSBT},
		"cut":                           {raw[:len(raw)-1], protocol.CodeBadPSBT},
		"a byte more":                   {append(bytes.Clone(raw), 0), protocol.CodeBadPSBT},
		"a key of 2^64":                 {with(bytes.Repeat([]byte{0xff}, 9)), protocol.CodeBadPSBT},
		"a value of 2^64":               {with(global, []byte{1, 0x77}, bytes.Repeat([]byte{0xff}, 9)), protocol.CodeBadPSBT},
		"a value of 4 GB":               {with(global, []byte{1, 0x77, 0xfe, 0xff, 0xff, 0xff, 0xff}), protocol.CodeBadPSBT},
		"size in a longer form":         {with([]byte{0xfd, 1, 0, 0}), protocol.CodeBadPSBT},
		"previous output without end":   {with(global, []byte{0}, pair([]byte{1}, []byte{1, 0, 0, 0, 0, 0, 0, 0, 99, 1}), input), protocol.CodeBadPSBT},
		"long witness key":              {with(global, []byte{0}, pair([]byte{8, 1}, []byte{0}), input), protocol.CodeBadPSBT},
		"2^64 inputs":                   {with(pair([]byte{0}, txOf(bytes.Repeat([]byte{0xff}, 9), []byte{0})), rest), protocol.CodeBadPSBT},
		"60,000 inputs":                 {with(pair([]byte{0}, txOf([]byte{0xfd, 0x60, 0xea}, []byte{0})), rest), protocol.CodeBadPSBT},
		"2^64 outputs":                  {with(pair([]byte{0}, txOf([]byte{0}, bytes.Repeat([]byte{0xff}, 9))), rest), protocol.CodeBadPSBT},
		"200 inputs that are not there": {with(pair([]byte{0}, txOf([]byte{200}, []byte{0})), rest), protocol.CodeBadPSBT},
		"transaction and more":          {with(pair([]byte{0}, append(txOf([]byte{0}, []byte{0}), 1)), []byte{0}), protocol.CodeBadPSBT},
		"signed transaction":            {with(pair([]byte{0}, txOf(append(append([]byte{1}, make([]byte, 36)...), 1, 1, 0, 0, 0, 0), []byte{0})), rest), protocol.CodeBadPSBT},
		"65,537 bytes":                  {append(bytes.Clone(raw), make([]byte, protocol.MaxPSBTSize+1-len(raw))...), protocol.CodeTooLarge},
		"2 MB":                          {append(bytes.Clone(raw), make([]byte, 2<<20)...), protocol.CodeTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			if len(c.raw) == 0 {
				_, err := DecodePSBT("")
				wantCode(t, err, c.code)
				return
			}
			packet, err := DecodePSBT(encode64(c.raw))
			wantCode(t, err, c.code)
			if err != nil {
				return
			}
			if again, err := EncodePSBT(packet); err != nil || again != encode64(raw) {
				t.Errorf("what a contract does not use is kept (%v)", err)
			}
		})
	}
	text := string(encode64(raw))
	for name, bent := range map[string]string{"newline": text[:40] + "\n" + text[40:], "base64url": strings.Map(toURL, text) + "-_-_", "cut": text[:len(text)-1]} {
		_, err := DecodePSBT(protocol.PSBT(bent))
		if err == nil {
			t.Errorf("%s: it is read", name)
		}
		wantCode(t, err, protocol.CodeBadPSBT)
	}
}

func toURL(r rune) rune {
	switch r {
	case '+':
		return '-'
	case '/':
		return '_'
	}
	return r
}

// A hostile count must not make anybody allocate: the libraries would make room for 2^16 inputs.
func TestHostileCountsAllocateNothing(t *testing.T) {
	hostile := encode64(append([]byte("psbt\xff"), pair([]byte{0}, txOf([]byte{0xfe, 0xff, 0xff, 0xff, 0x00}, []byte{0}))...))
	const runs = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		if _, err := DecodePSBT(hostile); err == nil {
			t.Fatal("it is read")
		}
		if _, err := DecodeTx(txOf([]byte{0xfe, 0x00, 0x00, 0x01, 0x00}, []byte{0})); err == nil {
			t.Fatal("the transaction is read")
		}
	}
	runtime.ReadMemStats(&after)
	allocated := (after.TotalAlloc - before.TotalAlloc) / runs
	if allocated > 8<<10 {
		t.Errorf("a PSBT of %d bytes makes its reader allocate %d", len(hostile), allocated)
	}
}

// The largest funding of the exchange fits a PSBT of the exchange, signed.
func TestLargestFundingFits(t *testing.T) {
	d := newDeal(t, "plain", func(d *deal) {
		for i := range MaxPartInputs - 1 {
			name := string(rune('a'+i%26)) + string(rune('a'+i/26))
			d.funding.User.Coins = append(d.funding.User.Coins, coin("u"+name, p2wpkh(d.userCoin), 5_000))
			d.funding.Relay.Coins = append(d.funding.Relay.Coins, coin("r"+name, p2wpkh(d.relayCoin), 5_000))
		}
	})
	tx := d.fund(t)
	checkTx(t, "funding", tx, testFeerate)
	if len(tx.TxIn) != 2*MaxPartInputs {
		t.Errorf("it has %d inputs", len(tx.TxIn))
	}
	size := len(decode64(t, d.userSigned(t, sighashAll)))
	t.Logf("%d inputs: a PSBT of %d bytes, %d vB", len(tx.TxIn), size, tx.VSize())
}
