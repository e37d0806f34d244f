package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"relaymarket/api"
	"relaymarket/protocol"
)

// listener keeps a stream open for a reader, and opens it again after the last cursor when it breaks.
type listener struct {
	*caller
	key     *protocol.PrivateKey
	senders []protocol.PublicKey
	after   *string
	last    int64
	heard   map[protocol.Path]int64
}

func newListener(c *caller, r *reader) *listener {
	// A stream has no end: only its header is waited for.
	c.client.Timeout = 0
	return &listener{caller: c, key: r.key, senders: r.senders, heard: map[protocol.Path]int64{}}
}

// run listens until all that was acknowledged has been heard of, once quiet says that nothing more comes.
func (l *listener) run(ctx context.Context, quiet <-chan struct{}) error {
	defer l.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	streamed := make(chan struct{})
	go func() {
		defer close(streamed)
		for ctx.Err() == nil {
			// It breaks with the relay; each time it goes on where it was.
			_ = l.stream(ctx)
			l.cohort.counts.reconnects.Add(1)
			select {
			case <-ctx.Done():
			case <-time.After(retryEvery):
			}
		}
	}()
	select {
	case <-quiet:
	case <-ctx.Done():
	}
	for deadline := time.Now().Add(l.world.patience); ctx.Err() == nil && !l.cohort.isBroken(); {
		missing, n := l.missing()
		if missing == nil {
			break
		}
		if time.Now().After(deadline) {
			l.cohort.fault(promiseKept, "%s was acknowledged at %d, and its reader's stream never told it", *missing, n)
			break
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	err := ctx.Err()
	cancel()
	<-streamed
	return err
}

// missing is a record that this listener has to be told of and was not.
func (l *listener) missing() (*protocol.Path, int64) {
	l.cohort.mu.Lock()
	defer l.cohort.mu.Unlock()
	for path, record := range l.cohort.records {
		_, heard := l.heard[path]
		if path.Receiver == l.key.Public() && record.stored != nil && !heard && !record.deleting && !l.cohort.mayBeUsedUp(record) {
			return &path, record.stored.n
		}
	}
	return nil, 0
}

// stream reads one stream until it breaks.
func (l *listener) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	impatient := time.AfterFunc(attemptPatience, cancel)
	defer impatient.Stop()
	e, err := protocol.Sign(l.key, l.cohort.relay, now(), &protocol.Listen{Senders: l.senders, After: l.after})
	if err != nil {
		return err
	}
	url := l.world.url(l.random.IntN(len(l.world.relays))) + "/inbox/" + l.key.Public().String() + "/listen"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(e.Bytes()))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := l.client.Do(request)
	if err != nil {
		return err
	}
	impatient.Stop()
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(answer.Body, 4096))
		if answer.StatusCode < http.StatusInternalServerError {
			l.cohort.fault(promiseRefuse, "listen is answered with %s: %s", answer.Status, body)
		}
		return fmt.Errorf("%s: %w", answer.Status, err)
	}
	lines := bufio.NewReader(answer.Body)
	for {
		text, err := lines.ReadBytes('\n')
		if err != nil {
			return err
		}
		var line api.ListenLine
		if err := json.Unmarshal(text, &line); err != nil {
			l.cohort.fault(promiseRefuse, "a stream says %.300s", text)
			return err
		}
		l.take(line)
	}
}

// take notes one line: each record once, in the order of the cursor.
func (l *listener) take(line api.ListenLine) {
	switch {
	case line.Alive != nil:
		l.after = &line.Alive.Cursor
	case line.Behind != nil:
		l.after = &line.Behind.Cursor
	case line.Record != nil:
		r := line.Record
		l.after = &r.Cursor
		n, err := placeOf(r.Cursor)
		path := protocol.Path{Sender: r.From, Receiver: r.To, ID: protocol.RecordID(r.RecordId)}
		l.cohort.counts.heard.Add(1)
		l.cohort.mu.Lock()
		defer l.cohort.mu.Unlock()
		record := l.cohort.records[path]
		switch {
		case err != nil || record == nil || record.tried[r.Hash] == nil:
			l.cohort.faultLocked(promiseGenuine, "a stream tells of %s, %s at %s, which nobody wrote", path, r.Hash, r.Cursor)
		case record.stored != nil && (record.stored.n != n || record.stored.hash != r.Hash):
			l.cohort.faultLocked(promiseOnce, "a stream tells of %s at %d, acknowledged at %d", path, n, record.stored.n)
		case n <= l.last:
			l.cohort.faultLocked(promiseOrder, "a stream tells of %s at %d after %d", path, n, l.last)
		}
		l.last = max(l.last, n)
		l.heard[path] = n
	}
}
