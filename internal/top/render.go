package top

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// paint is what a terminal is told beside text; empty elsewhere.
type paint struct{ bold, dim, alarm, plain string }

func colors(on bool) paint {
	if !on {
		return paint{}
	}
	return paint{bold: "\x1b[1m", dim: "\x1b[2m", alarm: "\x1b[1;31m", plain: "\x1b[0m"}
}

// screen are the lines of a view, the most important first: a low terminal shows the upper ones. width is in columns, 0 without bound.
func screen(v *View, width int, color bool) []string {
	p := colors(color)
	var lines []string
	add := func(style, format string, args ...any) {
		text := fit(fmt.Sprintf(format, args...), width)
		if style != "" {
			text = style + text + p.plain
		}
		lines = append(lines, text)
	}
	since := fmt.Sprintf("over %.1f s", v.Over)
	if v.Over == 0 {
		since = "since it started"
	}
	add(p.bold, "relayd %s  up %s  %s  rates %s", v.Key.Bech32(), span(time.Duration(v.Up)*time.Second), v.At.Format("15:04:05 UTC"), since)
	r := v.Rates
	add("", "Traffic    %s written/s  %s pulled/s  %s listens/s  %s requests/s  %s refused/s", number(r.Writes), number(r.Pulls), number(r.Listens), number(r.Requests), number(r.Refused))
	add("", "           %s/s in  %s/s out  %d listeners  %d requests at work  %s held", size(r.Received), size(r.Sent), v.Listeners, v.Working, size(float64(v.BodyBytes)))
	latency := make([]string, len(v.Latency))
	for i, l := range v.Latency {
		latency[i] = fmt.Sprintf("%s %s ms, 99%% %s ms", l.Kind, number(l.P50), number(l.P99))
	}
	add("", "Latency    %s", strings.Join(latency, "  "))
	lines = append(lines, condition(v, p, width)...)
	lines = append(lines, "")
	lines = append(lines, refusalTable("REFUSED", v.Refused, p, width)...)
	lines = append(lines, refusalTable("NO ROOM", v.Dropped, p, width)...)
	return append(lines, accountTable(v.Accounts, p, width)...)
}

// condition is how the relay is.
func condition(v *View, p paint, width int) (lines []string) {
	add := func(alarm bool, format string, args ...any) {
		text := fit(fmt.Sprintf(format, args...), width)
		if alarm && p.alarm != "" {
			text = p.alarm + text + p.plain
		}
		lines = append(lines, text)
	}
	if d := v.Database; d.Answers {
		behind := ""
		if v.Behind >= 60 {
			behind = "  expiry " + span(time.Duration(v.Behind)*time.Second) + " late"
		}
		add(false, "Database   %s ms  %d of %d connections busy  %d writes, %d pulls wait  %s stored%s", number(d.Millis), d.Busy, d.Most, v.WriteQueue, v.PullQueue,
			size(float64(d.TableBytes)), behind)
	} else {
		add(true, "Database   does not answer: %s", printable(d.Why))
	}
	if d := v.Disk; d != nil {
		add(d.Free < 2*d.Keep, "Disk       %s free, %s kept  %s", size(float64(d.Free)), size(float64(d.Keep)), forecast(v))
	}
	m := v.Memory
	add(m.MaxFiles > 0 && m.Files*10 > m.MaxFiles*9, "Process    %s memory, %s heap  %s processors  %d goroutines  %d of %d files", size(float64(m.Resident)), size(float64(m.Heap)),
		number(v.CPU), m.Goroutines, m.Files, m.MaxFiles)
	if b := v.Bitcoin; b != nil {
		answer := "answers"
		if !b.NodeAnswers {
			answer = "does not answer"
		}
		add(!b.NodeAnswers, "Bitcoin    the node %s  height %d  %d contracts", answer, b.Height, b.Contracts)
	}
	return lines
}

func forecast(v *View) string {
	d := v.Disk
	switch {
	case d.PerDay == nil:
		return "forecast: after half an hour"
	case d.FullIn != nil && *d.FullIn == 0:
		return "new records are refused"
	case d.FullIn != nil:
		return fmt.Sprintf("%s less a day, enough for %s", size(float64(*d.PerDay)), span(time.Duration(*d.FullIn)*time.Second))
	case *d.PerDay < 0:
		return fmt.Sprintf("%s more a day", size(float64(-*d.PerDay)))
	}
	return "does not fill up"
}

// refusalsShown is how many codes are.
const refusalsShown = 8

func refusalTable(title string, all []Refusal, p paint, width int) []string {
	if len(all) == 0 {
		return nil
	}
	lines := []string{p.bold + fit(fmt.Sprintf("%-24s %10s %12s", title, "a second", "in all"), width) + p.plain}
	for i, r := range all {
		if i == refusalsShown {
			lines = append(lines, fit(fmt.Sprintf("and %d more", len(all)-i), width))
			break
		}
		lines = append(lines, fit(fmt.Sprintf("%-24s %10s %12d", r.Code, number(r.Rate), r.Total), width))
	}
	return append(lines, "")
}

func accountTable(all []Account, p paint, width int) []string {
	if len(all) == 0 {
		return nil
	}
	lines := []string{p.bold + fit(fmt.Sprintf("%-20s %-8s %12s %12s %12s  %s", "ACCOUNT", "KIND", "NOW", "THIS MONTH", "STORED", "NOTE"), width) + p.plain}
	for _, a := range all {
		key, kind := a.Key.Bech32(), a.Kind
		if !a.Active {
			kind = "ended"
		}
		lines = append(lines, fit(fmt.Sprintf("%-20s %-8s %12s %12s %12s  %s", key[:12]+"…"+key[len(key)-6:], kind, size(a.Moving)+"/s", size(float64(a.Moved)), size(float64(a.Stored)),
			printable(a.Note)), width))
	}
	return lines
}

// number has three digits or so.
func number(x float64) string {
	switch {
	case x == 0:
		return "0"
	case x < 10:
		return fmt.Sprintf("%.2f", x)
	case x < 100:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.0f", x)
}

// size is a number of bytes, in thousands.
func size(x float64) string {
	sign := ""
	if x < 0 {
		sign, x = "-", -x
	}
	for _, unit := range []struct {
		name  string
		bytes float64
	}{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}} {
		if x >= unit.bytes {
			return sign + number(x/unit.bytes) + " " + unit.name
		}
	}
	return fmt.Sprintf("%s%.0f B", sign, x)
}

// span is a time in its two largest units.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 100*day:
		return fmt.Sprintf("%d days", d/day)
	case d >= day:
		return fmt.Sprintf("%dd %dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh %dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm %ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// printable leaves out what would do something to a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
}

// fit cuts a line to the width of the terminal.
func fit(line string, width int) string {
	if width <= 0 || utf8.RuneCountInString(line) <= width {
		return line
	}
	return string([]rune(line)[:width])
}
