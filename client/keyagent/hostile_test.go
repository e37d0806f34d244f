//go:build linux || darwin

package keyagent_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relaymarket/client/keyagent"
)

func dialRaw(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	return conn
}

func TestBadRequests(t *testing.T) {
	socket, secret := newSocket(t), newSecret(t)
	serve(t, keyagent.Config{Socket: socket, Secret: secret})
	malformed := `{"v":1,"error":"malformed"}` + "\n"
	version := `{"v":1,"error":"version"}` + "\n"
	for name, c := range map[string]struct{ send, want string }{
		"nothing":          {"", ""},
		"empty line":       {"\n", malformed},
		"no end":           {`{"v":1,"op":"fetch"}`, malformed},
		"text":             {"fetch\n", malformed},
		"list":             {`["fetch"]` + "\n", malformed},
		"no operation":     {`{"v":1}` + "\n", malformed},
		"unknown":          {`{"v":1,"op":"FETCH"}` + "\n", malformed},
		"operation number": {`{"v":1,"op":1}` + "\n", malformed},
		"duplicate":        {`{"v":1,"op":"status","op":"fetch"}` + "\n", malformed},
		"other case":       {`{"V":1,"OP":"fetch"}` + "\n", version},
		"no version":       {`{"op":"fetch"}` + "\n", version},
		"version 2":        {`{"v":2,"op":"fetch"}` + "\n", version},
		"version 1.0e400":  {`{"v":1.0e400,"op":"fetch"}` + "\n", malformed},
		"long":             {`{"v":1,"op":"fetch","x":"` + strings.Repeat("x", 300) + `"}` + "\n", malformed},
		"endless":          {strings.Repeat("x", 1<<16), malformed},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dialRaw(t, socket)
			_, _ = io.WriteString(conn, c.send)
			_ = conn.CloseWrite()
			got, err := io.ReadAll(conn)
			// What was sent after the refusal is answered with a reset, after
			// which the refusal may be lost.
			if string(got) != c.want && !(err != nil && len(got) == 0 && name == "endless") {
				t.Errorf("got %q, %v", got, err)
			}
			if bytes.Contains(got, secret) {
				t.Error("the secret came with it")
			}
		})
	}
	expectSecret(t, socket, secret)
}

// The protocol as it is documented, for other implementations of it.
func TestWire(t *testing.T) {
	socket, secret, clock := newSocket(t), []byte("0123456789"), &clock{}
	serve(t, keyagent.Config{Socket: socket, Secret: secret, For: 90 * time.Second, Now: clock.Now})
	conn := dialRaw(t, socket)
	_, err := io.WriteString(conn, `{"v":1,"op":"fetch","later":[]}`+"\n")
	must(t, err)
	got, err := io.ReadAll(conn)
	must(t, err)
	line, rest, _ := bytes.Cut(got, []byte("\n"))
	if !strings.HasPrefix(string(line), `{"v":1,"remainingMs":90000,"pid":`) ||
		!strings.HasSuffix(string(line), `,"secretBytes":10}`) || !bytes.Equal(rest, secret) {
		t.Errorf("got %q", got)
	}
}

func TestSilentConnections(t *testing.T) {
	// The silent ones, who are thrown out after two seconds, do not hold it up.
	quickly(t, time.Second, func() {
		socket, secret := newSocket(t), newSecret(t)
		_, done := serve(t, keyagent.Config{Socket: socket, Secret: secret})
		for range 15 {
			dialRaw(t, socket)
		}
		expectSecret(t, socket, secret)
		must(t, keyagent.Lock(t.Context(), socket))
		ends(t, done)
	})
}

func TestMoreSilentConnectionsThanSlots(t *testing.T) {
	socket, secret := newSocket(t), newSecret(t)
	serve(t, keyagent.Config{Socket: socket, Secret: secret})
	for range 20 {
		dialRaw(t, socket)
	}
	// They are thrown out after two seconds, 16 at a time.
	for start := time.Now(); ; {
		got, err := keyagent.Fetch(t.Context(), socket)
		if err == nil && bytes.Equal(got, secret) {
			return
		}
		if !errors.Is(err, keyagent.ErrNoAnswer) || time.Since(start) > patience {
			t.Fatalf("after %v: %v", time.Since(start), err)
		}
	}
}

// answering runs something that is not an agent at a socket.
func answering(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	socket := newSocket(t)
	must(t, os.Mkdir(filepath.Dir(socket), 0o700))
	l, err := net.Listen("unix", socket)
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			handle(conn)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return socket
}

func TestBadReplies(t *testing.T) {
	for name, c := range map[string]struct {
		reply string
		want  error
	}{
		"nothing":         {"", keyagent.ErrNotRunning},
		"locked":          {`{"v":1,"error":"locked"}` + "\n", keyagent.ErrNotRunning},
		"text":            {"hello\n", keyagent.ErrProtocol},
		"no end":          {`{"v":1,"secretBytes":0}`, keyagent.ErrProtocol},
		"version":         {`{"v":2,"secretBytes":1}` + "\nx", keyagent.ErrProtocol},
		"wrong version":   {`{"v":1,"error":"version"}` + "\n", keyagent.ErrProtocol},
		"unknown refusal": {`{"v":1,"error":"` + strings.Repeat("no", 50) + `"}` + "\n", keyagent.ErrProtocol},
		"no secret":       {`{"v":1}` + "\n", keyagent.ErrProtocol},
		"short secret":    {`{"v":1,"secretBytes":4}` + "\nabc", keyagent.ErrProtocol},
		"long secret":     {`{"v":1,"secretBytes":2}` + "\nabc", keyagent.ErrProtocol},
		"huge secret":     {`{"v":1,"secretBytes":1025}` + "\n" + strings.Repeat("x", 1025), keyagent.ErrProtocol},
		"endless":         {`{"v":1,"secretBytes":9999}` + "\n" + strings.Repeat("x", 1<<16), keyagent.ErrProtocol},
		"negative":        {`{"v":1,"secretBytes":-1}` + "\n", keyagent.ErrProtocol},
		"past":            {`{"v":1,"remainingMs":-1,"secretBytes":1}` + "\nx", keyagent.ErrProtocol},
		"far future":      {`{"v":1,"remainingMs":9223372036854775807,"secretBytes":1}` + "\nx", keyagent.ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			socket := answering(t, func(conn net.Conn) {
				_, _ = bufio.NewReader(conn).ReadString('\n')
				_, _ = io.WriteString(conn, c.reply)
			})
			got, err := keyagent.Fetch(t.Context(), socket)
			if !errors.Is(err, c.want) || got != nil {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			if err != nil && len(err.Error()) > 200 {
				t.Errorf("a stranger's text in the error: %v", err)
			}
		})
	}
}

func TestSilentAgent(t *testing.T) {
	release := make(chan struct{})
	socket := answering(t, func(net.Conn) { <-release })
	t.Cleanup(func() { close(release) })
	quickly(t, 4*time.Second, func() {
		if _, err := keyagent.Fetch(t.Context(), socket); !errors.Is(err, keyagent.ErrNoAnswer) {
			t.Errorf("got %v", err)
		}
	})
	quickly(t, time.Second, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := keyagent.Fetch(ctx, socket); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
	// A new agent takes its place, and does not wait for it for long.
	secret := newSecret(t)
	serve(t, keyagent.Config{Socket: socket, Secret: secret})
	expectSecret(t, socket, secret)
}
