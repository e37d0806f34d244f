package diskspace

import (
	"errors"
	"log/slog"
	"testing"

	"relaymarket/protocol"
)

// What is kept free may change while the watch runs; the next look goes by it.
func TestKeepChanges(t *testing.T) {
	w, err := New(Config{Folder: t.TempDir(), Keep: MinKeep, Grows: func() int64 { return 0 }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		keep int64
		room bool
	}{{MinKeep, true}, {1 << 60, false}, {MinKeep, true}} {
		w.Keep(step.keep)
		if err := w.Look(); err != nil {
			t.Fatal(err)
		}
		if err := w.Room(); (err == nil) != step.room || err != nil && !errors.Is(err, protocol.CodeDiskFull) {
			t.Errorf("with %d kept it says %v", step.keep, err)
		}
		if free, keep := w.Free(); free <= 0 || keep != step.keep {
			t.Errorf("of %d free, %d are kept, not %d", free, keep, step.keep)
		}
	}
}
