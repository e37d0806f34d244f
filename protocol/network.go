package protocol

// Network is the Bitcoin network that a relay's contracts are on.
type Network string

// The networks.
const (
	Mainnet  Network = "mainnet"
	Testnet4 Network = "testnet4"
	Signet   Network = "signet"
	Regtest  Network = "regtest"
)

// Networks lists them in the order of their number in key derivation paths.
func Networks() []Network { return []Network{Mainnet, Testnet4, Signet, Regtest} }

// Validate accepts the four names.
func (n Network) Validate() error {
	switch n {
	case Mainnet, Testnet4, Signet, Regtest:
		return nil
	}
	return Errorf(CodeNetwork, "a Bitcoin network is mainnet, testnet4, signet or regtest")
}
