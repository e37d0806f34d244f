package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"relaymarket/protocol"
)

func (p program) initCommand() *cobra.Command {
	s := newSettings(p.environ)
	cmd := &cobra.Command{
		Use:     "init",
		Example: "  relayd init\n  relayd init --dir ./relayd",
		Short:   "Make the relay's folder: a key and a commented configuration file",
		Long: `init makes the relay's folder with a new key and a configuration file that lists every
setting with its default. It overwrites nothing.

Keep a copy of relay.key in a safe place: the key is the relay's name, and with it gone
nobody finds his records again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.load(p.environ, cmd.Flags()); err != nil {
				return err
			}
			key, err := initialize(s)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(p.out, `%s
  key            %s (keep a copy in a safe place)
  configuration  %s

Next:
  relayd grant KEY%[4]s    space for somebody's key
  relayd serve%[4]s        run it
`, key.Public().Bech32(), s.keyFile(), s.configFile(), s.dirFlag())
			return err
		},
	}
	s.flags(cmd.Flags(), "dir")
	return cmd
}

// dirFlag is what to add to a command so that it finds the folder again.
func (s *settings) dirFlag() string {
	if s.find("dir").origin != fromFlag {
		return ""
	}
	return " --dir " + s.dir
}

func initialize(s *settings) (*protocol.PrivateKey, error) {
	for _, path := range []string{s.keyFile(), s.configFile()} {
		if _, err := os.Lstat(path); err == nil {
			return nil, fmt.Errorf("%s exists already: this folder was set up before; choose another one with --dir, or go on with relayd serve", path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look into the relay's folder: %w", err)
		}
	}
	if err := makeFolder(s.dir); err != nil {
		return nil, err
	}
	key, err := protocol.GeneratePrivateKey()
	if err != nil {
		return nil, err
	}
	secret := key.Secret()
	if err := writeNew(s.configFile(), s.template()); err != nil {
		return nil, err
	}
	// Last, because serve goes by the key: with it, everything is there.
	return key, writeNew(s.keyFile(), []byte(hex.EncodeToString(secret[:])+"\n"))
}

// makeFolder makes a new folder for its owner alone. Root's is one that others may pass through but not look
// into: the private database runs as an unprivileged user, who has to get to his part of it.
func makeFolder(dir string) error {
	mode := fs.FileMode(0o700)
	if os.Geteuid() == 0 {
		mode = 0o711
	}
	if _, err := os.Stat(dir); err == nil {
		return nil // its owner chose its mode
	}
	if err := os.MkdirAll(filepath.Dir(dir), mode); err != nil {
		return fmt.Errorf("make the relay's folder: %w", err)
	}
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the relay's folder: %w", err)
	}
	// The process's umask may have taken away what is needed.
	if err := os.Chmod(dir, mode); err != nil {
		return fmt.Errorf("make the relay's folder: %w", err)
	}
	return nil
}

// writeNew writes a file that only its owner reads, durably, and never over another.
func writeNew(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write a new file: %w", err)
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(path))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// template is a configuration file in which every setting stands as a comment with its default.
func (s *settings) template() []byte {
	var b bytes.Buffer
	b.WriteString("# Configuration of relayd. Every setting is here with its default; take the # away to change one.\n" +
		"# Flags (--listen) and the environment (RELAYD_LISTEN) go before this file. relayd config shows what is in force.\n")
	defaults := newSettings(nil)
	section := ""
	for _, item := range defaults.all {
		if item.section == "" {
			continue
		}
		if item.section != section {
			section = item.section
			fmt.Fprintf(&b, "\n# --- %s ---\n", section)
		}
		b.WriteString("\n")
		for line := range strings.SplitSeq(item.help, "\n") {
			fmt.Fprintf(&b, "# %s\n", line)
		}
		fmt.Fprintf(&b, "#%s = %s\n", item.name, item.literal())
	}
	return b.Bytes()
}

// literal is the value as TOML.
func (s *setting) literal() string {
	text := s.value.String()
	switch {
	case isList(s.value) && text == "":
		return "[]"
	case isList(s.value):
		return `["` + strings.ReplaceAll(text, ",", `", "`) + `"]`
	case slices.Contains([]string{"number", "msat", "satoshi", "percent", "blocks"}, s.value.Type()):
		return text
	}
	return `"` + text + `"`
}

// readKey reads the key that init wrote.
func (s *settings) readKey() (*protocol.PrivateKey, error) {
	path := s.keyFile()
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no relay key at %s: run relayd init%s, or name the relay's folder with --dir", path, s.dirFlag())
	}
	if err != nil {
		return nil, fmt.Errorf("read the relay's key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("others can read the relay's key: run chmod 600 %s, and if they may have read it, make a new relay", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the relay's key: %w", err)
	}
	raw, err := hex.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil || len(raw) != 32 {
		return nil, fmt.Errorf("%s holds no key: it must be 64 hex digits; restore it from your copy", path)
	}
	key, err := protocol.NewPrivateKey([32]byte(raw))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}
