package escrow

import (
	"github.com/btcsuite/btcd/chaincfg/v2"

	"relaymarket/protocol"
)

// Params are the chain parameters of a network: address prefixes and genesis.
func Params(n protocol.Network) (*chaincfg.Params, error) {
	switch n {
	case protocol.Mainnet:
		return &chaincfg.MainNetParams, nil
	case protocol.Testnet4:
		return &chaincfg.TestNet4Params, nil
	case protocol.Signet:
		return &chaincfg.SigNetParams, nil
	case protocol.Regtest:
		return &chaincfg.RegressionNetParams, nil
	}
	return nil, n.Validate()
}
