package protocol

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

const vectorDir = "testdata/vectors"

// vectorFile is one file of test vectors. internal/vectors writes them.
type vectorFile struct {
	Description string                 `json:"description"`
	Keys        map[string]vectorActor `json:"keys"`
	Sealing     map[string]sealingPair `json:"sealing"`
	Cases       []json.RawMessage      `json:"cases"`
}

type vectorActor struct {
	Secret string    `json:"secret"`
	Public PublicKey `json:"public"`
}

type sealingPair struct {
	Seed        string `json:"seed"`
	PublicKey   string `json:"publicKey"`
	Fingerprint string `json:"sha256"`
}

// vectorHead starts every case.
type vectorHead struct {
	Name  string `json:"name"`
	Valid bool   `json:"valid"`
	Code  Code   `json:"code"`
}

// vectorInput is text, or hex where the bytes are no UTF-8.
type vectorInput struct {
	Input    *string `json:"input"`
	InputHex string  `json:"inputHex"`
}

func (v vectorInput) bytes(t testing.TB) []byte {
	t.Helper()
	if v.Input != nil {
		return []byte(*v.Input)
	}
	return unhex(t, v.InputHex)
}

// judges has one judge for each vector file. A judge runs the case and returns the refusal; for a
// case that is accepted it compares the outcome with what the case says.
var judges = map[string]func(t *testing.T, f *vectorFile, raw []byte) error{
	"keys.json":          judgeKey,
	"secrets.json":       judgeSecret,
	"canonical.json":     judgeCanonical,
	"tagged.json":        judgeTagged,
	"work.json":          judgeWork,
	"digests.json":       judgeDigest,
	"merkle.json":        judgeMerkle,
	"bip340.json":        judgeSignature,
	"signatures.json":    judgeSignature,
	"envelopes.json":     judgeEnvelope,
	"requests.json":      judgeRequest,
	"freshness.json":     judgeFreshness,
	"paths.json":         judgePath,
	"targets.json":       judgeTarget,
	"addresses.json":     judgeAddress,
	"links.json":         judgeLink,
	"invitations.json":   judgeInvitation,
	"first-words.json":   judgeFirstWord,
	"cards.json":         judgeCard,
	"announcements.json": judgeAnnouncement,
	"authorization.json": judgeAuthorization,
	"pages.json":         judgePage,
	"queries.json":       judgeQuery,
	"pulls.json":         judgePull,
	"padding.json":       judgePadding,
	"files.json":         judgeFile,
	"sealed.json":        judgeSealed,
	"plain.json":         judgePlain,
	"bodies.json":        judgeBody,

	"acknowledgements.json": judgeAcknowledgement,
}

const sessionFile = "session.json" // has a test of its own

// uncoded files have invalid cases that are no refusal: values that are not what they claim.
var uncoded = map[string]bool{"tagged.json": true, "digests.json": true}

func TestVectors(t *testing.T) {
	entries, err := os.ReadDir(vectorDir)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, entry := range entries {
		if entry.Name() == sessionFile {
			continue
		}
		judge, ok := judges[entry.Name()]
		if !ok {
			t.Errorf("nobody judges %s", entry.Name())
			continue
		}
		seen[entry.Name()] = true
		t.Run(entry.Name(), func(t *testing.T) { runVectors(t, entry.Name(), judge) })
	}
	for name := range judges {
		if !seen[name] {
			t.Errorf("%s is missing, run: go run ./internal/vectors", name)
		}
	}
}

func readVectors(t testing.TB, name string) *vectorFile {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(vectorDir, name))
	if err != nil {
		t.Fatal(err)
	}
	var f vectorFile
	decodeCase(t, text, &f)
	if f.Description == "" || len(f.Cases) == 0 {
		t.Fatalf("%s has no description or no cases", name)
	}
	for who, a := range f.Keys {
		if a.key(t).Public() != a.Public {
			t.Fatalf("the keys of %s are no pair", who)
		}
	}
	return &f
}

func runVectors(t *testing.T, file string, judge func(*testing.T, *vectorFile, []byte) error) {
	f := readVectors(t, file)
	names := map[string]bool{}
	count := map[bool]int{}
	for _, raw := range f.Cases {
		var head vectorHead
		if err := json.Unmarshal(raw, &head); err != nil {
			t.Fatal(err)
		}
		if names[head.Name] {
			t.Errorf("two cases are called %s", head.Name)
		}
		names[head.Name] = true
		count[head.Valid]++
		t.Run(head.Name, func(t *testing.T) { checkVerdict(t, file, head, judge(t, f, raw)) })
	}
	if count[true] == 0 || count[false] == 0 {
		t.Errorf("%d valid and %d invalid cases; a vector file has both", count[true], count[false])
	}
}

func checkVerdict(t *testing.T, file string, head vectorHead, err error) {
	t.Helper()
	var refusal *Error
	switch {
	case head.Valid && err != nil:
		t.Errorf("refused: %v", err)
	case head.Valid && head.Code != "":
		t.Errorf("a valid case has the code %s", head.Code)
	case head.Valid:
	case err == nil:
		t.Errorf("accepted, want %q", head.Code)
	case head.Code == "" && !uncoded[file] && !errors.Is(err, errIncomplete):
		t.Errorf("an invalid case without a code: %v", err)
	case head.Code != "" && (!errors.As(err, &refusal) || refusal.Code != head.Code):
		t.Errorf("refused with %v, want the code %s", err, head.Code)
	}
}

var (
	errIncomplete = errors.New("the reply was cut")
	errNotEqual   = errors.New("not what the case claims")
)

// decodeCase reads a case and fails on members that no test looks at.
func decodeCase(t testing.TB, raw []byte, dst any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(dst); err != nil {
		t.Fatal(err)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func unhex32(t testing.TB, s string) (out [32]byte) {
	t.Helper()
	if raw := unhex(t, s); copy(out[:], raw) != 32 || len(raw) != 32 {
		t.Fatalf("%d bytes, want 32", len(raw))
	}
	return out
}

func (a vectorActor) key(t testing.TB) *PrivateKey {
	t.Helper()
	k, err := NewPrivateKey(unhex32(t, a.Secret))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// equal compares an outcome with the case.
func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

func text(v any) string { return fmt.Sprint(v) }
