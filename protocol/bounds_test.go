package protocol

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func manyKeys(n int) []PublicKey {
	keys := make([]PublicKey, n)
	for i := range keys {
		binary.BigEndian.PutUint32(keys[i][:], uint32(i+1))
	}
	return keys
}

// What is too long for a vector file.
func TestRequestBounds(t *testing.T) {
	admitted := func(n int) []Admitted {
		list := make([]Admitted, n)
		for i, k := range manyKeys(n) {
			list[i] = Admitted{Key: k, Bytes: 1, Records: 1}
		}
		return list
	}
	for _, c := range []struct {
		name    string
		request Request
		code    Code
	}{
		{"listen to 1000 senders", &Listen{Senders: manyKeys(MaxSenders)}, ""},
		{"listen to 1001 senders", &Listen{Senders: manyKeys(MaxSenders + 1)}, CodeInvalidValue},
		{"1000 admitted", &Admit{Keys: admitted(MaxAdmitted)}, ""},
		{"1001 admitted", &Admit{Keys: admitted(MaxAdmitted + 1)}, CodeInvalidValue},
	} {
		t.Run(c.name, func(t *testing.T) {
			body, err := Canonicalize(c.request)
			if err != nil {
				t.Fatal(err)
			}
			// The type stays empty: neither Validate nor this decoding looks at it.
			e := &Envelope{Type: c.request.RequestType(), Request: body}
			wantCode(t, e.Decode(requestOf(t, e.Type)), c.code)
			key := testKey(t, 1)
			_, err = Sign(key, key.Public(), 1, c.request)
			wantCode(t, err, c.code)
		})
	}
	for n, code := range map[int]Code{MaxSenders: "", MaxSenders + 1: CodeInvalidValue} {
		q := PullQuery{Senders: manyKeys(n), Limit: 1, PageID: "p"}
		line, err := Canonicalize(q)
		if err != nil {
			t.Fatal(err)
		}
		_, err = ParsePullQuery(line)
		wantCode(t, err, code)
		_, _, err = NewPull(q, nil)
		wantCode(t, err, code)
	}
}

func wantCode(t *testing.T, err error, code Code) {
	t.Helper()
	if code == "" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	if !errors.Is(err, code) {
		t.Errorf("got %v, want %s", err, code)
	}
}

func TestEnvelopeSize(t *testing.T) {
	key := testKey(t, 1)
	envelope := func(fill int) ([]byte, error) {
		e, err := SignRaw(key, key.Public(), 1, []byte(`{"fill":"`+strings.Repeat("x", fill)+`","type":"x"}`), [32]byte{})
		if err != nil {
			return nil, err
		}
		return e.Bytes(), nil
	}
	least, err := envelope(0)
	if err != nil {
		t.Fatal(err)
	}
	greatest, err := envelope(MaxEnvelopeSize - len(least))
	if err != nil || len(greatest) != MaxEnvelopeSize {
		t.Fatalf("an envelope of %d bytes: %v", len(greatest), err)
	}
	_, err = envelope(MaxEnvelopeSize - len(least) + 1)
	wantCode(t, err, CodeTooLarge)
	_, err = ParseEnvelope(bytes.Repeat([]byte("["), MaxEnvelopeSize))
	wantCode(t, err, CodeMalformed)
}

func TestTimestampOutOfRange(t *testing.T) {
	key := testKey(t, 1)
	for _, at := range []Timestamp{-1, MaxInteger + 1} {
		_, err := SignRaw(key, key.Public(), at, []byte(`{"type":"x"}`), [32]byte{})
		wantCode(t, err, CodeMalformed)
	}
	if got := Timestamp(5).Add(-FreshnessWindow); got != 0 {
		t.Errorf("before the beginning is %d", got)
	}
	if got := Timestamp(MaxInteger).Add(FreshnessWindow); got != MaxInteger {
		t.Errorf("after the end is %d", got)
	}
}

// A request decoded into a value that held another keeps nothing of it.
func TestDecodeForgets(t *testing.T) {
	key := testKey(t, 1)
	tag := Tag("ack")
	w := &Write{Relay: key.Public(), RecordID: "a", Expires: 1, MaxPulls: 1, Content: "AAAA"}
	plain, err := Sign(key, key.Public(), 1, w)
	if err != nil {
		t.Fatal(err)
	}
	held := Write{Tag: &tag}
	if err := plain.Decode(&held); err != nil || held.Tag != nil {
		t.Errorf("the tag of the request before stays: %v", err)
	}
	pulled, err := Sign(key, key.Public(), 1, &Pull{})
	if err != nil {
		t.Fatal(err)
	}
	heldPull := Pull{Got: &PageRoot{PageID: "p"}}
	if err := pulled.Decode(&heldPull); err != nil || heldPull.Got != nil {
		t.Errorf("the acknowledgement of the request before stays: %v", err)
	}
}

func TestPageBounds(t *testing.T) {
	endless := bytes.Repeat([]byte("x"), MaxPageBytes+MaxEnvelopeSize+2<<20)
	counted := &countingReader{data: endless}
	if _, err := ReadPage(counted); err == nil {
		t.Error("an endless line is a page")
	}
	if most := MaxPageBytes + MaxEnvelopeSize + 1<<20 + 64<<10; counted.read > most {
		t.Errorf("%d bytes were read, %d at most", counted.read, most)
	}
	if p, err := ReadPage(strings.NewReader("")); p != nil || err == nil {
		t.Errorf("nothing is the page %v", p)
	}
}

type countingReader struct {
	data []byte
	read int
}

func (r *countingReader) Read(p []byte) (int, error) {
	n := copy(p, r.data[r.read:])
	r.read += n
	if n == 0 {
		return 0, errors.New("the reader went on past the end")
	}
	return n, nil
}

func TestSealedBounds(t *testing.T) {
	key, err := NewSealingPrivateKey(sha256.Sum256([]byte("bounds")))
	if err != nil {
		t.Fatal(err)
	}
	where := SealContext{From: testKey(t, 1).Public(), To: testKey(t, 2).Public(), RecordID: "r"}
	header := SealedHeader{ContentType: "text/plain", Device: "0123456789abcdef", Seq: 1}
	for _, c := range []struct {
		name   string
		change func(*SealedHeader)
		body   int
		code   Code
	}{
		{"plain", func(*SealedHeader) {}, 1, ""},
		{"a header of 8 KiB", func(h *SealedHeader) { h.Name = strings.Repeat("n", 8<<10-len(headText(t, header))-len(`,"name":""`)) }, 0, ""},
		{"a header over 8 KiB", func(h *SealedHeader) { h.Name = strings.Repeat("n", 8<<10) }, 0, CodeTooLarge},
		{"a body over 8 MiB", func(*SealedHeader) {}, MaxEnvelopeSize, CodeTooLarge},
		{"no device", func(h *SealedHeader) { h.Device = "" }, 0, CodeInvalidValue},
		{"no seq", func(h *SealedHeader) { h.Seq = 0 }, 0, CodeInvalidValue},
		{"no content type", func(h *SealedHeader) { h.ContentType = "" }, 0, CodeInvalidValue},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := header
			c.change(&h)
			sealed, err := Seal(key.Public(), where, h, make([]byte, c.body))
			wantCode(t, err, c.code)
			if err != nil {
				return
			}
			opened, body, err := Open(key, where, sealed)
			if err != nil || *opened != h || len(body) != c.body {
				t.Errorf("opened %+v with %d bytes: %v", opened, len(body), err)
			}
		})
	}
}

func headText(t *testing.T, h SealedHeader) []byte {
	t.Helper()
	head, err := Canonicalize(h)
	if err != nil {
		t.Fatal(err)
	}
	return head
}

// Two seals of one message have nothing in common.
func TestSealIsRandom(t *testing.T) {
	key, err := NewSealingPrivateKey([32]byte{9})
	if err != nil {
		t.Fatal(err)
	}
	where := SealContext{From: testKey(t, 1).Public(), To: testKey(t, 2).Public(), RecordID: "r"}
	header := SealedHeader{ContentType: "text/plain", Device: "0123456789abcdef", Seq: 1}
	a, errA := Seal(key.Public(), where, header, []byte("hi"))
	b, errB := Seal(key.Public(), where, header, []byte("hi"))
	if errA != nil || errB != nil || bytes.Equal(a[1:33], b[1:33]) || bytes.Equal(a[1121:1153], b[1121:1153]) {
		t.Errorf("two seals share bytes: %v %v", errA, errB)
	}
}

func TestMerkleRootAgainstModel(t *testing.T) {
	if (MerkleRoot(nil) != Hash{}) {
		t.Error("no leaves have a root")
	}
	var leaves []Hash
	for n := 1; n <= MaxPageRecords; n++ {
		leaves = append(leaves, TaggedHash(TagLeaf, []byte(fmt.Sprint(n))))
		if n < 70 || n%97 == 0 || n == MaxPageRecords {
			if got, want := MerkleRoot(leaves), levelRoot(leaves); got != want {
				t.Fatalf("the root of %d leaves is %s, level by level it is %s", n, got, want)
			}
		}
	}
}

// levelRoot builds the same tree from below: pairs of neighbours, an odd one moves up as it is.
func levelRoot(level []Hash) Hash {
	for len(level) > 1 {
		var next []Hash
		for i := 0; i+1 < len(level); i += 2 {
			next = append(next, TaggedHash(TagNode, level[i][:], level[i+1][:]))
		}
		if len(level)%2 == 1 {
			next = append(next, level[len(level)-1])
		}
		level = next
	}
	return level[0]
}

// Seal makes no header over 8 KiB, so this plaintext is written by hand.
func TestSealedHeaderBound(t *testing.T) {
	plain := func(headerSize int) []byte {
		head := headText(t, SealedHeader{ContentType: "text/plain", Device: "0123456789abcdef", Seq: 1, Name: "n"})
		head = bytes.Replace(head, []byte(`"n"`), []byte(`"`+strings.Repeat("n", headerSize-len(head)+1)+`"`), 1)
		n := len(head) + 1
		out := make([]byte, PaddedSize(n))
		binary.BigEndian.PutUint32(out, uint32(n))
		copy(out[4:], head)
		return out
	}
	_, _, err := splitPlain(plain(maxSealHeader))
	wantCode(t, err, "")
	_, _, err = splitPlain(plain(maxSealHeader + 1))
	wantCode(t, err, CodeMalformed)
}
