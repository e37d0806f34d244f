// Package scenario plays people against whole relays over real HTTP, on connections that break, and
// holds the outcome against what the protocol promises. Its tests read like the stories they tell;
// what they share is here: a person who signs requests, and a wire that is cut on purpose.
package scenario
