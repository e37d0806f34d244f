package state_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"relaymarket/client/devices"
	"relaymarket/client/state"
	"relaymarket/protocol"
)

// begun is when the stories begin.
var begun = time.UnixMilli(1_763_683_200_000)

// world is several devices of one key, and the batches that they wrote.
type world struct {
	t       rapid.TB
	ctx     context.Context
	owner   protocol.PublicKey
	now     time.Time
	devices []*state.Store
	written []state.Message
	records int
}

// newWorld makes devices whose clocks differ by minutes.
func newWorld(t rapid.TB, ctx context.Context, dir string, n int) *world {
	w := &world{t: t, ctx: ctx, owner: key(1), now: begun}
	for i := range n {
		skew := time.Duration(i-1) * 7 * time.Minute
		s, err := state.Open(ctx, state.Config{Path: filepath.Join(dir, fmt.Sprint(i)), Owner: &w.owner, Clock: func() time.Time { return w.now.Add(skew) }})
		w.ok(err)
		w.devices = append(w.devices, s)
	}
	return w
}

func (w *world) close() {
	for _, s := range w.devices {
		w.ok(s.Close())
	}
}

func (w *world) ok(err error) {
	if err != nil {
		w.t.Fatal(err)
	}
}

// tell has a device write all that it has to say. What it wrote went through bytes.
func (w *world) tell(s *state.Store) {
	for range 100 {
		more, err := s.EnqueueBatch(w.ctx, nil, devices.BatchBytes, func(b *devices.Batch) (*state.Outgoing, error) {
			data, err := b.Encode()
			w.ok(err)
			back, err := devices.Parse(data)
			w.ok(err)
			w.written = append(w.written, state.Message{From: w.owner, Batch: back})
			w.records++
			return &state.Outgoing{ID: protocol.RecordID(fmt.Sprint("log-", w.records)), Tag: protocol.ReceiptTag, Expires: protocol.TimestampOf(w.now), MaxPulls: 1, Body: []byte{}}, nil
		})
		w.ok(err)
		if !more {
			return
		}
	}
	w.t.Fatal("there is no end of what a device has to say")
}

func (w *world) hear(s *state.Store, n int) {
	_, err := s.StoreMessages(w.ctx, []state.Message{w.written[n]})
	w.ok(err)
}

// meet has everybody say everything and hear everything.
func (w *world) meet() {
	w.now = w.now.Add(state.RestateEvery + time.Hour)
	for _, s := range w.devices {
		w.tell(s)
	}
	for _, s := range w.devices {
		for n := range w.written {
			w.hear(s, n)
		}
	}
}

// people are friends with two cards each, the second newer.
func people(t testing.TB, n int) (keys []protocol.PublicKey, all [][2][]byte) {
	t.Helper()
	sealing, err := protocol.NewSealingPrivateKey([protocol.SealingSeedSize]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		secret, err := protocol.GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		var two [2][]byte
		for i := range two {
			e, err := protocol.Sign(secret, secret.Public(), protocol.TimestampOf(begun.Add(time.Duration(i)*time.Second)), &protocol.Identity{
				Label: fmt.Sprint(i), Relays: []protocol.RelayRef{}, Sealing: []protocol.SealingItem{sealing.Public().Item()}})
			if err != nil {
				t.Fatal(err)
			}
			two[i] = e.Bytes()
		}
		keys, all = append(keys, secret.Public()), append(all, two)
	}
	return keys, all
}

// view is what a person sees of a device, without what is the device's own affair.
func (w *world) view(s *state.Store) []string {
	var all []string
	friends, err := s.Friends(w.ctx)
	w.ok(err)
	for _, f := range friends {
		all = append(all, fmt.Sprintf("friend %s %s %s", f.Key.Short(), f.Name, protocol.Hash(f.Card[len(f.Card)-40:])))
	}
	relays, err := s.Relays(w.ctx)
	w.ok(err)
	for _, r := range relays {
		all = append(all, fmt.Sprintf("relay %s %s %d %d", r.Key.Short(), r.Address, r.Added, r.Bytes))
	}
	label, _, err := s.Profile(w.ctx)
	w.ok(err)
	all = append(all, "label "+label)
	messages, err := s.Messages(w.ctx, state.Filter{Kept: true})
	w.ok(err)
	var lines []string
	for _, m := range messages {
		lines = append(lines, fmt.Sprintf("message %s %s %q read %d", m.From.Short(), m.ID, m.Body, m.Read))
	}
	outbox, err := s.Outbox(w.ctx, 0)
	w.ok(err)
	for _, m := range outbox {
		line := fmt.Sprintf("sent %s to %s %q by %s %d removed %d", m.ID, m.To.Short(), m.Body, m.Device, m.Seq, m.Removed)
		slices.SortFunc(m.Copies, func(a, b state.Copy) int { return strings.Compare(a.Relay.String(), b.Relay.String()) })
		for _, c := range m.Copies {
			line += fmt.Sprintf(" [%s %s %d %v got %d]", c.Relay.Short(), c.State, c.Changed, c.Hash, c.Pulled)
		}
		lines = append(lines, line)
	}
	known, err := s.Devices(w.ctx)
	w.ok(err)
	for _, d := range known {
		lines = append(lines, fmt.Sprintf("device %s %s %t", d.ID, d.Name, d.Removed))
	}
	slices.Sort(lines)
	return append(all, lines...)
}

// Devices that do whatever they like, and hear of each other late, twice, in any order or not at all, agree once everybody has said everything and
// been heard.
func TestDevicesConverge(t *testing.T) {
	keys, cards := people(t, 6)
	var relays []state.Relay
	for i := range 3 {
		relays = append(relays, state.Relay{Key: keys[3+i], Address: fmt.Sprintf("https://relay%d.example", i)})
	}
	dir := t.TempDir()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		// Each draw opens three states on disk: fewer are drawn, unless more are asked for.
		if run++; run > 8 && flag.Lookup("rapid.checks").Value.String() == "100" {
			return
		}
		w := newWorld(t, context.Background(), makeFolder(t, dir, run), 3)
		defer w.close()
		for _, s := range w.devices {
			w.ok(s.SayHello(w.ctx))
		}
		pick := func(n int, what string) int { return rapid.IntRange(0, n-1).Draw(t, what) }
		name := func() string { return rapid.SampledFrom([]string{"anna", "Anna", "bob"}).Draw(t, "name") }
		outgoing := func(s *state.Store) *state.Outgoing {
			all, err := s.Outbox(w.ctx, 0)
			w.ok(err)
			if len(all) == 0 {
				return nil
			}
			return &all[pick(len(all), "sent")]
		}
		message := func(s *state.Store) *state.Message {
			all, err := s.Messages(w.ctx, state.Filter{})
			w.ok(err)
			if len(all) == 0 {
				return nil
			}
			return &all[pick(len(all), "message")]
		}
		steps := map[string]func(*state.Store){
			"befriend": func(s *state.Store) {
				i := pick(3, "friend")
				err := s.AddFriend(w.ctx, keys[i], name(), cards[i][pick(2, "card")])
				if err != nil && !strings.Contains(err.Error(), state.ErrNameTaken.Error()) {
					w.ok(err)
				}
			},
			"card": func(s *state.Store) {
				i := pick(3, "friend")
				card, err := protocol.ParseEnvelope(cards[i][1])
				w.ok(err)
				w.ok(s.TakeCard(w.ctx, card, state.Brought{}))
			},
			"unfriend": func(s *state.Store) { _ = s.DeleteFriend(w.ctx, keys[pick(3, "friend")]) },
			"add relay": func(s *state.Store) {
				r := relays[pick(3, "relay")]
				w.ok(s.PutRelay(w.ctx, r.Key, r.Address, int64(1+pick(3, "bytes"))))
			},
			"drop relay": func(s *state.Store) { _ = s.DeleteRelay(w.ctx, relays[pick(3, "relay")].Key) },
			"label":      func(s *state.Store) { w.ok(s.SetLabel(w.ctx, name())) },
			"rename": func(s *state.Store) {
				d := devices.ID(w.devices[pick(3, "device")].Device())
				w.ok(s.ChangeDevice(w.ctx, d, func(d *devices.Device) { d.Name = name() }))
			},
			"receive": func(s *state.Store) {
				n := pick(6, "which")
				m := state.Message{From: keys[0], ID: protocol.RecordID(fmt.Sprint("m-", n)), Content: protocol.Hash{byte(n)}, Device: "00000000000000aa", Seq: int64(n + 1),
					ContentType: "text/plain", Body: fmt.Append(nil, n), Sent: protocol.TimestampOf(begun), Expires: protocol.TimestampOf(begun.Add(400 * 24 * time.Hour)),
					MaxPulls: int64(1 + 7*(n%2))}
				_, err := s.StoreMessages(w.ctx, []state.Message{m})
				w.ok(err)
			},
			"read": func(s *state.Store) {
				if m := message(s); m != nil {
					w.ok(s.MarkRead(w.ctx, m.N))
				}
			},
			"forget": func(s *state.Store) {
				if m := message(s); m != nil {
					w.ok(s.Forget(w.ctx, m.N))
				}
			},
			"send": func(s *state.Store) {
				w.records++
				id := protocol.RecordID(fmt.Sprint("s-", w.records))
				_, err := s.Enqueue(w.ctx, keys[1], relays[:1+pick(3, "copies")], func(string, int64) (*state.Outgoing, error) {
					return &state.Outgoing{ID: id, ContentType: "text/plain", Body: []byte(id), Sealed: []byte("sealed"), Expires: protocol.TimestampOf(begun.Add(400 * 24 * time.Hour)), MaxPulls: 8}, nil
				})
				w.ok(err)
			},
			"copy": func(s *state.Store) {
				if m := outgoing(s); m != nil && len(m.Copies) > 0 {
					c := m.Copies[pick(len(m.Copies), "copy")]
					to := rapid.SampledFrom([]state.CopyState{state.CopyQueued, state.CopyStored, state.CopyGone, state.CopyFailed}).Draw(t, "state")
					if m.Removed > 0 && to != state.CopyFailed { // what is removed is brought nowhere
						to = state.CopyGone
					}
					w.ok(s.SetCopy(w.ctx, m.N, c.Relay, to, ""))
				}
			},
			"remove": func(s *state.Store) {
				if m := outgoing(s); m != nil {
					w.ok(s.Remove(w.ctx, m.N))
				}
			},
			"tell": w.tell,
			"hear": func(s *state.Store) {
				if len(w.written) > 0 {
					w.hear(s, pick(len(w.written), "batch"))
				}
			},
			"lose": func(*state.Store) {
				if len(w.written) > 0 {
					n := pick(len(w.written), "batch")
					w.written = slices.Delete(w.written, n, n+1)
				}
			},
		}
		names := make([]string, 0, len(steps))
		for n := range steps {
			names = append(names, n)
		}
		names = append(names, "receive", "receive", "receive", "read", "read", "forget", "send", "copy", "hear", "hear", "tell")
		slices.Sort(names)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			w.now = w.now.Add(time.Duration(pick(90, "seconds")) * time.Second)
			steps[rapid.SampledFrom(names).Draw(t, "step")](w.devices[pick(3, "who")])
		}
		// Once is not enough: who was alone had kept no account of messages, and who had nothing to say is heard of later.
		for range 4 {
			w.meet()
		}
		want := w.view(w.devices[0])
		for i, s := range w.devices[1:] {
			if got := w.view(s); !reflect.DeepEqual(got, want) {
				t.Fatalf("device 0 has\n%s\ndevice %d has\n%s", strings.Join(want, "\n"), i+1, strings.Join(got, "\n"))
			}
		}
		// All was said, and nobody answers what he was told.
		said := len(w.written)
		for _, s := range w.devices {
			w.tell(s)
		}
		if len(w.written) != said {
			t.Fatalf("devices that agree wrote %d more batches: %+v", len(w.written)-said, w.written[said].Batch)
		}
	})
}

func makeFolder(t rapid.TB, dir string, n int) string {
	path := filepath.Join(dir, fmt.Sprint(n))
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// Alone, a device tells nothing of messages, and of contacts only when it was quiet for a while: then in one record.
func TestAlone(t *testing.T) {
	keys, cards := people(t, 2)
	w := newWorld(t, t.Context(), t.TempDir(), 2)
	defer w.close()
	s := w.devices[1]
	for i := range keys {
		w.ok(s.AddFriend(w.ctx, keys[i], fmt.Sprint("friend", i), cards[i][0]))
	}
	_, err := s.StoreMessages(w.ctx, []state.Message{{From: key(7), ID: "m", ContentType: "text/plain", Body: []byte("hi"), Sent: protocol.TimestampOf(begun), Expires: protocol.TimestampOf(begun.Add(48 * time.Hour))}})
	w.ok(err)
	if w.tell(s); len(w.written) != 0 {
		t.Fatal("it wrote at once")
	}
	w.now = w.now.Add(state.AlonePause + time.Second)
	if w.tell(s); len(w.written) != 1 || len(w.written[0].Batch.Friends) != 2 || len(w.written[0].Batch.Messages) != 0 {
		t.Fatalf("then it wrote %d batches", len(w.written))
	}
	if w.tell(s); len(w.written) != 1 {
		t.Fatal("it wrote the same again")
	}
	// Somebody restores the words: he finds the contacts, and is told the rest.
	other := w.devices[0]
	w.ok(other.SayHello(w.ctx))
	w.hear(other, 0)
	if friends, err := other.Friends(w.ctx); err != nil || len(friends) != 2 {
		t.Fatalf("%d friends, %v", len(friends), err)
	}
	w.tell(other)
	w.hear(s, 1)
	w.tell(s)
	if last := w.written[len(w.written)-1].Batch; len(last.Messages) != 1 {
		t.Errorf("the newcomer is told of %d messages", len(last.Messages))
	}
}

// What one device queued, another can bring; a copy that was stored is not brought again.
func TestSharedQueue(t *testing.T) {
	w := newWorld(t, t.Context(), t.TempDir(), 2)
	defer w.close()
	a, b := w.devices[0], w.devices[1]
	w.ok(a.Company(w.ctx))
	w.ok(b.Company(w.ctx))
	keys, _ := people(t, 3)
	one, two := state.Relay{Key: keys[0], Address: "https://one.example"}, state.Relay{Key: keys[1], Address: "https://two.example"}
	m, err := a.Enqueue(w.ctx, keys[2], []state.Relay{one, two}, func(string, int64) (*state.Outgoing, error) {
		return &state.Outgoing{ID: "s", ContentType: "text/plain", Body: []byte("x"), Sealed: []byte("sealed"), Expires: protocol.TimestampOf(begun.Add(time.Hour)), MaxPulls: 8}, nil
	})
	w.ok(err)
	w.ok(a.SetCopy(w.ctx, m.N, one.Key, state.CopyStored, ""))
	w.tell(a)
	w.hear(b, 0)
	if waiting, err := b.Waiting(w.ctx, two.Key); err != nil || len(waiting) != 1 {
		t.Fatalf("%d wait for the second relay, %v", len(waiting), err)
	}
	if waiting, err := b.Waiting(w.ctx, one.Key); err != nil || len(waiting) != 0 {
		t.Fatalf("%d wait for the first relay, %v", len(waiting), err)
	}
	all, err := b.Outbox(w.ctx, 0)
	w.ok(err)
	if len(all) != 1 || string(all[0].Sealed) != "sealed" || all[0].Device != a.Device() {
		t.Fatalf("the other device has %+v", all)
	}
	// It brings it, and the relay has the first device's envelope already.
	if ours, err := b.Stored(w.ctx, all[0].N, two.Key, protocol.Hash{7}, "c"); err != nil || !ours {
		t.Errorf("a confirmation of the other device's envelope: %t, %v", ours, err)
	}
}

// What a relay says of its own makes no batch that the other devices refuse: with it they would lose all that stands beside it.
func TestBadWordOfARelay(t *testing.T) {
	w := newWorld(t, t.Context(), t.TempDir(), 2)
	defer w.close()
	a, b := w.devices[0], w.devices[1]
	w.ok(a.Company(w.ctx))
	keys, cards := people(t, 3)
	relay := state.Relay{Key: keys[0], Address: "https://one.example"}
	expires := protocol.TimestampOf(begun.Add(time.Hour))
	sends := func(id protocol.RecordID, pulls int64) int64 {
		m, err := a.Enqueue(w.ctx, keys[1], []state.Relay{relay}, func(string, int64) (*state.Outgoing, error) {
			return &state.Outgoing{ID: id, ContentType: "text/plain", Body: []byte(id), Sealed: []byte("sealed"), Expires: expires, MaxPulls: pulls}, nil
		})
		w.ok(err)
		return m.N
	}
	_, err := a.Stored(w.ctx, sends("cursor", 8), relay.Key, protocol.Hash{1}, strings.Repeat("c", protocol.MaxCursor+1))
	w.ok(err)
	sends("pulls", protocol.MaxPullsLimit+1) // is refused by those who read it, whatever made it so
	w.ok(a.AddFriend(w.ctx, keys[2], "anna", cards[2][0]))
	w.tell(a) // and reads, as they do, what it wrote
	for n := range w.written {
		w.hear(b, n)
	}
	sent, err := b.Outbox(w.ctx, 0)
	w.ok(err)
	if len(sent) != 1 || sent[0].ID != "cursor" || len(sent[0].Copies) != 1 || sent[0].Copies[0].Cursor != "" {
		t.Errorf("the other device has %+v", sent)
	}
	if _, err := b.Friend(w.ctx, keys[2]); err != nil {
		t.Errorf("the friend who was added: %v", err)
	}
}

// What a friend sends with few pulls, for little, is not told for a month without measure.
func TestDearMessages(t *testing.T) {
	w := newWorld(t, t.Context(), t.TempDir(), 1)
	defer w.close()
	s := w.devices[0]
	w.ok(s.Company(w.ctx))
	w.tell(s)
	n := 0
	told := func(from byte, count int, life time.Duration) (messages, bytes int) {
		for range count {
			n++
			_, err := s.StoreMessages(w.ctx, []state.Message{{From: key(int(from)), ID: protocol.RecordID(fmt.Sprint("m", n)), ContentType: "text/plain", Device: "0000000000000001", Seq: int64(n),
				Body: make([]byte, devices.MaxTold), MaxPulls: 3, Sent: protocol.TimestampOf(w.now), Expires: protocol.TimestampOf(w.now.Add(life))}})
			w.ok(err)
		}
		before := len(w.written)
		w.tell(s)
		for _, b := range w.written[before:] {
			for _, m := range b.Batch.Messages {
				messages, bytes = messages+1, bytes+len(m.Body)
			}
		}
		return messages, bytes
	}
	if n, _ := told(5, 10, 23*time.Hour); n != 0 {
		t.Errorf("%d messages are told that live for less than a day", n)
	}
	for day := range 2 {
		if n, bytes := told(5, 40, 48*time.Hour); n == 0 || bytes > 1<<20 || bytes < 1<<19 {
			t.Errorf("on day %d, %d messages of %d bytes are told", day, n, bytes)
		}
		if n, _ := told(5, 1, 48*time.Hour); n != 0 {
			t.Errorf("on day %d one more is told", day)
		}
		w.now = w.now.Add(24 * time.Hour)
	}
	if n, _ := told(6, 3, 48*time.Hour); n != 3 {
		t.Errorf("of another friend %d messages are told", n)
	}
}

// A device of which nothing is heard for two months is no company, until it is heard again.
func TestSilentDevice(t *testing.T) {
	w := newWorld(t, t.Context(), t.TempDir(), 2)
	defer w.close()
	a, b := w.devices[0], w.devices[1]
	expect := func(when string, company bool, living int64) {
		t.Helper()
		w.tell(a)
		got, err := a.HasCompany(w.ctx)
		w.ok(err)
		n, err := a.Living(w.ctx)
		w.ok(err)
		if got != company || n != living {
			t.Errorf("%s: company %t, %d devices", when, got, n)
		}
	}
	heard := func(from int) {
		for ; from < len(w.written); from++ {
			w.hear(a, from)
		}
	}
	expect("alone", false, 1)
	w.ok(b.SayHello(w.ctx))
	w.tell(b)
	heard(0)
	expect("together", true, 2)
	w.now = w.now.Add(61 * 24 * time.Hour)
	expect("two months later", false, 1)
	_, err := a.StoreMessages(w.ctx, []state.Message{{From: key(5), ID: "m", ContentType: "text/plain", Body: []byte("x"), MaxPulls: 1, Sent: protocol.TimestampOf(w.now), Expires: protocol.TimestampOf(w.now.Add(48 * time.Hour))}})
	w.ok(err)
	before := len(w.written)
	w.now = w.now.Add(state.AlonePause + time.Second)
	w.tell(a)
	for _, m := range w.written[before:] {
		if len(m.Batch.Messages) > 0 {
			t.Error("a message is told to nobody")
		}
	}
	before = len(w.written)
	w.tell(b)
	w.now = w.now.Add(state.AlonePause + time.Second) // it hears nobody, either
	w.tell(b)
	heard(before)
	expect("heard again", true, 2)
	if last := w.written[len(w.written)-1].Batch; last.Device != devices.ID(a.Device()) || len(last.Messages) != 1 {
		t.Errorf("it is told %+v", last)
	}
}

// What this device said itself before its state was put back makes no company; what the one it was says after that does.
func TestPutBackIsAlone(t *testing.T) {
	w := newWorld(t, t.Context(), t.TempDir(), 2)
	defer w.close()
	s, was := w.devices[1], devices.ID(w.devices[1].Device())
	w.ok(s.SetLabel(w.ctx, "one"))
	w.now = w.now.Add(state.AlonePause + time.Minute)
	w.tell(s)
	if len(w.written) != 1 {
		t.Fatalf("it wrote %d batches", len(w.written))
	}
	w.now = w.now.Add(time.Minute)
	w.ok(s.PutBack(w.ctx, protocol.TimestampOf(w.now)))
	w.hear(s, 0)
	w.tell(s)
	if company, err := s.HasCompany(w.ctx); err != nil || company {
		t.Errorf("it is its own company, %v", err)
	}
	w.now = w.now.Add(time.Minute)
	_, err := s.StoreMessages(w.ctx, []state.Message{{From: w.owner, Batch: &devices.Batch{Device: was, Seq: 2, At: protocol.TimestampOf(w.now)}}})
	w.ok(err)
	if company, err := s.HasCompany(w.ctx); err != nil || !company {
		t.Errorf("the other goes on and is no company, %v", err)
	}
}

// What counts is when a thing was changed, not when it was told.
func TestLaterChangeWins(t *testing.T) {
	keys, cards := people(t, 1)
	w := newWorld(t, t.Context(), t.TempDir(), 2)
	defer w.close()
	slow, quick := w.devices[0], w.devices[1] // slow's clock is behind, by seven minutes
	w.ok(slow.Company(w.ctx))
	w.ok(quick.Company(w.ctx))
	w.ok(slow.AddFriend(w.ctx, keys[0], "first", cards[0][0]))
	w.now = w.now.Add(time.Hour)
	w.ok(quick.AddFriend(w.ctx, keys[0], "second", cards[0][0]))
	w.tell(quick)
	w.now = w.now.Add(time.Hour)
	w.tell(slow) // an hour after the other told, what it did before
	w.hear(quick, 1)
	w.hear(slow, 0)
	for i, s := range w.devices {
		if f, err := s.Friend(w.ctx, keys[0]); err != nil || f.Name != "second" {
			t.Errorf("device %d calls the friend %q, %v", i, f.Name, err)
		}
	}
}
