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
	f, err := OpenFiles(certificate, key)
	if err != nil {
		return nil, err
	}
	return f.Config(), nil
}

// Files are a certificate and its key on disk. They are safe for concurrent use.
type Files struct {
	mu               sync.Mutex
	certificate, key string
	pair             *tls.Certificate
	dated            time.Time // when the file of pair was written
	looked           time.Time
}

// OpenFiles reads them.
func OpenFiles(certificate, key string) (*Files, error) {
	f := &Files{certificate: certificate, key: key}
	return f, f.read()
}

// Config is a server's side of TLS with them, see [FromFiles].
func (f *Files) Config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.current(), nil }}
}

// Take serves what other files were opened with, from the next handshake on.
func (f *Files) Take(other *Files) {
	other.mu.Lock()
	certificate, key, pair, dated := other.certificate, other.key, other.pair, other.dated
	other.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.certificate, f.key, f.pair, f.dated = certificate, key, pair, dated
}

// lookPause is between looks at the files.
const lookPause = time.Minute

func (f *Files) read() error {
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

func (f *Files) current() *tls.Certificate {
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
