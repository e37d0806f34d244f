//go:build linux || darwin

package keyagent

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

// writerFunc is a writer that looks at what happens when it is written to.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestLockWipesBeforeItAnswers(t *testing.T) {
	v, err := newVault([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	s := &server{vault: v, now: time.Now, term: term{start: time.Now(), length: time.Hour}, stop: func() { stopped = true }}
	answered := false
	err = s.answer(writerFunc(func(p []byte) (int, error) {
		answered = true
		if v.page != nil || stopped {
			t.Errorf("answered too early or too late: wiped %v, stopped %v", v.page == nil, stopped)
		}
		return len(p), nil
	}), opLock)
	if err != nil || !answered || !stopped {
		t.Errorf("answered %v, stopped %v, %v", answered, stopped, err)
	}
}

func TestVault(t *testing.T) {
	secret := []byte("secret")
	v, err := newVault(secret)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(secret, make([]byte, 6)) {
		t.Error("the original was not overwritten")
	}
	read := func(s []byte) error {
		if string(s) != "secret" {
			t.Errorf("got %q", s)
		}
		return nil
	}
	if err := v.use(read); err != nil {
		t.Error(err)
	}
	v.wipe()
	v.wipe()
	if err := v.use(read); !errors.Is(err, errWiped) {
		t.Errorf("after wipe: %v", err)
	}
}
