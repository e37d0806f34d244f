// Package books is the relay's side of the ledger: accounts, what they may use and what they have
// used. An account is an operator's grant or a contract; records asks here, inside its own transactions, whether
// a write fits and gives back what ended. Who runs contracts opens, pays and closes their accounts here, inside his.
//
// What counts against a grant, all in envelope bytes:
//
//   - stored: what lies here at this moment, from the write to the delete, the last pull (and ten
//     minutes) or the expiry (and an hour), whichever comes first;
//   - moved, by calendar month (UTC): each write, and at once all the pulls it allows, so that no
//     reader is ever refused for the sender's quota. Pulls that were not made are given back when
//     the record ends within the month it was written in.
//
// What counts against a contract's credit is the cost of a [ledger.Usage]: storage reserved up to the expiry and all
// pulls, until the record ends. The hour and the ten minutes are the relay's: storage counts up to the delete, the
// last pull or the expiry itself.
//
// All are exact under concurrency: the account's row is locked from the decision to the commit.
//
// A contract's account is its payer's key; other keys that it pays for are its writers, and are served like account
// holders. A key's own account, while it takes writes, goes before a contract that lists the key.
package books
