package chain

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"
	"pgregory.net/rapid"
)

func TestParseBitcoin(t *testing.T) {
	for text, want := range map[string]btcutil.Amount{
		"0": 0, "0.0": 0, "1": 1e8, "0.00000001": 1, "1e-08": 1, "1E-8": 1, "21000000": btcutil.MaxSatoshi,
		"20999999.97690000": 20999999_97690000, "0.000000001": 1, "0.000010001": 1001, "5e1": 50e8,
	} {
		if got, err := parseBitcoin(text); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", text, int64(got), err, int64(want))
		}
	}
	for _, text := range []string{
		"", "-1", "-0.00000001", "21000000.00000001", "1e8", "1e999999999", "1e-999999999", "NaN", "Inf", "0x1p4", "1/3", "one", "1,5", strings.Repeat("1", 31),
	} {
		if got, err := parseBitcoin(text); err == nil {
			t.Errorf("%s: %d", text, int64(got))
		}
	}
}

// Whatever a node writes for an amount comes back as that amount: both write binary floating point in decimal.
func TestParseBitcoinReadsWhatNodesWrite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		amount := btcutil.Amount(rapid.Int64Range(0, btcutil.MaxSatoshi).Draw(t, "amount"))
		text, err := json.Marshal(amount.ToBTC())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseBitcoin(string(text)); err != nil || got != amount {
			t.Fatalf("%s: %d, %v, want %d", text, int64(got), err, int64(amount))
		}
	})
}

func FuzzParseBitcoin(f *testing.F) {
	for _, text := range []string{"0.1", "1e-08", "21000000", "-1", "1/3", "1e999999999"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := parseBitcoin(text); err == nil && (got < 0 || got > btcutil.MaxSatoshi) {
			t.Errorf("%q is %d", text, int64(got))
		}
	})
}
