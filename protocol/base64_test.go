package protocol

import (
	"encoding/base64"
	"strings"
	"testing"
)

// Every byte at every place of texts of all lengths up to three words of eight, with padding and without.
func TestBase64(t *testing.T) {
	for n := range 25 {
		for _, end := range []string{"", "=", "==", "===", "A=", "Q==", "g="} {
			text := strings.Repeat("b", max(n-len(end), 0)) + end
			for at := range len(text) + 1 {
				for c := range 256 {
					s := text
					if at < len(text) {
						s = text[:at] + string([]byte{byte(c)}) + text[at+1:]
					}
					_, err := base64.StdEncoding.Strict().DecodeString(s)
					want := err == nil && !strings.ContainsAny(s, "\r\n") // which encoding/base64 skips
					if isBase64(s) != want || isBase64([]byte(s)) != want {
						t.Fatalf("isBase64(%q) = %v", s, !want)
					}
				}
			}
		}
	}
}
