package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/btcutil/v2"

	relaybook "relaymarket/broadcast/market"
	"relaymarket/client"
	"relaymarket/client/backup"
	"relaymarket/client/daemon"
	"relaymarket/client/keyagent"
	"relaymarket/client/keyfile"
	"relaymarket/escrow/chain"
	"relaymarket/escrow/userside"
	"relaymarket/escrow/wallet"
	"relaymarket/internal/sqlite"
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
		{keyfile.ErrNotKeyFile, "Restore from the 24 words: relay --dir NEW-FOLDER init --restore, or with a backup: relay --dir NEW-FOLDER restore BACKUP"},
		{sqlite.ErrDamaged, "What is whole of it stays. Restore it: relay --dir NEW-FOLDER restore BACKUP   See: relay doctor"},
		{sqlite.ErrRestoring, "With the same backup: relay restore BACKUP   Nothing else uses this folder until then."},
		{sqlite.ErrFull, "Make room and run it again: nothing that was there is lost."},
		{backup.ErrNoRoom, "Make room and run it again: nothing that was there is lost."},
		{backup.ErrInUse, "Nothing was changed. Choose another folder: relay --dir NEW-FOLDER restore FILE"},
		{backup.ErrOpen, "Nothing was changed. End the daemon, or the listener, that uses it, and run this again."},
		{backup.ErrOtherKeys, "Nothing was changed. Are these the right words, and is it the right file?"},
		{backup.ErrDamaged, "Nothing was changed. Take another copy of the backup, or an older one."},
		{backup.ErrNewer, "Nothing was changed."},
		{backup.ErrNoneThere, "Is it the right relay? Keys alone come back with: relay init --restore"},
		{keyagent.ErrUnsupported, "Use --passphrase-file or RELAY_PASSPHRASE instead."},
		{client.ErrNoRelays, "Run: relay relays add ADDRESS"},
		{userside.ErrNoNode, "Run: relay wallet connect URL   (see relay wallet connect --help)"},
		{userside.ErrNone, "You have no contract. Run: relay contract open ADDRESS --deposit SATOSHI"},
		{userside.ErrNoContract, "See: relay contract list --all"},
		{userside.ErrCushion, "Check the usage; then say with --accept SATOSHI what is right, or raise the --cushion."},
		{userside.ErrOwner, "The contracts in this folder or file are another key's: choose another folder with --dir."},
		{daemon.ErrNotRunning, "Start it: relay daemon   (or have systemd do it: relay daemon install)"},
		{daemon.ErrSilent, "See what it did: relay outbox --no-daemon   and its log. To do without it: --no-daemon"},
		{daemon.ErrCut, "See what it did: relay outbox   and its log. To do without it: --no-daemon"},
		{wallet.ErrFunds, "See: relay wallet balance   and pay to: relay wallet address"},
		{wallet.ErrInUse, "Another relay command has the wallet open: wait until it is done."},
		{chain.ErrUnreachable, "Is the Bitcoin node running? Its settings: relay wallet connect --help"},
		{chain.ErrNetwork, "Connect to the right one: relay wallet connect --help"},
		{protocol.CodePaymentDue, "See what the relay asks for: relay contract list   and pay it: relay contract pay CONTRACT"},
		{relaybook.ErrNoHubs, "Run: relay hubs add ADDRESS   (ask a friend or an operator for one)"},
		{relaybook.ErrNoHub, "See: relay hubs list"},
		{relaybook.ErrNoRelay, "See: relay market"},
		{errTooFew, "See them all: relay market"},
		{errUnderWay, "Go on with it: relay contract resume   or give it up: relay contract close CONTRACT"},
		{protocol.CodeContractEnded, "See: relay contract list   and renew it: relay contract renew CONTRACT"},
		{client.ErrNoOffer, "Leave --offer out to take what the relay offers now."},
		{protocol.CodeNoAccount, "When the operator has granted your key, run this again."},
		{protocol.CodeFuture, "Check the clock of this machine."},
		{protocol.CodeStale, "Check the clock of this machine."},
		{client.ErrNoSpace, "Nothing was sent. Free space, ask for fewer --max-pulls or --copies, or add a relay: relay relays add ADDRESS"},
		{client.ErrFileNotStored, "What is sent stays sent. Go on later with: relay send --resume"},
		{client.ErrFileChanged, "Delete what was sent of it with relay rm, and send it again."},
		{client.ErrFileBusy, "Wait until it is done, or end it."},
		{client.ErrFileIncomplete, "What came is kept. Run the same command again later; or ask its sender to run: relay heal"},
		{client.ErrBadFile, "Ask its sender to send it again."},
		{client.ErrNoFile, "See: relay get   and for messages: relay read"},
		{client.ErrFileExists, "Nothing was changed. Give another name or folder with --out."},
		{client.ErrNoRoom, "Make room and run the same command again: it goes on where it was. Or choose another disk with --out."},
		{client.ErrLinkEnded, "On the first device, run again: relay device add"},
		{client.ErrLinkUsed, "If it was not you, somebody has seen the link. End relay device add on the first device, and run it again for another link."},
		{client.ErrCode, "Run relay device add again, with the new device at hand. If no device of yours was asking, somebody has seen the link."},
		{client.ErrNotGiven, "On the first device, run again: relay device add"},
		{client.ErrNoDevice, "See: relay device list"},
		{client.ErrNotStored, "It is kept and goes out with the next send or inbox. Do not send it again. See: relay outbox"},
		{client.ErrTooLarge, "Nothing was sent. Make it shorter, or send it in parts."},
		{client.ErrRefused, "It is not tried again. See: relay outbox"},
		{client.ErrNameTaken, "Choose another name with --name."},
		{client.ErrNoFriend, "See: relay friend list"},
		{client.ErrNoRelay, "See: relay relays list"},
		{client.ErrUsedUp, "Ask for another invitation. He is among your friends; he cannot write to you before he has your card: relay id --card me.relayid"},
		{client.ErrNoStranger, "See: relay admit list"},
		{client.ErrNoInvitation, "See: relay admit list"},
		{client.ErrNoCard, "Ask for the card as a file: your friend makes it with relay id --card me.relayid"},
		{client.ErrOtherOwner, "The key file and the messages in this folder do not belong together: choose another folder with --dir."},
	}
}

func advice(err error) string {
	if errors.Is(err, userside.ErrNotKept) {
		return "Try again when one of your relays takes it; or add --backup-file-only, and copy the backup file to another disk yourself."
	}
	if next := offered(err); next != "" {
		return next
	}
	var running *daemon.RunningError
	if errors.As(err, &running) {
		return "See: relay daemon status   and end it: relay daemon stop"
	}
	cause := sqlite.Cause(err) // what runs out, or breaks, in the middle of something
	for _, row := range adviceTable() {
		if errors.Is(err, row.is) || cause != nil && errors.Is(cause, row.is) {
			return row.next
		}
	}
	return ""
}

// offered is how to be served by a relay that refused a stranger.
func offered(err error) string {
	for _, refusal := range unpaid(err) {
		if next := openCommand(refusal.Address, refusal.Offer, refusal.OfferHash); next != "" {
			return next
		}
		if volunteers(refusal.Offer) {
			return "It serves some for nothing. Run: relay terms ask " + refusal.Address
		}
	}
	return ""
}

// unpaid are the refusals in an error by relays that the user has no account with, and that say what they offer.
func unpaid(err error) (refusals []*client.RelayError) {
	switch e := err.(type) {
	case nil:
	case *client.RelayError:
		if e.Code == protocol.CodeNoAccount && e.Offer != nil {
			refusals = append(refusals, e)
		}
	case interface{ Unwrap() []error }:
		for _, each := range e.Unwrap() {
			refusals = append(refusals, unpaid(each)...)
		}
	default:
		return unpaid(errors.Unwrap(err))
	}
	return refusals
}

func volunteers(offer *protocol.Announcement) bool {
	return slices.ContainsFunc(offer.Terms, func(t protocol.Terms) bool { return t.Type == protocol.TermsVolunteer })
}

// shownDigits of an offer's hash are enough to tell it from another of the same relay.
const shownDigits = 8

// openCommand is how to open a contract on an offer; empty for one without contracts.
func openCommand(address string, offer *protocol.Announcement, hash protocol.Hash) string {
	if offer.Contracts == nil {
		return ""
	}
	next := fmt.Sprintf("Run: relay contract open %s --deposit %d --offer %s   (it tells what that costs, and asks)", address,
		int64(usualDeposit(offer)), hash.String()[:shownDigits])
	if volunteers(offer) {
		next += "\nOr ask to be served for nothing: relay terms ask " + address
	}
	return next
}

func usualDeposit(offer *protocol.Announcement) btcutil.Amount {
	return max(offer.Contracts.MinPrepay, suggestedDeposit)
}

// suggestedDeposit is a deposit beside which the fees of a contract are small.
const suggestedDeposit = 100_000
