// Package handover carries a funding to a wallet that is not this program's and back: a PSBT as a file or as text, a
// payment as a link and a QR code. The user's command line calls it, for those whose coins stay where they are.
//
// Wallets differ in what they write: binary or base64, whole previous transactions, signatures that are finalized or not.
// [ReadPSBT] makes of all that what the contract's messages take.
package handover
