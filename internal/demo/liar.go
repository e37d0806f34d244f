package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"time"
)

// liar stands in front of a relay and alters one digit of each record it hands out.
type liar struct {
	url    string
	lies   atomic.Bool
	told   atomic.Int64 // replies altered
	server *http.Server
}

func newLiar(target string) (*liar, error) {
	to, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	l := &liar{}
	l.lies.Store(true)
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ModifyResponse = l.alter
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l.url = "http://" + listener.Addr().String()
	l.server = &http.Server{Handler: proxy, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = l.server.Serve(listener) }()
	return l, nil
}

// alter changes the last character of each content: still base64, still canonical, no longer what
// was signed.
func (l *liar) alter(r *http.Response) error {
	if !l.lies.Load() || r.Header.Get("Content-Type") != "application/x-ndjson" {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 16<<20))
	if err != nil {
		return err
	}
	_ = r.Body.Close()
	const member = `"content":"`
	for i := 0; ; {
		at := bytes.Index(body[i:], []byte(member))
		if at < 0 {
			break
		}
		i += at + len(member)
		if body[i] == 'A' {
			body[i] = 'B'
		} else {
			body[i] = 'A'
		}
		l.told.Add(1)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}

func (l *liar) close() { _ = l.server.Close() }
