// Package willing is what a relay does for nothing, and for whom: the operator's lists of keys and topics, the alternatives that
// they make of the relay's announcement, and the answer to a user who asks to be served.
//
// # For whom
//
// A relay volunteers for keys that its operator allowed, and for topics: whoever asks gets a small account then, which takes records
// of that one tag only. Who is denied gets nothing by himself, neither so nor by a contract; what an operator grants by hand is his own
// affair.
//
// # What it costs at most
//
// Keys are free, so an account for a topic is not worth a key. Their number is bounded, exactly, also over several relayd on one
// database: those in force, and those that are over while records of them are kept. With the quotas of each that is a bound on what is stored for
// strangers, and on what is moved in a month. One address opens few of them a day (package api), so that it takes a stranger
// addresses to use all up; if he does, others go without, and nobody who was granted, listed or pays is worse off.
//
// # Live
//
// The lists are in the database and are changed while relays serve. Each relayd looks every two seconds whether they did; what it answers
// is always by the lists as they are. What it announces follows, and says nothing of topics while their accounts are used up.
//
// relaynode runs one store; relayd's commands use one as well.
package willing
