package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"relaymarket/client/keyfile"
)

func (p *program) initCommand() *cobra.Command {
	var restore bool
	var label string
	cmd := &cobra.Command{
		Use: "init", Short: "Make your keys, or restore them from the 24 words", Args: cobra.NoArgs,
		Example: "  relay init --label Anna\n  relay init --restore",
		Long: `Makes your keys in a file that only your passphrase opens, and shows the 24 words that restore them, once.
With --restore the words are read from the terminal or from standard input. Keys that are there are never overwritten.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.initialize(cmd.Context(), restore, label) },
	}
	cmd.Flags().BoolVar(&restore, "restore", false, "restore keys from their 24 words")
	cmd.Flags().StringVar(&label, "label", "", "what your card calls you, at most 64 characters")
	return cmd
}

// initialResult is what init prints with --json.
type initialResult struct {
	Key      string `json:"key"`
	Words    string `json:"words,omitempty"` // absent with --restore
	Dir      string `json:"dir"`
	Restored bool   `json:"restored"`
}

func (p *program) initialize(ctx context.Context, restore bool, label string) error {
	dir, err := p.folder()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, keyFileName)
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s: %w", path, keyfile.ErrExists)
	}
	seed, err := p.newSeed(restore)
	if err != nil {
		return err
	}
	defer seed.Wipe()
	passphrase, err := p.newPassphrase()
	if err != nil {
		return err
	}
	defer passphrase.Wipe()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// The state first: were it another key's, no key file would be left that does not fit it.
	c, err := p.openWith(ctx, dir, seed)
	if err != nil {
		return err
	}
	defer c.Close()
	if restore {
		if err := c.SayHello(ctx); err != nil {
			return err
		}
	}
	if label != "" {
		if err := c.SetLabel(ctx, label); err != nil {
			return err
		}
	}
	if _, err := c.PublishCard(ctx); err != nil { // signs and keeps it; there is no relay yet
		return err
	}
	if err := keyfile.Create(path, seed, time.Now(), passphrase, keyfile.Options{}); err != nil {
		return err
	}
	result := initialResult{Key: c.Key().Bech32(), Dir: dir, Restored: restore}
	if !restore {
		if result.Words, err = seed.Words(); err != nil {
			return err
		}
	}
	return p.showInitial(result)
}

func (p *program) showInitial(r initialResult) error {
	if p.json {
		return p.printJSON(r)
	}
	if r.Words != "" {
		if err := p.say("These 24 words are your keys. Write them on paper, in order. They are not shown again.\n\n%s\n", wordTable(r.Words)); err != nil {
			return err
		}
	}
	if r.Restored {
		return p.say(`Your key:  %s
Your keys are in %s

Next: run
  relay relays add ADDRESS   of a relay that you use, or used
  relay inbox                and your friends and messages come back, as far as it has them
`, r.Key, r.Dir)
	}
	return p.say(`Your key:  %s
Your keys are in %s

Next: send your key to the operator of a relay. When he has granted it, run
  relay relays add ADDRESS
`, r.Key, r.Dir)
}

func wordTable(words string) string {
	var b strings.Builder
	list := strings.Fields(words)
	rows := (len(list) + 3) / 4
	for row := range rows {
		var line strings.Builder
		for i := row; i < len(list); i += rows {
			fmt.Fprintf(&line, "  %2d %-10s", i+1, list[i])
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

func (p *program) newSeed(restore bool) (*keyfile.Seed, error) {
	if !restore {
		return keyfile.NewSeed(rand.Reader)
	}
	words, err := p.readWords()
	if err != nil {
		return nil, err
	}
	seed, err := keyfile.ParseWords(words)
	var wrong *keyfile.WordError
	switch {
	case errors.As(err, &wrong):
		return nil, fmt.Errorf("word %d is not in the list of words: check its spelling", wrong.Position)
	case errors.Is(err, keyfile.ErrChecksum):
		return nil, fmt.Errorf("%w: a word is wrong, or two stand in the wrong order", err)
	case errors.Is(err, keyfile.ErrWordCount):
		return nil, fmt.Errorf("%w: there are %d, and should be %d, with spaces between them", err, len(strings.Fields(words)), keyfile.WordCount)
	}
	return seed, err
}

func (p *program) readWords() (string, error) {
	const most = 4096
	if term.IsTerminal(int(p.in.Fd())) {
		p.complain("The 24 words, in order, on one line:\n")
		line, err := bufio.NewReader(io.LimitReader(p.in, most)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		return line, nil
	}
	data, err := io.ReadAll(io.LimitReader(p.in, most))
	return string(data), err
}
