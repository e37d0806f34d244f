package api

import (
	"bytes"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"

	jsonv2 "github.com/go-json-experiment/json"

	"relaymarket/protocol"
	"relaymarket/records"
)

// linesPerToken is how many writes of a batch count as one request in a rate: a batch is cheaper
// than its writes alone, but not free.
const linesPerToken = 100

// outcomeBytes is a little more than the line for a write that was stored.
const outcomeBytes = 192

// batchLine is one write of a batch on its way: Err is set by the first check that fails.
type batchLine struct {
	raw      []byte
	envelope *protocol.Envelope
	write    protocol.Write
	outcome  records.Outcome
}

// WriteBatch implements ServerInterface.
func (s *routes) WriteBatch(w http.ResponseWriter, r *http.Request, user User) {
	x := exchangeOf(r)
	data, err := s.body(x, r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	lines, err := s.splitBatch(data)
	if err == nil {
		err = s.writeLines(x, r, user, lines)
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	body, err := s.batchReply(x, r, lines)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.send(w, http.StatusOK, mediaLines, body)
}

// batchReply has a line for every line of the batch.
func (s *Server) batchReply(x *exchange, r *http.Request, lines []batchLine) ([]byte, error) {
	body := make([]byte, 0, len(lines)*outcomeBytes)
	offered := false
	for i := range lines {
		l := &lines[i]
		if l.outcome.Err == nil {
			body = append(appendOutcome(body, i, l, statusOf(&l.outcome)), '\n')
			continue
		}
		outcome := s.refusedLine(x, r, int64(i), l)
		if outcome.Problem.Announcement != nil {
			if offered {
				outcome.Problem.Announcement = nil // once is enough: a thousand are four megabytes
			}
			offered = true
		}
		line, err := jsonv2.Marshal(outcome)
		if err != nil {
			return nil, err
		}
		body = append(append(body, line...), '\n')
	}
	return body, nil
}

// splitBatch cuts the body into lines. Each ends with a newline; what has none was cut off, and is
// refused like any other line that is no envelope.
func (s *Server) splitBatch(data []byte) ([]batchLine, error) {
	if len(data) == 0 {
		return nil, protocol.Errorf(protocol.CodeMalformed, "a batch has 1 to %d lines", protocol.MaxPageRecords)
	}
	n := bytes.Count(data, []byte("\n"))
	whole := data[len(data)-1] == '\n'
	if !whole {
		n++
	}
	if n > protocol.MaxPageRecords {
		return nil, protocol.Errorf(protocol.CodeTooLarge, "a batch has at most %d lines", protocol.MaxPageRecords)
	}
	lines := make([]batchLine, 0, n)
	for len(data) > 0 {
		line, rest, ended := bytes.Cut(data, []byte("\n"))
		l := batchLine{raw: line}
		if !ended {
			l.outcome.Err = protocol.Errorf(protocol.CodeMalformed, "the line does not end with a newline: the body was cut off")
		}
		lines, data = append(lines, l), rest
	}
	return lines, nil
}

// writeLines takes all lines through the checks of a write, each check of all lines before the
// next, and stores what passed. Its error refuses the whole batch.
func (s *Server) writeLines(x *exchange, r *http.Request, user protocol.PublicKey, lines []batchLine) error {
	eachLine(lines, func(l *batchLine) error { return s.checkLine(l, user) })
	tokens := 1 + (len(lines)-1)/linesPerToken
	if err := s.rateAddress(x, tokens); err != nil {
		return err
	}
	var verified atomic.Bool
	eachLine(lines, func(l *batchLine) error {
		if err := l.envelope.Verify(); err != nil {
			return err
		}
		verified.Store(true)
		return nil
	})
	if !verified.Load() {
		return nil // nobody has shown to be the user: his rate is not touched
	}
	if err := s.rateKey(user, tokens); err != nil {
		return err
	}
	var incoming []records.Incoming
	var at []int
	for i := range lines {
		if l := &lines[i]; l.outcome.Err == nil {
			incoming = append(incoming, records.Incoming{Envelope: l.envelope, Write: &l.write})
			at = append(at, i)
		}
	}
	ctx, cancel := s.wholeWork(r)
	defer cancel()
	for i, outcome := range s.cfg.Records.Write(ctx, incoming) {
		lines[at[i]].outcome = outcome
	}
	return nil
}

// checkLine is all that comes before the signature.
func (s *Server) checkLine(l *batchLine, user protocol.PublicKey) error {
	if most := s.live().Limits.RecordBytes; int64(len(l.raw)) > most {
		return protocol.Errorf(protocol.CodeTooLarge, "a record has at most %d bytes on this relay", most)
	}
	var err error
	if l.envelope, err = protocol.ParseEnvelope(l.raw); err != nil {
		return err
	}
	if err := decode(l.envelope, &l.write); err != nil {
		return err
	}
	return s.checkWrite(l.envelope, &l.write, func() error { return checkSigner(l.envelope, user) })
}

// eachLine runs the check on every line that is not refused yet, on all processors. A worker takes some lines at
// a time; a batch too small for two has none but the caller.
func eachLine(lines []batchLine, check func(*batchLine) error) {
	const step = 8
	var next atomic.Int64
	work := func() {
		for {
			end := int(next.Add(step))
			if end-step >= len(lines) {
				return
			}
			for i := end - step; i < min(end, len(lines)); i++ {
				if l := &lines[i]; l.outcome.Err == nil {
					l.outcome.Err = check(l)
				}
			}
		}
	}
	var others sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), (len(lines)+step-1)/step) - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
}

// refusedLine is the outcome of a write that was not stored.
func (s *Server) refusedLine(x *exchange, r *http.Request, index int64, l *batchLine) BatchOutcome {
	p := s.problem(x, r, l.outcome.Err)
	out := BatchOutcome{Line: index, Problem: &p, Status: p.Status}
	if l.write.RecordID != "" && l.write.RecordID.Validate() == nil {
		out.RecordId = (*string)(&l.write.RecordID)
	}
	return out
}
