package protocol

import (
	"strings"
	"testing"
)

func sampleReport() *UsageReport {
	return &UsageReport{First: 1, Last: 2, Root: Hash{1},
		Totals: UsageTotals{Written: "1", Pulled: "0", Stored: "3", ReservedPulled: "4", ReservedStored: "5"}}
}

func TestUsageReportBounds(t *testing.T) {
	if err := sampleReport().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*UsageReport){
		"begins at 0":              func(r *UsageReport) { r.First = 0 },
		"no lines":                 func(r *UsageReport) { r.Last = 0 },
		"too many lines":           func(r *UsageReport) { r.Last = MaxReportLines + 1 },
		"the first has one before": func(r *UsageReport) { r.Previous = &Hash{} },
		"a later one has none":     func(r *UsageReport) { r.First, r.Last = 2, 3 },
		"a total with a sign":      func(r *UsageReport) { r.Totals.Written = "-1" },
		"a total with a zero":      func(r *UsageReport) { r.Totals.Stored = "01" },
		"a total that is empty":    func(r *UsageReport) { r.Totals.Pulled = "" },
		"a total of 129 bits":      func(r *UsageReport) { r.Totals.ReservedStored = "340282366920938463463374607431768211456" },
	} {
		r := sampleReport()
		if spoil(r); r.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	r := sampleReport()
	if r.Totals.ReservedStored = "340282366920938463463374607431768211455"; r.Validate() != nil {
		t.Error("2^128-1 is refused")
	}
}

func TestParseReceipts(t *testing.T) {
	h, k := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	one := `{"bytes":7,"got":1,"hash":"` + h + `","recordId":"a","relay":"` + k + `"}`
	r, err := ParseReceipts([]byte(`{"later":true,"receipts":[` + one + `,` + one + `]}`))
	if err != nil || len(r.Receipts) != 2 || r.Receipts[0].Bytes != 7 || r.Receipts[1].RecordID != "a" {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, body := range []string{
		``, `{}`, `{"receipts":[]}`, `{"receipts":[{}]}`, `[]`, `{"receipts":[` + one + `] }`,
		`{"receipts":[` + strings.Replace(one, `:7`, `:0`, 1) + `]}`,
		`{"receipts":[` + strings.Replace(one, `"a"`, `"a/b"`, 1) + `]}`,
		`{"receipts":[` + strings.Replace(one, `"got":1,`, ``, 1) + `]}`,
		`{"receipts":[` + strings.TrimSuffix(strings.Repeat(one+",", MaxReceipts+1), ",") + `]}`,
	} {
		if _, err := ParseReceipts([]byte(body)); err == nil {
			t.Errorf("%.60s… is read", body)
		}
	}
}

// judgeBody reads a body and writes it again: what was read is as good.
func judgeBody(t *testing.T, _ *vectorFile, raw []byte) error {
	var c struct {
		vectorHead
		Kind, Body string
	}
	decodeCase(t, raw, &c)
	parse := map[string]func([]byte) (any, error){
		"receipts": func(body []byte) (any, error) { return ParseReceipts(body) },
		"writings": func(body []byte) (any, error) { return ParseWritings(body) },
	}[c.Kind]
	if parse == nil {
		t.Fatalf("nobody reads %q", c.Kind)
	}
	parsed, err := parse([]byte(c.Body))
	if err != nil {
		return err
	}
	again, err := Canonicalize(parsed)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(c.Body, "zzz") && string(again) != c.Body {
		t.Errorf("read and written again: %s", again)
	}
	return nil
}

func FuzzParseReceipts(f *testing.F) {
	h, k := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	f.Add([]byte(`{"receipts":[{"bytes":7,"got":1,"hash":"` + h + `","recordId":"a","relay":"` + k + `"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := ParseReceipts(body)
		if err != nil {
			checkCoded(t, err)
			return
		}
		again, err := Canonicalize(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseReceipts(again); err != nil {
			t.Fatalf("what was read is refused when written again: %v", err)
		}
	})
}

func FuzzParseUsageHeader(f *testing.F) {
	f.Add([]byte(`{"lines":0,"more":false}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := ParseUsageHeader(data)
		if err != nil {
			checkCoded(t, err)
			return
		}
		if h.Lines < 0 || h.Lines > MaxReportLines {
			t.Fatalf("%q has %d lines", data, h.Lines)
		}
		if h.Report != nil && h.Report.From == (PublicKey{}) {
			t.Fatalf("%q has a report of nobody", data)
		}
	})
}

func FuzzParseWritings(f *testing.F) {
	h, k := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	f.Add([]byte(`{"writings":[{"bytes":7,"expires":2,"hash":"` + h + `","maxPulls":3,"recordId":"a","relay":"` + k + `","signed":1,"to":"` + k + `"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		w, err := ParseWritings(body)
		if err != nil {
			checkCoded(t, err)
			return
		}
		again, err := Canonicalize(w)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseWritings(again); err != nil {
			t.Fatalf("what was read is refused when written again: %v", err)
		}
	})
}
