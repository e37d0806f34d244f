package escrow

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/txscript/v2"

	"relaymarket/protocol"
)

// The bytes that docs/contract.md shows.
func TestScriptBytes(t *testing.T) {
	c := *plain(t).contract
	c.Expiry = 4_320
	script, err := c.Script()
	if err != nil {
		t.Fatal(err)
	}
	want := "21" + c.UserKey.String() + "ad" + "21" + c.RelayKey.String() + "ac" + "73" + "64" + "02e010" + "b1" + "68"
	if got := hex.EncodeToString(script); got != want {
		t.Errorf("the escrow script is\n%s, not\n%s", got, want)
	}
	state, err := stateScript(c.UserKey)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := hex.EncodeToString(state), "21"+c.UserKey.String()+"ad51b2"; got != want {
		t.Errorf("the state script is %s, not %s", got, want)
	}
	if len(state) != stateScriptSize {
		t.Errorf("the state script has %d bytes", len(state))
	}
	for expiry, size := range map[uint32]int{1: 75, 16: 75, 17: 76, 127: 76, 128: 77, 900_000: 78, 8_388_607: 78, maxHeight: 79} {
		c.Expiry = expiry
		script, err := c.Script()
		if err != nil || len(script) != size || expiry < 8_388_608 && size > scriptSize {
			t.Errorf("with the expiry %d the script has %d bytes, not %d (%v)", expiry, len(script), size, err)
		}
	}
	pk, err := c.PkScript()
	if err != nil || !txscript.IsPayToWitnessScriptHash(pk) || pk.Dust() != protocol.DustP2TR {
		t.Errorf("%x is no P2WSH (%v)", pk, err)
	}
}

// The vector of BIP380, and the shape of ours.
func TestDescriptor(t *testing.T) {
	if got := descriptorChecksum("raw(deadbeef)"); got != "89f8spxm" {
		t.Errorf("the checksum of raw(deadbeef) is %s", got)
	}
	c := plain(t).contract
	want := "wsh(and_v(v:pk(" + c.UserKey.String() + "),or_d(pk(" + c.RelayKey.String() + "),after(10000))))#"
	if got := c.Descriptor(); !strings.HasPrefix(got, want) || len(got) != len(want)+8 {
		t.Errorf("the descriptor is %s", got)
	}
}

func TestContractValidate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Contract)
		code   protocol.Code
	}{
		"as it is":         {func(*Contract) {}, ""},
		"no bond":          {func(c *Contract) { c.Bond = 0 }, ""},
		"free":             {func(c *Contract) { c.OpeningPrice = 0 }, ""},
		"network":          {func(c *Contract) { c.Network = "simnet" }, protocol.CodeNetwork},
		"user key":         {func(c *Contract) { c.UserKey[0] = 4 }, protocol.CodeInvalidValue},
		"relay key":        {func(c *Contract) { c.RelayKey = protocol.ContractKey{2} }, protocol.CodeInvalidValue},
		"one key for both": {func(c *Contract) { c.RelayKey = c.UserKey }, protocol.CodeInvalidValue},
		"user script":      {func(c *Contract) { c.UserScript = nil }, protocol.CodeWrongScript},
		"P2SH payout": {func(c *Contract) {
			c.RelayScript = append(append(protocol.Script{0xa9, 20}, make([]byte, 20)...), 0x87)
		}, protocol.CodeWrongScript},
		"no expiry":              {func(c *Contract) { c.Expiry = 0 }, protocol.CodeContractExpiry},
		"expiry is a time":       {func(c *Contract) { c.Expiry = 500_000_000 }, protocol.CodeContractExpiry},
		"price":                  {func(c *Contract) { c.Prices.StorageMsatPerGBDay = -1 }, protocol.CodeInvalidValue},
		"bandwidth":              {func(c *Contract) { c.Prices.BandwidthMsatPerGB = -1 }, protocol.CodeInvalidValue},
		"writers":                {func(c *Contract) { c.Writers = make([]protocol.PublicKey, 101) }, protocol.CodeInvalidValue},
		"renews itself":          {func(c *Contract) { c.Renews = &c.ID }, protocol.CodeInvalidValue},
		"deposit below 0":        {func(c *Contract) { c.Deposit = -1 }, protocol.CodeWrongAmount},
		"bond below 0":           {func(c *Contract) { c.Bond = -1 }, protocol.CodeWrongAmount},
		"more than all bitcoin":  {func(c *Contract) { c.Deposit, c.Bond = btcutil.MaxSatoshi, 1 }, protocol.CodeWrongAmount},
		"sum overflows":          {func(c *Contract) { c.Deposit, c.Bond = 1<<62, 1<<62 }, protocol.CodeWrongAmount},
		"credit limit":           {func(c *Contract) { c.CreditLimit = -1 }, protocol.CodeWrongAmount},
		"opening price":          {func(c *Contract) { c.OpeningPrice = -1 }, protocol.CodeWrongAmount},
		"opening price above P":  {func(c *Contract) { c.OpeningPrice = c.Deposit - MinUserRest + 1 }, protocol.CodeWrongAmount},
		"deposit below the rest": {func(c *Contract) { c.Deposit, c.OpeningPrice = 999, 0 }, protocol.CodeWrongAmount},
	} {
		t.Run(name, func(t *testing.T) {
			contract := *plain(t).contract
			c.change(&contract)
			wantCode(t, contract.Validate(), c.code)
		})
	}
}

func TestHeights(t *testing.T) {
	c := *plain(t).contract
	for _, e := range []struct {
		expiry, tip uint32
		code        protocol.Code
	}{
		{4_320, 0, ""}, {10_864, 10_000, ""}, {10_863, 10_000, protocol.CodeContractExpiry}, {5, 10, protocol.CodeContractExpiry},
		{36_280, 10_000, ""}, {36_281, 10_000, protocol.CodeContractExpiry}, {500_000_000, 499_999_999, protocol.CodeContractExpiry},
		{500_000_000, 499_990_000, protocol.CodeContractExpiry}, {1 << 31, 0, protocol.CodeContractExpiry},
	} {
		wantCode(t, CheckExpiry(e.expiry, e.tip), e.code)
	}
	if c.LastUsage() != 9_568 || !c.TakesUsage(9_567) || c.TakesUsage(9_568) || c.SettlementDue(9_567) || !c.SettlementDue(9_568) {
		t.Error("usage and settlement change over at another height than T − 432")
	}
	if c.RefundDue(9_999) || !c.RefundDue(10_000) {
		t.Error("the refund is due at another tip than T")
	}
	c.Expiry = 100
	if c.LastUsage() != 0 {
		t.Error("the margin goes below 0")
	}
	c.CreditLimit = 2_003
	for confirmations, credit := range map[int64]btcutil.Amount{-1: 0, 0: 0, 1: 333, 3: 999, 5: 1_665, 6: 2_003, 1000: 2_003} {
		if got := c.Credit(confirmations); got != credit {
			t.Errorf("with %d confirmations the credit is %d, not %d", confirmations, got, credit)
		}
	}
}

// Until the funding is deep, what was paid does not raise what is served above the credit limit.
func TestAllowance(t *testing.T) {
	c := plain(t).contract // Δ and c₀ are 2,000
	for _, e := range []struct {
		amount        btcutil.Amount
		confirmations int64
		allowance     btcutil.Amount
	}{
		{2_000, 0, 0}, {50_000, 0, 0}, {50_000, -1, 0}, {2_000, 1, 333}, {2_500, 1, 833}, {50_000, 1, 2_000}, {50_000, 5, 2_000},
		{2_000, 5, 1_665}, {2_000, 6, 2_000}, {50_000, 6, 50_000}, {99_000, 100, 99_000}, {0, 6, 2_000},
	} {
		if got := c.Allowance(e.amount, e.confirmations); got != e.allowance {
			t.Errorf("at %d satoshi and %d confirmations %d is served, not %d", e.amount, e.confirmations, got, e.allowance)
		}
	}
}

func TestFeerate(t *testing.T) {
	for rate, code := range map[Feerate]protocol.Code{0: protocol.CodeFeerate, 999: protocol.CodeFeerate, 1_000: "", 1_000_000: "",
		1_000_001: protocol.CodeFeerate, 10_000_000: protocol.CodeFeerate, -5: protocol.CodeFeerate} {
		wantCode(t, rate.Validate(), code)
		wantCode(t, rate.Clamp().Validate(), "")
	}
	for _, c := range []struct {
		rate Feerate
		w    Weight
		fee  btcutil.Amount
	}{{1_000, 4, 1}, {1_000, 5, 2}, {1_500, 4, 2}, {1_001, 400, 101}, {0, 400, 0}, {1_000, -4, 0}, {1 << 62, 1 << 40, 2 * btcutil.MaxSatoshi}, {1 << 40, 1 << 25, 2 * btcutil.MaxSatoshi}} {
		if got := c.rate.Fee(c.w); got != c.fee {
			t.Errorf("%d weight units at %d cost %d, not %d", c.w, c.rate, got, c.fee)
		}
	}
}

// The path of a key is fixed for ever: words and contract id must find it again.
func TestKeyDerivation(t *testing.T) {
	seed := make([]byte, 32)
	branch, err := hdkeychain.NewMaster(seed, &chaincfg.MainNetParams)
	if err != nil {
		t.Fatal(err)
	}
	id := ID{0xff, 0x00, 0x00, 0x01, 0x80, 0x00, 0x00, 0x02, 0x77}
	path, err := KeyPath(protocol.Regtest, id)
	if err != nil {
		t.Fatal(err)
	}
	const h = hdkeychain.HardenedKeyStart
	if want := [4]uint32{h + 3, h + 1, h + 0x7f000001, h + 2}; [4]uint32(path) != want {
		t.Errorf("the path is %x, not %x", path, want)
	}
	key, err := DeriveKey(branch, protocol.Regtest, id)
	if err != nil {
		t.Fatal(err)
	}
	const known = "0391e979fd695402247ff1c4de5e759461a120e58f6b5e765d4ae136b609f89f2c"
	if got := KeyOf(key).String(); got != known {
		t.Errorf("the key is %s, not %s", got, known)
	}
	if err := KeyOf(key).Validate(); err != nil {
		t.Error(err)
	}
	seen := map[protocol.ContractKey]bool{KeyOf(key): true}
	for _, n := range protocol.Networks() {
		wallet, err := DeriveWallet(branch, n)
		if err != nil {
			t.Fatal(err)
		}
		public, err := wallet.ECPrivKey()
		if err != nil || seen[KeyOf(public)] {
			t.Errorf("the wallet of %s has another's root (%v)", n, err)
		}
		seen[KeyOf(public)] = true
		if n == protocol.Regtest {
			continue
		}
		other, err := DeriveKey(branch, n, id)
		if err != nil || seen[KeyOf(other)] {
			t.Errorf("%s shares a key with another network (%v)", n, err)
		}
	}
	if _, err := DeriveKey(branch, "simnet", id); err == nil {
		t.Error("a network without a number has a key")
	}
	if again, err := DeriveKey(branch, protocol.Regtest, id); err != nil || KeyOf(again) != KeyOf(key) {
		t.Errorf("deriving spoilt the branch (%v)", err)
	}
}

func TestParams(t *testing.T) {
	prefixes := map[protocol.Network]string{"mainnet": "bc", "testnet4": "tb", "signet": "tb", "regtest": "bcrt"}
	for _, n := range protocol.Networks() {
		params, err := Params(n)
		if err != nil || params.Bech32HRPSegwit != prefixes[n] {
			t.Errorf("%s has the addresses of %v (%v)", n, params, err)
		}
	}
	_, err := Params("simnet")
	wantCode(t, err, protocol.CodeNetwork)
}

func TestLossBounds(t *testing.T) {
	c := plain(t).contract
	b, err := LossBounds(c, 30_000, 500, Costs{User: 300, Relay: 400})
	if err != nil {
		t.Fatal(err)
	}
	want := Bounds{User: 2_800, Relay: 2_400, RelayUnpaid: 42_400, Locked: 100_000, LockedBond: 10_000, LockedUntil: 10_000}
	if b != want {
		t.Errorf("the bounds are %+v, not %+v", b, want)
	}
	for _, bad := range []Costs{{User: -1}, {Relay: -1}, {User: 1 << 62}} {
		_, err := LossBounds(c, 30_000, 500, bad)
		wantCode(t, err, protocol.CodeWrongAmount)
	}
	_, err = LossBounds(c, -1, 0, Costs{})
	wantCode(t, err, protocol.CodeWrongAmount)
	if User.String() != "user" || Relay.String() != "relay" || Side(0).String() != "side 0" {
		t.Error("the sides have other names")
	}
}
