package api

import (
	"context"
	"net/http"

	"relaymarket/protocol"
	"relaymarket/records"
)

// WriteRecord implements ServerInterface.
func (s *routes) WriteRecord(w http.ResponseWriter, r *http.Request, user User, receiver Receiver, id Id) {
	outcome, err := s.writeRecord(exchangeOf(r), r, protocol.Path{Sender: user, Receiver: receiver, ID: protocol.RecordID(id)})
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.send(w, statusOf(&outcome), mediaEnvelope, appendStored(make([]byte, 0, 160), &outcome))
}

// statusOf is the status of a write that was stored, now or before.
func statusOf(o *records.Outcome) int {
	if o.Replayed {
		return http.StatusOK
	}
	return http.StatusCreated
}

// writeRecord is the outcome of a write that was stored, or why it was not.
func (s *Server) writeRecord(x *exchange, r *http.Request, path protocol.Path) (records.Outcome, error) {
	if err := checkID(path.ID); err != nil {
		return records.Outcome{}, err
	}
	var write protocol.Write
	e, err := s.envelope(x, r, &write)
	if err != nil {
		return records.Outcome{}, err
	}
	err = s.checkWrite(e, &write, func() error {
		if e.From != path.Sender || e.To != path.Receiver || write.RecordID != path.ID {
			return protocol.Errorf(protocol.CodeMismatch, "the path is not that of the write: /from/outbox/to/recordId")
		}
		return nil
	})
	if err != nil {
		return records.Outcome{}, err
	}
	if err := s.authentic(x, e); err != nil {
		return records.Outcome{}, err
	}
	ctx, cancel := s.wholeWork(r)
	defer cancel()
	outcome := s.cfg.Records.Write(ctx, []records.Incoming{{Envelope: e, Write: &write}})[0]
	return outcome, outcome.Err
}

// checkWrite checks all of a decoded write that comes before the signature. A retry is signed anew, so
// its own time must be fresh, however old the record is.
func (s *Server) checkWrite(e *protocol.Envelope, write *protocol.Write, placed func() error) error {
	if err := checkType(e, protocol.TypeWrite); err != nil {
		return err // whose audience it has, only its own type tells
	}
	if write.Relay != s.relay() {
		return protocol.Errorf(protocol.CodeWrongAudience, "the record is for the relay %s, this is %s", write.Relay, s.relay())
	}
	if err := placed(); err != nil {
		return err
	}
	return protocol.CheckFresh(e.Timestamp, s.now())
}

func checkID(id protocol.RecordID) error {
	if id.Validate() != nil {
		return protocol.Errorf(protocol.CodeBadPath, "a record id is 1 to %d of letters, digits, - and _", protocol.MaxRecordID)
	}
	return nil
}

// wholeWork is the context of writes: that a client left does not end his wait, because until they are decided
// his bytes are held.
func (s *Server) wholeWork(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), s.cfg.Bounds.WorkTimeout)
}

// work is the context of what the domains do for a request.
func (s *Server) work(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), s.cfg.Bounds.WorkTimeout)
}
