package keyfile_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"

	"relaymarket/client/keyfile"
)

// changer is the argument that makes the test binary change the passphrase of a
// key file back and forth until it is killed. It writes a byte when it begins and after each change.
const changer = "change-passphrase-for-ever"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == changer {
		os.Exit(changeForEver(os.Args[2]))
	}
	goleak.VerifyTestMain(m)
}

func changeForEver(path string) int {
	a, b := keyfile.Passphrase("right"), keyfile.Passphrase("left")
	if _, err := keyfile.Open(path, a); err != nil {
		a, b = b, a
	}
	for {
		if _, err := os.Stdout.Write([]byte{'.'}); err != nil {
			return 1
		}
		if err := keyfile.ChangePassphrase(path, a, b, fast); err != nil {
			return 1
		}
		a, b = b, a
	}
}

// Killed at any instant of a change, the file opens with one of the two
// passphrases and holds the same seed.
func TestChangePassphraseSurvivesKill(t *testing.T) {
	path := newKeyFile(t)
	first := readBytes(t, path)
	start := time.Now()
	if err := keyfile.ChangePassphrase(newKeyFile(t), keyfile.Passphrase("right"), keyfile.Passphrase("left"), fast); err != nil {
		t.Fatal(err)
	}
	aChange := time.Since(start)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	changed := false
	for round := range 20 {
		cmd := exec.Command(self, changer, path)
		said, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// In some rounds it dies in the first change, in others after it, each time a little later.
		if _, err := io.ReadFull(said, make([]byte, 1+round%2)); err != nil {
			t.Fatalf("it did not begin: %v", err)
		}
		time.Sleep(aChange * time.Duration(round) / 20)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatalf("it ended by itself: %v", err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
			t.Fatalf("it ended by itself: %v", err)
		}
		d, err := keyfile.Open(path, keyfile.Passphrase("right"))
		if errors.Is(err, keyfile.ErrPassphrase) {
			d, err = keyfile.Open(path, keyfile.Passphrase("left"))
		}
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if *d.Seed != *artSeed(t) {
			t.Fatalf("round %d: another seed", round)
		}
		changed = changed || string(first) != string(readBytes(t, path))
	}
	if !changed {
		t.Error("the passphrase was never changed: nothing was tested")
	}
}
