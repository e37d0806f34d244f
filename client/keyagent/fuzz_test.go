//go:build linux || darwin

package keyagent

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func FuzzReadRequest(f *testing.F) {
	f.Add([]byte(`{"v":1,"op":"fetch"}` + "\n"))
	f.Add([]byte(`{"v":1,"op":"lock"}` + "\n" + `{"v":1,"op":"fetch"}` + "\n"))
	f.Add([]byte(`{"v":2,"op":"fetch"}` + "\n"))
	f.Add([]byte(`{"v":1,"op":"status"}`))
	f.Add(bytes.Repeat([]byte("["), 300))
	f.Fuzz(func(t *testing.T, data []byte) {
		op, refused, err := readRequest(bytes.NewReader(data))
		switch {
		case err != nil:
			if len(data) != 0 || !errors.Is(err, io.EOF) {
				t.Fatalf("error %v", err)
			}
		case (op == "") == (refused == ""):
			t.Fatalf("operation %q, refusal %q", op, refused)
		}
	})
}

func FuzzReadReply(f *testing.F) {
	f.Add([]byte(`{"v":1,"remainingMs":5,"pid":3,"secretBytes":3}` + "\nabc"))
	f.Add([]byte(`{"v":1,"error":"locked"}` + "\n"))
	f.Add([]byte(`{"v":1,"error":"version"}` + "\n"))
	f.Add([]byte(`{"v":1,"secretBytes":-1}` + "\n"))
	f.Add(bytes.Repeat([]byte("x"), 4000))
	f.Fuzz(func(t *testing.T, data []byte) {
		state, secret, err := readReply(bytes.NewReader(data))
		if err != nil {
			if !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrNotRunning) && !(len(data) == 0 && errors.Is(err, io.EOF)) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if len(secret) > MaxSecret || state.Remaining < 0 || state.Remaining > MaxDuration || !bytes.HasSuffix(data, secret) {
			t.Fatalf("%+v, %d bytes", state, len(secret))
		}
	})
}
