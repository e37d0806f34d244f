package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"relaymarket/api"
	"relaymarket/internal/localpg"
	"relaymarket/internal/relaynode"
	"relaymarket/ledger"
	"relaymarket/ledger/books"
	"relaymarket/protocol"
	"relaymarket/records"
)

// patience bounds each step of starting and ending a server.
const patience = 3 * time.Minute

// Room for the generator, which is one address and few keys: relayd's own bounds are for strangers. Zero rates are
// without bound.
const (
	relayRequests     = 4096
	relayListenersKey = 4 * listeners
)

// relay is what is measured.
type relay struct {
	host     string // host:port
	operator string // http://host:port of its metrics; empty: not known
	second   string // host:port of another relayd on the same database; empty: there is none
	key      protocol.PublicKey
	dir      string // empty: it runs elsewhere
	proc     servers
	stop     func() error
}

// startRelay runs relayd, or the same in this process, with a private database in dir.
func startRelay(ctx context.Context, o options, dir string) (*relay, error) {
	r := &relay{dir: dir}
	start := r.startProcess
	if o.inProcess {
		start = r.startInProcess
	}
	if err := start(ctx, o); err != nil {
		return nil, err
	}
	err := r.grant(ctx)
	if err != nil {
		return nil, errors.Join(err, r.stop())
	}
	return r, nil
}

func (r *relay) database() relaynode.Database {
	return relaynode.Database{Connections: 4, Cluster: localpg.Config{Dir: filepath.Join(r.dir, "db")}}
}

func (r *relay) startProcess(ctx context.Context, o options) error {
	if _, err := os.Stat(o.relayd); err != nil {
		return fmt.Errorf("there is no relayd to measure at %s: run make build, or name it with -relayd", o.relayd)
	}
	if out, err := command(ctx, o.relayd, "init", "--dir", r.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("relayd init: %w: %s", err, out)
	}
	args := serveArgs(r.dir)
	if len(o.tables) > 0 {
		// While tables are loaded the sweeper is held off, and would complain of that.
		args = append(args, "--log-level", "error")
	}
	if o.second == secondByNATS {
		args = append(args, "--nats-listen", "127.0.0.1:0")
	}
	cmd := command(context.WithoutCancel(ctx), o.relayd, args...)
	line, stop, err := launch(ctx, cmd, syscall.SIGTERM)
	if err != nil {
		return fmt.Errorf("relayd serve: %w", err)
	}
	r.stop = stop
	var ready struct {
		Operator string             `json:"operator"`
		URL      string             `json:"url"`
		NATS     string             `json:"nats"`
		Key      protocol.PublicKey `json:"key"`
	}
	if err := json.Unmarshal(line, &ready); err != nil {
		return errors.Join(fmt.Errorf("relayd serve said %q: %w", line, err), stop())
	}
	r.host, r.key, r.proc.process = strings.TrimPrefix(ready.URL, "http://"), ready.Key, cmd.Process.Pid
	r.operator = ready.Operator
	if o.second != "" {
		if err := r.startSecond(ctx, o, ready.NATS); err != nil {
			return errors.Join(err, r.stop())
		}
	}
	return nil
}

// serveArgs run relayd without its bounds for strangers.
func serveArgs(dir string) []string {
	return []string{"serve", "--json", "--dir", dir, "--listen", "127.0.0.1:0", "--operator-listen", "127.0.0.1:0",
		"--rate-address", "0", "--rate-key", "0", "--max-requests", strconv.Itoa(relayRequests),
		"--listeners-per-key", strconv.Itoa(relayListenersKey), "--log-level", "warn"}
}

// command is a program with nothing of this environment that would configure a relay.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "RELAYD_") {
			cmd.Env = append(cmd.Env, entry)
		}
	}
	return cmd
}

// launch starts a server, which says in its first line that it is ready. The returned function ends it.
func launch(ctx context.Context, cmd *exec.Cmd, end os.Signal) (ready []byte, stop func() error, err error) {
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	first, exited := make(chan []byte, 1), make(chan error, 1)
	go func() {
		in := bufio.NewReader(out)
		if line, err := in.ReadBytes('\n'); err == nil {
			first <- line
		}
		_, _ = io.Copy(io.Discard, in)
		exited <- cmd.Wait()
	}()
	stop = func() error {
		_ = cmd.Process.Signal(end) // it fails when the process has ended, which exited tells
		select {
		case err := <-exited:
			return err
		case <-time.After(patience):
			return errors.Join(fmt.Errorf("process %d did not end within %s and was killed", cmd.Process.Pid, patience), cmd.Process.Kill(), <-exited)
		}
	}
	select {
	case line := <-first:
		return line, stop, nil
	case err := <-exited:
		return nil, nil, fmt.Errorf("it ended before it was ready: %w", err)
	case <-ctx.Done():
		return nil, nil, errors.Join(ctx.Err(), stop())
	case <-time.After(patience):
		return nil, nil, errors.Join(fmt.Errorf("it was not ready within %s", patience), stop())
	}
}

func (r *relay) startInProcess(ctx context.Context, _ options) error {
	key, err := person("relay", 0)
	if err != nil {
		return err
	}
	bounds := api.DefaultBounds()
	bounds.MaxConcurrent, bounds.MaxListenersPerKey = relayRequests, relayListenersKey
	database := r.database()
	database.Connections = 18 // relayd's default
	ready, done := make(chan relaynode.Ready, 1), make(chan error, 1)
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		done <- relaynode.Run(running, relaynode.Config{
			Key: key, Database: database, Listen: "127.0.0.1:0", OperatorListen: "127.0.0.1:0", Limits: records.DefaultLimits(),
			Bounds: bounds, ShutdownTimeout: 10 * time.Second, Clock: time.Now,
			Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
			Ready:  func(at relaynode.Ready) { ready <- at },
		})
	}()
	r.stop = func() error { cancel(); return <-done }
	select {
	case at := <-ready:
		r.host, r.key, r.proc.process = strings.TrimPrefix(at.URL, "http://"), at.Key, os.Getpid()
		return nil
	case err := <-done:
		cancel()
		return err
	case <-ctx.Done():
		return errors.Join(ctx.Err(), r.stop())
	}
}

// grant gives the senders more room than a run uses, and finds the relay's Postgres.
func (r *relay) grant(ctx context.Context) error {
	senders, err := people(roleSender, manyConns)
	if err != nil {
		return err
	}
	err = relaynode.WithBooks(ctx, r.database(), func(ctx context.Context, b *books.Store) error {
		for _, k := range senders {
			if err := b.Put(ctx, books.Grant{Key: k.Public(), QuotaStored: 1e15, QuotaMoved: 1e15, LastDay: "9999-12-31"}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("grant: %w", err)
	}
	if err := r.openContracts(ctx); err != nil {
		return fmt.Errorf("open contracts: %w", err)
	}
	cluster, err := localpg.Open(ctx, r.database().Cluster)
	if err != nil {
		return err
	}
	r.proc.postmaster = postmasterOf(cluster)
	return cluster.Stop(ctx) // nothing, for it is relayd's
}

// openContracts gives the payers contracts with more credit than a run uses.
func (r *relay) openContracts(ctx context.Context) error {
	payers, err := people(rolePayer, manyConns)
	if err != nil {
		return err
	}
	return relaynode.WithAccounts(ctx, r.database(), func(ctx context.Context, b *books.Store, tx pgx.Tx) error {
		for _, k := range payers {
			o := books.Opening{ID: protocol.ContractID(k.Public()), Payer: k.Public(), Prices: ledger.Prices{Storage: 10_000, Bandwidth: 10_000}}
			if err := b.OpenContract(ctx, tx, o); err != nil {
				return err
			}
			if err := b.SetCredit(ctx, tx, o.Payer, o.ID, 1<<60); err != nil {
				return err
			}
		}
		return nil
	})
}

// postmasterOf is the first process of a cluster, 0 if it cannot be told.
func postmasterOf(c *localpg.Cluster) int {
	if pid := c.PID(); pid != 0 {
		return pid
	}
	text, _ := os.ReadFile(filepath.Join(c.Folder(), "data", "postmaster.pid"))
	first, _, _ := strings.Cut(string(text), "\n")
	pid, _ := strconv.Atoi(first)
	return pid
}

// remove deletes what the relay's folder holds.
func (r *relay) remove(ctx context.Context) error {
	err := localpg.Remove(ctx, r.database().Cluster)
	return errors.Join(err, os.RemoveAll(r.dir))
}

// findRelay is a relay that runs already: its key is in its announcement.
func findRelay(ctx context.Context, address string) (*relay, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	r := &relay{host: u.Host, stop: func() error { return nil }}
	c, err := dial(ctx, r.host)
	if err != nil {
		return nil, fmt.Errorf("no relay answers at %s, see that it runs and that -url is right: %w", address, err)
	}
	defer func() { _ = c.close() }()
	text, err := c.expect(200, fmt.Appendf(nil, "GET /.well-known/relaymarket HTTP/1.1\r\nHost: %s\r\n\r\n", r.host))
	if err != nil {
		return nil, fmt.Errorf("what answers at %s is no relay: %w", address, err)
	}
	e, _, err := protocol.ParseAnnouncement(text, protocol.TimestampOf(time.Now()))
	if err != nil {
		return nil, fmt.Errorf("what answers at %s is no relay: %w", address, err)
	}
	r.key = e.From
	return r, nil
}

// advice tells what to do about a refusal of a relay that is not the generator's own.
func advice(err error, own bool) error {
	var no *refused
	if own || !errors.As(err, &no) {
		return err
	}
	return fmt.Errorf(`%w
On the relay's machine, let the generator in, and start the relay without its bounds for strangers:
  for key in $(bench -keys); do relayd grant $key --stored 1TB --moved 1000TB; done
  relayd serve --rate-address 0 --rate-key 0 --max-requests %d --listeners-per-key %d`, err, relayRequests, relayListenersKey)
}
