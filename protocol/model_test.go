package protocol

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gowebpki/jcs"
)

// The slow model: canonical form and envelope again, with other libraries and other code, to be
// compared with what this package says.

// modelCanonical tells whether data is canonical JSON of the protocol's profile.
func modelCanonical(data []byte) bool {
	if !utf8.Valid(data) || !json.Valid(data) {
		return false
	}
	canonical, err := jcs.Transform(data)
	if err != nil || !bytes.Equal(canonical, data) {
		return false // jcs refuses a name that occurs twice
	}
	v, ok := modelDecode(data)
	return ok && modelProfile(v, 0)
}

func modelDecode(data []byte) (any, bool) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	return v, d.Decode(&v) == nil
}

func modelProfile(v any, depth int) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, member := range v {
			if !modelProfile(member, depth+1) {
				return false
			}
		}
		return depth < 16
	case []any:
		for _, element := range v {
			if !modelProfile(element, depth+1) {
				return false
			}
		}
		return depth < 16
	case json.Number:
		n, ok := new(big.Int).SetString(v.String(), 10)
		return ok && n.CmpAbs(big.NewInt(1<<53-1)) <= 0
	}
	return v != nil
}

// modelEnvelope is the envelope as a generic value, or nil if data is none.
func modelEnvelope(data []byte) map[string]any {
	if !modelCanonical(data) {
		return nil
	}
	v, _ := modelDecode(data)
	e, ok := modelObject(v, "msg", "sig")
	if !ok || !modelHex(e["sig"], 64) {
		return nil
	}
	msg, ok := modelObject(e["msg"], "from", "request", "timestamp", "to")
	if !ok || !modelHex(msg["from"], 32) || !modelHex(msg["to"], 32) {
		return nil
	}
	if n, ok := msg["timestamp"].(json.Number); !ok || strings.HasPrefix(n.String(), "-") {
		return nil
	}
	request, ok := msg["request"].(map[string]any)
	if !ok {
		return nil
	}
	requestType, ok := request["type"].(string)
	if !ok || len(requestType) < 1 || len(requestType) > 64 || modelEscaped(requestType) {
		return nil
	}
	return e
}

// modelObject is v as an object of exactly these members.
func modelObject(v any, names ...string) (map[string]any, bool) {
	m, ok := v.(map[string]any)
	if !ok || len(m) != len(names) {
		return nil, false
	}
	for name := range m {
		if !slices.Contains(names, name) {
			return nil, false
		}
	}
	return m, true
}

func modelHex(v any, size int) bool {
	s, ok := v.(string)
	raw, err := hex.DecodeString(s)
	return ok && err == nil && len(raw) == size && strings.ToLower(s) == s
}

func modelEscaped(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == '"' || r == '\\' })
}

// modelEncode writes a generic envelope again.
func modelEncode(e map[string]any) ([]byte, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return jcs.Transform(data)
}
