package protocol

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// No verb that takes a value shows any of the secret of a private key. (%p of a non-pointer is a
// defect that go vet finds.)
func TestSecretsAreNotPrinted(t *testing.T) {
	secret := [32]byte{0xde, 0xad, 0xbe, 0xef, 0xca, 0xfe, 0xf0, 0x0d, 1, 2, 3, 4, 5, 6, 7, 8}
	key, err := NewPrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	sealing, err := NewSealingPrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		Key     *PrivateKey
		Value   PrivateKey
		Sealing SealingPrivateKey
	}
	hidden := []string{
		hex.EncodeToString(secret[:4]), strings.ToUpper(hex.EncodeToString(secret[:4])), "222 173 190 239", "0xde, 0xad", "0xDE, 0xAD",
		string(secret[:4]), "11011110 10101101", "336 255", `\xde\xad`,
	}
	check := func(t *testing.T, out string) {
		t.Helper()
		for _, h := range hidden {
			if strings.Contains(out, h) {
				t.Errorf("the secret is in %q", out)
			}
		}
	}
	for _, value := range []any{key, *key, sealing, *sealing, holder{key, *key, *sealing}, &holder{key, *key, *sealing}, []*PrivateKey{key}, map[string]PrivateKey{"k": *key}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "% x", "%X", "%d", "%o", "%b", "%c", "%U", "%t", "%T"} {
			check(t, fmt.Sprintf(verb, value))
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", value)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", value)
		check(t, log.String())
		if data, err := json.Marshal(value); err == nil {
			check(t, string(data))
		}
	}
	if !strings.Contains(fmt.Sprint(key), key.Public().String()) || !strings.Contains(fmt.Sprintf("%#v", *key), key.Public().String()) {
		t.Error("a printed key does not say whose it is")
	}
	// What is hidden would be found if it were printed.
	if !strings.Contains(fmt.Sprintf("%x", key.Secret()), hidden[0]) || !strings.Contains(fmt.Sprint(key.Secret()), hidden[2]) {
		t.Error("this test cannot fail")
	}
}
