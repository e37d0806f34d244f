package protocol

import (
	"fmt"
	"net/http"
)

// Code is the stable, append-only word for one kind of refusal. It is the "code" member of a
// problem document (RFC 9457) and an error itself, so errors.Is(err, CodeGone) works on both sides
// of the wire.
type Code string

// The codes, by HTTP status. A code never changes its meaning and is never reused.
const (
	CodeMalformed    Code = "malformed"     // 400: not the shape this request has
	CodeNotCanonical Code = "not_canonical" // 400: JSON, but not its RFC 8785 form, or not integers only
	CodeBadPath      Code = "bad_path"      // 400: a path segment outside its grammar
	CodeBadQuery     Code = "bad_query"     // 400: unknown, repeated or unreadable query parameter
	CodeBadCursor    Code = "bad_cursor"    // 400: not a cursor this relay handed out

	CodeUnauthorized Code = "unauthorized"  // 401: no authorization where the route needs one
	CodeStale        Code = "stale"         // 401: timestamp too old; carries the relay's time
	CodeFuture       Code = "future"        // 401: timestamp too far ahead; carries the relay's time
	CodeBadSignature Code = "bad_signature" // 401: the signature is not the signer's

	CodeNoAccount Code = "no_account" // 402: the key has no account here; carries the relay's offer

	CodeWrongTarget Code = "wrong_target" // 403: the signed target is not this request line
	CodeWrongType   Code = "wrong_type"   // 403: the signed request type is not the route's
	CodeMismatch    Code = "mismatch"     // 403: path and body disagree
	CodeWrongQuery  Code = "wrong_query"  // 403: the query beside a pull is not the one that was signed
	CodeWrongParty  Code = "wrong_party"  // 403: the other of the two parties may do this

	CodeDenied     Code = "denied"     // 403: the relay's operator does not serve this key
	CodeOffTopic   Code = "off_topic"  // 403: the account takes records of another tag only
	CodeUnreadable Code = "unreadable" // 403: the account takes no sealed content

	CodeNotFound         Code = "not_found"          // 404: none of yours, or there is none
	CodeMethodNotAllowed Code = "method_not_allowed" // 405: the path exists, with other methods
	CodeTooSlow          Code = "too_slow"           // 408: the request did not arrive in time

	CodeConflict  Code = "conflict"   // 409: another request is stored under this path
	CodePageOpen  Code = "page_open"  // 409: acknowledge the open page first; carries its id
	CodeCardOlder Code = "card_older" // 409: a newer card is stored

	CodeGone        Code = "gone"         // 410: deleted, expired or used up
	CodeCursorEpoch Code = "cursor_epoch" // 410: cursor of another life of this relay: start over
	CodePageSpent   Code = "page_spent"   // 410: served as often as pages are; carries its root

	CodeTooLarge Code = "too_large" // 413: over a published limit

	CodeContentType     Code = "content_type"     // 415: not the media type of this route
	CodeContentEncoding Code = "content_encoding" // 415: bodies travel as they are signed

	CodeWrongAudience Code = "wrong_audience" // 421: signed for somebody else

	CodeInvalidValue Code = "invalid_value" // 422: well formed, but outside what the field may mean
	CodeExpired      Code = "expired"       // 422: expires has passed already
	CodeRootMismatch Code = "root_mismatch" // 422: the acknowledged root is not the page's

	CodeRateAddress Code = "rate_address" // 429: too many requests from this address
	CodeRateKey     Code = "rate_key"     // 429: too many requests by this key

	CodeInternal   Code = "internal"   // 500: the relay's fault, told to its log
	CodeOverloaded Code = "overloaded" // 503: a bounded queue is full; try again

	CodeQuotaStored   Code = "quota_stored"   // 507: the account's bytes at once are used
	CodeQuotaMoved    Code = "quota_moved"    // 507: the account's bytes of this month are used
	CodeQuotaAdmitted Code = "quota_admitted" // 507: what the receiver admits you to leave is used
	CodeDiskFull      Code = "disk_full"      // 507: the relay cannot store more at present
)

// The codes of contracts. Those of 422 judge a message or transaction that no repetition makes right.
const (
	CodeBadPSBT Code = "bad_psbt" // 400: not a PSBT of version 0, or with a key twice, or with bytes left over

	CodePaymentDue    Code = "payment_due"    // 402: the contract's credit is used: pay first
	CodeContractEnded Code = "contract_ended" // 402: the contract takes no new writes; carries the relay's offer

	CodeConsent Code = "consent" // 403: a writer has not agreed that this contract pays for it

	CodeStateOrder    Code = "state_order"    // 409: seq does not rise
	CodeContractState Code = "contract_state" // 409: the contract is past, or before, this step
	CodeInputSpent    Code = "input_spent"    // 409: an input is spent or not on the chain
	CodeFundingEnded  Code = "funding_ended"  // 409: the reservation is over and its coins are given away

	CodeNetwork           Code = "network"            // 422: for another Bitcoin network
	CodeTerms             Code = "terms"              // 422: not what the announcement relied on says
	CodeContractExpiry    Code = "contract_expiry"    // 422: T is too near or too far
	CodeWrongInput        Code = "wrong_input"        // 422: an input is missing, foreign, twice or out of order
	CodeInputType         Code = "input_type"         // 422: an input is neither native P2WPKH nor P2TR key path
	CodeInputAmount       Code = "input_amount"       // 422: an input's previous amount or script is not the chain's
	CodeInputUnconfirmed  Code = "input_unconfirmed"  // 422: an input is not confirmed, or an immature coinbase
	CodeWrongScript       Code = "wrong_script"       // 422: a script is not the contract's
	CodeWrongOutput       Code = "wrong_output"       // 422: an output is missing, changed or too many
	CodeWrongAmount       Code = "wrong_amount"       // 422: an amount falls, is above the escrow or below what is owed
	CodeDust              Code = "dust"               // 422: an output is too small for nodes to relay
	CodeWrongSighash      Code = "wrong_sighash"      // 422: a signature commits to more or less than it should
	CodeWrongLocktime     Code = "wrong_locktime"     // 422: version or locktime of a transaction
	CodeWrongSequence     Code = "wrong_sequence"     // 422: sequence of a transaction input
	CodeContractSignature Code = "contract_signature" // 422: a transaction signature is false
	CodeFeerate           Code = "feerate"            // 422: a fee or feerate is out of bounds

	CodeContractsFull Code = "contracts_full" // 429: too many contracts of this payer or address are half open

	CodeNoContracts Code = "no_contracts" // 501: this relay has no Bitcoin node and makes no contracts

	CodeChainStale Code = "chain_stale" // 503: the relay's view of the chain is old; no new contract
	CodeNoCoins    Code = "no_coins"    // 503: the relay has no coin for its part at present
	CodeBroadcast  Code = "broadcast"   // 503: the Bitcoin node did not take the transaction
)

// codeTable is the one place that says which status and which words belong to a code.
var codeTable = map[Code]struct {
	status int
	title  string
}{
	CodeMalformed:         {http.StatusBadRequest, "The request is malformed"},
	CodeNotCanonical:      {http.StatusBadRequest, "The JSON is not in canonical form"},
	CodeBadPath:           {http.StatusBadRequest, "The path is malformed"},
	CodeBadQuery:          {http.StatusBadRequest, "The query is malformed"},
	CodeBadCursor:         {http.StatusBadRequest, "The cursor is malformed"},
	CodeUnauthorized:      {http.StatusUnauthorized, "Authorization is needed"},
	CodeStale:             {http.StatusUnauthorized, "The timestamp is too old"},
	CodeFuture:            {http.StatusUnauthorized, "The timestamp is in the future"},
	CodeBadSignature:      {http.StatusUnauthorized, "The signature is false"},
	CodeNoAccount:         {http.StatusPaymentRequired, "This key has no account here"},
	CodeWrongTarget:       {http.StatusForbidden, "The authorization is for another request"},
	CodeWrongType:         {http.StatusForbidden, "The request type does not belong to this route"},
	CodeMismatch:          {http.StatusForbidden, "Path and body disagree"},
	CodeWrongQuery:        {http.StatusForbidden, "The query is not the one that was signed"},
	CodeWrongParty:        {http.StatusForbidden, "The other party may do this, not you"},
	CodeDenied:            {http.StatusForbidden, "This relay does not serve this key"},
	CodeOffTopic:          {http.StatusForbidden, "The account is for another topic"},
	CodeUnreadable:        {http.StatusForbidden, "The account takes readable content only"},
	CodeNotFound:          {http.StatusNotFound, "There is none of yours"},
	CodeMethodNotAllowed:  {http.StatusMethodNotAllowed, "The method is not allowed here"},
	CodeTooSlow:           {http.StatusRequestTimeout, "The request took too long to arrive"},
	CodeConflict:          {http.StatusConflict, "Another record has this path"},
	CodePageOpen:          {http.StatusConflict, "An earlier page waits for its acknowledgement"},
	CodeCardOlder:         {http.StatusConflict, "A newer card is stored"},
	CodeGone:              {http.StatusGone, "The record is gone"},
	CodeCursorEpoch:       {http.StatusGone, "The cursor is of another life of this relay"},
	CodePageSpent:         {http.StatusGone, "The page was served as often as pages are"},
	CodeTooLarge:          {http.StatusRequestEntityTooLarge, "The request is too large"},
	CodeContentType:       {http.StatusUnsupportedMediaType, "The content type does not belong to this route"},
	CodeContentEncoding:   {http.StatusUnsupportedMediaType, "Content encodings are not accepted"},
	CodeWrongAudience:     {http.StatusMisdirectedRequest, "The request is for another relay"},
	CodeInvalidValue:      {http.StatusUnprocessableEntity, "A value is out of bounds"},
	CodeExpired:           {http.StatusUnprocessableEntity, "The record has expired already"},
	CodeRootMismatch:      {http.StatusUnprocessableEntity, "The root is not the page's"},
	CodeRateAddress:       {http.StatusTooManyRequests, "Too many requests from this address"},
	CodeRateKey:           {http.StatusTooManyRequests, "Too many requests by this key"},
	CodeInternal:          {http.StatusInternalServerError, "Something failed inside the relay"},
	CodeOverloaded:        {http.StatusServiceUnavailable, "The relay is overloaded"},
	CodeQuotaStored:       {http.StatusInsufficientStorage, "The account's storage is used"},
	CodeQuotaMoved:        {http.StatusInsufficientStorage, "The account's traffic of this month is used"},
	CodeQuotaAdmitted:     {http.StatusInsufficientStorage, "What the receiver admits you to leave is used"},
	CodeDiskFull:          {http.StatusInsufficientStorage, "The relay cannot store more at present"},
	CodeBadPSBT:           {http.StatusBadRequest, "The PSBT is malformed"},
	CodePaymentDue:        {http.StatusPaymentRequired, "The contract's credit is used"},
	CodeContractEnded:     {http.StatusPaymentRequired, "The contract takes no new writes"},
	CodeConsent:           {http.StatusForbidden, "A writer has not agreed"},
	CodeStateOrder:        {http.StatusConflict, "The sequence number does not rise"},
	CodeContractState:     {http.StatusConflict, "The contract does not take this now"},
	CodeInputSpent:        {http.StatusConflict, "An input is spent"},
	CodeFundingEnded:      {http.StatusConflict, "The reservation of the funding is over"},
	CodeNetwork:           {http.StatusUnprocessableEntity, "The Bitcoin network is another"},
	CodeTerms:             {http.StatusUnprocessableEntity, "The terms are not the announced ones"},
	CodeContractExpiry:    {http.StatusUnprocessableEntity, "The expiry is out of bounds"},
	CodeWrongInput:        {http.StatusUnprocessableEntity, "The inputs are not the agreed ones"},
	CodeInputType:         {http.StatusUnprocessableEntity, "An input is not of a type that funds contracts"},
	CodeInputAmount:       {http.StatusUnprocessableEntity, "An input is not what the chain says"},
	CodeInputUnconfirmed:  {http.StatusUnprocessableEntity, "An input is not confirmed"},
	CodeWrongScript:       {http.StatusUnprocessableEntity, "A script is not the contract's"},
	CodeWrongOutput:       {http.StatusUnprocessableEntity, "The outputs are not the agreed ones"},
	CodeWrongAmount:       {http.StatusUnprocessableEntity, "An amount is out of bounds"},
	CodeDust:              {http.StatusUnprocessableEntity, "An output is too small"},
	CodeWrongSighash:      {http.StatusUnprocessableEntity, "A signature has the wrong sighash type"},
	CodeWrongLocktime:     {http.StatusUnprocessableEntity, "The version or locktime is wrong"},
	CodeWrongSequence:     {http.StatusUnprocessableEntity, "The sequence of an input is wrong"},
	CodeContractSignature: {http.StatusUnprocessableEntity, "A transaction signature is false"},
	CodeFeerate:           {http.StatusUnprocessableEntity, "A fee is out of bounds"},
	CodeContractsFull:     {http.StatusTooManyRequests, "Too many contracts are half open"},
	CodeNoContracts:       {http.StatusNotImplemented, "This relay makes no contracts"},
	CodeChainStale:        {http.StatusServiceUnavailable, "The relay does not see the chain at present"},
	CodeNoCoins:           {http.StatusServiceUnavailable, "The relay has no coin for its part at present"},
	CodeBroadcast:         {http.StatusServiceUnavailable, "The transaction was not broadcast"},
}

// Error makes a Code usable as the target of errors.Is.
func (c Code) Error() string { return string(c) }

// Status is the HTTP status of the code; an unknown code is 500.
func (c Code) Status() int {
	if row, ok := codeTable[c]; ok {
		return row.status
	}
	return http.StatusInternalServerError
}

// Title is the short, fixed sentence of the code for people.
func (c Code) Title() string {
	if row, ok := codeTable[c]; ok {
		return row.title
	}
	return "An unknown refusal"
}

// Codes lists every code, in no particular order.
func Codes() []Code {
	all := make([]Code, 0, len(codeTable))
	for c := range codeTable {
		all = append(all, c)
	}
	return all
}

// Error is a refusal: its code and a sentence about this very case. The sentence may be shown to
// the other side and therefore holds nothing that is secret.
type Error struct {
	Code   Code
	Detail string
}

// Error implements error.
func (e *Error) Error() string {
	if e.Detail == "" {
		return string(e.Code)
	}
	return string(e.Code) + ": " + e.Detail
}

// Unwrap makes errors.Is(err, code) true.
func (e *Error) Unwrap() error { return e.Code }

// Errorf makes an [Error]. The format takes no %w: the cause of a refusal is its code.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}
