package relaytls

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"
)

// FromFiles is a server's side of TLS with a certificate in files, which are read again when they change: certificates are renewed every few
// weeks, and nobody restarts a relay for that. While the files are unreadable or do not match, the last good ones serve.
func FromFiles(certificate, key string) (*tls.Config, error) {
	f := &files{certificate: certificate, key: key}
	if err := f.read(); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.current(), nil }}, nil
}

// files are a certificate and its key on disk.
type files struct {
	certificate, key string

	mu     sync.Mutex
	pair   *tls.Certificate
	dated  time.Time // when the file of pair was written
	looked time.Time
}

// lookPause is between looks at the files.
const lookPause = time.Minute

func (f *files) read() error {
	info, err := os.Stat(f.certificate)
	if err != nil {
		return fmt.Errorf("the certificate: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(f.certificate, f.key)
	if err != nil {
		return fmt.Errorf("the certificate: %w", err)
	}
	f.pair, f.dated = &pair, info.ModTime()
	return nil
}

func (f *files) current() *tls.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) < lookPause {
		return f.pair
	}
	f.looked = time.Now()
	if info, err := os.Stat(f.certificate); err == nil && !info.ModTime().Equal(f.dated) {
		_ = f.read() // the next look tries again
	}
	return f.pair
}
