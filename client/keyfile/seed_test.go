package keyfile_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha512"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"

	"github.com/tyler-smith/go-bip39"
	"pgregory.net/rapid"

	"relaymarket/client/keyfile"
)

const artWords = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon " +
	"abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon art"

// bip32Hardened is BIP32's CKDpriv for hardened children only, written from the
// standard with nothing in common with hdkeychain.
func bip32Hardened(t *rapid.T, seed []byte, path ...uint32) []byte {
	order, ok := new(big.Int).SetString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)
	if !ok {
		t.Fatal("order")
	}
	mac := hmac.New(sha512.New, []byte("Bitcoin seed"))
	mac.Write(seed)
	sum := mac.Sum(nil)
	key, chain := sum[:32], sum[32:]
	for _, index := range path {
		mac := hmac.New(sha512.New, chain)
		mac.Write([]byte{0})
		mac.Write(key)
		mac.Write(binary.BigEndian.AppendUint32(nil, index|1<<31))
		sum := mac.Sum(nil)
		n := new(big.Int).SetBytes(sum[:32])
		n.Add(n, new(big.Int).SetBytes(key)).Mod(n, order)
		key, chain = n.FillBytes(make([]byte, 32)), sum[32:]
	}
	return key
}

func TestDerivationIsBIP32(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entropy := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "entropy")
		n := rapid.Uint32Range(0, 1<<31-1).Draw(t, "n")
		seed, err := keyfile.SeedFromEntropy(entropy)
		if err != nil {
			t.Fatal(err)
		}
		words, err := seed.Words()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := keyfile.ParseWords(words); err != nil || *back != *seed {
			t.Fatalf("words do not give the seed back: %v", err)
		}
		master := bip39.NewSeed(words, "")
		identity, err := seed.Identity()
		if err != nil || !bytes.Equal(identity[:], bip32Hardened(t, master, 29293, 0, 0)) {
			t.Fatalf("identity: %x, %v", identity[:], err)
		}
		sealing, err := seed.Sealing(n)
		if err != nil || !bytes.Equal(sealing[:], bip32Hardened(t, master, 29293, 1, n)) {
			t.Fatalf("sealing %d: %x, %v", n, sealing[:], err)
		}
		branch, err := seed.Bitcoin()
		if err != nil {
			t.Fatal(err)
		}
		private, err := branch.ECPrivKey()
		if err != nil || !bytes.Equal(private.Serialize(), bip32Hardened(t, master, 29293, 2)) {
			t.Fatalf("bitcoin: %v", err)
		}
	})
}

func TestParseWordsNormalizes(t *testing.T) {
	messy := "\n\t " + strings.ToUpper(strings.ReplaceAll(artWords, " ", " \r\n\u00a0\u3000")) + "  "
	seed, err := keyfile.ParseWords(messy)
	if err != nil {
		t.Fatal(err)
	}
	if words, err := seed.Words(); err != nil || words != artWords {
		t.Errorf("got %q, %v", words, err)
	}
}

func TestWordErrorKeepsTheWord(t *testing.T) {
	_, err := keyfile.ParseWords(strings.Replace(artWords, "art", "hunter2", 1))
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(fmt.Sprint(err), "word 24") {
		t.Errorf("the position is missing: %v", err)
	}
}

func TestNewSeedDrawsAll(t *testing.T) {
	a, err := keyfile.NewSeed(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := keyfile.NewSeed(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if *a == *b {
		t.Error("two seeds are equal")
	}
	if _, err := keyfile.NewSeed(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("31 bytes made a seed")
	}
}

func TestSeedFromEntropySize(t *testing.T) {
	for _, size := range []int{0, 16, 31, 33, 64} {
		if _, err := keyfile.SeedFromEntropy(make([]byte, size)); !errors.Is(err, keyfile.ErrEntropy) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestSealingIndex(t *testing.T) {
	seed, err := keyfile.ParseWords(artWords)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seed.Sealing(1<<31 - 1); err != nil {
		t.Error(err)
	}
	if _, err := seed.Sealing(1 << 31); !errors.Is(err, keyfile.ErrIndex) {
		t.Errorf("got %v", err)
	}
}

func TestWipedSeedDerivesNothing(t *testing.T) {
	wiped, err := keyfile.NewSeed(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wiped.Wipe()
	for name, seed := range map[string]*keyfile.Seed{"wiped": wiped, "zero": {}} {
		_, errWords := seed.Words()
		_, errEntropy := seed.Entropy()
		_, errIdentity := seed.Identity()
		_, errSealing := seed.Sealing(0)
		_, errBitcoin := seed.Bitcoin()
		for i, err := range []error{errWords, errEntropy, errIdentity, errSealing, errBitcoin} {
			if !errors.Is(err, keyfile.ErrNoSeed) {
				t.Errorf("%s, call %d: %v", name, i, err)
			}
		}
	}
}

func TestEntropyIsACopy(t *testing.T) {
	seed, err := keyfile.ParseWords(artWords)
	if err != nil {
		t.Fatal(err)
	}
	entropy, err := seed.Entropy()
	if err != nil {
		t.Fatal(err)
	}
	entropy[0] = 1
	if words, err := seed.Words(); err != nil || words != artWords {
		t.Errorf("the seed changed: %q, %v", words, err)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	seed, err := keyfile.SeedFromEntropy(bytes.Repeat([]byte{0xab}, 32))
	if err != nil {
		t.Fatal(err)
	}
	var identity keyfile.IdentitySecret
	var sealing keyfile.SealingSeed
	copy(identity[:], bytes.Repeat([]byte{0xab}, 32))
	copy(sealing[:], bytes.Repeat([]byte{0xab}, 32))
	passphrase := keyfile.Passphrase(bytes.Repeat([]byte{0xab}, 32))
	document := &keyfile.Document{Seed: seed}

	for _, secret := range []any{seed, *seed, identity, &identity, sealing, &sealing, passphrase, document, *document} {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%X", "%s", "%q", "%d"} {
			fmt.Fprintf(&out, verb+" ", secret)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "secret", secret)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "secret", secret)
		if data, err := json.Marshal(secret); err == nil {
			t.Errorf("%T marshals to %s", secret, data)
		}
		text := strings.ToLower(out.String())
		for _, leak := range []string{"abab", "171", `\xab`, "0xab"} {
			if strings.Contains(text, leak) {
				t.Errorf("%T prints %q", secret, text)
				break
			}
		}
	}
}
