package client_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"relaymarket/internal/testnode"
)

// cutter stands before a relay, on the level of TCP, and cuts connections after a number of bytes from the relay.
type cutter struct {
	URL    string
	target string
	after  atomic.Int64 // bytes of the relay that come through on one connection; negative: all
	times  atomic.Int64 // connections to cut; negative: all
	cuts   atomic.Int64
}

func cutBefore(t *testing.T, node *testnode.Node) *cutter {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{URL: "http://" + listener.Addr().String(), target: strings.TrimPrefix(node.URL, "http://")}
	c.after.Store(-1)
	c.times.Store(-1)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { c.serve(conn) })
		}
	})
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		all.Wait()
	})
	return c
}

// cut cuts the next connections after a number of bytes.
func (c *cutter) cut(after, times int64) {
	c.cuts.Store(0)
	c.times.Store(times)
	c.after.Store(after)
}

func (c *cutter) serve(down net.Conn) {
	defer down.Close()
	up, err := net.Dial("tcp", c.target)
	if err != nil {
		return
	}
	defer up.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(up, down)
		_ = up.(*net.TCPConn).CloseWrite()
	}()
	buffer := make([]byte, 4096)
	passed := int64(0)
	for {
		n, err := up.Read(buffer)
		if limit := c.after.Load(); limit >= 0 && passed+int64(n) > limit && c.take() {
			_, _ = down.Write(buffer[:max(0, limit-passed)])
			_ = down.(*net.TCPConn).SetLinger(0)
			break
		}
		passed += int64(n)
		if _, werr := down.Write(buffer[:n]); err != nil || werr != nil {
			break
		}
	}
	_ = down.Close()
	_ = up.Close()
	<-done
}

func (c *cutter) take() bool {
	for {
		left := c.times.Load()
		if left == 0 {
			return false
		}
		if left < 0 || c.times.CompareAndSwap(left, left-1) {
			c.cuts.Add(1)
			return true
		}
	}
}

// tamperer stands before a relay, on the level of HTTP, and alters what it answers.
type tamperer struct {
	URL   string
	mu    sync.Mutex
	alter func(request *http.Request, body []byte) []byte
	gots  atomic.Int64 // acknowledgements that came by
}

func tamperBefore(t *testing.T, node *testnode.Node) *tamperer {
	t.Helper()
	target, err := url.Parse(node.URL)
	if err != nil {
		t.Fatal(err)
	}
	tamper := &tamperer{}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.FlushInterval = -1
	proxy.ModifyResponse = func(reply *http.Response) error {
		tamper.mu.Lock()
		alter := tamper.alter
		tamper.mu.Unlock()
		if alter == nil || strings.HasSuffix(reply.Request.URL.Path, "/listen") {
			return nil
		}
		body, err := io.ReadAll(reply.Body)
		if err != nil {
			return err
		}
		_ = reply.Body.Close()
		body = alter(reply.Request, body)
		reply.Body = io.NopCloser(bytes.NewReader(body))
		reply.ContentLength = int64(len(body))
		reply.Header.Del("Content-Length")
		return nil
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if strings.HasSuffix(r.URL.Path, "/got") || bytes.Contains(body, []byte(`"got":{`)) {
			tamper.gots.Add(1)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.Close()
		proxy.Transport.(*http.Transport).CloseIdleConnections()
	})
	proxy.Transport = &http.Transport{}
	tamper.URL = server.URL
	return tamper
}

func (t *tamperer) set(alter func(*http.Request, []byte) []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.alter = alter
}

// pages alters the replies to pulls only.
func pages(alter func(lines []string) []string) func(*http.Request, []byte) []byte {
	return func(r *http.Request, body []byte) []byte {
		if r.Method != http.MethodPost || strings.HasSuffix(r.URL.Path, "/got") {
			return body
		}
		lines := strings.Split(strings.TrimSuffix(string(body), "\n"), "\n")
		return []byte(strings.Join(alter(lines), "\n") + "\n")
	}
}
