package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"

	"relaymarket/protocol"
)

const (
	seedPrefix     = "vector-" // seeds of this program; go test names crashers by their hash
	seedsPerTarget = 8         // seeds a target: a look at each kind, the tests add every vector at run time
)

// sample is a case that is also input of a fuzz target.
type sample interface {
	isValid() bool
	bytes() []byte
}

func (v verdict) isValid() bool           { return v.Valid }
func (c requestCase) bytes() []byte       { return []byte(c.Request) }
func (c pageCase) bytes() []byte          { return []byte(c.Page) }
func (c authorizationCase) bytes() []byte { return []byte(*c.Header) }

// contentSample and plainSample are the two inputs that a sealed case is.
type contentSample struct{ sealedCase }

func (c contentSample) bytes() []byte {
	raw, err := base64.StdEncoding.DecodeString(c.Content)
	return must(raw, err)
}

type plainSample struct{ sealedCase }

func (c plainSample) bytes() []byte {
	raw, err := hex.DecodeString(c.Plaintext)
	return must(raw, err)
}

// wordSample is input that no vector file has by itself.
type wordSample struct {
	verdict
	text string
}

func (w wordSample) bytes() []byte { return []byte(w.text) }

// addSeeds makes the seed corpus of each fuzz target of package protocol.
func addSeeds(files map[string][]byte, topics map[string]any) {
	whole := func(file string) []sample {
		var all []sample
		for _, c := range topics[file].(topic).Cases {
			all = append(all, c.(sample))
		}
		return all
	}
	writeSeeds(files, "FuzzReadPlain", "[]byte", whole("plain.json"))
	for target, file := range map[string]string{
		"FuzzParseEnvelope": "envelopes.json", "FuzzCheckCanonical": "canonical.json", "FuzzParseCard": "cards.json",
		"FuzzParseAnnouncement": "announcements.json", "FuzzReadPage": "pages.json",
		"FuzzParseFileManifest": "files.json", "FuzzParsePullQuery": "queries.json", "FuzzParsePullBody": "pulls.json",
		"FuzzParseAcknowledgement": "acknowledgements.json",
		"FuzzParseFirstWord":       "first-words.json",
	} {
		writeSeeds(files, target, "[]byte", whole(file))
	}
	for target, file := range map[string]string{
		"FuzzParsePublicKey": "keys.json", "FuzzParsePath": "paths.json", "FuzzParseAuthorization": "authorization.json",
		"FuzzParseLink": "links.json", "FuzzParseInvitation": "invitations.json", "FuzzValidateAddress": "addresses.json",
	} {
		writeSeeds(files, target, "string", whole(file))
	}
	requestSeeds(files, whole("requests.json"))
	sealedSeeds(files, topics[sealedFile].(sealedTopic))
	var words []sample
	for _, w := range []string{"AAAA", "AA==", "AAA=", "+/+/"} {
		words = append(words, wordSample{good(w), w})
	}
	for _, w := range []string{"AB==", "AAB=", "A===", "AA"} {
		words = append(words, wordSample{bad(w, protocol.CodeMalformed), w})
	}
	writeSeeds(files, "FuzzBase64", "string", words)
	for target, kind := range map[string]string{"FuzzParseReceipts": kindReceipts, "FuzzParseWritings": kindWritings} {
		var mine []sample
		for _, s := range whole("bodies.json") {
			if s.(bodyCase).Kind == kind {
				mine = append(mine, s)
			}
		}
		writeSeeds(files, target, "[]byte", mine)
	}
	writeSeeds(files, "FuzzParseUsageHeader", "[]byte", usageHeaderSamples())
	var hubs []sample
	for _, w := range []string{"nats://hub.example:4222", "tls://[2001:db8::1]:4222", "https://hub.example", "nats://127.0.0.1:1"} {
		hubs = append(hubs, wordSample{good(w), w})
	}
	for _, w := range []string{"nats://hub.example", "tls://user:pass@hub.example:1", "nats://HUB.example:1", "tls://hub.example:4222/x", "ws://hub.example:1"} {
		hubs = append(hubs, wordSample{bad(w, protocol.CodeInvalidValue), w})
	}
	writeSeeds(files, "FuzzValidateHub", "string", hubs)
}

func requestSeeds(files map[string][]byte, all []sample) {
	targets := map[string]string{
		"write": "FuzzDecodeWrite", "pull": "FuzzDecodePull", "got": "FuzzDecodeGot", "listen": "FuzzDecodeListen", "admit": "FuzzDecodeAdmit",
		"read": "FuzzDecodeTargeted", "identity": "FuzzDecodeIdentity", "serverBroadcast": "FuzzDecodeAnnouncement",
		"contractOpen": "FuzzDecodeContractOpen", "contractConsent": "FuzzDecodeContractConsent",
		"contractServerAddInputs": "FuzzDecodeContractServerInputs", "contractClientSigned": "FuzzDecodeContractClientSigned",
		"contractPaymentState": "FuzzDecodeContractPayment", "contractRefundPayment": "FuzzDecodeContractRefund",
		"contractStatus": "FuzzDecodeContractStatus", "contractList": "FuzzDecodeContractList", "usageReport": "FuzzDecodeUsageReport",
		"usageRefusal": "FuzzDecodeUsageRefusal", "usageRefused": "FuzzDecodeUsageRefused",
		"terms": "FuzzDecodeTerms", "termsAnswer": "FuzzDecodeTermsAnswer",
		"probe": "FuzzDecodeProbe", "probeAnswer": "FuzzDecodeProbeAnswer",
		"firstWord": "FuzzDecodeFirstWord",
	}
	for requestType, target := range targets {
		var mine []sample
		for _, s := range all {
			if s.(requestCase).Type == requestType {
				mine = append(mine, s)
			}
		}
		writeSeeds(files, target, "[]byte", mine)
	}
}

func sealedSeeds(files map[string][]byte, t sealedTopic) {
	var contents, plains []sample
	for _, c := range t.Cases {
		s := c.(sealedCase)
		contents = append(contents, contentSample{s})
		if s.Plaintext != "" {
			plains = append(plains, plainSample{s})
		}
	}
	writeSeeds(files, "FuzzOpen", "[]byte", contents)
	writeSeeds(files, "FuzzSplitPlain", "[]byte", plains)
}

// writeSeeds takes some valid and some invalid samples, spread over the list.
func writeSeeds(files map[string][]byte, target, kind string, all []sample) {
	var valid, invalid []sample
	for _, s := range all {
		if s.isValid() {
			valid = append(valid, s)
		} else {
			invalid = append(invalid, s)
		}
	}
	chosen := spread(valid, seedsPerTarget/2)
	chosen = append(chosen[:len(chosen):len(chosen)], spread(invalid, seedsPerTarget-len(chosen))...)
	for i, s := range chosen {
		text := fmt.Sprintf("go test fuzz v1\n%s(%s)\n", kind, strconv.Quote(string(s.bytes())))
		files[fmt.Sprintf("%s/%s/%s%02d", fuzzDir, target, seedPrefix, i)] = []byte(text)
	}
}

func spread(all []sample, n int) []sample {
	if len(all) <= n {
		return all
	}
	chosen := make([]sample, n)
	for i := range chosen {
		chosen[i] = all[i*len(all)/n]
	}
	return chosen
}
