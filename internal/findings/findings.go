// Package findings is how a doctor says what it found: one line a check, and for what is not well what to do about it.
// relay doctor and relayd doctor print the same.
package findings

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Level says how bad a finding is.
type Level string

// The levels, best first.
const (
	OK   Level = "ok"
	Warn Level = "warn" // it works, and will not for ever
	Fail Level = "fail" // something does not work
)

// rank orders levels. A level that is none counts as the worst: it must not hide anything.
func (l Level) rank() int {
	switch l {
	case OK:
		return 0
	case Warn:
		return 1
	}
	return 2
}

// Finding is the outcome of one check.
type Finding struct {
	Name  string `json:"name"` // of what was looked at, one word
	Level Level  `json:"level"`
	Text  string `json:"text"`         // what was found, one sentence
	Do    string `json:"do,omitempty"` // what to do now; empty if all is well
}

// Okf is a finding that all is well.
func Okf(name, format string, args ...any) Finding {
	return Finding{Name: name, Level: OK, Text: fmt.Sprintf(format, args...)}
}

// List is what a doctor found, in the order in which he looked.
type List []Finding

// Worst is the worst level among them; OK if there is none.
func (l List) Worst() Level {
	worst := OK
	for _, f := range l {
		if f.Level.rank() > worst.rank() {
			worst = f.Level
		}
	}
	return worst
}

// Count is how many have a level.
func (l List) Count(level Level) int {
	n := 0
	for _, f := range l {
		if f.Level == level {
			n++
		}
	}
	return n
}

// WriteText writes them for people, a line each and one below it for what to do:
//
//	ok    clock     the database's is the same, to 3 ms
//	fail  backup    there is none
//	      do: relayd backup /somewhere/else
func (l List) WriteText(w io.Writer) error {
	width := 0
	for _, f := range l {
		width = max(width, utf8.RuneCountInString(f.Name))
	}
	var b strings.Builder
	for _, f := range l {
		fmt.Fprintf(&b, "%-4s  %-*s  %s\n", f.Level, width, f.Name, oneLine(f.Text))
		if f.Do != "" {
			fmt.Fprintf(&b, "      do: %s\n", oneLine(f.Do))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteJSON writes them for programs, as one object on one line: the worst level and all findings.
func (l List) WriteJSON(w io.Writer) error {
	if l == nil {
		l = List{}
	}
	return json.NewEncoder(w).Encode(struct {
		Worst    Level `json:"worst"`
		Findings List  `json:"findings"`
	}{l.Worst(), l})
}

// oneLine keeps what others wrote, in an error for example, from looking like other findings, or painting over them.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	return strings.Join(strings.Fields(text), " ")
}
