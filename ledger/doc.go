// Package ledger is the arithmetic of what storing and moving records costs. Both sides of a contract use it: the
// relay decides by it whether a write fits the credit, the user checks his bill by it. It is pure: no clock, no storage,
// no floating point.
//
// Two things are counted, both exactly and as running totals of a contract:
//
//   - stored: bytes of envelope × milliseconds, from the write until the record is deleted, pulled for the last
//     time or expired, whichever comes first;
//   - moved: bytes of envelope written, and again for each pull.
//
// A write reserves the most it can come to, storage until it expires and all the pulls it allows, and what was not
// used of that comes back when the record ends. A total is turned into money once, at the end: nothing is rounded
// along the way, so the order of events and how they are grouped never change a bill.
//
//	cost = stored × storage price / (10^9 bytes × 86,400,000 ms) + moved × bandwidth price / 10^9 bytes
//
// A GB is 10^9 bytes, a day 86,400 s. Prices and costs are in msat, a thousandth of a satoshi.
package ledger
