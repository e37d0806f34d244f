package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"relaymarket/client/daemon/localapi"
	"relaymarket/protocol"
)

const (
	// maxCommands is how many commands run at once. One more is refused, and its caller does it without the daemon.
	maxCommands = 32
	// maxBody bounds a request: the text of a message, in base64, and long arguments.
	maxBody = protocol.MaxEnvelopeSize*4/3 + 1<<20
	// maxArgument bounds one argument. That of Linux is 128 KiB.
	maxArgument = 256 << 10
	// endTime is how long commands that are interrupted may take to say how far they came.
	endTime = 10 * time.Second
)

// ErrEnding is the cause why the context of a command ended, when it is that the daemon ends.
var ErrEnding = errors.New("the daemon is ending")

// api answers requests.
type api struct{ d *Daemon }

var _ localapi.ServerInterface = api{}

// serve answers until ctx ends; then it interrupts what runs, and waits for it.
func (d *Daemon) serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { refuse(w, localapi.NotFound, "") })
	server := &http.Server{
		Handler: localapi.HandlerWithOptions(api{d}, localapi.StdHTTPServerOptions{BaseRouter: mux,
			ErrorHandlerFunc: func(w http.ResponseWriter, _ *http.Request, err error) { refuse(w, localapi.Malformed, err.Error()) }}),
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelWarn),
	}
	var group errgroup.Group
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			d.stop() // without its socket it is none
			return err
		}
		return nil
	})
	<-ctx.Done()
	d.interruptAll()
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	if err := server.Shutdown(limited); err != nil {
		d.log.Warn("commands did not end", "error", err)
		_ = server.Close()
	}
	return group.Wait()
}

// problems are the statuses and titles of the refusals.
var problems = map[localapi.ProblemCode]struct {
	status int
	title  string
}{
	localapi.Malformed:     {http.StatusBadRequest, "The request is not what a program of this version says."},
	localapi.TooLarge:      {http.StatusRequestEntityTooLarge, "The request is too large."},
	localapi.OtherSettings: {http.StatusConflict, "The daemon has other settings than this command."},
	localapi.Twice:         {http.StatusConflict, "A command with this id runs."},
	localapi.Busy:          {http.StatusServiceUnavailable, "Too many commands run."},
	localapi.Ending:        {http.StatusServiceUnavailable, "The daemon is ending."},
	localapi.NotFound:      {http.StatusNotFound, "There is no such thing."},
}

func refuse(w http.ResponseWriter, code localapi.ProblemCode, detail string) {
	p := problems[code]
	body := localapi.Problem{Type: "about:blank", Title: p.title, Status: p.status, Code: code}
	if detail != "" {
		body.Detail = &detail
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.status)
	_ = json.NewEncoder(w).Encode(body) // whoever asked is gone
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// GetStatus tells what the daemon is and does.
func (a api) GetStatus(w http.ResponseWriter, r *http.Request) {
	s, err := a.d.Status(r.Context())
	if err != nil {
		a.d.log.Error("the status cannot be told", "error", err)
		refuse(w, localapi.Busy, err.Error())
		return
	}
	answer(w, http.StatusOK, s)
}

// Stop ends the daemon.
func (a api) Stop(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusAccepted, localapi.Process{Pid: os.Getpid()})
	_ = http.NewResponseController(w).Flush()
	a.d.log.Info("asked to stop")
	a.d.stop()
}

// InterruptCommand interrupts one command.
func (a api) InterruptCommand(w http.ResponseWriter, _ *http.Request, id uuid.UUID) {
	a.d.mu.Lock()
	cancel := a.d.commands[id]
	a.d.mu.Unlock()
	if cancel == nil {
		refuse(w, localapi.NotFound, "")
		return
	}
	cancel(nil)
	w.WriteHeader(http.StatusNoContent)
}

// RunCommand runs one command.
func (a api) RunCommand(w http.ResponseWriter, r *http.Request) {
	var c Command
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		refuse(w, localapi.TooLarge, "")
		return
	}
	if json.Unmarshal(data, &c.Command) != nil || !filepath.IsAbs(c.Folder) || len(c.Arguments) > 1000 || c.Id == uuid.Nil {
		refuse(w, localapi.Malformed, "")
		return
	}
	for _, argument := range c.Arguments {
		if len(argument) > maxArgument {
			refuse(w, localapi.TooLarge, "")
			return
		}
	}
	if c.Settings != a.d.c.Settings {
		refuse(w, localapi.OtherSettings, difference(c.Settings, a.d.c.Settings))
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	if code := a.d.begin(c.Id, cancel); code != "" {
		refuse(w, code, "")
		return
	}
	defer a.d.finish(c.Id)
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines := &reply{to: w}
	c.Out, c.Err = &Stream{reply: lines}, &Stream{reply: lines, err: true}
	_ = http.NewResponseController(w).Flush() // that it began
	exit := a.d.c.Run(ctx, &c)
	last := localapi.OutputLine{Exit: &exit}
	if lines.ask != "" {
		last.Ask = &lines.ask
	}
	_ = lines.line(last) // whoever asked is gone
}

// difference says which setting is another.
func difference(theirs, ours localapi.Settings) string {
	switch {
	case theirs.Version != ours.Version:
		return "version"
	case theirs.Proxy != ours.Proxy:
		return "proxy"
	}
	return "zone"
}

// begin notes a command, or says why it cannot run.
func (d *Daemon) begin(id uuid.UUID, cancel context.CancelCauseFunc) localapi.ProblemCode {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.commands == nil:
		return localapi.Ending
	case d.commands[id] != nil:
		return localapi.Twice
	case len(d.commands) >= maxCommands:
		return localapi.Busy
	}
	d.commands[id] = cancel
	return ""
}

func (d *Daemon) finish(id uuid.UUID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.commands, id)
}

// interruptAll interrupts all commands, and lets none begin any more.
func (d *Daemon) interruptAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, cancel := range d.commands {
		cancel(ErrEnding)
	}
	d.commands = nil
}

// Status tells what the daemon is and does.
func (d *Daemon) Status(ctx context.Context) (*localapi.Status, error) {
	wanted, err := d.c.Client.Listened(ctx)
	if err != nil {
		return nil, err
	}
	waiting, err := d.c.Client.Waiting(ctx)
	if err != nil {
		return nil, err
	}
	s := &localapi.Status{Pid: os.Getpid(), Version: d.c.Settings.Version, Key: d.c.Client.Key().Bech32(), Folder: d.c.Folder,
		Started: d.started, Waiting: waiting, Relays: []localapi.Listened{}, Tasks: []localapi.Task{}}
	relays, _ := d.events.now()
	for _, r := range relays {
		if wanted[r.report.Relay] == "" {
			continue
		}
		item := localapi.Listened{Address: r.report.Address, Key: r.report.Relay.String(), Listening: r.report.Err == nil, Since: r.since}
		if r.report.Err != nil {
			text := r.report.Err.Error()
			item.Error = &text
		}
		s.Relays = append(s.Relays, item)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.tasks {
		item := localapi.Task{Name: t.name, Runs: t.runs}
		if !t.last.IsZero() {
			item.Last = &t.last
		}
		if t.err != nil {
			text := t.err.Error()
			item.Error = &text
		}
		s.Tasks = append(s.Tasks, item)
	}
	return s, nil
}
