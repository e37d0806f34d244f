package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"

	"relaymarket/protocol"
)

// fillDoc rewrites the generated parts of docs/protocol.md, each between two comments, so that
// prose and code cannot drift apart.
func fillDoc(doc []byte) ([]byte, error) {
	for name, text := range map[string]string{"codes": codesTable(), "example": exampleText(), "merkle": merkleText()} {
		begin, end := []byte("<!-- generated: "+name+" -->\n"), []byte("<!-- end: "+name+" -->\n")
		i, j := bytes.Index(doc, begin), bytes.Index(doc, end)
		if i < 0 || j < i {
			return nil, fmt.Errorf("%s has no place for the generated part %q", docFile, name)
		}
		doc = slices.Concat(doc[:i], begin, []byte(text), doc[j:])
	}
	return doc, nil
}

// advice is what a client does about each code. A code without a row here fails the build of the
// vectors, as does a row without a code.
var advice = map[protocol.Code]string{
	protocol.CodeMalformed:         "a defect of the client, or of what it forwards; do not repeat",
	protocol.CodeNotCanonical:      "a defect of the client; do not repeat",
	protocol.CodeBadPath:           "a defect of the client; do not repeat",
	protocol.CodeBadQuery:          "a defect of the client; do not repeat",
	protocol.CodeBadCursor:         "not a cursor of this relay; start over without `after`",
	protocol.CodeUnauthorized:      "send the `Authorization` header",
	protocol.CodeStale:             "measure the clock offset from `time`, sign again, once",
	protocol.CodeFuture:            "measure the clock offset from `time`, sign again, once",
	protocol.CodeBadSignature:      "a defect of the client, or a forgery; do not repeat",
	protocol.CodeNoAccount:         "`announcement` says what the relay offers; ask its operator, or use another relay",
	protocol.CodeWrongTarget:       "a defect of the client, or a proxy that rewrites request lines",
	protocol.CodeWrongType:         "a defect of the client; do not repeat",
	protocol.CodeMismatch:          "a defect of the client; do not repeat",
	protocol.CodeWrongQuery:        "a defect of the client, or a proxy that changes bodies; do not repeat",
	protocol.CodeWrongParty:        "only the receiver pulls, only the sender deletes",
	protocol.CodeDenied:            "use another relay",
	protocol.CodeOffTopic:          "do not repeat; the account's topic is in `GET /account`: give the record that tag, or use another relay",
	protocol.CodeUnreadable:        "do not repeat; send what is not sealed, or use another relay",
	protocol.CodeNotFound:          "nothing of yours is there; what is not yours looks the same",
	protocol.CodeMethodNotAllowed:  "a defect of the client; do not repeat",
	protocol.CodeTooSlow:           "repeat over a better connection, with smaller pages or batches",
	protocol.CodeConflict:          "for writes: never repeat; take another `recordId`",
	protocol.CodePageOpen:          "finish the page named by `pageId`: ask for it again, acknowledge it, then pull on",
	protocol.CodeCardOlder:         "fetch the newer card; another device may have published it",
	protocol.CodeGone:              "do not repeat; the record has ended",
	protocol.CodeCursorEpoch:       "start over without `after`; known records are recognized by `(from, recordId)`",
	protocol.CodePageSpent:         "acknowledge `root` if the relay did serve the page, then pull on",
	protocol.CodeTooLarge:          "stay within the announced limits; do not repeat",
	protocol.CodeContentType:       "a defect of the client; do not repeat",
	protocol.CodeContentEncoding:   "send bodies without compression",
	protocol.CodeWrongAudience:     "the address belongs to another relay than thought, or the envelope is for another",
	protocol.CodeInvalidValue:      "do not repeat",
	protocol.CodeExpired:           "do not repeat; for a new message choose a later `expires`",
	protocol.CodeRootMismatch:      "compute the root again from what was received, or ask for the page again",
	protocol.CodeRateAddress:       "repeat after `Retry-After`",
	protocol.CodeRateKey:           "repeat after `Retry-After`",
	protocol.CodeInternal:          "repeat later, with growing pauses",
	protocol.CodeOverloaded:        "repeat after `Retry-After`",
	protocol.CodeQuotaStored:       "delete records or wait until some expire; or another relay",
	protocol.CodeQuotaMoved:        "wait for the next calendar month (UTC); or another relay",
	protocol.CodeQuotaAdmitted:     "wait until the receiver's admitted space is free; or another relay",
	protocol.CodeDiskFull:          "repeat later, or another relay",
	protocol.CodeBadPSBT:           "a defect of the client or its wallet; do not repeat",
	protocol.CodeContractEnded:     "renew it or open another, on the offer in `announcement`; what is stored stays",
	protocol.CodeNoContracts:       "ask the operator for space, or use another relay",
	protocol.CodePaymentDue:        "audit the usage, pay for it, then repeat",
	protocol.CodeConsent:           "let the writer sign a consent for this contract, relay and payer",
	protocol.CodeStateOrder:        "ask for the status, continue above its `seq`",
	protocol.CodeContractState:     "ask for the status; what it says has happened already",
	protocol.CodeInputSpent:        "draw a new contract id and open with other coins",
	protocol.CodeFundingEnded:      "draw a new contract id and open again",
	protocol.CodeNetwork:           "use a relay of the wallet's network",
	protocol.CodeTerms:             "fetch the announcement again, and agree to it anew or not",
	protocol.CodeContractExpiry:    "choose another expiry, from the relay's `height`",
	protocol.CodeWrongInput:        "a defect of the client, or a deceit of the other side; do not repeat",
	protocol.CodeInputType:         "fund from native P2WPKH or P2TR coins",
	protocol.CodeInputAmount:       "a defect of the wallet, or another chain; do not repeat",
	protocol.CodeInputUnconfirmed:  "wait for a confirmation, then open again",
	protocol.CodeWrongScript:       "a defect of the client, or a deceit of the other side; do not repeat",
	protocol.CodeWrongOutput:       "a defect of the client, or a deceit of the other side; do not repeat",
	protocol.CodeWrongAmount:       "ask for the status: amounts only rise, and stay 1,000 satoshi below the deposit",
	protocol.CodeDust:              "take a larger amount or a lower fee",
	protocol.CodeWrongSighash:      "a defect of the client or its wallet; do not repeat",
	protocol.CodeWrongLocktime:     "a defect of the client or its wallet; do not repeat",
	protocol.CodeWrongSequence:     "a defect of the client or its wallet; do not repeat",
	protocol.CodeContractSignature: "a defect of the client, or the wrong key; do not repeat",
	protocol.CodeFeerate:           "take a feerate within bounds, and a fee of that",
	protocol.CodeContractsFull:     "finish or drop what is half open; repeat after `Retry-After`",
	protocol.CodeChainStale:        "existing contracts serve on; repeat after `Retry-After`, or another relay",
	protocol.CodeNoCoins:           "repeat after `Retry-After`, or another relay",
	protocol.CodeBroadcast:         "repeat after `Retry-After`: the step itself is stored",
}

// codesTable is the table of all codes by status, then by name.
func codesTable() string {
	codes := protocol.Codes()
	if len(codes) != len(advice) {
		panic(fmt.Sprintf("vectors: %d codes, advice for %d", len(codes), len(advice)))
	}
	slices.SortFunc(codes, func(a, b protocol.Code) int {
		return cmp.Or(cmp.Compare(a.Status(), b.Status()), cmp.Compare(a, b))
	})
	var b bytes.Buffer
	b.WriteString("| status | `code` | `title` | what the client does |\n|---|---|---|---|\n")
	for _, c := range codes {
		what, ok := advice[c]
		if !ok {
			panic("vectors: no advice for the code " + string(c))
		}
		fmt.Fprintf(&b, "| %d | `%s` | %s | %s |\n", c.Status(), c, c.Title(), what)
	}
	return b.String()
}

// exampleText is one envelope with every value on the way to it.
func exampleText() string {
	c := newCast()
	e := signed(c.alice, c.bob.Public, now, object(writeMembers(c)))
	v := (&sessionBuilder{session: session{topic: topic{Keys: c.keys()}}}).values(e)
	var b bytes.Buffer
	row := func(name, value string) { fmt.Fprintf(&b, "%s\n    %s\n", name, value) }
	b.WriteString("```text\n")
	row("secret of alice", c.alice.Secret)
	row("public key of alice (from)", c.alice.Public.String())
	row("the same for people", c.alice.Public.Bech32())
	row("public key of bob (to)", c.bob.Public.String())
	row("public key of the relay (request.relay)", c.relay.Public.String())
	row("timestamp", fmt.Sprint(v.Timestamp))
	row("request", v.Request)
	row("msg", v.Msg)
	row(`SHA-256("relaymarket/v1/envelope")`, fmt.Sprintf("%x", sha256.Sum256([]byte(protocol.TagEnvelope))))
	row("digest = SHA-256(that, twice, then msg)", v.Digest)
	row("auxiliary randomness", zero32)
	row("sig", v.Sig)
	row(fmt.Sprintf("envelope (%d bytes)", e.Size()), v.Envelope)
	row(`hash = tagged hash "relaymarket/v1/leaf" of the envelope`, v.Hash)
	row(`requestHash = tagged hash "relaymarket/v1/request" of from (32 bytes), to (32 bytes), request`, v.RequestHash)
	row("path", recordPath(c))
	b.WriteString("```\n")
	return b.String()
}

// merkleText is the tree over three leaves.
func merkleText() string {
	l0, l1, l2 := leaf(0), leaf(1), leaf(2)
	n01 := node(l0, l1)
	root := node(n01, l2)
	var b bytes.Buffer
	b.WriteString("```text\n")
	for _, row := range []struct {
		name  string
		value [32]byte
	}{
		{"leaf 0", l0}, {"leaf 1", l1}, {"leaf 2", l2}, {"node 01 = H(leaf 0 || leaf 1)", n01}, {"root    = H(node 01 || leaf 2)", root},
	} {
		fmt.Fprintf(&b, "%-30s %x\n", row.name, row.value)
	}
	b.WriteString("```\n")
	return b.String()
}
