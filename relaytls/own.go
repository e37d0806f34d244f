package relaytls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"relaymarket/internal/atomicfile"
	"relaymarket/protocol"
)

const (
	// ownLife is how long a certificate of a relay's own is valid. A new one is made when a third is left.
	ownLife = 90 * 24 * time.Hour
	// ownEarly is how long before its making it is valid: clocks differ.
	ownEarly = 24 * time.Hour

	// KeyFile and CertificateFile are in the folder that [Own] is given. The certificate is for those who want to pin it, as with
	// curl --cacert; its key stays the same when it is renewed, for curl --pinnedpubkey.
	KeyFile         = "tls.key"
	CertificateFile = "tls.crt"

	bindingScheme = "relaymarket-tls"
)

// Own is a server's side of TLS with a certificate that the relay's key vouches for, for hosts, names or IP addresses. Key and certificate are
// kept in folder; what is there is used again while it is valid and for the same hosts.
func Own(relay *protocol.PrivateKey, hosts []string, folder string, clock func() time.Time) (*tls.Config, error) {
	key, err := ownKey(filepath.Join(folder, KeyFile))
	if err != nil {
		return nil, err
	}
	o := &own{relay: relay, key: key, hosts: hosts, path: filepath.Join(folder, CertificateFile), clock: clock}
	if err := o.load(); err != nil {
		return nil, err
	}
	if _, err := o.current(); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return o.current() }}, nil
}

// own makes certificates when they are due.
type own struct {
	relay *protocol.PrivateKey
	key   *ecdsa.PrivateKey
	hosts []string
	path  string
	clock func() time.Time

	mu   sync.Mutex
	pair *tls.Certificate // nil: none that serves
}

// ownKey reads the key of a folder, or makes it.
func ownKey(path string) (*ecdsa.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newOwnKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("the key for TLS: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("the key for TLS: %s holds no PEM: remove it, and a new one is made", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, fits := parsed.(*ecdsa.PrivateKey)
	if err != nil || !fits {
		return nil, fmt.Errorf("the key for TLS: %s holds no ECDSA key in PKCS #8: remove it, and a new one is made", path)
	}
	return key, nil
}

func newOwnKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("the key for TLS: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("the key for TLS: %w", err)
	}
	if err := atomicfile.Replace(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err != nil {
		return nil, fmt.Errorf("the key for TLS: %w", err)
	}
	return key, nil
}

// load takes over the certificate on disk if it serves: those who pinned it keep it as long as it lasts.
func (o *own) load() error {
	text, err := os.ReadFile(o.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the certificate for TLS: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil || CheckOwn(leaf, o.relay.Public(), o.clock()) != nil || !o.key.PublicKey.Equal(leaf.PublicKey) {
		return nil // whatever it is, a new one takes its place
	}
	for _, host := range o.hosts {
		if leaf.VerifyHostname(host) != nil {
			return nil
		}
	}
	o.pair = &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: o.key, Leaf: leaf}
	return nil
}

// current is the certificate, of which at least a third of its life is left.
func (o *own) current() (*tls.Certificate, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.clock()
	if o.pair != nil && now.Before(o.pair.Leaf.NotAfter.Add(-ownLife/3)) {
		return o.pair, nil
	}
	pair, err := o.issue(now)
	if err != nil {
		return nil, fmt.Errorf("the certificate for TLS: %w", err)
	}
	o.pair = pair
	return pair, nil
}

func (o *own) issue(now time.Time) (*tls.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	until := now.Add(ownLife).UTC().Truncate(time.Second)
	spki, err := x509.MarshalPKIXPublicKey(&o.key.PublicKey)
	if err != nil {
		return nil, err
	}
	var aux [32]byte
	if _, err := rand.Read(aux[:]); err != nil {
		return nil, err
	}
	signature, err := o.relay.SignDigest(bindingDigest(spki, until), aux)
	if err != nil {
		return nil, err
	}
	form := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: o.relay.Public().Bech32()},
		NotBefore: now.Add(-ownEarly), NotAfter: until, BasicConstraintsValid: true, IsCA: true, // a root for those who pin it
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		URIs: []*url.URL{{Scheme: bindingScheme, Opaque: o.relay.Public().String() + ":" + hex.EncodeToString(signature[:])}},
	}
	for _, host := range o.hosts {
		if ip := net.ParseIP(host); ip != nil {
			form.IPAddresses = append(form.IPAddresses, ip)
		} else {
			form.DNSNames = append(form.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, form, form, &o.key.PublicKey, o.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if err := atomicfile.Replace(o.path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: o.key, Leaf: leaf}, nil
}

// bindingDigest is what a relay signs of its certificate.
func bindingDigest(spki []byte, until time.Time) protocol.Hash {
	return protocol.TaggedHash(protocol.TagTLS, binary.BigEndian.AppendUint64(nil, uint64(until.Unix())), spki)
}

// The reasons why a relay's own certificate is not taken.
var (
	ErrNotOwn   = errors.New("no relay's key vouches for its certificate")
	ErrExpired  = errors.New("its certificate is not valid at this time")
	ErrOtherKey = errors.New("its certificate is that of another relay")
)

// CheckOwn tells whether a relay's key vouches for a certificate at this time. The error is [ErrNotOwn], [ErrExpired] or [ErrOtherKey].
func CheckOwn(leaf *x509.Certificate, relay protocol.PublicKey, now time.Time) error {
	by, err := Voucher(leaf)
	switch {
	case err != nil:
		return err
	case now.Before(leaf.NotBefore) || now.After(leaf.NotAfter):
		return fmt.Errorf("%w: it is from %s to %s", ErrExpired, leaf.NotBefore.UTC().Format(time.DateTime), leaf.NotAfter.UTC().Format(time.DateTime))
	case by != relay:
		return fmt.Errorf("%w: %s", ErrOtherKey, by.Bech32())
	}
	return nil
}

// Voucher is the relay whose key vouches for a certificate, whatever the time. The error is [ErrNotOwn].
func Voucher(leaf *x509.Certificate) (by protocol.PublicKey, err error) {
	for _, u := range leaf.URIs {
		if u.Scheme != bindingScheme {
			continue
		}
		key, sig, _ := strings.Cut(u.Opaque, ":")
		var signature protocol.Signature
		if by.UnmarshalText([]byte(key)) != nil || signature.UnmarshalText([]byte(sig)) != nil {
			return by, ErrNotOwn
		}
		if protocol.VerifyDigest(by, bindingDigest(leaf.RawSubjectPublicKeyInfo, leaf.NotAfter), signature) {
			return by, nil
		}
		return by, ErrNotOwn
	}
	return by, ErrNotOwn
}
