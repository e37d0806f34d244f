package protocol

import (
	"encoding/json"
	"testing"
)

// fuzzDecode feeds canonical text to the decoder of one request type.
func fuzzDecode(f *testing.F, requestType string) {
	f.Helper()
	for _, raw := range readVectors(f, "requests.json").Cases {
		var c struct{ Type, Request string }
		if err := json.Unmarshal(raw, &c); err != nil {
			f.Fatal(err)
		}
		if c.Type == requestType {
			f.Add([]byte(c.Request))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if CheckCanonical(data) != nil || data[0] != '{' {
			return // no envelope carries it
		}
		e := &Envelope{Request: data}
		if err := e.readType(); err != nil {
			checkCoded(t, err)
			return
		}
		request := requestOf(t, requestType)
		if fast, ok := request.(laidOut); ok {
			sameReading(t, fast, data)
		}
		if err := e.Decode(request); err != nil {
			checkCoded(t, err)
			return
		}
		if err := request.Validate(); err != nil {
			t.Fatal(err)
		}
		checkReencoded(t, request, data)
	})
}

func FuzzDecodeWrite(f *testing.F)        { fuzzDecode(f, TypeWrite) }
func FuzzDecodePull(f *testing.F)         { fuzzDecode(f, TypePull) }
func FuzzDecodeGot(f *testing.F)          { fuzzDecode(f, TypeGot) }
func FuzzDecodeListen(f *testing.F)       { fuzzDecode(f, TypeListen) }
func FuzzDecodeAdmit(f *testing.F)        { fuzzDecode(f, TypeAdmit) }
func FuzzDecodeTargeted(f *testing.F)     { fuzzDecode(f, TypeRead) }
func FuzzDecodeIdentity(f *testing.F)     { fuzzDecode(f, TypeIdentity) }
func FuzzDecodeAnnouncement(f *testing.F) { fuzzDecode(f, TypeAnnouncement) }
func FuzzDecodeUsageReport(f *testing.F)  { fuzzDecode(f, TypeUsageReport) }
func FuzzDecodeUsageRefusal(f *testing.F) { fuzzDecode(f, TypeUsageRefusal) }
func FuzzDecodeUsageRefused(f *testing.F) { fuzzDecode(f, TypeUsageRefused) }
func FuzzDecodeTerms(f *testing.F)        { fuzzDecode(f, TypeTerms) }
func FuzzDecodeTermsAnswer(f *testing.F)  { fuzzDecode(f, TypeTermsAnswer) }
func FuzzDecodeProbe(f *testing.F)        { fuzzDecode(f, TypeProbe) }
func FuzzDecodeProbeAnswer(f *testing.F)  { fuzzDecode(f, TypeProbeAnswer) }
func FuzzDecodeFirstWord(f *testing.F)    { fuzzDecode(f, TypeFirstWord) }

func FuzzDecodeContractOpen(f *testing.F)         { fuzzDecode(f, TypeContractOpen) }
func FuzzDecodeContractConsent(f *testing.F)      { fuzzDecode(f, TypeContractConsent) }
func FuzzDecodeContractServerInputs(f *testing.F) { fuzzDecode(f, TypeContractServerInputs) }
func FuzzDecodeContractClientSigned(f *testing.F) { fuzzDecode(f, TypeContractClientSigned) }
func FuzzDecodeContractPayment(f *testing.F)      { fuzzDecode(f, TypeContractPayment) }
func FuzzDecodeContractRefund(f *testing.F)       { fuzzDecode(f, TypeContractRefund) }
func FuzzDecodeContractStatus(f *testing.F)       { fuzzDecode(f, TypeContractStatus) }
func FuzzDecodeContractList(f *testing.F)         { fuzzDecode(f, TypeContractList) }
