// Package doctor looks for what is wrong, or will be, with a user's folder and with the relays that he uses, and says what to do about it. It changes
// nothing. Command relay is its caller, and adds what only it knows.
//
// Each look is bounded in time, and what needs keys or a network says so when there is none: that is a finding, not an end.
package doctor

import (
	"fmt"
	"time"
)

// Level is how bad a finding is.
type Level string

// The levels. Skipped: it could not be looked at, and Do says how it can be.
const (
	OK      Level = "ok"
	Warn    Level = "warn"
	Fail    Level = "fail"
	Skipped Level = "skipped"
)

// Finding is what one look found.
type Finding struct {
	Check string `json:"check"` // what was looked at: keys, state, relay …
	Level Level  `json:"level"`
	Text  string `json:"text"`
	Do    string `json:"do,omitempty"` // what to do: a command to type, mostly
}

func found(check string, level Level, do, format string, args ...any) Finding {
	return Finding{Check: check, Level: level, Do: do, Text: fmt.Sprintf(format, args...)}
}

// Worst is the worst level of findings.
func Worst(all []Finding) Level {
	worst := OK
	for _, f := range all {
		switch {
		case f.Level == Fail:
			return Fail
		case f.Level == Warn:
			worst = Warn
		}
	}
	return worst
}

const day = 24 * time.Hour

// ago is a length of time for people.
func ago(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return "a minute"
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/day)
}
