package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"relaymarket/api"
	"relaymarket/protocol"
)

// writer is one connection of a sender. It alone writes under its paths, so it knows what each answer has to be.
type writer struct {
	*caller
	key  *protocol.PrivateKey
	name string
	next int
	mine []*written // acknowledged, not deleted
	gone []*written
}

// written is a record and the write that made it.
type written struct {
	record   *record
	envelope *protocol.Envelope
	write    *protocol.Write
}

const recordLifetime = 24 * 3600 * 1000 // ms

// run does what people do until stop is closed, and always finishes what it has begun.
func (w *writer) run(ctx context.Context, stop <-chan struct{}) error {
	defer w.close()
	for {
		enough, err := w.enough(ctx, stop)
		if enough {
			return err
		}
		switch dice := w.random.IntN(20); {
		case dice < 9 || len(w.mine) == 0:
			err = w.single(ctx)
		case dice < 12:
			err = w.batch(ctx)
		case dice < 14:
			err = w.twins(ctx)
		case dice < 15:
			err = w.rivals(ctx)
		case dice < 17:
			err = w.repeat(ctx)
		case dice < 18:
			err = w.conflict(ctx)
		case dice < 19 || len(w.gone) == 0:
			err = w.remove(ctx)
		default:
			err = w.revive(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// compose makes a new write.
func (w *writer) compose() (*written, error) {
	w.next++
	to := w.cohort.readers[w.random.IntN(readersOfRound)]
	if w.key == w.cohort.guest {
		to = w.cohort.readers[0] // the one who admits him
	}
	return w.composeAs(protocol.RecordID(fmt.Sprintf("%s-%d", w.name, w.next)), to.Public())
}

func (w *writer) composeAs(id protocol.RecordID, to protocol.PublicKey) (*written, error) {
	size := 1 + w.random.IntN(2500)
	if w.random.IntN(50) == 0 {
		size = 10_000 + w.random.IntN(30_000) // not in one page of the database, and small enough for a guest
	}
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(w.random.Uint32())
	}
	request := &protocol.Write{Relay: w.cohort.relay, RecordID: id, Expires: now() + recordLifetime, MaxPulls: 1 + w.random.Int64N(4),
		Content: base64.StdEncoding.EncodeToString(content)}
	return w.sign(to, request)
}

// sign makes an envelope and notes it, before it is sent for the first time.
func (w *writer) sign(to protocol.PublicKey, request *protocol.Write) (*written, error) {
	mine := *request // signing writes to it, and another connection may be signing the same
	e, err := protocol.Sign(w.key, to, now(), &mine)
	if err != nil {
		return nil, err
	}
	return &written{w.cohort.try(e, &mine), e, &mine}, nil
}

// again is the same write as a client repeats it: as it was, or under a newer timestamp.
func (w *writer) again(x *written) (*written, error) {
	if w.random.IntN(2) == 0 {
		return x, nil
	}
	return w.sign(x.record.path.Receiver, x.write)
}

func (x *written) put() message {
	return message{method: http.MethodPut, path: x.record.path.String(), body: x.envelope.Bytes()}
}

// put sends a write until it is answered.
func (w *writer) put(ctx context.Context, x *written) (*reply, error) {
	answer, _, err := w.settled(ctx, func(attempt int) (message, error) {
		if attempt == 0 {
			return x.put(), nil
		}
		y, err := w.again(x)
		if err != nil {
			return message{}, err
		}
		return y.put(), nil
	})
	return answer, err
}

// judge takes the answer to a write that may be stored, and tells whether it was acknowledged.
func (w *writer) judge(x *written, status int, code protocol.Code, hash *protocol.Hash, cursor string) bool {
	switch {
	case (status == http.StatusCreated || status == http.StatusOK) && hash != nil:
		w.cohort.acknowledged(x.record, x.envelope.RequestHash(), *hash, cursor)
		return true
	case code == protocol.CodeGone:
		w.endedMeanwhile(x)
	default:
		w.cohort.fault(promiseRefuse, "%s: a write is answered with %d %s", x.record.path, status, code)
	}
	return false
}

// endedMeanwhile is for a write that is told it was stored before and has ended. That is so when it was deleted, and
// when readers have pulled it as often as it allowed, be it before its writer heard that it is there.
func (w *writer) endedMeanwhile(x *written) {
	w.cohort.mu.Lock()
	defer w.cohort.mu.Unlock()
	x.record.ended = true // the database tells whether it has
}

func (w *writer) judgeReply(x *written, answer *reply) bool {
	if answer == nil {
		return false
	}
	if answer.status >= 300 {
		return w.judge(x, answer.status, answer.problem().Code, nil, "")
	}
	var s api.Stored
	if err := json.Unmarshal(answer.body, &s); err != nil {
		w.cohort.fault(promiseRefuse, "%s: a write is answered with %s", x.record.path, answer)
		return false
	}
	return w.judge(x, answer.status, "", &s.Hash, s.Cursor)
}

// single writes one record.
func (w *writer) single(ctx context.Context) error {
	x, err := w.compose()
	if err != nil {
		return err
	}
	answer, err := w.put(ctx, x)
	if err == nil && w.judgeReply(x, answer) {
		w.mine = append(w.mine, x)
	}
	return err
}

// batch writes several, some of them twice in it.
func (w *writer) batch(ctx context.Context) error {
	var lines []*written
	for range 2 + w.random.IntN(15) {
		x, err := w.compose()
		if err != nil {
			return err
		}
		lines = append(lines, x)
		if w.random.IntN(5) > 0 {
			continue
		}
		twin, err := w.again(x)
		if err != nil {
			return err
		}
		lines = append(lines, twin)
	}
	for deadline := time.Now().Add(w.world.patience); ; {
		outcomes, err := w.sendBatch(ctx, lines)
		if outcomes == nil || err != nil {
			return err
		}
		unsettled := w.judgeBatch(lines, outcomes)
		if len(unsettled) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			w.cohort.fault(promiseSettle, "%s: lines of a batch were told to come back for %s", unsettled[0].record.path, w.world.patience)
			return nil
		}
		lines = unsettled
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryEvery):
		}
	}
}

func (w *writer) sendBatch(ctx context.Context, lines []*written) ([]api.BatchOutcome, error) {
	var body []byte
	for _, x := range lines {
		body = append(append(body, x.envelope.Bytes()...), '\n')
	}
	m := message{method: http.MethodPost, path: "/" + w.key.Public().String() + "/outbox", lines: true, body: body}
	answer, _, err := w.settled(ctx, func(int) (message, error) { return m, nil })
	if answer == nil || err != nil {
		return nil, err
	}
	outcomes := make([]api.BatchOutcome, 0, len(lines))
	decoder := json.NewDecoder(bytes.NewReader(answer.body))
	for answer.status == http.StatusOK && decoder.More() {
		var o api.BatchOutcome
		if err := decoder.Decode(&o); err != nil {
			break
		}
		outcomes = append(outcomes, o)
	}
	if len(outcomes) != len(lines) {
		w.cohort.fault(promiseRefuse, "a batch of %d is answered with %s", len(lines), answer)
		return nil, nil
	}
	return outcomes, nil
}

// judgeBatch returns the lines whose outcome is unknown.
func (w *writer) judgeBatch(lines []*written, outcomes []api.BatchOutcome) (unsettled []*written) {
	for i, o := range outcomes {
		x := lines[i]
		switch {
		case o.Status >= 500:
			unsettled = append(unsettled, x)
		case o.Problem != nil:
			w.judge(x, o.Status, o.Problem.Code, nil, "")
		case o.Cursor == nil:
			w.cohort.fault(promiseRefuse, "%s: a line of a batch is answered with %d and no cursor", x.record.path, o.Status)
		case w.judge(x, o.Status, "", o.Hash, *o.Cursor) && (i == 0 || lines[i-1].record != x.record):
			w.mine = append(w.mine, x)
		}
	}
	return unsettled
}

// twins sends one new write on two connections at once.
func (w *writer) twins(ctx context.Context) error {
	x, err := w.compose()
	if err != nil {
		return err
	}
	y, err := w.again(x)
	if err != nil {
		return err
	}
	answers, err := w.both(ctx, x, y)
	if err != nil {
		return err
	}
	first, second := w.judgeReply(x, answers[0]), w.judgeReply(y, answers[1])
	if first || second {
		w.mine = append(w.mine, x)
	}
	return nil
}

// rivals sends two different writes under one path at once: one of them is stored, the other is told so.
func (w *writer) rivals(ctx context.Context) error {
	x, err := w.compose()
	if err != nil {
		return err
	}
	y, err := w.composeAs(x.write.RecordID, x.record.path.Receiver)
	if err != nil {
		return err
	}
	answers, err := w.both(ctx, x, y)
	if err != nil || answers[0] == nil || answers[1] == nil {
		return err
	}
	if answers[0].problem().Code == protocol.CodeConflict {
		x, y, answers[0], answers[1] = y, x, answers[1], answers[0]
	}
	if answers[1].problem().Code != protocol.CodeConflict {
		w.cohort.fault(promiseOnce, "%s: of two different writes at once one is answered with %s, the other with %s", x.record.path, answers[0], answers[1])
		return nil
	}
	w.cohort.counts.conflicts.Add(1)
	if w.judgeReply(x, answers[0]) {
		w.mine = append(w.mine, x)
	}
	return nil
}

// both sends two writes at once, each until it is answered.
func (w *writer) both(ctx context.Context, x, y *written) (answers [2]*reply, err error) {
	w.cohort.counts.races.Add(1)
	// Draws are not to be shared between goroutines.
	other := &writer{caller: newCaller(w.world, w.cohort, w.fork()), key: w.key}
	defer other.close()
	var group sync.WaitGroup
	var failure error
	group.Go(func() { answers[1], failure = other.put(ctx, y) })
	answers[0], err = w.put(ctx, x)
	group.Wait()
	if err == nil {
		err = failure
	}
	return answers, err
}

func (w *writer) pick() *written { return w.mine[w.random.IntN(len(w.mine))] }

// repeat sends again what was acknowledged.
func (w *writer) repeat(ctx context.Context) error {
	x, err := w.again(w.pick())
	if err != nil {
		return err
	}
	w.cohort.counts.repeats.Add(1)
	answer, err := w.put(ctx, x)
	if err == nil {
		w.judgeReply(x, answer)
	}
	return err
}

// conflict sends another write under the path of one that was acknowledged.
func (w *writer) conflict(ctx context.Context) error {
	x := w.pick()
	y, err := w.composeAs(x.write.RecordID, x.record.path.Receiver)
	if err != nil {
		return err
	}
	answer, err := w.put(ctx, y)
	if err != nil || answer == nil {
		return err
	}
	if answer.problem().Code != protocol.CodeConflict {
		w.cohort.fault(promiseOnce, "%s: another write under a path that is taken is answered with %s", x.record.path, answer)
	}
	w.cohort.counts.conflicts.Add(1)
	return nil
}

// remove deletes a record.
func (w *writer) remove(ctx context.Context) error {
	i := w.random.IntN(len(w.mine))
	x := w.mine[i]
	w.mine[i] = w.mine[len(w.mine)-1]
	w.mine = w.mine[:len(w.mine)-1]
	w.cohort.mu.Lock()
	x.record.deleting = true
	w.cohort.mu.Unlock()
	answer, _, err := w.settled(ctx, func(int) (message, error) {
		return w.targeted(w.key, protocol.TypeDelete, http.MethodDelete, x.record.path.String())
	})
	if err != nil || answer == nil {
		return err
	}
	if answer.status != http.StatusNoContent {
		w.cohort.fault(promiseRefuse, "%s: its delete is answered with %s", x.record.path, answer)
		return nil
	}
	w.cohort.acks.Add(1)
	w.cohort.counts.deletes.Add(1)
	w.cohort.mu.Lock()
	x.record.deleted = true
	w.cohort.mu.Unlock()
	w.gone = append(w.gone, x)
	return nil
}

// revive writes again what was deleted, which must not bring it back.
func (w *writer) revive(ctx context.Context) error {
	x, err := w.again(w.gone[w.random.IntN(len(w.gone))])
	if err != nil {
		return err
	}
	answer, err := w.put(ctx, x)
	if err != nil || answer == nil {
		return err
	}
	if answer.problem().Code != protocol.CodeGone {
		w.cohort.fault(promiseDeleted, "%s: after its delete its write is answered with %s", x.record.path, answer)
	}
	return nil
}
