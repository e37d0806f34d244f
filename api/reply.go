package api

import (
	"net/http"
	"strconv"

	jsonv2 "github.com/go-json-experiment/json"
)

// reply answers with a JSON object.
func (s *Server) reply(w http.ResponseWriter, r *http.Request, status int, value any) {
	body, err := jsonv2.Marshal(value)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.send(w, status, mediaEnvelope, body)
}

// send answers with these parts, one after the other. A write that fails needs no answer: the
// client is gone or did not read.
func (s *Server) send(w http.ResponseWriter, status int, media string, parts ...[]byte) {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	if x, ok := w.(*exchange); ok {
		s.load.carry(x, int64(size))
	}
	h := w.Header()
	values := [2]string{media, strconv.Itoa(size)}
	h["Content-Type"], h["Content-Length"] = values[:1:1], values[1:]
	w.WriteHeader(status)
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return
		}
	}
}
