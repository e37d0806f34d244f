// Package moving has the rules by which friends find each other when their relays change: which of two cards counts, where a
// card is left, and whom an account admits. It is pure: no clock, disk or network. Packages client and client/state call it.
package moving
