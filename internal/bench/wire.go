package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
	"time"
)

// conn is one HTTP/1.1 connection that is kept open. It sends requests that were laid out before and reads replies
// with little more than the bytes: client and relay share the machine, and net/http's client costs as much as its
// server.
type conn struct {
	raw  net.Conn
	in   *bufio.Reader
	body []byte // of the last reply, used again
	ends bool   // the server closes it after this reply
	undo func() bool
}

// replyPatience is how long a reply may take before the run is given up.
const replyPatience = time.Minute

// Media types of requests: one envelope, and lines.
const (
	mediaEnvelope = "application/json"
	mediaLines    = "application/x-ndjson"
)

// dial opens a connection, which ctx closes.
func dial(ctx context.Context, host string) (*conn, error) { return dialSized(ctx, host, 16<<10) }

// dialSized is dial with a buffer of so many bytes for what comes in, which the longest header has to fit.
func dialSized(ctx context.Context, host string, buffer int) (*conn, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	c := &conn{raw: raw, in: bufio.NewReaderSize(raw, buffer)}
	c.undo = context.AfterFunc(ctx, func() { _ = raw.Close() })
	return c, nil
}

func (c *conn) close() error {
	c.undo()
	if err := c.raw.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// request lays out a whole request.
func request(method, target, host, media string, body []byte) []byte {
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", method, target, host, media, len(body))
	return append(append(make([]byte, 0, len(head)+len(body)), head...), body...)
}

// do sends a request and returns the reply, whose body is good until the next call.
func (c *conn) do(request []byte) (status int, body []byte, err error) {
	_ = c.raw.SetDeadline(time.Now().Add(replyPatience)) // it fails with the connection only
	if _, err := c.raw.Write(request); err != nil {
		return 0, nil, fmt.Errorf("send: %w", err)
	}
	status, size, err := c.head()
	if err != nil {
		return 0, nil, fmt.Errorf("reply: %w", err)
	}
	if c.ends {
		return 0, nil, fmt.Errorf("the server ends the connection with status %d", status)
	}
	if size < 0 {
		c.body, err = io.ReadAll(httputil.NewChunkedReader(c.in))
		if err == nil {
			_, err = c.in.ReadSlice('\n') // the end of the trailer, which is empty
		}
		return status, c.body, err
	}
	if cap(c.body) < size {
		c.body = make([]byte, size)
	}
	c.body = c.body[:size]
	_, err = io.ReadFull(c.in, c.body)
	return status, c.body, err
}

// expect is do for a request that must succeed with a status.
func (c *conn) expect(want int, request []byte) ([]byte, error) {
	status, body, err := c.do(request)
	if err == nil && status != want {
		err = &refused{status, string(body)}
	}
	return body, err
}

// refused is a reply that says no.
type refused struct {
	status int
	body   string
}

func (r *refused) Error() string { return fmt.Sprintf("the relay answered %d: %s", r.status, r.body) }

// stream sends a request and returns the lines of a reply that does not end.
func (c *conn) stream(request []byte) (*bufio.Reader, error) {
	_ = c.raw.SetDeadline(time.Now().Add(replyPatience))
	if _, err := c.raw.Write(request); err != nil {
		return nil, err
	}
	status, size, err := c.head()
	if err != nil {
		return nil, err
	}
	if status != 200 || size >= 0 {
		text, _ := io.ReadAll(io.LimitReader(c.in, int64(max(size, 0))))
		return nil, &refused{status, string(text)}
	}
	_ = c.raw.SetDeadline(time.Time{})
	return bufio.NewReaderSize(httputil.NewChunkedReader(c.in), min(c.in.Size(), 4<<10)), nil
}

// head reads status line and headers; size −1 is a chunked body.
func (c *conn) head() (status, size int, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, 0, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, 0, fmt.Errorf("not HTTP/1.1: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, 0, fmt.Errorf("not HTTP/1.1: %q", line)
	}
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, 0, err
		}
		name, value, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(": "))
		switch {
		case len(name) == 0:
			return status, size, nil
		case bytes.EqualFold(name, []byte("Content-Length")):
			if size, err = strconv.Atoi(string(value)); err != nil {
				return 0, 0, fmt.Errorf("reply of unknown length: %w", err)
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			size = -1
		case bytes.EqualFold(name, []byte("Connection")) && bytes.EqualFold(value, []byte("close")):
			c.ends = true
		}
	}
}
