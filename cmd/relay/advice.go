package main

import (
	"errors"

	"relaymarket/client"
	"relaymarket/client/keyagent"
	"relaymarket/client/keyfile"
	"relaymarket/protocol"
)

// adviceTable says what to do next about what can go wrong. The first that matches counts.
func adviceTable() []struct {
	is   error
	next string
} {
	return []struct {
		is   error
		next string
	}{
		{keyfile.ErrNotFound, "Run: relay init   (or name the folder of your keys with --dir)"},
		{client.ErrNoState, "Run: relay init   (or name the folder of your keys with --dir)"},
		{keyfile.ErrExists, "Nothing was changed. For other keys choose another folder: relay --dir FOLDER init"},
		{errNoPassphrase, "Run: relay unlock   (or set RELAY_PASSPHRASE, or give --passphrase-file FILE)"},
		{client.ErrLocked, "Run: relay unlock"},
		{keyfile.ErrPassphrase, "Try again. If it is lost, restore from the 24 words: relay --dir NEW-FOLDER init --restore"},
		{keyfile.ErrPermissions, "Run: chmod 600 on the file"},
		{keyfile.ErrDamaged, "Restore from the 24 words: relay --dir NEW-FOLDER init --restore"},
		{keyfile.ErrTruncated, "Restore from the 24 words: relay --dir NEW-FOLDER init --restore"},
		{keyagent.ErrUnsupported, "Use --passphrase-file or RELAY_PASSPHRASE instead."},
		{client.ErrNoRelays, "Run: relay relays add ADDRESS"},
		{protocol.CodeNoAccount, "When the operator has granted your key, run this again."},
		{protocol.CodeFuture, "Check the clock of this machine."},
		{protocol.CodeStale, "Check the clock of this machine."},
		{client.ErrNotStored, "It is kept and goes out with the next send or inbox. Do not send it again. See: relay outbox"},
		{client.ErrTooLarge, "Nothing was sent. Make it shorter, or send it in parts."},
		{client.ErrRefused, "It is not tried again. See: relay outbox"},
		{client.ErrNameTaken, "Choose another name with --name."},
		{client.ErrNoFriend, "See: relay friend list"},
		{client.ErrNoRelay, "See: relay relays list"},
		{client.ErrNoCard, "Ask for the card as a file: your friend makes it with relay id --card me.relayid"},
		{client.ErrOtherOwner, "The key file and the messages in this folder do not belong together: choose another folder with --dir."},
	}
}

func advice(err error) string {
	for _, row := range adviceTable() {
		if errors.Is(err, row.is) {
			return row.next
		}
	}
	return ""
}
