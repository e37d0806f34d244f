package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// progress says on a terminal what is being measured, in one line that is written over. Elsewhere it says only
// what is worth keeping.
type progress struct {
	out      io.Writer
	terminal bool
	began    time.Time
}

func newProgress(f *os.File) *progress {
	return &progress{out: f, terminal: term.IsTerminal(int(f.Fd())), began: time.Now()}
}

func (p *progress) step(what string) {
	if p.terminal {
		_, _ = fmt.Fprintf(p.out, "\r\x1b[K%s  %s", time.Since(p.began).Round(time.Second), what)
	}
}

func (p *progress) clear() {
	if p.terminal {
		_, _ = fmt.Fprint(p.out, "\r\x1b[K")
	}
}

func (p *progress) tell(what string) {
	p.clear()
	_, _ = fmt.Fprintln(p.out, "bench:", what)
}
