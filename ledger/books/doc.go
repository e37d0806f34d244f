// Package books is the relay's side of the ledger: accounts, what they may use and what they have
// used. Accounts are an operator's grants; records asks here, inside its own transactions, whether
// a write fits and gives back what ended.
//
// What counts, all in envelope bytes:
//
//   - stored: what lies here at this moment, from the write to the delete, the last pull (and ten
//     minutes) or the expiry (and an hour), whichever comes first;
//   - moved, by calendar month (UTC): each write, and at once all the pulls it allows, so that no
//     reader is ever refused for the sender's quota. Pulls that were not made are given back when
//     the record ends within the month it was written in.
//
// Both are exact under concurrency: the account's row is locked from the decision to the commit.
package books
