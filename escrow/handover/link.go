package handover

import (
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/mdp/qrterminal/v3"
)

// PaymentLink is a request to pay, as wallets open it (BIP21). amount 0 leaves the amount open, label may be empty.
func PaymentLink(to address.Address, amount btcutil.Amount, label string) string {
	link := "bitcoin:" + to.EncodeAddress()
	var query []string
	if amount > 0 {
		query = append(query, "amount="+Bitcoin(amount))
	}
	if label != "" {
		// BIP21 escapes as RFC 3986 does: a plus is a plus.
		query = append(query, "label="+strings.ReplaceAll(url.QueryEscape(label), "+", "%20"))
	}
	if len(query) > 0 {
		link += "?" + strings.Join(query, "&")
	}
	return link
}

// Bitcoin writes an amount that is not negative in bitcoin, exact and without zeros at the end: 0.0005.
func Bitcoin(amount btcutil.Amount) string {
	text := fmt.Sprintf("%d.%08d", int64(amount)/btcutil.SatoshiPerBitcoin, int64(amount)%btcutil.SatoshiPerBitcoin)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

// WriteQR draws a text as a QR code for terminals, two rows in a line.
func WriteQR(w io.Writer, text string) {
	qrterminal.GenerateHalfBlock(text, qrterminal.L, w)
}
