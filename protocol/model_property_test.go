package protocol

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/gowebpki/jcs"
	"pgregory.net/rapid"
)

// drawJSON draws a value within the profile: what Go's encoders take.
func drawJSON(depth int) *rapid.Generator[any] {
	scalar := rapid.OneOf(
		rapid.Map(drawText(), func(s string) any { return s }),
		rapid.Map(rapid.Int64Range(-MaxInteger, MaxInteger), func(n int64) any { return n }),
		rapid.Map(rapid.Int64Range(-9, 99), func(n int64) any { return n }),
		rapid.Map(rapid.Bool(), func(b bool) any { return b }),
	)
	if depth == 0 {
		return scalar
	}
	inner := rapid.Deferred(func() *rapid.Generator[any] { return drawJSON(depth - 1) })
	return rapid.OneOf(scalar,
		rapid.Map(rapid.SliceOfN(inner, 0, 4), func(s []any) any { return s }),
		rapid.Map(rapid.MapOfN(drawText(), inner, 0, 5), func(m map[string]any) any { return m }),
	)
}

// drawText draws strings that order and escaping depend on, more often than chance would.
func drawText() *rapid.Generator[string] {
	special := rapid.SampledFrom([]string{
		"", "\x00", "\x1f", "\x7f", "\u0080", "\u2028", "\ud7ff", "\ue000", "\ufb33", "\uffff", "\U00010000", "\U0001f600", "\U0010ffff",
		`"`, `\`, "/", "\b\f\n\r\t", "<>&", "a", "aa", "A", "é", "e\u0301", "ſ",
	})
	return rapid.OneOf(special, rapid.String(), rapid.Map(rapid.SliceOfN(special, 2, 4), func(s []string) string {
		return fmt.Sprint(s[0], s[1], s[len(s)-1])
	}))
}

// drawObject draws an object that may stand as a request.
func drawObject(t *rapid.T) map[string]any {
	m := rapid.MapOfN(drawText(), drawJSON(3), 0, 5).Draw(t, "members")
	m["type"] = rapid.StringMatching(`[a-z]{1,12}`).Draw(t, "type")
	return m
}

// Canonicalize is jcs for every value of the profile, and CheckCanonical accepts exactly that text.
func TestCanonicalizeIsJCS(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawJSON(4).Draw(t, "value")
		ours, err := Canonicalize(v)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := json.MarshalIndent(v, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := jcs.Transform(plain)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(ours, theirs) {
			t.Fatalf("ours\n%s\njcs\n%s", ours, theirs)
		}
		if err := CheckCanonical(ours); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(plain, ours) && CheckCanonical(plain) == nil {
			t.Fatalf("accepted as canonical:\n%s", plain)
		}
	})
}

// What is a byte away from canonical is judged as the slow model judges it.
func TestCheckCanonicalIsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data, err := Canonicalize(drawJSON(3).Draw(t, "value"))
		if err != nil {
			t.Fatal(err)
		}
		data = mutate(t, data)
		if got, want := CheckCanonical(data) == nil, modelCanonical(data); got != want {
			t.Fatalf("CheckCanonical says %v, the model %v, of %q", CheckCanonical(data), want, data)
		}
		if fault := canonicalFault(data); scanCanonical(data) != (fault == nil) {
			t.Fatalf("the fast judge says %v, the slow one %v, of %q", scanCanonical(data), fault, data)
		}
	})
}

// mutate changes, inserts or removes a few bytes.
func mutate(t *rapid.T, data []byte) []byte {
	data = bytes.Clone(data)
	for range rapid.IntRange(0, 3).Draw(t, "changes") {
		if len(data) == 0 {
			break
		}
		at := rapid.IntRange(0, len(data)-1).Draw(t, "at")
		b := rapid.OneOf(rapid.SampledFrom([]byte(` "\{}[]:,0123456789abcdefABCDEFnu.-+eE`+"\x00\n\xff")), rapid.Byte()).Draw(t, "byte")
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			data[at] = b
		case 1:
			data = append(data[:at], append([]byte{b}, data[at:]...)...)
		case 2:
			data = append(data[:at], data[at+1:]...)
		}
	}
	return data
}

// What ParseEnvelope accepts, the slow model accepts and encodes to the same bytes, and the other
// way round; so a fast parser over fixed text reads exactly the envelopes there are.
func TestParseEnvelopeIsModel(t *testing.T) {
	key := testKey(t, 7)
	rapid.Check(t, func(t *rapid.T) {
		request, err := Canonicalize(drawObject(t))
		if err != nil {
			t.Fatal(err)
		}
		at := Timestamp(rapid.Int64Range(0, MaxInteger).Draw(t, "timestamp"))
		e, err := SignRaw(key, key.Public(), at, request, [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Verify(); err != nil {
			t.Fatal(err)
		}
		checkAgainstModel(t, e.Bytes())
		checkAgainstModel(t, mutate(t, e.Bytes()))
		checkAgainstModel(t, reshape(t, e.Bytes()))
	})
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func checkAgainstModel(t fataler, data []byte) {
	t.Helper()
	e, err := ParseEnvelope(data)
	model := modelEnvelope(data)
	if (err == nil) != (model != nil) {
		t.Fatalf("ParseEnvelope says %v, the model %v, of %q", err, model, data)
	}
	if model == nil {
		return
	}
	again, encodeErr := modelEncode(model)
	if encodeErr != nil || !bytes.Equal(again, data) {
		t.Fatalf("the model encodes it to\n%q (%v), it was\n%q", again, encodeErr, data)
	}
	msg := model["msg"].(map[string]any)
	fields := fmt.Sprint(msg["from"], msg["to"], msg["timestamp"], msg["request"].(map[string]any)["type"], model["sig"])
	if got := fmt.Sprint(e.From.String(), e.To.String(), json.Number(fmt.Sprint(int64(e.Timestamp))), e.Type, e.Sig.String()); got != fields {
		t.Fatalf("ParseEnvelope reads %s, the model %s", got, fields)
	}
	wholeMsg, encodeErr := modelEncode(msg)
	if encodeErr != nil || !bytes.Equal(wholeMsg, e.msg) || !bytes.Equal(e.Bytes(), data) {
		t.Fatalf("what is signed is\n%q, the msg is\n%q (%v)", e.msg, wholeMsg, encodeErr)
	}
}

// reshape changes members of the generic envelope: removes, adds, or replaces one by another value.
func reshape(t *rapid.T, data []byte) []byte {
	v, _ := modelDecode(data)
	object := v.(map[string]any)
	if rapid.Bool().Draw(t, "within msg") {
		object = object["msg"].(map[string]any)
	}
	name := rapid.SampledFrom([]string{"msg", "sig", "from", "request", "timestamp", "to", "a", "zz"}).Draw(t, "name")
	if rapid.Bool().Draw(t, "remove") {
		delete(object, name)
	} else {
		object[name] = drawJSON(1).Draw(t, "new value")
	}
	out, err := modelEncode(v.(map[string]any))
	if err != nil {
		t.Fatal(err)
	}
	return out
}
