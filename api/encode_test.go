package api

import (
	"testing"

	jsonv2 "github.com/go-json-experiment/json"

	"relaymarket/protocol"
	"relaymarket/records"
)

// What is laid out by hand is what the generated types are encoded to.
func TestRepliesByHand(t *testing.T) {
	hash := protocol.Hash{0, 1, 0xfe, 31: 0xff}
	for _, cursor := range []string{"e.1", "0193abc.9007199254740991", `quote"back\slash`, "é\n\x01<&>"} {
		for _, id := range []string{"a", "0193-a_B"} {
			for i, status := range []int{200, 201} {
				l := batchLine{write: protocol.Write{RecordID: protocol.RecordID(id)}, outcome: records.Outcome{Cursor: cursor, Hash: hash}}
				number := []int{0, 999}[i]
				want, err := jsonv2.Marshal(BatchOutcome{Cursor: &cursor, Hash: &hash, Line: int64(number), RecordId: &id, Status: status})
				if err != nil {
					t.Fatal(err)
				}
				if got := appendOutcome(nil, number, &l, status); string(got) != string(want) {
					t.Errorf("line\n%s, not\n%s", got, want)
				}
			}
			want, err := jsonv2.Marshal(Stored{Cursor: cursor, Hash: hash})
			if err != nil {
				t.Fatal(err)
			}
			for _, header := range []protocol.PageHeader{{Cursor: cursor, PageID: protocol.PageID(id)}, {Cursor: cursor, More: true, PageID: protocol.PageID(id), Records: 1000, Root: &hash, Served: 3}} {
				line, err := protocol.Canonicalize(header)
				if err != nil {
					t.Fatal(err)
				}
				if got := appendPageHeader(nil, &header); string(got) != string(line) {
					t.Errorf("%s, not %s", got, line)
				}
			}
			if got := appendStored(nil, &records.Outcome{Cursor: cursor, Hash: hash}); string(got) != string(want) {
				t.Errorf("%s, not %s", got, want)
			}
		}
	}
}
