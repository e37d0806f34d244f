package daemon

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"relaymarket/client/daemon/localapi"
)

// Command is a command that somebody typed, and where its output goes.
type Command struct {
	localapi.Command
	// Out and Err are the caller's standard output and error.
	Out, Err *Stream
}

// Ask has the caller, at a terminal, go on with a message that waits, once the command ended.
func (c *Command) Ask(message string) { c.Out.reply.ask = message }

const (
	// pieceSize is how much output one line of the reply has at most.
	pieceSize = 32 << 10
	// writeTime is how long a caller may not read before the command counts as interrupted.
	writeTime = time.Minute
)

// reply writes the lines of one command's reply.
type reply struct {
	mu    sync.Mutex
	to    http.ResponseWriter
	ask   string
	fault error // of the first line that was not written
}

func (r *reply) line(l localapi.OutputLine) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fault != nil {
		return r.fault
	}
	control := http.NewResponseController(r.to)
	_ = control.SetWriteDeadline(time.Now().Add(writeTime)) // a connection that has none fails at the write
	if r.fault = json.NewEncoder(r.to).Encode(l); r.fault == nil {
		r.fault = control.Flush()
	}
	return r.fault
}

// Stream is one of the two streams of a command's output. It is safe for concurrent use.
type Stream struct {
	reply *reply
	err   bool
}

// Write hands all of p to the caller before it returns.
func (s *Stream) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		piece := p[done:min(len(p), done+pieceSize)]
		l := localapi.OutputLine{Out: &piece}
		if s.err {
			l = localapi.OutputLine{Err: &piece}
		}
		if err := s.reply.line(l); err != nil {
			return done, err
		}
		done += len(piece)
	}
	return len(p), nil
}
