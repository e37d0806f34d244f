package api

import (
	"net/http"

	"relaymarket/ledger/books"
	"relaymarket/protocol"
)

// usageBuffer is how much of a report is gathered before it is sent.
const usageBuffer = 64 << 10

// GetUsage implements ServerInterface.
func (s *routes) GetUsage(w http.ResponseWriter, r *http.Request, params GetUsageParams) {
	x := exchangeOf(r)
	var contract protocol.ContractID
	if contract.UnmarshalText([]byte(params.Contract)) != nil {
		s.refuse(w, r, protocol.Errorf(protocol.CodeBadQuery, "contract is 64 lower-case hex digits"))
		return
	}
	after, line := int64(0), int64(0)
	if params.After != nil {
		after = *params.After
	}
	if params.Line != nil {
		line = *params.Line
	}
	if after < 0 || after > protocol.MaxInteger || params.Line != nil && line <= after {
		s.refuse(w, r, protocol.Errorf(protocol.CodeBadQuery, "after is a line from 0, and line one after it"))
		return
	}
	payer, err := s.signer(x, r, protocol.TypeUsage)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	ctx, cancel := s.work(r)
	defer cancel()
	report, err := s.cfg.Books.Report(ctx, payer, contract, after, func(to protocol.PublicKey, u *protocol.UsageReport) (*protocol.Envelope, error) {
		return protocol.Sign(s.cfg.Key, to, s.now(), u)
	})
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if params.Line != nil {
		s.usageLine(w, r, report, line)
		return
	}
	s.usageLines(w, r, report)
}

// usageHeader is the first line of the answer.
func usageHeader(r *books.Report, lines int64, path []protocol.Hash) ([]byte, error) {
	h := protocol.UsageHeader{Lines: lines, More: r.More, Path: path}
	if r.Envelope != nil {
		var err error
		if h.Report, err = protocol.ParseEnvelope(r.Envelope); err != nil {
			return nil, err
		}
	}
	header, err := protocol.Canonicalize(h)
	return append(header, '\n'), err
}

// usageLines streams a report. What fails on the way cuts the reply off, which its reader sees: lines are missing.
func (s *Server) usageLines(w http.ResponseWriter, r *http.Request, report *books.Report) {
	lines := report.Last - report.First + 1
	if report.Envelope == nil || report.Dropped {
		lines = 0
	}
	buffer, err := usageHeader(report, lines, nil)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if lines == 0 {
		s.send(w, http.StatusOK, mediaLines, buffer)
		return
	}
	w.Header().Set("Content-Type", mediaLines)
	w.WriteHeader(http.StatusOK)
	flush := func() error {
		_, err := w.Write(buffer)
		buffer = buffer[:0]
		return err
	}
	err = s.cfg.Books.Lines(r.Context(), report, func(line []byte) error {
		if buffer = append(append(buffer, line...), '\n'); len(buffer) < usageBuffer {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		exchangeOf(r).log.Info("a usage report was cut off", "err", err)
		panic(http.ErrAbortHandler)
	}
}

// usageLine answers one line of a report with its path.
func (s *Server) usageLine(w http.ResponseWriter, r *http.Request, report *books.Report, line int64) {
	if report.Envelope == nil || line > report.Last || report.Dropped {
		s.refuse(w, r, protocol.Errorf(protocol.CodeNotFound, "line %d is not in this report, or not kept any more", line))
		return
	}
	ctx, cancel := s.work(r)
	defer cancel()
	var leaves []protocol.Hash
	var wanted []byte
	err := s.cfg.Books.Lines(ctx, report, func(data []byte) error {
		if report.First+int64(len(leaves)) == line {
			wanted = data
		}
		leaves = append(leaves, protocol.LineHash(data))
		return nil
	})
	var header []byte
	if err == nil {
		header, err = usageHeader(report, 1, protocol.MerklePath(leaves, line-report.First))
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.send(w, http.StatusOK, mediaLines, header, wanted, []byte("\n"))
}
