package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"

	"relaymarket/client/keyfile"
)

// seedText is the file of the seed. relayd signs when nobody is there, so nothing that it could be encrypted with would
// be out of its reach: it is kept as the relay's key is, for its owner's eyes only.
const seedText = `# The seed of this relay's Bitcoin wallet and of its keys in contracts.
# Keep a copy on paper: whoever has these words has the money, and without them it is gone.
made %s
words %s
`

// walletSeed is what the relay's Bitcoin keys come from.
type walletSeed struct {
	words  string
	made   time.Time // no coin of it is older
	branch *hdkeychain.ExtendedKey
}

// newSeed draws a seed, or takes words that were drawn before, and writes it where there is none. Of words that were drawn before
// nobody knows when: the wallet reads the chain from its beginning.
func (s *settings) newSeed(words string, now time.Time) (*walletSeed, error) {
	if _, err := os.Lstat(s.seedFile()); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is there already: it is never overwritten, for money may depend on it", s.seedFile())
	}
	var seed *keyfile.Seed
	var err error
	if words == "" {
		seed, err = keyfile.NewSeed(rand.Reader)
	} else {
		seed, err = keyfile.ParseWords(words)
		now = time.Time{}
	}
	if err != nil {
		return nil, err
	}
	defer seed.Wipe()
	if words, err = seed.Words(); err != nil {
		return nil, err
	}
	if err := writeNew(s.seedFile(), fmt.Appendf(nil, seedText, now.UTC().Format(time.DateOnly), words)); err != nil {
		return nil, err
	}
	return s.readSeed()
}

// readSeed reads what newSeed wrote.
func (s *settings) readSeed() (*walletSeed, error) {
	path := s.seedFile()
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no seed at %s: run relayd wallet init%s, or put back your copy if the relay had one", path, s.dirFlag())
	}
	if err != nil {
		return nil, fmt.Errorf("read the wallet's seed: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("others can read the wallet's seed: run chmod 600 %s, and if they may have read it, send the coins elsewhere", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the wallet's seed: %w", err)
	}
	seed, err := parseSeed(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w; put back your copy", path, err)
	}
	return seed, nil
}

func parseSeed(text string) (*walletSeed, error) {
	var seed walletSeed
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		var err error
		switch name {
		case "made":
			seed.made, err = time.Parse(time.DateOnly, value)
		case "words":
			seed.words = value
		}
		if err != nil {
			return nil, fmt.Errorf("the day after made is written as 2026-01-31: %w", err)
		}
	}
	parsed, err := keyfile.ParseWords(seed.words)
	if err != nil {
		return nil, fmt.Errorf("the words are no seed: %w", err)
	}
	defer parsed.Wipe()
	seed.branch, err = parsed.Bitcoin()
	return &seed, err
}
