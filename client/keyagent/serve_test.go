//go:build linux || darwin

package keyagent_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relaymarket/client/keyagent"
)

func TestFetchStatusLock(t *testing.T) {
	socket, secret := newSocket(t), newSecret(t)
	expectNotRunning(t, socket)
	_, done := serve(t, keyagent.Config{Socket: socket, Secret: secret, For: 8 * time.Hour})
	expectSecret(t, socket, secret)
	expectSecret(t, socket, secret)

	state, err := keyagent.Status(t.Context(), socket)
	must(t, err)
	if state.PID != os.Getpid() || state.Remaining > 8*time.Hour || state.Remaining < 8*time.Hour-time.Minute {
		t.Errorf("state %+v", state)
	}
	for path, want := range map[string]os.FileMode{socket: 0o600, filepath.Dir(socket): 0o700} {
		info, err := os.Lstat(path)
		must(t, err)
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
	}
	must(t, keyagent.Lock(t.Context(), socket))
	expectNotRunning(t, socket)
	ends(t, done)
	expectNoFile(t, socket)
}

func TestSizesOfSecrets(t *testing.T) {
	for _, size := range []int{1, 32, keyagent.MaxSecret} {
		socket, secret := newSocket(t), bytes.Repeat([]byte{'\n'}, size)
		serve(t, keyagent.Config{Socket: socket, Secret: secret})
		expectSecret(t, socket, secret)
	}
}

func TestServeRefusesConfig(t *testing.T) {
	socket := newSocket(t)
	for name, c := range map[string]struct {
		config keyagent.Config
		want   error
	}{
		"no secret":     {keyagent.Config{Socket: socket, For: time.Hour}, keyagent.ErrSecret},
		"long secret":   {keyagent.Config{Socket: socket, For: time.Hour, Secret: make([]byte, keyagent.MaxSecret+1)}, keyagent.ErrSecret},
		"no time":       {keyagent.Config{Socket: socket, Secret: newSecret(t)}, keyagent.ErrDuration},
		"negative time": {keyagent.Config{Socket: socket, Secret: newSecret(t), For: -1}, keyagent.ErrDuration},
		"too much time": {keyagent.Config{Socket: socket, Secret: newSecret(t), For: keyagent.MaxDuration + 1}, keyagent.ErrDuration},
		"no path":       {keyagent.Config{Secret: newSecret(t), For: time.Hour}, keyagent.ErrPath},
	} {
		if err := keyagent.Serve(t.Context(), c.config); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if len(bytes.Trim(c.config.Secret, "\x00")) != 0 {
			t.Errorf("%s: the secret was not overwritten", name)
		}
	}
	expectNoFile(t, filepath.Dir(socket))
}

func TestServeTakesTheSecretOver(t *testing.T) {
	secret := newSecret(t)
	ctx, cancel := context.WithCancel(t.Context())
	c := keyagent.Config{Socket: newSocket(t), Secret: secret, For: time.Hour, Ready: func() {
		if !bytes.Equal(secret, make([]byte, len(secret))) {
			t.Error("the secret was not overwritten")
		}
		cancel()
	}}
	must(t, keyagent.Serve(ctx, c))
}

// clock is a clock that tests set.
type clock struct{ now atomic.Int64 }

func (c *clock) add(d time.Duration) { c.now.Add(int64(d)) }
func (c *clock) Now() time.Time      { return time.Unix(0, c.now.Load()) }

// Without a look at the clock in between, the request itself must find out.
func TestNothingAfterTheDeadline(t *testing.T) {
	socket, secret, clock := newSocket(t), newSecret(t), &clock{}
	_, done := serve(t, keyagent.Config{Socket: socket, Secret: secret, For: time.Hour, Now: clock.Now, CheckEvery: time.Hour})
	clock.add(time.Hour - time.Millisecond)
	expectSecret(t, socket, secret)
	if state, err := keyagent.Status(t.Context(), socket); err != nil || state.Remaining != time.Millisecond {
		t.Errorf("%+v, %v", state, err)
	}
	clock.add(time.Millisecond)
	expectNotRunning(t, socket)
	ends(t, done)
	expectNoFile(t, socket)
}

// A laptop that wakes up must lock without being asked anything.
func TestEndsAfterSuspension(t *testing.T) {
	socket, clock := newSocket(t), &clock{}
	_, done := serve(t, keyagent.Config{Socket: socket, Secret: newSecret(t), For: 8 * time.Hour, Now: clock.Now, CheckEvery: 5 * time.Millisecond})
	select {
	case err := <-done:
		t.Fatalf("ended early: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	clock.add(9 * time.Hour)
	ends(t, done)
	expectNoFile(t, socket)
}

func TestEndsAtTheDeadline(t *testing.T) {
	socket := newSocket(t)
	start := time.Now()
	_, done := serve(t, keyagent.Config{Socket: socket, Secret: newSecret(t), For: 200 * time.Millisecond, CheckEvery: time.Hour})
	ends(t, done)
	if served := time.Since(start); served < 200*time.Millisecond {
		t.Errorf("ended after %v", served)
	}
	expectNotRunning(t, socket)
}

func TestEndsWithContext(t *testing.T) {
	socket := newSocket(t)
	stop, done := serve(t, keyagent.Config{Socket: socket, Secret: newSecret(t)})
	stop()
	ends(t, done)
	expectNotRunning(t, socket)
	expectNoFile(t, socket)
}

func TestSecondAgentReplacesFirst(t *testing.T) {
	socket, first, second := newSocket(t), newSecret(t), newSecret(t)
	_, done := serve(t, keyagent.Config{Socket: socket, Secret: first, For: time.Hour})
	serve(t, keyagent.Config{Socket: socket, Secret: second, For: 5 * time.Hour})
	ends(t, done)
	expectSecret(t, socket, second) // the first one did not take the second one's socket away
	if state, err := keyagent.Status(t.Context(), socket); err != nil || state.Remaining < 4*time.Hour {
		t.Errorf("%+v, %v", state, err)
	}
}

// An unlock while commands run must not make one of them ask for a passphrase.
func TestReplacingHasNoGap(t *testing.T) {
	socket, secret := newSocket(t), newSecret(t)
	serve(t, keyagent.Config{Socket: socket, Secret: secret})
	ctx, cancel := context.WithCancel(t.Context())
	var fetches [4]atomic.Int64
	var readers sync.WaitGroup
	for i := range fetches {
		readers.Go(func() {
			for ctx.Err() == nil {
				got, err := keyagent.Fetch(context.Background(), socket)
				if err != nil || !bytes.Equal(got, secret) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				fetches[i].Add(1)
			}
		})
	}
	for range 100 {
		serve(t, keyagent.Config{Socket: socket, Secret: secret})
		// People do not unlock faster than a fetch takes: let each reader
		// finish the one that was under way.
		for i := range fetches {
			for n := fetches[i].Load(); fetches[i].Load() == n; {
				time.Sleep(50 * time.Microsecond)
			}
		}
	}
	cancel()
	readers.Wait()
}

func TestManyAtOnce(t *testing.T) {
	socket, secret := newSocket(t), newSecret(t)
	serve(t, keyagent.Config{Socket: socket, Secret: secret})
	var readers sync.WaitGroup
	for range 40 { // more than are answered at once
		readers.Go(func() { expectSecretIn(t, socket, secret) })
	}
	readers.Wait()
}

func expectSecretIn(t *testing.T, socket string, want []byte) {
	if got, err := keyagent.Fetch(context.Background(), socket); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
