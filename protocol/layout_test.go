package protocol

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// sameReading fails when the fast reader of a request and the generic one differ about a canonical object.
func sameReading(t fataler, fast laidOut, object []byte) {
	t.Helper()
	kind := reflect.TypeOf(fast).Elem()
	e := &Envelope{Request: object}
	if e.readType() != nil || e.Type != fast.RequestType() {
		if fast.readLayout(object) {
			t.Fatalf("the fast reader takes %q for a %s", object, fast.RequestType())
		}
		return
	}
	slow := reflect.New(kind).Interface().(Request)
	fault := e.decodeSlow(slow)
	switch accepted := fast.readLayout(object); {
	case accepted && fault != nil:
		t.Fatalf("the fast reader accepts what the slow one refuses with %v: %q", fault, object)
	case accepted && !reflect.DeepEqual(fast, slow):
		t.Fatalf("the fast reader has\n%+v\nthe slow one\n%+v\nof %q", fast, slow, object)
	case !accepted && fault == nil && bytes.IndexByte(object, '\\') < 0:
		t.Fatalf("the fast reader leaves %q to the slow one", object)
	}
	if kind != reflect.TypeFor[Write]() {
		return
	}
	terms := Write{Content: "from before", Tag: new(Tag)}
	got, want := e.DecodeTerms(&terms), fault
	if (got == nil) != (want == nil) || got != nil && got.Error() != want.Error() {
		t.Fatalf("DecodeTerms says %v, the slow reader %v, of %q", got, want, object)
	}
	whole := *slow.(*Write)
	if whole.Content = ""; got == nil && !reflect.DeepEqual(terms, whole) {
		t.Fatalf("DecodeTerms has\n%+v\nnot\n%+v\nof %q", terms, whole, object)
	}
}

// noType stands for the query of a pull, which is no request and has none.
const noType = ""

// sameQuery fails when the fast reader of a query and the generic one differ about a canonical object.
func sameQuery(t fataler, object []byte) (accepted bool) {
	t.Helper()
	after := "before"
	fast := PullQuery{After: &after, Limit: 7, PageID: "before", Salt: Salt{7}, Senders: []PublicKey{{7}}}
	slow := fast
	fault := slow.decodeSlow(object)
	accepted = fast.readLayout(object)
	switch {
	case accepted && fault != nil:
		t.Fatalf("the fast reader accepts what the slow one refuses with %v: %q", fault, object)
	case accepted && !reflect.DeepEqual(fast, slow):
		t.Fatalf("the fast reader has\n%+v\nthe slow one\n%+v\nof %q", fast, slow, object)
	case !accepted && fault == nil && bytes.IndexByte(object, '\\') < 0:
		t.Fatalf("the fast reader leaves %q to the slow one", object)
	}
	return accepted
}

// The same of the query of a pull.
func TestQueryLayoutIsTheGenericReader(t *testing.T) {
	accepted, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		for range 10 {
			data := drawRequest(t, noType)
			if CheckCanonical(data) != nil {
				continue
			}
			if sameQuery(t, data) {
				accepted++
			} else {
				refused++
			}
		}
	})
	if accepted < 50 || refused < 50 {
		t.Errorf("%d were accepted, %d refused", accepted, refused)
	}
}

// filled is a request of a type whose fields all have something in them, which must not shine through.
func filled(t fataler, requestType string) laidOut {
	t.Helper()
	tag := Tag("before")
	switch requestType {
	case TypeWrite:
		return &Write{Tag: &tag, Content: "before", MaxPulls: 7, RecordID: "before"}
	case TypePull:
		return &Pull{Got: &PageRoot{PageID: "before"}, Query: Hash{7}}
	case TypeGot:
		return &Got{PageID: "before", Root: Hash{7}}
	}
	t.Fatalf("%s has no fast reader", requestType)
	return nil
}

// mostly draws one of the first values, and one time in ten one of the others.
func mostly[T any](right, wrong []T) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		if rapid.IntRange(0, 9).Draw(t, "wrong") == 9 {
			return rapid.SampledFrom(wrong).Draw(t, "value")
		}
		return rapid.SampledFrom(right).Draw(t, "value")
	})
}

func drawHex() *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		var k PublicKey
		copy(k[:], rapid.SliceOfN(rapid.Byte(), len(k), len(k)).Draw(t, "bytes"))
		return k.String()
	})
}

// requestMembers are the members of the requests with a fast reader, those that may be absent with a question mark.
func requestMembers(requestType string) map[string]*rapid.Generator[any] {
	name := mostly([]string{"a", "A-z_09"}, []string{"a b", "", `a"b`, "é", string(bytes.Repeat([]byte("a"), MaxRecordID+1))})
	switch requestType {
	case TypeWrite:
		return map[string]*rapid.Generator[any]{"relay": drawHex(), "recordId": name, "tag?": name,
			"expires":  mostly([]int64{0, 1, MaxInteger}, []int64{-1}),
			"maxPulls": mostly([]int64{1, MaxPullsLimit}, []int64{0, -1, MaxPullsLimit + 1}),
			"content":  mostly([]string{"AAAA", "aGk=", "aA==", "+/+/aGVsbG8gd29y"}, []string{"aB==", "AAAA=", "A", "", "AAAAAAAAé", `AAA\`, "AAA\n"})}
	case TypePull:
		got := rapid.Custom(func(t *rapid.T) any {
			return map[string]any{"pageId": name.Draw(t, "pageId"), "root": drawHex().Draw(t, "root")}
		})
		return map[string]*rapid.Generator[any]{"query": drawHex(), "got?": rapid.OneOf(got, got, got, drawJSON(2))}
	case noType:
		salt := rapid.Map(drawHex(), func(v any) any { return v.(string)[:32] })
		return map[string]*rapid.Generator[any]{"pageId": name, "salt": salt,
			"senders": rapid.Map(rapid.SliceOfN(drawHex(), 0, 4), func(s []any) any { return s }),
			"after?":  mostly([]string{"c.1"}, []string{"", "a b", `a\b`, `a"b`, "é"}),
			"limit":   mostly([]int64{1, MaxPageRecords}, []int64{0, -1, MaxPageRecords + 1})}
	}
	return map[string]*rapid.Generator[any]{"pageId": name, "root": drawHex()}
}

// drawRequest draws a request that is mostly right, in canonical form or nearly.
func drawRequest(t *rapid.T, requestType string) []byte {
	members := requestMembers(requestType)
	object := map[string]any{}
	if requestType != noType {
		object["type"] = requestType
	}
	var names []string
	for name := range members {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		plain, optional := strings.CutSuffix(name, "?")
		if !optional || rapid.Bool().Draw(t, name) {
			object[plain] = members[name].Draw(t, name)
		}
	}
	names = append(names, "a", "zz", "tag", "got", "type")
	switch rapid.IntRange(0, 9).Draw(t, "change") {
	case 0:
		delete(object, rapid.SampledFrom(names).Draw(t, "name"))
	case 1:
		object[rapid.SampledFrom(names).Draw(t, "name")] = drawJSON(1).Draw(t, "new value")
	}
	data, err := Canonicalize(object)
	if err != nil {
		t.Fatal(err)
	}
	if rapid.IntRange(0, 3).Draw(t, "mutate") == 0 {
		data = mutate(t, data)
	}
	return data
}

// What the fast readers accept is what the generic one reads: of right requests, of ones that are nearly right, and
// of ones with a member too many, too few or of another kind.
func TestLayoutsAreTheGenericReader(t *testing.T) {
	for _, requestType := range []string{TypeWrite, TypePull, TypeGot} {
		t.Run(requestType, func(t *testing.T) {
			accepted, refused := 0, 0
			rapid.Check(t, func(t *rapid.T) {
				for range 10 {
					data := drawRequest(t, requestType)
					if CheckCanonical(data) != nil || data[0] != '{' {
						continue // no envelope carries it
					}
					fast := filled(t, requestType)
					sameReading(t, fast, data)
					if fast.readLayout(data) {
						accepted++
					} else {
						refused++
					}
				}
			})
			if accepted < 50 || refused < 50 {
				t.Errorf("%d were accepted, %d refused", accepted, refused)
			}
		})
	}
}

// The fast readers take the requests that our own client makes.
func TestLayoutsOfOurRequests(t *testing.T) {
	key := testKey(t, 1).Public()
	tag, after := Tag("ack"), "e.7"
	for _, q := range []PullQuery{
		{Senders: []PublicKey{key}, Limit: 1, PageID: "p"},
		{Senders: []PublicKey{key, {2}}, Limit: 1000, PageID: "p", After: &after},
	} {
		_, line, err := NewPull(q, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !sameQuery(t, line) {
			t.Errorf("%s is left to the generic reader", line)
		}
	}
	for _, r := range []laidOut{
		&Write{Relay: key, RecordID: "a-1", Expires: 2000, MaxPulls: 3, Content: "aGk="},
		&Write{Relay: key, RecordID: "a-1", Expires: 2000, MaxPulls: 3, Content: "aGk=", Tag: &tag},
		&Pull{Query: Hash{1}},
		&Pull{Query: Hash{1}, Got: &PageRoot{PageID: "p", Root: Hash{2}}},
		&Got{PageID: "p", Root: Hash{1}},
	} {
		r.setType()
		object, err := Canonicalize(r)
		if err != nil {
			t.Fatal(err)
		}
		fast := filled(t, r.RequestType())
		if !fast.readLayout(object) {
			t.Errorf("%s is left to the generic reader", object)
		}
		sameReading(t, filled(t, r.RequestType()), object)
	}
}
