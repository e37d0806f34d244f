package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"relaymarket/internal/bytesize"
	"relaymarket/internal/relaybackup"
)

// progressLine shows how far long work is, in one line of a terminal that is painted over. Elsewhere it shows nothing: logs and --json are for
// programs, which wait for the end.
type progressLine struct {
	out   io.Writer // nil: nobody looks
	step  string
	began time.Time
	first int64 // bytes that were done when the step began
	wrote bool
}

func (p program) progressLine() *progressLine {
	f, ok := p.err.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return &progressLine{}
	}
	return &progressLine{out: f}
}

func (l *progressLine) report(now relaybackup.Progress) {
	if l.out == nil {
		return
	}
	if now.Step != l.step {
		l.step, l.began, l.first = now.Step, time.Now(), now.Done
	}
	l.wrote = true
	_, _ = fmt.Fprintf(l.out, "\r\033[K%s", progressText(now, now.Done-l.first, time.Since(l.began)))
}

// end clears the line.
func (l *progressLine) end() {
	if l.wrote {
		_, _ = fmt.Fprint(l.out, "\r\033[K")
		l.wrote = false
	}
}

func progressText(now relaybackup.Progress, moved int64, took time.Duration) string {
	text := now.Step
	if now.Done > 0 || now.Total > 0 {
		text += "  " + bytesize.Text(now.Done)
	}
	if now.Total > now.Done {
		text += " of about " + bytesize.Text(now.Total)
	}
	if took < time.Second || moved <= 0 {
		return text
	}
	rate := float64(moved) / took.Seconds()
	text += fmt.Sprintf(", %s/s", bytesize.Text(int64(rate)))
	if left := float64(now.Total-now.Done) / rate; left > 1 {
		text += fmt.Sprintf(", %s left", time.Duration(left*float64(time.Second)).Round(time.Second))
	}
	return text
}
