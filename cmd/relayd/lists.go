package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"relaymarket/internal/relaynode"
	"relaymarket/ledger/willing"
	"relaymarket/protocol"
)

// named is what a command of the lists is about: a key, or with --topic a topic.
type named struct {
	topic string
}

func (n *named) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&n.topic, "topic", "", "a topic instead of a key: the tag of the records")
}

func (n *named) read(args []string) (willing.Kind, string, error) {
	switch {
	case n.topic != "" && len(args) > 0:
		return "", "", usagef("name a key or a --topic, not both")
	case n.topic != "":
		return willing.Topic, n.topic, nil
	case len(args) == 0:
		return "", "", usagef("name a key, or a topic with --topic")
	}
	key, err := protocol.ParsePublicKey(args[0])
	if err != nil {
		return "", "", usagef("%q is no key, write relay1… or 64 hex digits: %w", args[0], err)
	}
	return willing.Key, key.String(), nil
}

func (p program) allowCommand() *cobra.Command {
	s := newSettings(p.environ)
	var n named
	var stored, moved byteSize
	var note string
	cmd := &cobra.Command{
		Use:   "allow [KEY]",
		Short: "Serve a key, or a topic, for nothing",
		Long: `allow puts a key on the list of those whom this relay serves for nothing: its owner asks with
relay terms ask, and has an account. With --topic it allows a topic: whoever asks gets a small account
then, for records with that tag only; --topic '*' allows any topic that is not denied.

What it gives, and how many strangers may take it, the settings volunteer-… say; relayd terms shows what
comes of it. A relay that serves follows within seconds, and announces what has changed.`,
		Example: "  relayd allow relay1… --stored 1GB --moved 10GB --note 'Ann, from the club'\n  relayd allow --topic weather",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, name, err := n.read(args)
			if err != nil {
				return err
			}
			e := willing.Entry{Kind: kind, Name: name, Allowed: true, Note: note}
			if cmd.Flags().Changed("stored") {
				e.Stored = (*int64)(&stored)
			}
			if cmd.Flags().Changed("moved") {
				e.Moved = (*int64)(&moved)
			}
			return p.putEntry(cmd, s, e)
		},
	}
	n.flags(cmd)
	cmd.Flags().Var(&stored, "stored", "bytes at once of this key's account (default volunteer-stored)")
	cmd.Flags().Var(&moved, "moved", "bytes a calendar month of this key's account (default volunteer-moved)")
	cmd.Flags().StringVar(&note, "note", "", "for yourself: whose key it is")
	p.listFlags(cmd, s)
	return cmd
}

func (p program) denyCommand() *cobra.Command {
	s := newSettings(p.environ)
	var n named
	var note string
	cmd := &cobra.Command{
		Use:   "deny [KEY]",
		Short: "Serve a key, or a topic, not even if it is asked for",
		Long: `deny puts a key on the list of those to whom this relay gives nothing: neither for nothing, nor by a
contract. What it was given for nothing ends; a grant and a contract in force stay (relayd revoke, relayd contracts).
With --topic it denies a topic, and ends the accounts that were given for it. What is stored stays until it expires.

A stranger makes a new key in no time: against crowds of them there are the settings volunteer-accounts and
volunteer-address.`,
		Example: "  relayd deny relay1… --note 'wrote to everybody'\n  relayd deny --topic jokes",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, name, err := n.read(args)
			if err != nil {
				return err
			}
			return p.putEntry(cmd, s, willing.Entry{Kind: kind, Name: name, Note: note})
		},
	}
	n.flags(cmd)
	cmd.Flags().StringVar(&note, "note", "", "for yourself: why")
	p.listFlags(cmd, s)
	return cmd
}

func (p program) unlistCommand() *cobra.Command {
	s := newSettings(p.environ)
	var n named
	cmd := &cobra.Command{
		Use:     "unlist [KEY]",
		Short:   "Take a key, or a topic, off the lists; what was given stays until it ends",
		Example: "  relayd unlist relay1…\n  relayd unlist --topic weather",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, name, err := n.read(args)
			if err != nil {
				return err
			}
			return p.withLists(cmd, s, func(ctx context.Context, lists *willing.Store) error {
				err := lists.Remove(ctx, kind, name)
				if errors.Is(err, protocol.CodeNotFound) {
					return fmt.Errorf("the %s %s is on no list: relayd terms shows them", kind, shownName(kind, name))
				}
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(p.out, "%s %s is on no list any more\n", kind, shownName(kind, name))
				return err
			})
		},
	}
	n.flags(cmd)
	p.listFlags(cmd, s)
	return cmd
}

func (p program) listFlags(cmd *cobra.Command, s *settings) { p.booksFlags(cmd, s) }

func (p program) withLists(cmd *cobra.Command, s *settings, do func(context.Context, *willing.Store) error) error {
	if err := p.loadRelay(cmd, s); err != nil {
		return err
	}
	return relaynode.WithLists(cmd.Context(), s.databaseConfig(p.logger(s)), s.policy(), do)
}

// putEntry changes a list and says what that does.
func (p program) putEntry(cmd *cobra.Command, s *settings, e willing.Entry) error {
	if err := e.Validate(); err != nil {
		return usageError{err}
	}
	return p.withLists(cmd, s, func(ctx context.Context, lists *willing.Store) error {
		ended, err := lists.Put(ctx, e)
		if errors.Is(err, protocol.CodeInvalidValue) {
			return usageError{err}
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(p.out, done(e, s, ended))
		return err
	})
}

func done(e willing.Entry, s *settings, ended int64) string {
	name, policy := shownName(e.Kind, e.Name), s.policy()
	switch {
	case !e.Allowed && ended > 0:
		return fmt.Sprintf("%s is denied; accounts that were given for nothing and end: %d\n", name, ended)
	case !e.Allowed:
		return fmt.Sprintf("%s is denied\n", name)
	case e.Kind == willing.Key && policy.Keys == nil, e.Kind == willing.Topic && policy.Topics == nil:
		return fmt.Sprintf("%s is allowed, but the setting volunteer does not name %ss: nothing is offered\n", name, e.Kind)
	case e.Kind == willing.Topic:
		return fmt.Sprintf("whoever asks for the topic %s may store %s and move %s a month, %d accounts at most\n", name, byteSize(policy.Stored), byteSize(policy.Moved), policy.Accounts)
	}
	stored, moved := policy.Stored, policy.Moved
	if e.Stored != nil {
		stored = *e.Stored
	}
	if e.Moved != nil {
		moved = *e.Moved
	}
	return fmt.Sprintf("%s may store %s and move %s a month, once he asks: relay terms ask ADDRESS\n", name, byteSize(stored), byteSize(moved))
}

// shownName is a key as people see it, or a topic.
func shownName(kind willing.Kind, name string) string {
	var key protocol.PublicKey
	if kind == willing.Key && key.UnmarshalText([]byte(name)) == nil {
		return key.Bech32()
	}
	return name
}
