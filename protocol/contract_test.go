package protocol

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func TestCheckConsent(t *testing.T) {
	writer, payer, relay, other := testKey(t, 1), testKey(t, 2), testKey(t, 3), testKey(t, 4)
	id := ContractID{7}
	consent := func(by *PrivateKey, to PublicKey, request Request) jsontext.Value {
		e, err := Sign(by, to, 1, request)
		if err != nil {
			t.Fatal(err)
		}
		return e.Bytes()
	}
	good := consent(writer, relay.Public(), &ContractConsent{Contract: id, Payer: payer.Public()})
	forged := jsontext.Value(strings.Replace(string(consent(other, relay.Public(), &ContractConsent{Contract: id, Payer: payer.Public()})),
		other.Public().String(), writer.Public().String(), 1))
	for name, c := range map[string]struct {
		consent jsontext.Value
		good    bool
	}{
		"as it should be":  {good, true},
		"another writer":   {consent(other, relay.Public(), &ContractConsent{Contract: id, Payer: payer.Public()}), false},
		"another relay":    {consent(writer, other.Public(), &ContractConsent{Contract: id, Payer: payer.Public()}), false},
		"another contract": {consent(writer, relay.Public(), &ContractConsent{Contract: ContractID{8}, Payer: payer.Public()}), false},
		"another payer":    {consent(writer, relay.Public(), &ContractConsent{Contract: id, Payer: other.Public()}), false},
		"another type":     {consent(writer, relay.Public(), &Targeted{Type: TypeContractRead, Target: "GET /contracts"}), false},
		"forged":           {forged, false},
		"no envelope":      {jsontext.Value(`{}`), false},
	} {
		err := CheckConsent(ContractWriter{Key: writer.Public(), Consent: c.consent}, relay.Public(), id, payer.Public())
		if c.good {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s: it is taken for consent", name)
			continue
		}
		checkCoded(t, err)
	}
}

// A PSBT of 2 MB is refused by its length, before anything is decoded.
func TestPSBTIsBounded(t *testing.T) {
	for size, code := range map[int]Code{(MaxPSBTSize + 2) / 3 * 4: "", (MaxPSBTSize+2)/3*4 + 4: CodeTooLarge, 2 << 20: CodeTooLarge} {
		err := PSBT(strings.Repeat("A", size)).Validate()
		if code == "" && err != nil || code != "" && !isCode(err, code) {
			t.Errorf("%d digits: %v", size, err)
		}
	}
}

func isCode(err error, code Code) bool {
	e, ok := err.(*Error)
	return ok && e.Code == code
}

func TestNetworks(t *testing.T) {
	for _, n := range Networks() {
		if err := n.Validate(); err != nil {
			t.Error(err)
		}
	}
	for _, n := range []Network{"", "testnet", "Mainnet", "simnet"} {
		if err := n.Validate(); !isCode(err, CodeNetwork) {
			t.Errorf("%q: %v", n, err)
		}
	}
}
