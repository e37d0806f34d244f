package doctor

import (
	"relaymarket/escrow"
	"relaymarket/escrow/userside"
	"relaymarket/protocol"
)

const (
	// weekOfBlocks is when the end of a contract is spoken of.
	weekOfBlocks = 1008
	// lastBlocks is when its relay settles: nothing is written on it any more.
	lastBlocks = 432
)

// Contracts looks at those that may hold money. tip is the height of the chain; 0: it is not known.
func Contracts(records []userside.Record, tip uint32) (all []Finding) {
	alive := 0
	for i := range records {
		r := &records[i]
		if r.Step == userside.StepOver || r.State == protocol.StateArchived || r.State == escrow.Closed {
			continue
		}
		alive++
		name := r.ID.Short()
		if r.Fault != "" {
			all = append(all, found("contract", Warn, "relay contract show "+name+"   relay contract resume", "%s: %s", name, r.Fault))
		}
		if r.Opening() {
			all = append(all, found("contract", Warn, "go on with it: relay contract resume   or give it up: relay contract close "+name, "%s was begun and is not open", name))
			continue
		}
		if s, err := r.Status(); err == nil && s != nil && s.Due != nil {
			if last, _ := r.Last(); s.Due.Amount > last.Amount {
				all = append(all, found("contract", Warn, "check and pay it: relay audit; relay contract pay "+name, "%s: its relay asks for %d sat, and has %d", name, int64(s.Due.Amount), int64(last.Amount)))
			}
		}
		c, _, known := r.Terms()
		if !known || tip == 0 || !escrow.TakesPayments(r.State) {
			continue
		}
		left := int64(c.Expiry) - int64(tip)
		switch {
		case left <= lastBlocks:
			all = append(all, found("contract", Fail, "open another: relay contract open "+r.Address, "%s ends in %d blocks: its relay takes nothing new on it", name, max(0, left)))
		case left <= weekOfBlocks:
			all = append(all, found("contract", Warn, "relay contract renew "+name, "%s takes writes for %d more blocks, some %d days", name, left-lastBlocks, (left-lastBlocks)/144))
		default:
			all = append(all, found("contract", OK, "", "%s runs for %d more blocks, some %d days", name, left, left/144))
		}
	}
	if alive > 0 && tip == 0 {
		all = append(all, found("contract", Skipped, "is the Bitcoin node running? relay wallet connect --help", "how near the ends of %d contracts are is not known without the Bitcoin node", alive))
	}
	return all
}
