// Package client is the user's side of the relay market: his identity card, friends and relays, and
// sending, pulling and listening to messages. The relay command is made of it, and so can any other
// Go program be.
//
// # Model
//
// A [Client] is one device of one key, with its memory in one folder. [Client.Send] seals a message to a
// friend and leaves the same sealed content on each of the user's own relays. [Client.Sync] pulls
// what friends left on theirs; [Client.Listen] does so the moment it arrives. Sender and reader never
// need to be online together.
//
// Relays come and go. When the user's change, [Client.Sync] brings his new card to his relays and to every friend, on the friend's
// relays too, which admit him there unless the friend said otherwise ([Client.Admit]). What friends' cards changed, and what
// was refused or contradicted, is kept until it was shown ([Client.News]). Strangers write only by invitation ([Client.Invite]).
//
// # Guarantees
//
//   - A message is on disk, sealed, before the first relay hears of it. What could not be delivered
//     stays queued, also over the end of the program, and goes out with the next Send, Sync or Flush.
//     Repeating is safe: a relay stores and charges a message once.
//   - A received message is on disk before the relay is told so. It is shown once, however many
//     relays bring it, and however often a reply is cut.
//   - Nothing that a relay says is believed unchecked: signatures, the page's root, sender, receiver
//     and relay of every record. From a relay that alters anything, nothing is taken, and it is
//     named in the result; the other relays go on.
//   - What a sender sends cannot stop the reader. A message that does not open is shown as such.
//   - All that is read from relays is bounded. Redirects are not followed, cookies not kept.
//
// What is not claimed: anonymity, and that a relay does not withhold. Withheld messages show up as a
// [Gap] once a later one arrives.
//
// # Errors
//
// A relay's refusal is a [*RelayError]; errors.Is(err, protocol.CodeNoAccount) and the like tell
// which. Calls that talk to several relays report one by one and fail as a whole only when
// the local state fails.
//
// A Client is safe for concurrent use, and several processes may open one folder at once.
package client
