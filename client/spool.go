package client

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"relaymarket/protocol"
)

// spool holds the lines of a report on disk while they are audited: nobody else can use the state meanwhile, and a
// relay that sends slowly must not decide for how long.
type spool struct {
	file  *os.File
	lines *bufio.Reader
}

func newSpool() (*spool, error) {
	file, err := os.CreateTemp("", "relay-audit-*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("keep a report while it is audited: %w", err)
	}
	return &spool{file: file, lines: bufio.NewReaderSize(file, protocol.MaxUsageLine+1)}, nil
}

// fill takes so many lines.
func (s *spool) fill(lines int64, next func() ([]byte, error)) error {
	w := bufio.NewWriterSize(s.file, 1<<16)
	for range lines {
		line, err := next()
		if err != nil {
			return err
		}
		// What fails here fails again when the rest is flushed.
		_, _ = w.Write(line)
		_ = w.WriteByte('\n')
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("keep a report while it is audited: %w", err)
	}
	_, err := s.file.Seek(0, io.SeekStart)
	return err
}

// line is the next line, valid until the next call.
func (s *spool) line() ([]byte, error) {
	line, err := s.lines.ReadSlice('\n')
	if err != nil {
		return nil, fmt.Errorf("read a report back: %w", err)
	}
	return line[:len(line)-1], nil
}

func (s *spool) close() {
	_ = s.file.Close()
	_ = os.Remove(s.file.Name())
}
