package api

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"relaymarket/protocol"
)

// firstRead is what a body is given room for before anything of it arrived.
const firstRead = 4 << 10

// body reads the whole body and takes a slot for the work on it: one that is still arriving
// costs a connection and the bytes that came, nothing else.
func (s *Server) body(x *exchange, r *http.Request) ([]byte, error) {
	_ = x.control.SetReadDeadline(time.Now().Add(s.live().Bounds.BodyTimeout))
	data, err := s.readBounded(x, r.Body, r.ContentLength)
	if err != nil {
		return nil, err
	}
	// The deadline is the body's: past it, the watch for the client's leaving would take him as gone.
	_ = x.control.SetReadDeadline(time.Time{})
	return data, s.load.acquire(x, s.metrics)
}

// readBounded reads at most one byte more than the operation allows, and never holds more than
// four times what has arrived, but for the first room.
func (s *Server) readBounded(x *exchange, from io.Reader, announced int64) ([]byte, error) {
	size := s.most(x.op)
	most := size + 1
	room := min(firstRead, most)
	if announced >= 0 && announced < room {
		room = announced + 1 // one byte for the end to show
	}
	var data []byte
	for {
		if !s.load.hold(x, room-int64(cap(data))) {
			s.metrics.drop(dropMemory)
			return nil, protocol.Errorf(protocol.CodeOverloaded, "the relay is reading as much as it can hold")
		}
		grown := make([]byte, len(data), room)
		copy(grown, data)
		data = grown
		for len(data) < cap(data) {
			n, err := from.Read(data[len(data):cap(data)])
			data = data[:len(data)+n]
			x.received += int64(n)
			switch {
			case int64(len(data)) == most:
				return nil, tooLarge(size)
			case err == io.EOF:
				return data, nil
			case err != nil:
				return nil, bodyFault(err, s.live().Bounds.BodyTimeout)
			}
		}
		room = min(4*room, most)
		if announced >= room/4 && announced < room {
			room = announced + 1
		}
	}
}

func bodyFault(err error, timeout time.Duration) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return protocol.Errorf(protocol.CodeTooSlow, "the body did not arrive within %s", timeout)
	}
	return protocol.Errorf(protocol.CodeMalformed, "the body was cut off")
}
