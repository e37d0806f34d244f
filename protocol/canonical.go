package protocol

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxInteger is the largest absolute value of an integer on the wire, 2^53−1 (RFC 7493), so that
// every language reads the same number. Larger quantities travel as decimal strings.
const MaxInteger = 1<<53 - 1

// maxDepth bounds nesting, so that no reader of a document needs more stack than this.
const maxDepth = 16

// Canonicalize encodes v as RFC 8785 canonical JSON within the protocol's limits: integers only,
// no null, at most 16 levels. It fails on values that have no such form.
func Canonicalize(v any) ([]byte, error) {
	data, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	value := jsontext.Value(data)
	if err := value.Canonicalize(); err != nil {
		return nil, fmt.Errorf("canonicalize: %w", err)
	}
	if err := checkProfile(value); err != nil {
		return nil, err
	}
	return value, nil
}

// CheckCanonical tells whether data is one JSON value in exactly its RFC 8785 form and within the
// protocol's limits: no duplicate names, no null, integers of at most 2^53−1 only, at most 16
// levels. The error has code [CodeMalformed] for what is not JSON at all, else [CodeNotCanonical].
func CheckCanonical(data []byte) error {
	if scanCanonical(data) {
		return nil
	}
	return canonicalFault(data)
}

// canonicalFault is the slow judge, which can say what is wrong.
func canonicalFault(data []byte) error {
	value := jsontext.Value(bytes.Clone(data))
	if err := value.Canonicalize(); err != nil {
		var syntax *jsontext.SyntacticError
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return Errorf(CodeMalformed, "a member name occurs twice in one object")
		}
		if errors.As(err, &syntax) {
			return Errorf(CodeMalformed, "not JSON: %v at byte %d", syntax.Err, syntax.ByteOffset)
		}
		return Errorf(CodeMalformed, "not JSON")
	}
	if !bytes.Equal(value, data) {
		return Errorf(CodeNotCanonical, "the bytes differ from the RFC 8785 form at byte %d", firstDifference(value, data))
	}
	return checkProfile(data)
}

func firstDifference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// checkProfile applies the protocol's limits to data, which must already be canonical JSON.
func checkProfile(data []byte) error {
	depth := 0
	for i := 0; i < len(data); {
		switch data[i] {
		case '"':
			i = skipString(data, i)
			continue
		case '{', '[':
			if depth++; depth > maxDepth {
				return Errorf(CodeNotCanonical, "nested deeper than %d levels", maxDepth)
			}
		case '}', ']':
			depth--
		case 'n':
			return Errorf(CodeNotCanonical, "null at byte %d: leave out what is absent", i)
		case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			end := i + 1
			for end < len(data) && isNumberByte(data[end]) {
				end++
			}
			n, err := strconv.ParseInt(string(data[i:end]), 10, 64)
			if err != nil || n > MaxInteger || n < -MaxInteger {
				return Errorf(CodeNotCanonical, "the number at byte %d is not an integer of at most 2^53-1", i)
			}
			i = end
			continue
		}
		i++
	}
	return nil
}

func isNumberByte(c byte) bool {
	return '0' <= c && c <= '9' || c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-'
}

// skipString returns the index after the string that starts at data[i]. The data must be valid.
func skipString(data []byte, i int) int {
	for i++; i < len(data); {
		end := bytes.IndexByte(data[i:], '"')
		if end < 0 {
			return len(data)
		}
		if slash := bytes.IndexByte(data[i:i+end], '\\'); slash >= 0 {
			i += slash + 2 // past the escaped byte; \uXXXX leaves only hex digits behind
			continue
		}
		return i + end + 1
	}
	return len(data)
}

// skipValue returns the index after the object or array that starts at data[i]. The data must be valid.
func skipValue(data []byte, i int) int {
	for depth := 0; i < len(data); {
		switch data[i] {
		case '"':
			i = skipString(data, i)
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
		i++
	}
	return i
}

// members calls visit with each member of a canonical object, names without their quotes. It
// stops at the first false. Names with escapes are passed in their escaped form.
func members(object []byte, visit func(name, value []byte) bool) {
	for i := 1; i < len(object) && object[i] == '"'; i++ {
		nameEnd := skipString(object, i)
		start := nameEnd + 1 // past the colon
		end := start
		switch {
		case start >= len(object):
			return
		case object[start] == '"':
			end = skipString(object, start)
		case object[start] == '{' || object[start] == '[':
			end = skipValue(object, start)
		default:
			for end < len(object) && object[end] != ',' && object[end] != '}' {
				end++
			}
		}
		if !visit(object[i+1:nameEnd-1], object[start:end]) {
			return
		}
		i = end
	}
}

// decodeObject fills dst from a canonical object that must have every required member. In a
// strict object, members unknown to dst are malformed too.
func decodeObject(object []byte, dst any, strict bool, required []string) error {
	if len(object) == 0 || object[0] != '{' {
		return Errorf(CodeMalformed, "not an object")
	}
	missing := len(required)
	members(object, func(name, _ []byte) bool {
		for _, r := range required {
			if string(name) == r {
				missing--
			}
		}
		return true
	})
	if missing > 0 {
		return Errorf(CodeMalformed, "a member is missing: this object has %v", required)
	}
	err := json.Unmarshal(object, dst, json.RejectUnknownMembers(strict))
	if err == nil {
		return nil
	}
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		where := string(semantic.JSONPointer)
		var inner *Error
		switch {
		case errors.As(semantic.Err, &inner):
			return Errorf(inner.Code, "%s: %s", where, inner.Detail)
		case errors.Is(semantic.Err, json.ErrUnknownName):
			return Errorf(CodeMalformed, "%s: unknown member", where)
		}
		return Errorf(CodeMalformed, "%s: a JSON %v does not belong here", where, kindName(semantic.JSONKind))
	}
	return Errorf(CodeMalformed, "not the shape of this object")
}

// DecodeDocument fills dst from a canonical object that must have every required member; unknown
// members are ignored. It is for documents that are no envelopes. Errors have code [CodeMalformed],
// or that of a member's own reader.
func DecodeDocument(object []byte, dst any, required ...string) error {
	return decodeObject(object, dst, false, required)
}

// DecodeItem is [DecodeDocument] for an object within another, called by UnmarshalJSONFrom methods of other packages.
func DecodeItem(dec *jsontext.Decoder, dst any, required ...string) error {
	return decodeItem(dec, dst, required...)
}

// decodeItem is [decodeObject] for an object within another, called by UnmarshalJSONFrom methods
// so that nested members are required too. Strictness is that of the whole. The value is brought
// into canonical form first, because these types may also be read from a file people edited.
func decodeItem(dec *jsontext.Decoder, dst any, required ...string) error {
	value, err := dec.ReadValue()
	if err != nil {
		return err
	}
	value = value.Clone()
	if err := value.Canonicalize(); err != nil {
		return err
	}
	strict, _ := json.GetOption(dec.Options(), json.RejectUnknownMembers)
	return decodeObject(value, dst, strict, required)
}

func kindName(k jsontext.Kind) string {
	switch k {
	case '"':
		return "string"
	case '0':
		return "number"
	case '{':
		return "object"
	case '[':
		return "array"
	case 't', 'f':
		return "boolean"
	}
	return "value"
}
