package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"relaymarket/client"
	"relaymarket/protocol"
)

// escape makes text of strangers harmless for a terminal, one line of it.
func escape(s string) string { return escapeBut(s, "") }

// escapeText does it for many lines.
func escapeText(s string) string { return escapeBut(s, "\n\t") }

// escapeBut shows control characters, those that reorder the text around them, and bytes that are no UTF-8 as
// what they are, so that no message can paint over the screen, or look like something else.
func escapeBut(s, keep string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case strings.ContainsRune(keep, r):
			b.WriteRune(r)
		case r < 0x80 && unicode.IsControl(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029':
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		s = s[size:]
	}
	return b.String()
}

// printJSON prints one document and a newline. What it prints is stable: members are only added.
func (p *program) printJSON(v any) error {
	encoder := json.NewEncoder(p.out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// printLine prints one document on one line.
func (p *program) printLine(v any) error {
	encoder := json.NewEncoder(p.out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// table prints rows of cells, the first row its heads.
func (p *program) table(rows [][]string) error {
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		if _, err := fmt.Fprintln(w, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// width is that of the terminal that standard error is; 0 if it is none.
func (p *program) width() int {
	if p.host != nil {
		return p.from.width
	}
	file, ok := p.err.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return 0
	}
	if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
		return width
	}
	return 80
}

// path is what was typed for a file, from the folder that it was typed in.
func (p *program) path(typed string) string {
	if p.host == nil || typed == "" || filepath.IsAbs(typed) {
		return typed
	}
	return filepath.Join(p.from.folder, typed)
}

// busy tells on a terminal what takes long. The function it returns takes it away.
func (p *program) busy(what string) func() {
	if p.json || p.width() == 0 {
		return func() {}
	}
	shown := make(chan bool, 1)
	timer := time.AfterFunc(time.Second, func() {
		p.complain("%s …", what)
		shown <- true
	})
	return func() {
		if !timer.Stop() && <-shown {
			p.complain("\r\x1b[K")
		}
	}
}

// when shows a time as the user's clock does.
func when(t protocol.Timestamp) string { return t.Time().Local().Format("2006-01-02 15:04") }

// stamp is a time in JSON: RFC 3339 in UTC; nil for none.
func stamp(t protocol.Timestamp) *string {
	if t == 0 {
		return nil
	}
	s := t.Time().Format("2006-01-02T15:04:05.000Z")
	return &s
}

// short is the end of an id, which is its random part.
func short(id protocol.RecordID) string {
	if len(id) <= 8 {
		return string(id)
	}
	return string(id[len(id)-8:])
}

// count is "1 message" or "3 messages".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// relayLine is a relay's report in JSON.
type relayLine struct {
	Address   string  `json:"address"`
	Key       string  `json:"key"`
	Records   int     `json:"records"`
	Delivered int     `json:"delivered"`
	Error     *string `json:"error"`
}

func relayLines(reports []client.RelayReport) []relayLine {
	lines := make([]relayLine, 0, len(reports))
	for _, r := range reports {
		line := relayLine{Address: r.Address, Key: r.Relay.String(), Records: r.Records, Delivered: r.Delivered}
		if r.Err != nil {
			text := r.Err.Error()
			line.Error = &text
		}
		lines = append(lines, line)
	}
	return lines
}

// failures tells of relays that failed, and gives the exit code for it.
func (p *program) failures(reports []client.RelayReport) error {
	failed := 0
	for _, r := range reports {
		if r.Err == nil {
			continue
		}
		failed++
		if !p.json {
			p.complain("relay: %s\n", escape(r.Err.Error()))
		}
	}
	switch {
	case failed == 0:
		return nil
	case failed == len(reports):
		return exitError{code: exitFailed}
	}
	return exitError{code: exitPartial}
}
