package userside

import (
	"relaymarket/escrow"
	"relaymarket/protocol"
)

// ReadOffer reads what a relay announced about contracts on a network. A relay that makes none has code terms, one on
// another network code network.
func ReadOffer(announcement *protocol.Envelope, network protocol.Network) (*protocol.ContractOffer, error) {
	var a protocol.Announcement
	if err := announcement.Decode(&a); err != nil {
		return nil, err
	}
	if a.Contracts == nil {
		return nil, protocol.Errorf(protocol.CodeTerms, "the relay makes no contracts: ask its operator for a grant")
	}
	if a.Network != network {
		return nil, protocol.Errorf(protocol.CodeNetwork, "the relay makes contracts on %s, and your node is on %s", a.Network, network)
	}
	return a.Contracts, nil
}

func prices(o *protocol.ContractOffer) escrow.Prices {
	return escrow.Prices{StorageMsatPerGBDay: o.StorageMsatPerGBDay, BandwidthMsatPerGB: o.BandwidthMsatPerGB}
}
