package protocol

var base64Values = valuesOf("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")

// isBase64 checks canonical standard base64 (RFC 4648 section 4, padding bits zero) without
// decoding: a relay has no use for the bytes. Eight digits are looked up before one is judged: values are
// below 64, what is no digit is 0xff.
func isBase64[T string | []byte](s T) bool {
	if len(s)%4 != 0 {
		return false
	}
	digits := len(s)
	for pad := 0; pad < 2 && digits > 0 && s[digits-1] == '='; pad++ {
		digits--
	}
	i := 0
	for ; i+8 <= digits; i += 8 {
		w := s[i : i+8]
		if base64Values[w[0]]|base64Values[w[1]]|base64Values[w[2]]|base64Values[w[3]]|
			base64Values[w[4]]|base64Values[w[5]]|base64Values[w[6]]|base64Values[w[7]] > 63 {
			return false
		}
	}
	last := byte(0)
	for ; i < digits; i++ {
		if last = base64Values[s[i]]; last > 63 {
			return false
		}
	}
	switch digits % 4 {
	case 2:
		return last&0x0f == 0
	case 3:
		return last&0x03 == 0
	case 1:
		return false
	}
	return digits == len(s)
}
