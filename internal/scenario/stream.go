package scenario

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"relaymarket/protocol"
)

// Told is a record that a listener was told of.
type Told struct {
	ID     protocol.RecordID `json:"recordId"`
	From   protocol.PublicKey
	Cursor string
	At     time.Time `json:"-"` // when the line was read
}

// Stream is what one listener is told, over a connection of its own.
type Stream struct {
	transport *http.Transport
	body      io.ReadCloser
	lines     *bufio.Reader
}

// Follow opens a stream after a cursor, nil is the beginning, and returns when the relay has said that it listens.
// The stream ends with ctx. The caller must Close it.
func (p *Person) Follow(ctx context.Context, url string, after *string, senders ...protocol.PublicKey) (*Stream, error) {
	request, err := p.sign(ctx, url, Call{Method: http.MethodPost, Path: "/inbox/" + p.Key.Public().String() + "/listen", To: []protocol.PublicKey{p.Relay},
		Body: []protocol.Request{&protocol.Listen{Senders: senders, After: after}}})
	if err != nil {
		return nil, err
	}
	s := &Stream{transport: &http.Transport{}}
	reply, err := s.transport.RoundTrip(request)
	if err != nil {
		s.transport.CloseIdleConnections()
		return nil, fmt.Errorf("%w: %w", ErrCut, err)
	}
	s.body, s.lines = reply.Body, bufio.NewReader(reply.Body)
	if reply.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(reply.Body)
		s.Close()
		return nil, fmt.Errorf("listen: %s: %s", reply.Status, text)
	}
	if _, err := s.line(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Next waits for the next record. The error is ErrCut when the stream ended, for whatever reason.
func (s *Stream) Next() (Told, error) {
	for {
		told, err := s.line()
		if told != nil || err != nil {
			if err != nil {
				return Told{}, err
			}
			return *told, nil
		}
	}
}

// line reads one line; nil is a sign of life.
func (s *Stream) line() (*Told, error) {
	text, err := s.lines.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCut, err)
	}
	var line struct{ Record *Told }
	if err := json.Unmarshal(text, &line); err != nil {
		return nil, err
	}
	if line.Record != nil {
		line.Record.At = time.Now()
	}
	return line.Record, nil
}

// Close ends the stream. It may be called more than once.
func (s *Stream) Close() {
	_ = s.body.Close()
	s.transport.CloseIdleConnections()
}
