package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"relaymarket/client/daemon"
	"relaymarket/client/daemon/localapi"
)

func typed(arguments ...string) localapi.Command {
	return localapi.Command{Id: uuid.New(), Arguments: arguments, Folder: "/", Settings: settings}
}

// What a command writes comes out where it was typed, in order, byte for byte, and so does its exit code; Ctrl-C gets through, and what
// the command says after it, too.
func TestCommands(t *testing.T) {
	big := bytes.Repeat([]byte{0, 1, 2, 0xff, '\n'}, 50_000)
	begun := make(chan struct{}, 1)
	at := newHome(t).starts(daemon.Config{Run: func(ctx context.Context, c *daemon.Command) int {
		switch c.Arguments[0] {
		case "echo":
			_, _ = c.Out.Write(*c.Input)
			_, _ = fmt.Fprintf(c.Err, "%s at %s", c.Arguments[1:], c.Folder)
			return 4
		case "ask":
			c.Ask("0190")
			return 1
		}
		begun <- struct{}{}
		<-ctx.Done()
		_, _ = io.WriteString(c.Out, "interrupted")
		return 7
	}})
	run := func(c localapi.Command) (string, string, *localapi.OutputLine, error) {
		var out, errs bytes.Buffer
		last, err := at.call.Run(t.Context(), c, &out, &errs)
		return out.String(), errs.String(), last, err
	}
	echo := typed("echo", "a b", "")
	echo.Input = &big
	if out, errs, last, err := run(echo); err != nil || *last.Exit != 4 || out != string(big) || errs != "[a b ] at /" {
		t.Errorf("%d bytes, %q, %+v, %v", len(out), errs, last, err)
	}
	if _, _, last, err := run(typed("ask")); err != nil || *last.Exit != 1 || last.Ask == nil || *last.Ask != "0190" {
		t.Errorf("%+v, %v", last, err)
	}
	waits := typed("wait")
	go func() {
		<-begun
		if _, _, _, err := run(waits); err == nil {
			t.Error("a command with the id of one that runs ran")
		} else {
			problem(t, err, localapi.Twice)
		}
		if err := at.call.Interrupt(t.Context(), waits); err != nil {
			t.Error(err)
		}
	}()
	if out, _, last, err := run(waits); err != nil || *last.Exit != 7 || out != "interrupted" {
		t.Errorf("%q, %+v, %v", out, last, err)
	}
	if err := at.call.Interrupt(t.Context(), waits); err != nil {
		t.Errorf("one that has ended: %v", err)
	}

	// Who goes away interrupts his command, or it would be in the way for ever.
	gone, leave := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() {
		_, err := at.call.Run(gone, typed("wait"), io.Discard, io.Discard)
		over <- err
	}()
	<-begun
	leave()
	if err := <-over; err == nil {
		t.Error("he who went away was told how it ended")
	}
	// One that runs at the end of the daemon says how far it came.
	go func() {
		<-begun
		if _, err := at.call.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	if out, _, last, err := run(typed("wait")); err != nil || *last.Exit != 7 || out != "interrupted" {
		t.Errorf("at the end: %q, %+v, %v", out, last, err)
	}
	if err := <-at.done; err != nil {
		t.Error(err)
	}
	at.done <- nil
	if _, _, _, err := run(typed("echo")); !errors.Is(err, daemon.ErrNotRunning) {
		t.Errorf("after the end: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	release, ran := make(chan struct{}), make(chan struct{}, daemon.MaxCommands)
	at := newHome(t).starts(daemon.Config{Run: func(ctx context.Context, _ *daemon.Command) int {
		ran <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return 0
	}})
	run := func(change func(*localapi.Command)) error {
		c := typed("x")
		change(&c)
		_, err := at.call.Run(t.Context(), c, io.Discard, io.Discard)
		return err
	}
	for name, c := range map[string]struct {
		change func(*localapi.Command)
		want   localapi.ProblemCode
	}{
		"version":  {func(c *localapi.Command) { c.Settings.Version = "2" }, localapi.OtherSettings},
		"proxy":    {func(c *localapi.Command) { c.Settings.Proxy = "socks5://127.0.0.1:9050" }, localapi.OtherSettings},
		"zone":     {func(c *localapi.Command) { c.Settings.Zone = "Asia/Tokyo" }, localapi.OtherSettings},
		"folder":   {func(c *localapi.Command) { c.Folder = "here" }, localapi.Malformed},
		"id":       {func(c *localapi.Command) { c.Id = uuid.Nil }, localapi.Malformed},
		"words":    {func(c *localapi.Command) { c.Arguments = make([]string, 1001) }, localapi.Malformed},
		"argument": {func(c *localapi.Command) { c.Arguments = []string{strings.Repeat("x", 300_000)} }, localapi.TooLarge},
	} {
		t.Run(name, func(t *testing.T) { problem(t, run(c.change), c.want) })
	}

	// What is larger than any message is not read to its end: its writer may be told, or only cut off.
	if err := run(func(c *localapi.Command) { b := make([]byte, 12<<20); c.Input = &b }); err == nil {
		t.Error("12 MiB were taken")
	}

	var group sync.WaitGroup
	for range daemon.MaxCommands {
		group.Go(func() {
			if err := run(func(*localapi.Command) {}); err != nil {
				t.Error(err)
			}
		})
	}
	for range daemon.MaxCommands {
		<-ran
	}
	problem(t, run(func(*localapi.Command) {}), localapi.Busy)
	if _, err := at.call.Status(t.Context()); err != nil {
		t.Errorf("status while it is busy: %v", err)
	}
	close(release)
	group.Wait()
}

// Requests of no program of ours are refused, and harm nothing.
func TestBadRequests(t *testing.T) {
	h := newHome(t)
	at := h.starts(daemon.Config{})
	socket, err := daemon.SocketPath(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", "/", "", http.StatusNotFound},
		{"GET", "/v2/status", "", http.StatusNotFound},
		{"GET", "/v1/commands", "", http.StatusNotFound},
		{"DELETE", "/v1/commands/x", "", http.StatusBadRequest},
		{"DELETE", "/v1/commands/" + uuid.NewString(), "", http.StatusNotFound},
		{"POST", "/v1/commands", "", http.StatusBadRequest},
		{"POST", "/v1/commands", "null", http.StatusBadRequest},
		{"POST", "/v1/commands", `{"arguments":"x"}`, http.StatusBadRequest},
		{"POST", "/v1/commands", strings.Repeat("[", 100_000), http.StatusBadRequest},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.method, "http://daemon"+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		reply, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = reply.Body.Close()
		if reply.StatusCode != c.want {
			t.Errorf("%s %s %.20q: %d, want %d", c.method, c.path, c.body, reply.StatusCode, c.want)
		}
	}
	if _, err := at.call.Status(t.Context()); err != nil {
		t.Error(err)
	}
}

// A daemon that dies in the middle leaves nothing to be believed, and nothing in the way of the next one.
func TestCutReply(t *testing.T) {
	h := newHome(t)
	socket, err := daemon.SocketPath(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(h.dir+"/daemon", 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		buffer := make([]byte, 4096)
		_, _ = conn.Read(buffer)
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n12\r\n{\"out\":\"aGVsbG8=\"}\n\r\n")
		time.Sleep(10 * time.Millisecond)
		_ = conn.Close()
	}()
	call, err := daemon.Find(h.dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer call.Close()
	var out bytes.Buffer
	if _, err := call.Run(t.Context(), typed("x"), &out, io.Discard); !errors.Is(err, daemon.ErrCut) || out.String() != "hello" {
		t.Errorf("%q, %v", out.String(), err)
	}
	_ = l.Close()
	if _, err := call.Run(t.Context(), typed("x"), &out, io.Discard); !errors.Is(err, daemon.ErrNotRunning) {
		t.Errorf("a dead one: %v", err)
	}
	if _, err := h.starts(daemon.Config{}).call.Status(t.Context()); err != nil {
		t.Errorf("the next one: %v", err)
	}
}
