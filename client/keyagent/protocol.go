//go:build linux || darwin

package keyagent

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/go-json-experiment/json"
)

const (
	protocolVersion = 1

	// maxLine is the longest request or reply line, in bytes, its LF included.
	maxLine = 256
	// exchangeTime is how long one connection may last. An exchange takes well
	// below a millisecond; a stuck peer must not hold the other one up.
	exchangeTime = 2 * time.Second
)

type operation string

const (
	opFetch  operation = "fetch"
	opStatus operation = "status"
	opLock   operation = "lock"
)

type refusal string

const (
	refusedLocked    refusal = "locked"
	refusedMalformed refusal = "malformed"
	refusedVersion   refusal = "version"
)

type request struct {
	Version int       `json:"v"`
	Op      operation `json:"op"`
}

type reply struct {
	Version     int     `json:"v"`
	Error       refusal `json:"error,omitzero"`
	RemainingMs int64   `json:"remainingMs,omitzero"`
	PID         int     `json:"pid,omitzero"`
	SecretBytes int     `json:"secretBytes,omitzero"`
}

func writeLine(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// readRequest reads one request and decides what it is, before any secret is
// touched. An error means that there is nobody to answer.
func readRequest(r io.Reader) (operation, refusal, error) {
	// ReadSlice never reads beyond the buffer, which bounds the line.
	line, err := bufio.NewReaderSize(r, maxLine).ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) || errors.Is(err, io.EOF) && len(line) > 0 {
		return "", refusedMalformed, nil
	}
	if err != nil {
		return "", "", err
	}
	// Unknown fields are let through: a later version may add some, and what
	// must be understood is guarded by "v".
	var q request
	switch {
	case json.Unmarshal(line, &q) != nil:
		return "", refusedMalformed, nil
	case q.Version != protocolVersion:
		return "", refusedVersion, nil
	case q.Op != opFetch && q.Op != opStatus && q.Op != opLock:
		return "", refusedMalformed, nil
	}
	return q.Op, "", nil
}

// readReply reads the answer to a request, up to the end of the connection.
// Replies come from another process of the same user, and are bounded and
// checked all the same. It does not use a bufio.Reader, whose buffer would keep
// a copy of the secret that cannot be overwritten. It fails with io.EOF if
// nothing came.
func readReply(r io.Reader) (State, []byte, error) {
	var buffer [maxLine + MaxSecret + 1]byte
	defer clear(buffer[:])
	n, err := io.ReadFull(r, buffer[:])
	if err == nil {
		return State{}, nil, fmt.Errorf("%w: its answer is too long", ErrProtocol)
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		return State{}, nil, err
	}
	line, secret, ok := bytes.Cut(buffer[:n], []byte{'\n'})
	var a reply
	if !ok || len(line) >= maxLine || json.Unmarshal(line, &a) != nil {
		return State{}, nil, fmt.Errorf("%w: its answer is malformed", ErrProtocol)
	}
	switch {
	case a.Version != protocolVersion, a.Error == refusedVersion:
		return State{}, nil, ErrProtocol
	case a.Error == refusedLocked:
		return State{}, nil, ErrNotRunning
	case a.Error != "":
		return State{}, nil, fmt.Errorf("%w: it answers %.32q", ErrProtocol, string(a.Error))
	case a.SecretBytes != len(secret), a.SecretBytes > MaxSecret:
		return State{}, nil, fmt.Errorf("%w: its secret is cut short or too long", ErrProtocol)
	case a.RemainingMs < 0 || a.RemainingMs > MaxDuration.Milliseconds():
		return State{}, nil, fmt.Errorf("%w: its remaining time is out of range", ErrProtocol)
	}
	state := State{Remaining: time.Duration(a.RemainingMs) * time.Millisecond, PID: a.PID}
	return state, bytes.Clone(secret), nil
}
