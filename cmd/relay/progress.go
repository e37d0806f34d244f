package main

import (
	"fmt"
	"runtime/debug"
	"time"

	"relaymarket/client"
	"relaymarket/internal/bytesize"
)

// fileMemory is what the program lets its heap grow to while it sends or fetches files, beyond which it looks for garbage more often.
const fileMemory = 64 << 20

func boundMemory() { debug.SetMemoryLimit(fileMemory) }

// progressLine is progress in JSON.
type progressLine struct {
	Phase string `json:"phase"`
	File  string `json:"file"`
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
	Rate  int64  `json:"rate"`
	Left  int64  `json:"secondsLeft"`
}

// shownProgress shows how far a file is: on a terminal one line that is painted over, with --json a line a second.
type shownProgress struct {
	p        *program
	terminal bool
	width    int
	last     time.Time
	phase    client.FilePhase
	painted  bool
}

func (p *program) fileProgress() *shownProgress {
	width := p.width()
	return &shownProgress{p: p, width: width, terminal: width > 0 && !p.json}
}

func (s *shownProgress) show(now client.FileProgress) {
	switch {
	case s.p.json:
		if now.Phase == s.phase && now.Done < now.Total && time.Since(s.last) < time.Second {
			return
		}
		// What cannot be printed here is found when the result is.
		_ = s.p.printLine(map[string]progressLine{"progress": {Phase: string(now.Phase), File: now.Name, Done: now.Done, Total: now.Total,
			Rate: now.Rate, Left: int64(now.Left / time.Second)}})
	case s.terminal:
		line := []rune(progressText(now))
		if len(line) >= s.width {
			line = line[:s.width-1]
		}
		s.p.complain("\r%s\x1b[K", string(line))
		s.painted = true
	}
	s.last, s.phase = time.Now(), now.Phase
}

// end takes the line away.
func (s *shownProgress) end() {
	if s.painted {
		s.p.complain("\r\x1b[K")
		s.painted = false
	}
}

func progressText(now client.FileProgress) string {
	percent := int64(100)
	if now.Total > 0 {
		percent = int64(float64(now.Done) / float64(now.Total) * 100)
	}
	text := fmt.Sprintf("%s %s  %3d %%  %s of %s", now.Phase, escape(now.Name), percent, bytesize.Text(now.Done), bytesize.Text(now.Total))
	if now.Rate > 0 {
		text += "  " + bytesize.Text(now.Rate) + "/s"
	}
	if left := roundLeft(now.Left); left != "" {
		text += "  " + left
	}
	return text
}
