package keyfile

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
)

// documentVersion is the only version of the plaintext that exists.
const documentVersion = 1

// maxMilliseconds is the largest integer that JSON carries everywhere, 2^53-1.
const maxMilliseconds = 1<<53 - 1

// Document is what a key file holds.
type Document struct {
	Seed *Seed
	// Created is when the seed was made, to the millisecond, in UTC. Nothing
	// depends on it; it tells a person which of two files is the older one.
	Created time.Time
}

// Wipe overwrites the seed.
func (d *Document) Wipe() { d.Seed.Wipe() }

// plaintext is version 1 of the JSON object inside the file.
type plaintext struct {
	Version int64  `json:"version"`
	Words   string `json:"words"`
	Created int64  `json:"created"`
}

func encodeDocument(seed *Seed, created time.Time) ([]byte, error) {
	words, err := seed.Words()
	if err != nil {
		return nil, err
	}
	ms := created.UnixMilli()
	if ms < 0 || ms > maxMilliseconds {
		return nil, fmt.Errorf("the time of creation %v cannot be written", created)
	}
	return json.Marshal(plaintext{Version: documentVersion, Words: words, Created: ms})
}

// parseDocument reads the plaintext. The version comes first, in a pass of its
// own: a later version may give the other fields any shape. Causes are not
// wrapped, since the decoder quotes its input and the input is the seed.
func parseDocument(data []byte) (*Document, error) {
	var head struct {
		Version *int64 `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil || head.Version == nil {
		return nil, fmt.Errorf("%w: no JSON object with a version", ErrDocument)
	}
	if *head.Version != documentVersion {
		return nil, fmt.Errorf("%w: it is %d, this program knows %d; use the program that wrote it, or a newer one",
			ErrVersion, *head.Version, documentVersion)
	}
	var p plaintext
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("%w: a field has the wrong type", ErrDocument)
	}
	if p.Created < 0 || p.Created > maxMilliseconds {
		return nil, fmt.Errorf("%w: created is out of range", ErrDocument)
	}
	seed, err := ParseWords(p.Words)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDocument, err)
	}
	return &Document{Seed: seed, Created: time.UnixMilli(p.Created).UTC()}, nil
}
