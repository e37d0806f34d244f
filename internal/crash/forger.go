package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"time"

	"relaymarket/protocol"
)

// forger sends what others have not signed.
type forger struct {
	*caller
	next int
}

// forgerPause keeps the forger from taking the processor from those who are believed.
const forgerPause = 5 * time.Millisecond

func (f *forger) run(ctx context.Context, stop <-chan struct{}) error {
	defer f.close()
	for {
		if enough, err := f.enough(ctx, stop); enough {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(forgerPause):
		}
		m, path, err := f.forge()
		if err != nil {
			return err
		}
		if path != nil {
			f.cohort.mu.Lock()
			f.cohort.forged[*path] = true
			f.cohort.mu.Unlock()
		}
		answer, err := f.once(ctx, f.random.IntN(len(f.world.relays)), m)
		if err != nil {
			continue // he does not repeat; the database tells whether it was stored
		}
		f.judge(m, answer)
	}
}

// judge wants a refusal because of the signature, for a batch of its line.
func (f *forger) judge(m message, answer *reply) {
	code := answer.problem().Code
	refused := answer.status == http.StatusUnauthorized && code == protocol.CodeBadSignature
	if m.lines && !refused {
		refused = answer.status == http.StatusOK && bytes.Contains(answer.body, []byte(`"code":"`+string(protocol.CodeBadSignature)+`"`))
	}
	if !refused {
		f.cohort.fault(promiseGenuine, "forged %s %s is answered with %s", m.method, m.path, answer)
		return
	}
	f.cohort.counts.forgeries.Add(1)
}

// forge makes one of several forgeries; the path is that of a record it would make.
func (f *forger) forge() (message, *protocol.Path, error) {
	victim := f.cohort.senders[f.random.IntN(sendersOfRound)]
	reader := f.cohort.readers[f.random.IntN(readersOfRound)].Public()
	f.next++
	path := protocol.Path{Sender: victim.Public(), Receiver: reader, ID: protocol.RecordID(fmt.Sprintf("forged-%d", f.next))}
	switch f.random.IntN(5) {
	case 0:
		e, err := f.asVictim(victim, reader, f.write(path.ID))
		return message{method: http.MethodPut, path: path.String(), body: e}, &path, err
	case 1:
		e, err := f.asVictim(victim, reader, f.write(path.ID))
		return message{method: http.MethodPost, path: "/" + path.Sender.String() + "/outbox", lines: true, body: append(e, '\n')}, &path, err
	case 2:
		return f.alter(path)
	case 3:
		return f.remove(path)
	}
	return f.pull(victim.Public(), protocol.PageID(path.ID))
}

// pull asks in a reader's name for what a sender left for him.
func (f *forger) pull(sender protocol.PublicKey, id protocol.PageID) (message, *protocol.Path, error) {
	pull, line, err := protocol.NewPull(protocol.PullQuery{Senders: []protocol.PublicKey{sender}, Limit: 10, PageID: id}, nil)
	if err != nil {
		return message{}, nil, err
	}
	reader := f.cohort.readers[0]
	e, err := f.asVictim(reader, f.cohort.relay, pull)
	body := slices.Concat(e, []byte("\n"), line, []byte("\n"))
	return message{method: http.MethodPost, path: "/inbox/" + reader.Public().String(), lines: true, body: body}, nil, err
}

func (f *forger) write(id protocol.RecordID) *protocol.Write {
	return &protocol.Write{Relay: f.cohort.relay, RecordID: id, Expires: now() + recordLifetime, MaxPulls: 3,
		Content: base64.StdEncoding.EncodeToString([]byte("forged"))}
}

// asVictim says that the victim signs, and signs with the forger's key.
func (f *forger) asVictim(victim *protocol.PrivateKey, to protocol.PublicKey, request protocol.Request) ([]byte, error) {
	own, err := protocol.Sign(f.cohort.forger, to, now(), request)
	if err != nil {
		return nil, err
	}
	raw := bytes.Replace(own.Bytes(), []byte(own.From.String()), []byte(victim.Public().String()), 1)
	e, err := protocol.ParseEnvelope(raw)
	if err != nil {
		return nil, err
	}
	sig, err := f.cohort.forger.SignDigest(e.Digest(), [32]byte{})
	if err != nil {
		return nil, err
	}
	return bytes.Replace(raw, []byte(hex.EncodeToString(own.Sig[:])), []byte(hex.EncodeToString(sig[:])), 1), nil
}

// alter changes one letter of an envelope that its owner signed, in the content or in the id.
func (f *forger) alter(path protocol.Path) (message, *protocol.Path, error) {
	victim := f.cohort.senders[0]
	e, err := protocol.Sign(victim, path.Receiver, now(), f.write(path.ID))
	if err != nil {
		return message{}, nil, err
	}
	path.Sender = victim.Public()
	raw := bytes.Replace(e.Bytes(), []byte(`"content":"Zm9yZ2Vk"`), []byte(`"content":"Zm9yZ2Vl"`), 1)
	return message{method: http.MethodPut, path: path.String(), body: raw}, &path, nil
}

// remove deletes somebody's record in his name.
func (f *forger) remove(path protocol.Path) (message, *protocol.Path, error) {
	target := f.acknowledged(path)
	var victim *protocol.PrivateKey
	for _, k := range f.cohort.writers() {
		if k.Public() == target.Sender {
			victim = k
		}
	}
	raw, err := f.asVictim(victim, f.cohort.relay, &protocol.Targeted{Type: protocol.TypeDelete, Target: protocol.Target(http.MethodDelete, target.String())})
	if err != nil {
		return message{}, nil, err
	}
	e, err := protocol.ParseEnvelope(raw)
	if err != nil {
		return message{}, nil, err
	}
	return message{method: http.MethodDelete, path: target.String(), authorization: e.Authorization()}, nil, nil
}

// acknowledged is a record that is there, or the other path.
func (f *forger) acknowledged(other protocol.Path) protocol.Path {
	f.cohort.mu.Lock()
	defer f.cohort.mu.Unlock()
	for path, r := range f.cohort.records {
		if r.stored != nil && !r.deleting {
			return path
		}
	}
	return other
}
