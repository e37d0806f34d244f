package api

import (
	"net/http"

	"relaymarket/protocol"
)

// now is the relay's clock.
func (s *Server) now() protocol.Timestamp { return protocol.TimestampOf(s.cfg.Clock()) }

// relay is the key that requests are addressed to.
func (s *Server) relay() protocol.PublicKey { return s.cfg.Key.Public() }

// checkRequest checks what an envelope to this relay says of itself: audience, type, time. Between
// type and time, placed tells whether it stands where it belongs.
func (s *Server) checkRequest(e *protocol.Envelope, requestType string, placed func() error) error {
	if e.To != s.relay() {
		return protocol.Errorf(protocol.CodeWrongAudience, "the request is for %s, this relay is %s", e.To, s.relay())
	}
	if err := checkType(e, requestType); err != nil {
		return err
	}
	if err := placed(); err != nil {
		return err
	}
	return protocol.CheckFresh(e.Timestamp, s.now())
}

func checkType(e *protocol.Envelope, requestType string) error {
	if e.Type != requestType {
		return protocol.Errorf(protocol.CodeWrongType, "the request type is %.64q, this route takes %q", e.Type, requestType)
	}
	return nil
}

// checkSigner refuses an envelope of somebody else than the path names.
func checkSigner(e *protocol.Envelope, named protocol.PublicKey) error {
	if e.From != named {
		return protocol.Errorf(protocol.CodeMismatch, "the path names %s, the signer is %s", named, e.From)
	}
	return nil
}

// authentic is the dear part, in its order: rate by address, signature, rate by key.
func (s *Server) authentic(x *exchange, e *protocol.Envelope) error { return s.authenticAs(x, e, 1) }

// authenticAs is authentic for a request that costs as much as n others.
func (s *Server) authenticAs(x *exchange, e *protocol.Envelope, n int) error {
	if err := s.rateAddress(x, n); err != nil {
		return err
	}
	if err := e.Verify(); err != nil {
		return err
	}
	return s.rateKey(e.From, n)
}

// signer checks the Authorization of a request without a body and returns who signed it.
func (s *Server) signer(x *exchange, r *http.Request, requestType string) (protocol.PublicKey, error) {
	headers := r.Header.Values("Authorization")
	if len(headers) > 1 {
		return protocol.PublicKey{}, protocol.Errorf(protocol.CodeMalformed, "the Authorization header occurs twice")
	}
	e, err := protocol.ParseAuthorization(r.Header.Get("Authorization"))
	if err != nil {
		return protocol.PublicKey{}, err
	}
	targeted := protocol.Targeted{Type: requestType}
	if err := decode(e, &targeted); err != nil {
		return protocol.PublicKey{}, err
	}
	err = s.checkRequest(e, requestType, func() error {
		if want := protocol.Target(r.Method, r.RequestURI); targeted.Target != want {
			return protocol.Errorf(protocol.CodeWrongTarget, "the authorization is for %.200q", targeted.Target)
		}
		return nil
	})
	if err != nil {
		return protocol.PublicKey{}, err
	}
	return e.From, s.authentic(x, e)
}

// decode reads the request when it is of the type that the route takes; another type is refused
// after the audience, where both can be wrong. Of a write, the content stays in the envelope only.
func decode(e *protocol.Envelope, request protocol.Request) error {
	if e.Type != request.RequestType() {
		return nil
	}
	if write, ok := request.(*protocol.Write); ok {
		return e.DecodeTerms(write)
	}
	return e.Decode(request)
}

// envelope reads a body that is one envelope, and its request if it is of the route's type.
func (s *Server) envelope(x *exchange, r *http.Request, request protocol.Request) (*protocol.Envelope, error) {
	data, err := s.body(x, r)
	if err != nil {
		return nil, err
	}
	e, err := protocol.ParseEnvelope(data)
	if err != nil {
		return nil, err
	}
	return e, decode(e, request)
}

// inbox reads an envelope of the reader whom the path names, up to the signature, which is not checked yet.
func (s *Server) inbox(x *exchange, r *http.Request, reader protocol.PublicKey, request protocol.Request) (*protocol.Envelope, error) {
	e, err := s.envelope(x, r, request)
	if err != nil {
		return nil, err
	}
	return e, s.checkRequest(e, request.RequestType(), func() error { return checkSigner(e, reader) })
}
