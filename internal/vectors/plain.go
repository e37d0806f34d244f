package main

import (
	"encoding/base64"
	"encoding/hex"
	"strings"

	"relaymarket/protocol"
)

type plainCase struct {
	verdict
	Content string `json:"content"` // base64
	Header  string `json:"header,omitempty"`
	Body    string `json:"body,omitempty"` // hex
}

func (c plainCase) bytes() []byte {
	raw, err := base64.StdEncoding.DecodeString(c.Content)
	return must(raw, err)
}

// plainTopic is content that is not sealed.
func plainTopic() topic {
	t := topic{Description: "Content that is not sealed (base64): the suite 0, the header, a zero byte, the body (hex)."}
	add := func(v verdict, header, body, content string) {
		t.Cases = append(t.Cases, plainCase{v, base64.StdEncoding.EncodeToString([]byte(content)), header, hex.EncodeToString([]byte(body))})
	}
	valid := func(name, header, body string) { add(good(name), header, body, "\x00"+header+"\x00"+body) }
	valid("plain", plainHeader, "hello")
	valid("body-empty", plainHeader, "")
	valid("body-with-zero-bytes", plainHeader, "a\x00b\x00\x00")
	valid("header-with-unknown-member", `{"contentType":"text/plain","device":"ffffffffffffffff","seq":2,"zzz":"é"}`, "hi")
	refuse := func(name string, code protocol.Code, content string) { add(bad(name, code), "", "", content) }
	refuse("suite-1", protocol.CodeMalformed, "\x01"+plainHeader+"\x00hi")
	refuse("suite-alone", protocol.CodeMalformed, "\x00")
	refuse("no-end-of-header", protocol.CodeMalformed, "\x00"+plainHeader)
	refuse("header-is-array", protocol.CodeMalformed, "\x00[]\x00hi")
	refuse("header-too-long", protocol.CodeMalformed, "\x00"+strings.Replace(plainHeader, `"seq":1`, `"seq":1,"zzz":"`+strings.Repeat("z", 8192)+`"`, 1)+"\x00hi")
	refuse("header-not-canonical", protocol.CodeNotCanonical, "\x00"+strings.Replace(plainHeader, ",", ", ", 1)+"\x00hi")
	refuse("header-without-device", protocol.CodeMalformed, "\x00"+`{"contentType":"text/plain","seq":1}`+"\x00hi")
	refuse("seq-zero", protocol.CodeInvalidValue, "\x00"+strings.Replace(plainHeader, `"seq":1`, `"seq":0`, 1)+"\x00hi")
	return t
}
