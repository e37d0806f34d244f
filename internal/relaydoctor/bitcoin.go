package relaydoctor

import (
	"context"
	"fmt"
	"time"

	"relaymarket/escrow/chain"
	"relaymarket/internal/findings"
)

// oldTip is how old the newest block may be until no contract is opened.
const oldTip = 2 * time.Hour

// bitcoin looks at the node, and into the wallet.
func (d *doctor) bitcoin(ctx context.Context) findings.List {
	b := d.cfg.Bitcoin
	if b.Node.Host == "" {
		return nil
	}
	node, err := chain.New(b.Node, d.cfg.Clock)
	if err != nil {
		return findings.List{fail("bitcoin", err.Error(), "correct the settings that begin with bitcoin-")}
	}
	all := findings.List{d.node(ctx, node)}
	if b.Wallet == nil || !d.running {
		return all // it is opened by nobody else than the relay
	}
	w, err := b.Wallet(ctx)
	switch {
	case err != nil:
		return append(all, warn("wallet", "it cannot be asked: "+err.Error(), "see the relay's log; after a restore from the words it reads the chain for hours"))
	case b.Bond > 0 && w.Confirmed-w.Leased <= 0:
		return append(all, warn("wallet", "it has no coin left, and each contract needs one for its bond", "relayd wallet shows where to pay to; or set bond-percent to 0"))
	}
	return append(all, findings.Okf("wallet", "%d sat, %d of them promised to contracts in the making", w.Confirmed, w.Leased))
}

func (d *doctor) node(ctx context.Context, node *chain.Client) findings.Finding {
	const do = "see that the node runs and follows its network; contracts that are open have to be settled before they end"
	tip, err := node.Tip(ctx)
	if err != nil {
		return fail("bitcoin", "the node does not answer: "+err.Error(), do)
	}
	age := d.now.Sub(tip.Time)
	text := fmt.Sprintf("the node is at block %d of %s, %s old", tip.Height, node.Network(), span(max(age, 0)))
	if age > oldTip {
		return warn("bitcoin", text+": no contract is opened on so old a block", do)
	}
	return findings.Okf("bitcoin", "%s", text)
}
