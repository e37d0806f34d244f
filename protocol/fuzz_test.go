package protocol

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

// addVectors gives a fuzz target every case of a vector file, beside the seeds in testdata/fuzz.
func addVectors(f *testing.F, file, member string) {
	f.Helper()
	for _, raw := range readVectors(f, file).Cases {
		var c map[string]any
		if err := json.Unmarshal(raw, &c); err != nil {
			f.Fatal(err)
		}
		if s, ok := c[member].(string); ok {
			f.Add([]byte(s))
		}
	}
}

func addTexts(f *testing.F, file, member string) {
	f.Helper()
	for _, raw := range readVectors(f, file).Cases {
		var c map[string]any
		if err := json.Unmarshal(raw, &c); err != nil {
			f.Fatal(err)
		}
		if s, ok := c[member].(string); ok {
			f.Add(s)
		}
	}
}

// checkCoded fails on a refusal without a code, or with one that is not in the table.
func checkCoded(t *testing.T, err error) {
	t.Helper()
	var refusal *Error
	if !errors.As(err, &refusal) {
		t.Fatalf("a refusal without a code: %v", err)
	}
	if _, known := codeTable[refusal.Code]; !known || refusal.Detail == "" {
		t.Fatalf("a refusal with the code %q and the words %q", refusal.Code, refusal.Detail)
	}
	if len(refusal.Detail) > 4096 {
		t.Fatalf("a refusal of %d bytes repeats what it refuses", len(refusal.Detail))
	}
}

func FuzzParseEnvelope(f *testing.F) {
	addVectors(f, "envelopes.json", "input")
	f.Fuzz(func(t *testing.T, data []byte) {
		checkAgainstModel(t, data)
		e, err := ParseEnvelope(data)
		if err != nil {
			checkCoded(t, err)
			return
		}
		_ = e.Verify() // must not panic on any key or signature
	})
}

func FuzzCheckCanonical(f *testing.F) {
	addVectors(f, "canonical.json", "input")
	f.Fuzz(func(t *testing.T, data []byte) {
		err := CheckCanonical(data)
		if want := modelCanonical(data); (err == nil) != want {
			t.Fatalf("CheckCanonical says %v, the model %v", err, want)
		}
		if fault := canonicalFault(data); scanCanonical(data) != (fault == nil) {
			t.Fatalf("the fast judge says %v, the slow one %v", scanCanonical(data), fault)
		}
		if err != nil {
			checkCoded(t, err)
			return
		}
		v, _ := modelDecode(data)
		if again, err := Canonicalize(json.RawMessage(data)); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("Canonicalize gives %q (%v) for canonical %q", again, err, v)
		}
	})
}

func FuzzParsePublicKey(f *testing.F) {
	addTexts(f, "keys.json", "input")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParsePublicKey(s)
		if err != nil {
			checkCoded(t, err)
			return
		}
		if s != k.String() && strings.ToLower(s) != k.Bech32() {
			t.Fatalf("%q is read as %s", s, k)
		}
		if strings.ToLower(s) != s && strings.ToUpper(s) != s {
			t.Fatalf("%q mixes cases", s)
		}
		for _, form := range []string{k.String(), k.Bech32()} {
			if again, err := ParsePublicKey(form); err != nil || again != k {
				t.Fatalf("%q is read as %s (%v)", form, again, err)
			}
		}
	})
}

func FuzzParsePath(f *testing.F) {
	addTexts(f, "paths.json", "input")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePath(s)
		if err != nil {
			checkCoded(t, err)
			return
		}
		if p.String() != s {
			t.Fatalf("%q is read as %q", s, p)
		}
	})
}

func FuzzParseAuthorization(f *testing.F) {
	addTexts(f, "authorization.json", "header")
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParseAuthorization(s)
		if err != nil {
			checkCoded(t, err)
			return
		}
		if e.Authorization() != s {
			t.Fatalf("%q is read as %q", s, e.Authorization())
		}
	})
}

func FuzzParseCard(f *testing.F) {
	addVectors(f, "cards.json", "input")
	f.Fuzz(func(t *testing.T, data []byte) {
		e, id, err := ParseCard(data, vectorNow)
		if err != nil {
			checkCoded(t, err)
			return
		}
		checkDocument(t, e, bytes.TrimSuffix(data, []byte("\n")), MaxCardSize)
		checkReencoded(t, id, e.Request)
		id.SealingKey()
	})
}

func FuzzParseAnnouncement(f *testing.F) {
	addVectors(f, "announcements.json", "input")
	f.Fuzz(func(t *testing.T, data []byte) {
		e, a, err := ParseAnnouncement(data, vectorNow)
		if err != nil {
			checkCoded(t, err)
			return
		}
		checkDocument(t, e, data, MaxAnnouncementSize)
		checkReencoded(t, a, e.Request)
		if a.ValidUntil < vectorNow {
			t.Fatal("accepted after its end")
		}
	})
}

const vectorNow Timestamp = 1763683200000

func checkDocument(t *testing.T, e *Envelope, data []byte, most int) {
	t.Helper()
	if !bytes.Equal(e.Bytes(), data) || len(data) > most || e.From != e.To || e.Verify() != nil || CheckNotFuture(e.Timestamp, vectorNow) != nil {
		t.Fatalf("accepted: %q", data)
	}
}

func FuzzParseLink(f *testing.F) {
	addTexts(f, "links.json", "input")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLink(s)
		if err != nil {
			checkCoded(t, err)
			return
		}
		for _, r := range l.Relays {
			if err := ValidateAddress(r); err != nil {
				t.Fatal(err)
			}
		}
		again, err := ParseLink(l.String())
		if err != nil || again.String() != l.String() || again.Key != l.Key {
			t.Fatalf("%q is read as %q (%v)", l, again, err)
		}
	})
}

func FuzzParseInvitation(f *testing.F) {
	addTexts(f, "invitations.json", "input")
	f.Fuzz(func(t *testing.T, s string) {
		i, err := ParseInvitation(s)
		if err != nil {
			checkCoded(t, err)
			return
		}
		again, err := ParseInvitation(i.Text())
		if err != nil || again.Text() != i.Text() || !IsInvitation(s) || IsInvitation(i.Link.String()) {
			t.Fatalf("%q is read again as %v (%v)", i.Link, again, err)
		}
	})
}

func FuzzParseFirstWord(f *testing.F) {
	addVectors(f, "first-words.json", "input")
	keys := readVectors(f, "first-words.json").Keys
	f.Fuzz(func(t *testing.T, data []byte) {
		w, card, err := ParseFirstWord(data, keys["invitation"].Public, keys["bob"].Public, 1<<50)
		if err != nil {
			checkCoded(t, err)
			return
		}
		if err := w.Validate(); err != nil {
			t.Fatal(err)
		}
		if e, err := ParseEnvelope(data); err != nil || e.From != card.From || e.To != keys["bob"].Public {
			t.Fatalf("a first word of %s with the card of %s", e.From, card.From)
		}
	})
}

func FuzzReadPage(f *testing.F) {
	addVectors(f, "pages.json", "page")
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ReadPage(bytes.NewReader(data))
		if errors.Is(err, io.ErrUnexpectedEOF) {
			if p != nil && p.Complete() {
				t.Fatal("a page that was cut is complete")
			}
			return
		}
		if err != nil {
			checkCoded(t, err)
			return
		}
		if !p.Complete() || len(p.Lines) > MaxPageRecords {
			t.Fatalf("%d lines of %d", len(p.Lines), p.Header.Records)
		}
		for _, l := range p.Lines {
			if (l.Envelope == nil) == (l.Gone == nil) {
				t.Fatal("a line is a record or gone")
			}
			if l.Envelope != nil && !bytes.Contains(data, append(bytes.Clone(l.Envelope.Bytes()), '\n')) {
				t.Fatal("a record is not the line it came in")
			}
		}
		_ = p.CheckRoot()
	})
}

func FuzzOpen(f *testing.F) {
	for _, raw := range readVectors(f, "sealed.json").Cases {
		var c sealedVector
		decodeCase(f, raw, &c)
		content, err := base64.StdEncoding.DecodeString(c.Content)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	vectors := readVectors(f, "sealed.json")
	key := vectors.Sealing["bob"].key(f)
	where := SealContext{From: vectors.Keys["alice"].Public, To: vectors.Keys["bob"].Public, RecordID: "0193-a_B"}
	f.Fuzz(func(t *testing.T, content []byte) {
		header, _, err := Open(key, where, content)
		if err != nil {
			checkCoded(t, err)
			return
		}
		if err := header.validate(); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzReadPlain(f *testing.F) {
	for _, raw := range readVectors(f, "plain.json").Cases {
		var c struct {
			vectorHead
			Content, Header, Body string
		}
		decodeCase(f, raw, &c)
		content, err := base64.StdEncoding.DecodeString(c.Content)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		header, body, err := ReadPlain(content)
		if err != nil {
			checkCoded(t, err)
			return
		}
		if err := header.validate(); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasSuffix(content, append([]byte{0}, body...)) || content[0] != SuitePlain {
			t.Fatalf("%x has the body %x", content, body)
		}
	})
}

func FuzzSplitPlain(f *testing.F) {
	for _, raw := range readVectors(f, "sealed.json").Cases {
		var c sealedVector
		decodeCase(f, raw, &c)
		f.Add(unhex(f, c.Plaintext))
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		header, body, err := splitPlain(plain)
		if err != nil {
			checkCoded(t, err)
			return
		}
		if err := header.validate(); err != nil {
			t.Fatal(err)
		}
		// The rest of the plaintext follows from header and body.
		end := bytes.IndexByte(plain[4:], 0) + 4
		n := end - 4 + 1 + len(body)
		want := make([]byte, PaddedSize(n))
		want[0], want[1], want[2], want[3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
		copy(want[4:], plain[4:end])
		copy(want[end+1:], body)
		if !bytes.Equal(want, plain) {
			t.Fatalf("header and body make\n%x, not\n%x", want, plain)
		}
	})
}

func FuzzValidateAddress(f *testing.F) {
	addTexts(f, "addresses.json", "input")
	f.Fuzz(func(t *testing.T, s string) {
		if err := ValidateAddress(s); err != nil {
			checkCoded(t, err)
			return
		}
		rest, secure := strings.CutPrefix(s, "https://")
		if !secure {
			rest = strings.TrimPrefix(s, "http://")
		}
		if rest == s || rest == "" || len(s) > maxAddress || strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz0123456789.-:[]") != "" {
			t.Fatalf("%q is accepted", s)
		}
		if !secure && !strings.Contains(s, ".onion") && !strings.HasPrefix(rest, "localhost") && !strings.HasPrefix(rest, "127.") &&
			!strings.HasPrefix(rest, "[::1]") && !strings.HasPrefix(rest, "[::ffff:127.") {
			t.Fatalf("%q is accepted without TLS", s)
		}
	})
}

func FuzzValidateHub(f *testing.F) {
	addTexts(f, "addresses.json", "input")
	for _, s := range []string{"nats://hub.example:4222", "tls://[2001:db8::1]:4222", "nats://hub.example", "tls://user:pass@hub.example:1", "nats://HUB.example:1", "tls://hub.example:4222/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if err := ValidateHub(s); err != nil {
			checkCoded(t, err)
			return
		}
		_, rest, _ := strings.Cut(s, "://")
		if rest == "" || len(s) > maxAddress || strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz0123456789.-:[]") != "" {
			t.Fatalf("%q is accepted", s)
		}
	})
}

func FuzzBase64(f *testing.F) {
	f.Add("AAAA\n")
	f.Fuzz(func(t *testing.T, s string) {
		_, err := base64.StdEncoding.Strict().DecodeString(s)
		want := err == nil && !strings.ContainsAny(s, "\r\n") // which encoding/base64 skips
		if isBase64(s) != want {
			t.Fatalf("isBase64(%q) = %v", s, !want)
		}
	})
}
