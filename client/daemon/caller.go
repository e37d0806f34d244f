package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"relaymarket/client/daemon/localapi"
)

// Errors are compared with errors.Is.
var (
	// ErrNotRunning: the folder has no daemon that answers.
	ErrNotRunning = errors.New("no daemon runs")
	// ErrSilent: something has the socket and does not answer. What it did with a command is not known.
	ErrSilent = errors.New("the daemon does not answer")
	// ErrCut: the daemon died while it ran a command. What the command did is not known.
	ErrCut = errors.New("the daemon ended before it said how the command went")
)

// RefusedError says that a daemon did nothing, and why.
type RefusedError struct{ Problem localapi.Problem }

// Error says why.
func (e *RefusedError) Error() string {
	if e.Problem.Detail != nil {
		return e.Problem.Title + " (" + *e.Problem.Detail + ")"
	}
	return e.Problem.Title
}

const (
	// askTime is how long a daemon may take to begin its reply.
	askTime = 10 * time.Second
	// replyMost bounds a reply that is not the output of a command.
	replyMost = 1 << 20
)

// Caller asks the daemon of a folder. It is safe for concurrent use.
type Caller struct {
	api  *localapi.Client
	http *http.Transport
}

// Find is a caller of the folder's daemon, or fails with ErrNotRunning. It asks nothing yet.
func Find(folder, runtimeFolder string) (*Caller, error) {
	path, err := socketPath(folder, runtimeFolder)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(path); err != nil { // the usual case costs nothing
		return nil, ErrNotRunning
	}
	transport := &http.Transport{
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, path) },
		ResponseHeaderTimeout: askTime,
		DisableCompression:    true,
		// A connection that is kept may be one that the daemon closes just now: what it did with a command would not be known.
		DisableKeepAlives: true,
	}
	api, err := localapi.NewClient("http://daemon", localapi.WithHTTPClient(&http.Client{Transport: transport}))
	if err != nil {
		return nil, err
	}
	return &Caller{api: api, http: transport}, nil
}

// Close ends idle connections.
func (c *Caller) Close() { c.http.CloseIdleConnections() }

// Status asks what the daemon is and does. ErrNotRunning.
func (c *Caller) Status(ctx context.Context) (*localapi.Status, error) {
	reply, err := c.api.GetStatus(ctx)
	var s localapi.Status
	return &s, readReply(reply, err, &s)
}

// Stop asks the daemon to end. ErrNotRunning.
func (c *Caller) Stop(ctx context.Context) (*localapi.Process, error) {
	reply, err := c.api.Stop(ctx)
	var p localapi.Process
	return &p, readReply(reply, err, &p)
}

// Interrupt does what Ctrl-C does. A command that ended meanwhile is none to interrupt.
func (c *Caller) Interrupt(ctx context.Context, command localapi.Command) error {
	reply, err := c.api.InterruptCommand(ctx, command.Id)
	var refused *RefusedError
	if err = readReply(reply, err, nil); errors.As(err, &refused) && refused.Problem.Code == localapi.NotFound {
		return nil
	}
	return err
}

// Run runs a command, writes its output, and returns its last line, with the exit code. After ErrNotRunning and a RefusedError nothing was done; after ErrCut
// that is not known. When ctx ends the command is cut off: see Interrupt.
func (c *Caller) Run(ctx context.Context, command localapi.Command, out, err io.Writer) (*localapi.OutputLine, error) {
	reply, fault := c.api.RunCommand(ctx, command)
	if fault != nil {
		return nil, plain(fault)
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return nil, refusal(reply)
	}
	lines := json.NewDecoder(reply.Body)
	for {
		var l localapi.OutputLine
		if fault := lines.Decode(&l); fault != nil {
			return nil, fmt.Errorf("%w: %w", ErrCut, fault)
		}
		switch {
		case l.Exit != nil:
			return &l, nil
		case l.Out != nil:
			_, fault = out.Write(*l.Out)
		case l.Err != nil:
			_, fault = err.Write(*l.Err)
		}
		if fault != nil {
			return nil, fault
		}
	}
}

func readReply(reply *http.Response, err error, into any) error {
	if err != nil {
		return plain(err)
	}
	defer reply.Body.Close()
	if reply.StatusCode > 299 {
		return refusal(reply)
	}
	if into == nil {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(reply.Body, replyMost))
	if err == nil {
		err = json.NewDecoder(bytes.NewReader(data)).Decode(into)
	}
	if err != nil {
		return fmt.Errorf("the daemon's reply cannot be read: %w", err)
	}
	return nil
}

func refusal(reply *http.Response) error {
	e := &RefusedError{}
	if err := json.NewDecoder(io.LimitReader(reply.Body, replyMost)).Decode(&e.Problem); err != nil {
		return fmt.Errorf("the daemon answers %d, and not as this version does", reply.StatusCode)
	}
	return e
}

// plain takes the URL out of a net/http error: it says nothing.
func plain(err error) error {
	if errors.Is(err, ErrNotRunning) {
		return ErrNotRunning
	}
	if cause := errors.Unwrap(err); cause != nil {
		err = cause
	}
	return fmt.Errorf("%w: %w", ErrSilent, err)
}
