package client_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"relaymarket/client"
	"relaymarket/client/state"
	"relaymarket/internal/testnode"
	"relaymarket/protocol"
)

// A relay that lies consistently: the root fits what it serves, and what it serves is not what was signed for us,
// here, by those we asked for.
func TestForgingRelay(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	proxy := tamperBefore(t, node)
	alice, bob := correspondents(t, node, proxy.URL)
	alice.says(bob, "genuine")
	stranger := testnode.NewKey(t)
	record := func(from *protocol.PrivateKey, to, relay protocol.PublicKey) string {
		e, err := protocol.Sign(from, to, protocol.TimestampOf(time.Now()), &protocol.Write{
			Relay: relay, RecordID: "forged", Expires: protocol.TimestampOf(time.Now().Add(time.Hour)), MaxPulls: 8, Content: "AAAA",
		})
		if err != nil {
			t.Fatal(err)
		}
		return string(e.Bytes())
	}
	other, err := protocol.Sign(alice.config.Identity, bob.Key(), protocol.TimestampOf(time.Now()), &protocol.Got{PageID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	good := record(alice.config.Identity, bob.Key(), node.Key)
	for name, line := range map[string]string{
		"signature":         swapHex(good, `"sig":"`),
		"sender not asked":  record(stranger, bob.Key(), node.Key),
		"for somebody else": record(alice.config.Identity, stranger.Public(), node.Key),
		"of another relay":  record(alice.config.Identity, bob.Key(), stranger.Public()),
		"not a record":      string(other.Bytes()),
		"gone, not asked":   `{"gone":{"from":"` + stranger.Public().String() + `","hash":"` + strings.Repeat("0", 64) + `","recordId":"x"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			proxy.gots.Store(0)
			proxy.set(pages(func(lines []string) []string { return consistent(t, lines[0], line) }))
			defer proxy.set(nil)
			reader := bob.other().befriends(alice)
			result := reader.tries()
			failed := result.Failed()
			if len(failed) != 1 || !errors.Is(failed[0].Err, client.ErrTampered) || len(result.Messages) != 0 || proxy.gots.Load() != 0 {
				t.Errorf("failed %+v, %d messages, %d acknowledgements", failed, len(result.Messages), proxy.gots.Load())
			}
			proxy.set(nil)
			reader.finds("genuine")
		})
	}
}

// What a relay says of its own is bounded where it comes in: else it would be kept, and told to other devices.
func TestLongCursors(t *testing.T) {
	node := testnode.Start(t, testnode.Options{})
	proxy := tamperBefore(t, node)
	alice, bob := correspondents(t, node, proxy.URL)
	long := strings.Repeat("c", protocol.MaxCursor+1)
	cursors := regexp.MustCompile(`"cursor":"[^"]*"`)
	lies := func(r *http.Request, body []byte) []byte {
		if r.Method == http.MethodPut || strings.HasSuffix(r.URL.Path, "/outbox") {
			return cursors.ReplaceAll(body, []byte(`"cursor":"`+long+`"`))
		}
		return body
	}
	proxy.set(lies)
	if _, err := alice.Send(t.Context(), bob.Key(), []byte("hi"), client.SendOptions{}); !errors.Is(err, client.ErrNotStored) || !errors.Is(err, client.ErrTampered) {
		t.Errorf("a record that stands nowhere: %v", err)
	}
	if healed := alice.heals(); len(healed) != 1 || !errors.Is(healed[0].Err, client.ErrTampered) {
		t.Errorf("an inventory of such: %+v", healed)
	}
	sent, err := alice.Outbox(t.Context(), 0)
	if err != nil || len(sent) != 1 || len(sent[0].Copies) != 1 || sent[0].Copies[0].State != state.CopyQueued || sent[0].Copies[0].Cursor != "" {
		t.Errorf("it was noted: %+v, %v", sent, err)
	}
	proxy.set(nil)
	alice.syncs()
	bob.finds("hi")
}

// consistent makes a page of one line whose root fits.
func consistent(t *testing.T, header, line string) []string {
	t.Helper()
	var h protocol.PageHeader
	if err := json.Unmarshal([]byte(header), &h); err != nil {
		t.Error(err)
		return nil
	}
	var root protocol.Hash
	if !strings.HasPrefix(line, `{"gone"`) {
		e, err := protocol.ParseEnvelope([]byte(line))
		if err != nil {
			t.Error(err)
			return nil
		}
		root = e.Hash()
	}
	h.Records, h.Root, h.More = 1, &root, false
	data, err := json.Marshal(h)
	if err != nil {
		t.Error(err)
		return nil
	}
	return []string{string(data), line}
}
