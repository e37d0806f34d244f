package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"relaymarket/internal/localpg"
)

// With a second relayd on the same database, listen_fanout writes at the first and listens at the second. It hears of the writes through
// NATS, or, without one between them, by looking.
const (
	secondByNATS = "nats"
	secondByPoll = "poll"
)

// listenHost is where listeners' streams are.
func (r *relay) listenHost() string {
	if r.second != "" {
		return r.second
	}
	return r.host
}

// startSecond runs another relayd on the first one's database; nats is where the first one's NATS listens, or empty.
func (r *relay) startSecond(ctx context.Context, o options, nats string) error {
	dir := filepath.Join(r.dir, "second")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(r.dir, "relay.key"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "relay.key"), key, 0o600); err != nil {
		return err
	}
	cluster, err := localpg.Open(ctx, r.database().Cluster)
	if err != nil {
		return err
	}
	args := append(serveArgs(dir), "--database-url", cluster.URL())
	if err := cluster.Stop(ctx); err != nil { // nothing, for it is the first one's
		return err
	}
	if nats != "" {
		args = append(args, "--nats", nats)
	}
	line, stop, err := launch(ctx, command(context.WithoutCancel(ctx), o.relayd, args...), syscall.SIGTERM)
	if err != nil {
		return fmt.Errorf("second relayd serve: %w", err)
	}
	first := r.stop
	r.stop = func() error { return errors.Join(stop(), first()) }
	var ready struct{ URL, Operator string }
	if err := json.Unmarshal(line, &ready); err != nil {
		return fmt.Errorf("second relayd serve said %q: %w", line, err)
	}
	r.second = strings.TrimPrefix(ready.URL, "http://")
	if nats == "" {
		return nil
	}
	return joined(ctx, ready.Operator)
}

// joined waits until a relay is connected to NATS.
func joined(ctx context.Context, operator string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := dial(ctx, strings.TrimPrefix(operator, "http://"))
	if err != nil {
		return err
	}
	defer func() { _ = c.close() }()
	ask := request(http.MethodGet, "/metrics", strings.TrimPrefix(operator, "http://"), "text/plain", nil)
	for ctx.Err() == nil {
		text, err := c.expect(http.StatusOK, ask)
		if err != nil {
			return err
		}
		if strings.Contains(string(text), "\nrelaymarket_nats_connected 1\n") {
			return nil
		}
	}
	return fmt.Errorf("the second relayd does not get to the first one's NATS: %w", ctx.Err())
}
