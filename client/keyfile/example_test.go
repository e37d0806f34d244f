package keyfile_test

import (
	"crypto/rand"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"relaymarket/client/keyfile"
)

func Example() {
	folder, err := os.MkdirTemp("", "keyfile")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "key.age")

	seed, err := keyfile.NewSeed(rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	words, err := seed.Words() // shown to the user once
	if err != nil {
		log.Fatal(err)
	}
	passphrase := keyfile.Passphrase("a long passphrase")
	if err := keyfile.Create(path, seed, time.Now(), passphrase, keyfile.Options{}); err != nil {
		log.Fatal(err)
	}

	document, err := keyfile.Open(path, passphrase)
	if err != nil {
		log.Fatal(err)
	}
	defer document.Wipe()
	fromFile, err := document.Seed.Identity()
	if err != nil {
		log.Fatal(err)
	}
	restored, err := keyfile.ParseWords(words)
	if err != nil {
		log.Fatal(err)
	}
	fromWords, err := restored.Identity()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(fromFile == fromWords, fromFile)
	// Output: true [secret]
}
