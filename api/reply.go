package api

import (
	"io"
	"net/http"
	"strconv"
	"sync"

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
	if len(parts) == 1 {
		_, _ = w.Write(parts[0])
		return
	}
	gather(w, parts)
}

// gatherBytes is what of a reply in parts is written at once. net/http gathers 4 kB, so that a page of a hundred
// records is some thirty system calls; a slow client, on the other hand, holds what he was not sent yet twice.
const gatherBytes = 32 << 10

var gatherBuffers = sync.Pool{New: func() any { return new([gatherBytes]byte) }}

// gather writes the parts in few pieces.
func gather(w io.Writer, parts [][]byte) {
	buffer := gatherBuffers.Get().(*[gatherBytes]byte)
	defer gatherBuffers.Put(buffer)
	held := 0
	for _, p := range parts {
		if held > 0 && held+len(p) > gatherBytes {
			if _, err := w.Write(buffer[:held]); err != nil {
				return
			}
			held = 0
		}
		if len(p) > gatherBytes {
			if _, err := w.Write(p); err != nil {
				return
			}
			continue
		}
		held += copy(buffer[held:], p)
	}
	_, _ = w.Write(buffer[:held])
}
