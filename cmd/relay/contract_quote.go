package main

import (
	"fmt"
	"strings"

	"github.com/btcsuite/btcd/btcutil/v2"

	"relaymarket/escrow/userside"
)

// forfeit says what the end of a contract does to reservations: what a write takes for storage and pulls to come.
const forfeit = "what it was paid for storage and pulls still to come is not given back after that, used or not"

// quoteText says what a contract means, before anything is signed.
func quoteText(d *userside.Draft) string {
	q := &d.Quote
	var b strings.Builder
	line := func(head, format string, args ...any) {
		fmt.Fprintf(&b, "  %-16s %s\n", head, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&b, "A contract with %s, %s, on %s:\n\n", d.Record.Address, d.Record.Relay.Short(), d.Record.Network)
	line("You lock", "%s until block %d at the latest, %s", sat(q.Deposit), q.Expiry, inBlocks(q.Expiry, q.Tip))
	line("You pay at once", "%s opening price, and %s fee for the funding (%s sat/vB)", sat(q.Offer.OpeningPrice), sat(q.FundingFee), perVByte(q.Feerate))
	if q.Renewed != nil {
		line("The old one", "is paid out with it: the relay gets the %s it has a claim on, the rest goes into the new one", sat(*q.Renewed))
		line("", "%s", forfeit)
	}
	line("You pay for use", "%s for a GB stored for a day, %s for a GB moved", msat(q.Offer.StorageMsatPerGBDay), msat(q.Offer.BandwidthMsatPerGB))
	line("To get it back", "about %s fee, agreed with the relay, or alone from block %d on", sat(max(q.Later.Closing, q.Later.Refund)), q.Expiry)
	line("You can lose", "%s at most to a relay that cheats: opening price, cushion of %s, fees", sat(q.Bounds.User), sat(q.Cushion))
	line("The relay risks", "%s of unpaid use, and a bond of %s", sat(q.Offer.CreditLimit), sat(q.Bond))
	line("It takes writes", "from the first confirmation until block %d, %s", q.LastUsage, inBlocks(q.LastUsage, q.Tip))
	b.WriteString("\n  If this disk is lost, your 24 words and the backup of the contract get the money back.\n  From block ")
	fmt.Fprintf(&b, "%d on run relay once: what is locked does not come back by itself.\n\n", q.Expiry)
	return b.String()
}

// msat shows a price in millisatoshi.
func msat(n int64) string {
	whole, rest := n/1000, n%1000
	if rest == 0 {
		return sat(btcutil.Amount(whole))
	}
	digits := strings.TrimRight(fmt.Sprintf("%03d", rest), "0")
	return strings.Replace(sat(btcutil.Amount(whole)), " sat", "."+digits+" sat", 1)
}
