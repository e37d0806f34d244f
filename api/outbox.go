package api

import (
	"net/http"

	"relaymarket/protocol"
	"relaymarket/records"
)

// nobodys is what a stranger to a record is told, whether there is one or not.
func nobodys() error {
	return protocol.Errorf(protocol.CodeNotFound, "there is nothing of yours at this path")
}

// ReadRecord implements ServerInterface.
func (s *routes) ReadRecord(w http.ResponseWriter, r *http.Request, user User, receiver Receiver, id Id, params ReadRecordParams) {
	path := protocol.Path{Sender: user, Receiver: receiver, ID: protocol.RecordID(id)}
	envelope, err := s.readRecord(exchangeOf(r), r, path, protocol.PageID(params.PageId))
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.send(w, http.StatusOK, mediaEnvelope, envelope)
}

func (s *Server) readRecord(x *exchange, r *http.Request, path protocol.Path, page protocol.PageID) ([]byte, error) {
	if err := checkID(path.ID); err != nil {
		return nil, err
	}
	if page.Validate() != nil {
		return nil, protocol.Errorf(protocol.CodeBadQuery, "pageId is 1 to %d of letters, digits, - and _", protocol.MaxRecordID)
	}
	signer, err := s.signer(x, r, protocol.TypeRead)
	if err != nil {
		return nil, err
	}
	switch signer {
	case path.Receiver: // first: a record to oneself has one party
	case path.Sender:
		return nil, protocol.Errorf(protocol.CodeWrongParty, "only the receiver pulls a record")
	default:
		return nil, nobodys()
	}
	ctx, cancel := s.work(r)
	defer cancel()
	return s.cfg.Records.Read(ctx, path, page)
}

// DeleteRecord implements ServerInterface.
func (s *routes) DeleteRecord(w http.ResponseWriter, r *http.Request, user User, receiver Receiver, id Id) {
	path := protocol.Path{Sender: user, Receiver: receiver, ID: protocol.RecordID(id)}
	if err := s.deleteRecord(exchangeOf(r), r, path); err != nil {
		s.refuse(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) deleteRecord(x *exchange, r *http.Request, path protocol.Path) error {
	if err := checkID(path.ID); err != nil {
		return err
	}
	signer, err := s.signer(x, r, protocol.TypeDelete)
	if err != nil {
		return err
	}
	switch signer {
	case path.Sender:
	case path.Receiver:
		return protocol.Errorf(protocol.CodeWrongParty, "only the sender deletes a record")
	default:
		return nobodys()
	}
	ctx, cancel := s.work(r)
	defer cancel()
	return s.cfg.Records.Delete(ctx, path)
}

// ListOutboxes implements ServerInterface.
func (s *routes) ListOutboxes(w http.ResponseWriter, r *http.Request, user User, params ListOutboxesParams) {
	inventory, err := s.list(r, params, user, nil)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.reply(w, r, http.StatusOK, inventory)
}

// ListOutbox implements ServerInterface.
func (s *routes) ListOutbox(w http.ResponseWriter, r *http.Request, user User, receiver Receiver, params ListOutboxParams) {
	inventory, err := s.list(r, ListOutboxesParams(params), user, &receiver)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.reply(w, r, http.StatusOK, inventory)
}

// list answers the sender, and the receiver of the outbox if it is a single one.
func (s *Server) list(r *http.Request, params ListOutboxesParams, sender protocol.PublicKey, receiver *protocol.PublicKey) (*Inventory, error) {
	request, err := listRequest(params)
	if err != nil {
		return nil, err
	}
	signer, err := s.signer(exchangeOf(r), r, protocol.TypeInventory)
	if err != nil {
		return nil, err
	}
	if signer != sender && (receiver == nil || signer != *receiver) {
		return nil, nobodys()
	}
	request.Sender, request.Receiver = sender, receiver
	ctx, cancel := s.work(r)
	defer cancel()
	listing, err := s.cfg.Records.List(ctx, request)
	if err != nil {
		return nil, err
	}
	inventory := &Inventory{Cursor: listing.Cursor, More: listing.More, Records: make([]Record, len(listing.Entries))}
	for i := range listing.Entries {
		inventory.Records[i] = recordOf(&listing.Entries[i])
	}
	return inventory, nil
}

// listRequest checks the values of an inventory's query.
func listRequest(params ListOutboxesParams) (records.ListRequest, error) {
	request := records.ListRequest{After: params.After, Limit: protocol.MaxPageRecords}
	if a := params.After; a != nil && (len(*a) < 1 || len(*a) > protocol.MaxCursor) {
		return request, protocol.Errorf(protocol.CodeBadCursor, "a cursor has 1 to %d bytes", protocol.MaxCursor)
	}
	if params.Limit != nil {
		if request.Limit = *params.Limit; request.Limit < 1 || request.Limit > protocol.MaxPageRecords {
			return request, protocol.Errorf(protocol.CodeInvalidValue, "limit is 1 to %d", protocol.MaxPageRecords)
		}
	}
	for _, p := range []struct {
		given *int64
		taken **protocol.Timestamp
	}{{params.AfterTs, &request.AfterTs}, {params.BeforeTs, &request.BeforeTs}} {
		if p.given == nil {
			continue
		}
		t := protocol.Timestamp(*p.given)
		if t.Validate() != nil {
			return request, protocol.Errorf(protocol.CodeInvalidValue, "afterTs and beforeTs are milliseconds, 0 to 2^53-1")
		}
		*p.taken = &t
	}
	return request, nil
}

// recordOf is an entry on the wire.
func recordOf(e *records.Entry) Record {
	return Record{
		Bytes: e.Bytes, Cursor: e.Cursor, Expires: e.Expires, From: e.Sender, Hash: e.Hash, MaxPulls: e.MaxPulls,
		Pulls: e.Pulls, RecordId: string(e.ID), Tag: (*string)(e.Tag), Timestamp: e.Timestamp, To: e.Receiver,
	}
}
