package client

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"relaymarket/client/files"
	"relaymarket/client/state"
	"relaymarket/protocol"
)

// What can go wrong on this side. Errors are compared with errors.Is.
var (
	// ErrLocked: the call signs or opens something, and no keys were given.
	ErrLocked = errors.New("the keys are locked")
	// ErrNoRelays: nothing can be sent before a relay was added.
	ErrNoRelays = errors.New("you have no relay yet: add one with its address")
	// ErrNotStored: fewer relays than asked for confirmed the message. It stays queued.
	ErrNotStored = errors.New("the message is not stored on as many relays as asked for")
	// ErrRefused: the relays that do not have the message refuse it for good. It is not tried again.
	ErrRefused = errors.New("the message is refused")
	// ErrTooLarge: fewer relays than asked for take a record of this size. Nothing was sent.
	ErrTooLarge = errors.New("the message is too large")
	// ErrNoSpace: too few relays can take a file. Nothing was sent.
	ErrNoSpace = errors.New("there is no room for the file")
	// ErrFileNotStored: fewer relays than asked for have all of a file. It waits, and nobody was told of it.
	ErrFileNotStored = errors.New("the file is not on as many relays as asked for")
	// ErrFileChanged: the file is not what it was when its sending began.
	ErrFileChanged = errors.New("the file changed while it was being sent")
	// ErrFileBusy: another program is sending, or fetching, this file.
	ErrFileBusy = errors.New("another command is at work on this file")
	// ErrFileIncomplete: pieces of a file are on no relay that answers. What came is kept.
	ErrFileIncomplete = errors.New("the file is not complete")
	// ErrBadFile: what the sender says of the file cannot be, or does not fit what he sent.
	ErrBadFile = errors.New("the file is not what its sender says")
	// ErrNoFile: the message tells of no file.
	ErrNoFile = errors.New("this message is no file")
	// ErrFileExists and ErrNoRoom: by their names, in the folder to which a file is fetched.
	ErrFileExists = files.ErrExists
	ErrNoRoom     = files.ErrNoRoom
	// ErrTampered: what a relay served is not what was signed.
	ErrTampered = errors.New("the relay altered what it serves")
	// ErrNoCard: none of the relays has a valid card of this key.
	ErrNoCard = errors.New("no relay has a valid card of this key")
	// ErrNoSealing: the card has no sealing key that this version can use.
	ErrNoSealing = errors.New("the friend's card has no sealing key that this version knows: a newer version of this program may")
	// ErrName: not usable as a friend's name.
	ErrName = errors.New("not usable as a name")
	// ErrNotText: the body is not what its content type promises.
	ErrNotText = errors.New("a text message is valid UTF-8")

	// ErrNameTaken, ErrNoFriend, ErrNoRelay, ErrNoMessage: by their names.
	ErrNameTaken = state.ErrNameTaken
	ErrNoFriend  = state.ErrNoFriend
	ErrNoRelay   = state.ErrNoRelay
	ErrNoMessage = state.ErrNoMessage
	// ErrNoState: there is no state in the folder, and no keys were given to make one.
	ErrNoState = state.ErrNone
	// ErrNewerState and ErrOtherOwner: the folder's state is not for this program or not for this key.
	ErrNewerState = state.ErrNewer
	ErrOtherOwner = state.ErrOwner
)

// RelayError is what one relay refused or failed at.
type RelayError struct {
	Relay   protocol.PublicKey // zero while it is not known yet
	Address string
	User    protocol.PublicKey // who asked

	// Code is the relay's word for its refusal; empty if no relay answered, or not as a relay does.
	Code       protocol.Code
	Status     int
	Detail     string
	Time       protocol.Timestamp
	PageID     protocol.PageID
	Root       *protocol.Hash
	RetryAfter time.Duration
	Offer      *protocol.Announcement // with 402: what the relay offers, signed by it and valid
	OfferHash  protocol.Hash          // of the offer's envelope, which is kept: see [Client.KeptOffer]

	Err error // when there is no code
}

// Error says what happened and, where the user can do something, what.
func (e *RelayError) Error() string {
	at := "relay " + e.Address
	switch {
	case e.Code == protocol.CodeNoAccount && e.Offer != nil && e.Offer.Contracts != nil:
		return at + " wants to be paid for this: you have no contract with it"
	case e.Code == protocol.CodeNoAccount:
		text := fmt.Sprintf("%s does not know your key; send it to its operator%s: %s", at, e.contact(), e.User.Bech32())
		return text
	case e.Code == protocol.CodeWrongAudience:
		return at + " has another key than it had: remove it and add it again, or ask its operator"
	case e.Code != "" && e.Detail != "":
		return fmt.Sprintf("%s: %s (%s)", at, e.Code.Title(), e.Detail)
	case e.Code != "":
		return at + ": " + e.Code.Title()
	}
	return fmt.Sprintf("%s: %v", at, e.Err)
}

func (e *RelayError) contact() string {
	if e.Offer == nil {
		return ""
	}
	var contacts []string
	for _, t := range e.Offer.Terms {
		if t.Contact != "" {
			contacts = append(contacts, oneLine(t.Contact))
		}
	}
	if len(contacts) == 0 {
		return ""
	}
	return " (" + strings.Join(contacts, ", ") + ")"
}

// Unwrap gives the code, or the cause.
func (e *RelayError) Unwrap() error {
	if e.Code != "" {
		return e.Code
	}
	return e.Err
}

// Temporary tells whether the same request may well succeed in a moment.
func (e *RelayError) Temporary() bool {
	if errors.Is(e.Err, ErrTampered) {
		return false
	}
	switch e.Status {
	case 0, http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// later tells whether the request may succeed once somebody did something: granted an account, freed space.
func (e *RelayError) later() bool {
	switch e.Status {
	case http.StatusPaymentRequired, http.StatusInsufficientStorage, http.StatusMisdirectedRequest, http.StatusNotFound:
		return true
	}
	return e.Temporary() || e.Code == "" || e.Code == protocol.CodeStale || e.Code == protocol.CodeFuture
}
