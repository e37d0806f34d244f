package api

import (
	"encoding/hex"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"relaymarket/protocol"
	"relaymarket/records"
)

// The two replies of the write path and the first line of a page, laid out by hand: what is in them needs no escape but perhaps the cursor. They
// are the bytes that a Stored, a BatchOutcome and a PageHeader are encoded to.

func appendStored(b []byte, o *records.Outcome) []byte {
	return append(appendPlace(b, o), '}')
}

// appendOutcome is a line for a write that was stored, whose record id is therefore valid.
func appendOutcome(b []byte, line int, l *batchLine, status int) []byte {
	b = appendPlace(b, &l.outcome)
	b = append(b, `,"line":`...)
	b = strconv.AppendInt(b, int64(line), 10)
	b = append(b, `,"recordId":"`...)
	b = append(b, l.write.RecordID...)
	b = append(b, `","status":`...)
	b = strconv.AppendInt(b, int64(status), 10)
	return append(b, '}')
}

// appendPageHeader is the canonical form.
func appendPageHeader(b []byte, h *protocol.PageHeader) []byte {
	b = append(b, `{"cursor":`...)
	b, _ = jsontext.AppendQuote(b, h.Cursor)
	b = append(b, `,"more":`...)
	b = strconv.AppendBool(b, h.More)
	b = append(b, `,"pageId":"`...)
	b = append(b, h.PageID...)
	b = append(b, `","records":`...)
	b = strconv.AppendInt(b, h.Records, 10)
	if h.Root != nil {
		b = append(b, `,"root":"`...)
		b = hex.AppendEncode(b, h.Root[:])
		b = append(b, '"')
	}
	b = append(b, `,"served":`...)
	b = strconv.AppendInt(b, h.Served, 10)
	return append(b, '}')
}

// appendPlace opens an object with the members cursor and hash.
func appendPlace(b []byte, o *records.Outcome) []byte {
	b = append(b, `{"cursor":`...)
	b, _ = jsontext.AppendQuote(b, o.Cursor) // its error says that it replaced what is not UTF-8: a cursor is ASCII
	b = append(b, `,"hash":"`...)
	b = hex.AppendEncode(b, o.Hash[:])
	return append(b, '"')
}
