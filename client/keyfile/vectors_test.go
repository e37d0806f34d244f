package keyfile_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"

	"relaymarket/client/keyfile"
)

var update = flag.Bool("update", false, "write testdata/seeds and testdata/words-invalid anew")

// seedVector is one file of testdata/seeds.
type seedVector struct {
	Comment        string    `json:"comment"`
	Entropy        string    `json:"entropy"`
	Words          string    `json:"words"`
	IdentitySecret string    `json:"identitySecret"`
	PublicKey      string    `json:"publicKey"` // x-only, BIP340
	SealingSeeds   [2]string `json:"sealingSeeds"`
	BitcoinBranch  string    `json:"bitcoinBranch"` // xprv
	BackupSecret   string    `json:"backupSecret"`
}

func hashed(n int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "relaymarket seed %d", n))
	return hex.EncodeToString(sum[:])
}

func seedCases() map[string][2]string {
	return map[string][2]string{
		"zeros":            {strings.Repeat("00", 32), "all entropy bits 0"},
		"ones":             {strings.Repeat("ff", 32), "all entropy bits 1"},
		"plain":            {hashed(0), "an ordinary seed"},
		"padded-purpose":   {hashed(67), "the key at m/29293' begins with a zero byte: it must be padded when deriving below it"},
		"padded-identity":  {hashed(125), "the identity secret begins with a zero byte"},
		"padded-sealing-0": {hashed(84), "sealing seed 0 begins with a zero byte"},
	}
}

func makeSeedVector(t *testing.T, entropy, comment string) seedVector {
	t.Helper()
	raw, err := hex.DecodeString(entropy)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := keyfile.SeedFromEntropy(raw)
	if err != nil {
		t.Fatal(err)
	}
	words, err := seed.Words()
	if err != nil {
		t.Fatal(err)
	}
	v := seedVector{Comment: comment, Entropy: entropy, Words: words}
	identity, err := seed.Identity()
	if err != nil {
		t.Fatal(err)
	}
	v.IdentitySecret = hex.EncodeToString(identity[:])
	_, public := btcec.PrivKeyFromBytes(identity[:])
	v.PublicKey = hex.EncodeToString(schnorr.SerializePubKey(public))
	for n := range v.SealingSeeds {
		sealing, err := seed.Sealing(uint32(n))
		if err != nil {
			t.Fatal(err)
		}
		v.SealingSeeds[n] = hex.EncodeToString(sealing[:])
	}
	bitcoin, err := seed.Bitcoin()
	if err != nil {
		t.Fatal(err)
	}
	v.BitcoinBranch = bitcoin.String()
	backup, err := seed.Backup()
	if err != nil {
		t.Fatal(err)
	}
	v.BackupSecret = hex.EncodeToString(backup[:])
	return v
}

// invalidWords is one file of testdata/words-invalid.
type invalidWords struct {
	Words    string `json:"words"`
	Error    string `json:"error"` // wrong-count, unknown-word or checksum
	Position int    `json:"position,omitempty"`
}

func invalidWordsCases() map[string]invalidWords {
	repeat := func(n int, last string) string { return strings.Repeat("abandon ", n) + last }
	return map[string]invalidWords{
		"empty":                {Words: "", Error: "wrong-count"},
		"twelve-valid":         {Words: repeat(11, "about"), Error: "wrong-count"},
		"twenty-three":         {Words: repeat(22, "art"), Error: "wrong-count"},
		"twenty-five":          {Words: repeat(24, "art"), Error: "wrong-count"},
		"endless":              {Words: repeat(2000, "art"), Error: "wrong-count"},
		"checksum":             {Words: repeat(23, "abandon"), Error: "checksum"},
		"swapped":              {Words: "abandon art " + repeat(21, "abandon"), Error: "checksum"},
		"typo-first":           {Words: "abandom " + repeat(22, "art"), Error: "unknown-word", Position: 1},
		"typo-last":            {Words: repeat(23, "artt"), Error: "unknown-word", Position: 24},
		"two-typos":            {Words: "abandon abandon abamdon " + repeat(20, "arrt"), Error: "unknown-word", Position: 3},
		"punctuation":          {Words: repeat(10, "abandon, ") + repeat(12, "art"), Error: "unknown-word", Position: 11},
		"other-alphabet":       {Words: repeat(23, "а"), Error: "unknown-word", Position: 24},
		"word-of-another-list": {Words: repeat(23, "abaisser"), Error: "unknown-word", Position: 24},
	}
}

func TestSeedVectors(t *testing.T) {
	cases := seedCases()
	want := make(map[string][]byte)
	for name, c := range cases {
		want[name] = indent(t, makeSeedVector(t, c[0], c[1]))
	}
	checkFolder(t, filepath.Join("testdata", "seeds"), want)
	for name := range cases {
		t.Run(name, func(t *testing.T) {
			var v seedVector
			readVector(t, filepath.Join("testdata", "seeds", name+".json"), &v)
			seed, err := keyfile.ParseWords(v.Words)
			if err != nil {
				t.Fatal(err)
			}
			entropy, err := seed.Entropy()
			if err != nil {
				t.Fatal(err)
			}
			if got := makeSeedVector(t, hex.EncodeToString(entropy), v.Comment); got != v {
				t.Errorf("restored from the words:\n got %+v\nwant %+v", got, v)
			}
		})
	}
}

func TestInvalidWordsVectors(t *testing.T) {
	cases := invalidWordsCases()
	want := make(map[string][]byte)
	for name, c := range cases {
		want[name] = indent(t, c)
	}
	checkFolder(t, filepath.Join("testdata", "words-invalid"), want)
	kinds := map[string]error{
		"wrong-count":  keyfile.ErrWordCount,
		"unknown-word": keyfile.ErrUnknownWord,
		"checksum":     keyfile.ErrChecksum,
	}
	for name := range cases {
		t.Run(name, func(t *testing.T) {
			var v invalidWords
			readVector(t, filepath.Join("testdata", "words-invalid", name+".json"), &v)
			_, err := keyfile.ParseWords(v.Words)
			if kind, ok := kinds[v.Error]; !ok || !errors.Is(err, kind) {
				t.Fatalf("got %v, want %s", err, v.Error)
			}
			var word *keyfile.WordError
			if errors.As(err, &word) && word.Position != v.Position {
				t.Errorf("position %d, want %d", word.Position, v.Position)
			}
		})
	}
}

func indent(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(data, '\n')
}

func readVector(t *testing.T, path string, v any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}

// checkFolder fails unless the folder holds exactly these files: a vector that
// is stale, missing or run by nobody is a defect. With -update it writes them.
func checkFolder(t *testing.T, folder string, want map[string][]byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, data := range want {
			if err := os.WriteFile(filepath.Join(folder, name+".json"), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(want) || len(want) == 0 {
		t.Errorf("%s holds %d files, want %d", folder, len(entries), len(want))
	}
	for name, data := range want {
		got, err := os.ReadFile(filepath.Join(folder, name+".json"))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, data) {
			t.Errorf("%s/%s.json is stale: run go test ./client/keyfile -update", folder, name)
		}
	}
}
