package confcheck

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Files are those that a configuration rests on.
type Files struct {
	Folder string // the relay's
	Config string // relayd.toml
	Secret bool   // a password stands in it
	Key    string // relay.key
	Named  []File // by settings
	Pairs  []Pair
}

// File is one that a setting names.
type File struct {
	Setting, Path string
	Secret        bool   // nobody but its owner should read it
	Do            string // if it is not there; empty: what one does with any file
}

// Pair is a certificate and its key in files.
type Pair struct {
	CertSetting, KeySetting string
	Certificate, Key        string
	Public                  bool // of the announced addresses
}

func (files *Files) check(now time.Time, n Network, f *findings) {
	files.folder(f)
	if info, err := os.Stat(files.Key); errors.Is(err, fs.ErrNotExist) {
		f.add(Error, "run relayd init, or name the relay's folder with --dir", []string{"dir"}, "there is no relay key at %s", files.Key)
	} else if err != nil {
		f.add(Error, "run this as the user that relayd runs as, or see to the folder's owner and mode", []string{"dir"}, "the relay's key cannot be looked at: %v", err)
	} else if info.Mode().Perm()&0o077 != 0 {
		f.add(Error, "chmod 600 "+files.Key+", and if others may have read it, make a new relay", []string{"dir"}, "others can read the relay's key %s", files.Key)
	}
	if info, err := os.Stat(files.Config); err == nil && files.Secret && info.Mode().Perm()&0o077 != 0 {
		f.add(Warning, "chmod 600 "+files.Config, []string{"dir"}, "others can read %s, and a password stands in it", files.Config)
	}
	for _, file := range files.Named {
		file.check(f)
	}
	for _, pair := range files.Pairs {
		pair.check(now, n, f)
	}
}

// folder checks that the relay's folder is its user's.
func (files *Files) folder(f *findings) {
	info, err := os.Stat(files.Folder)
	switch {
	case err != nil: // its key is not there either
	case !info.IsDir():
		f.add(Error, "name a folder with --dir", []string{"dir"}, "%s is no folder", files.Folder)
	case info.Mode().Perm()&0o022 != 0:
		f.add(Error, "chmod go-w "+files.Folder, []string{"dir"}, "others can write to the relay's folder %s, and put another key there", files.Folder)
	}
}

func (file *File) check(f *findings) {
	settings := []string{file.Setting}
	if !filepath.IsAbs(file.Path) {
		f.add(Warning, "write the whole path", settings, "%s is %s, which depends on where relayd is started", file.Setting, file.Path)
	}
	opened, err := os.Open(file.Path)
	if err != nil {
		do := file.Do
		if do == "" || !errors.Is(err, fs.ErrNotExist) {
			do = "see that it is there and that the user whom relayd runs as can read it"
		}
		f.add(Error, do, settings, "%s: %v", file.Setting, err)
		return
	}
	defer func() { _ = opened.Close() }()
	info, err := opened.Stat()
	switch {
	case err != nil:
		f.add(Error, "see that it can be read", settings, "%s: %v", file.Setting, err)
	case info.IsDir():
		f.add(Error, "name a file", settings, "%s: %s is a folder", file.Setting, file.Path)
	case info.Size() == 0:
		f.add(Error, "write into it what it is for", settings, "%s: %s is empty", file.Setting, file.Path)
	case file.Secret && info.Mode().Perm()&0o007 != 0:
		f.add(Warning, "chmod o-rwx "+file.Path, settings, "%s: everybody on this machine can read %s", file.Setting, file.Path)
	}
}

// soon is how long before its end a certificate is pointed at: whoever renews it has failed several times by then.
const soon = 10 * 24 * time.Hour

func (p *Pair) check(now time.Time, n Network, f *findings) {
	settings := []string{p.CertSetting, p.KeySetting}
	pair, err := tls.LoadX509KeyPair(p.Certificate, p.Key)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) { // which is told of the file
			f.add(Error, "name a certificate and the private key that belongs to it, both PEM", settings, "%s and %s: %v", p.CertSetting, p.KeySetting, err)
		}
		return
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		f.add(Error, "get a new certificate", settings, "%s: %v", p.CertSetting, err)
		return
	}
	switch until := leaf.NotAfter.UTC().Format(time.DateTime); {
	case now.After(leaf.NotAfter):
		f.add(Error, "renew it", settings, "%s: the certificate ended at %s UTC", p.CertSetting, until)
	case now.Before(leaf.NotBefore):
		f.add(Error, "look at this machine's clock, or wait", settings, "%s: the certificate begins at %s UTC", p.CertSetting, leaf.NotBefore.UTC().Format(time.DateTime))
	case now.Add(soon).After(leaf.NotAfter):
		f.add(Warning, "renew it, and see why nobody has", settings, "%s: the certificate ends at %s UTC", p.CertSetting, until)
	}
	if !p.Public {
		return
	}
	for _, address := range n.Addresses {
		host := hostOf(address)
		if ip, err := netip.ParseAddr(host); !strings.HasPrefix(address, "https://") || err == nil && ip.IsLoopback() {
			continue
		}
		if err := leaf.VerifyHostname(host); err != nil {
			f.add(Error, fmt.Sprintf("get a certificate for %s, or announce %s", host, strings.Join(leaf.DNSNames, " or ")), []string{"address", p.CertSetting},
				"%s is announced, and the certificate is not for it", address)
		}
	}
}
