package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"relaymarket/protocol"
)

// fileCase is a manifest and some of the file's pieces. The file is a pattern: its byte i is i mod 251.
type fileCase struct {
	verdict
	Manifest string      `json:"manifest"`
	Pieces   []pieceCase `json:"pieces,omitempty"`
}

type pieceCase struct {
	Piece   int64              `json:"piece"`
	ID      string             `json:"id"`
	Reader  protocol.PublicKey `json:"reader"`
	Bytes   int64              `json:"bytes"`   // before padding
	Content string             `json:"content"` // base64
	Hash    protocol.Hash      `json:"hash"`
}

func (c fileCase) bytes() []byte { return []byte(c.Manifest) }

// patternFile is a file cut by hand, independent of the package under test.
type patternFile struct {
	data, index   []byte
	secret        [32]byte
	chunk, chunks int64
	hashes        []string // of the chunks, quoted
	parts         []string // of the index
	members       members
}

func newPatternFile(size, chunk int64) *patternFile {
	f := &patternFile{data: make([]byte, size), chunk: chunk, secret: sha256.Sum256([]byte("relaymarket test vector: file"))}
	for i := range f.data {
		f.data[i] = byte(i % 251)
	}
	f.chunks = (size + chunk - 1) / chunk
	for i := range f.chunks {
		h := f.piece(i).Hash
		f.index = append(f.index, h[:]...)
		f.hashes = append(f.hashes, quote(h.String()))
	}
	sum := sha256.Sum256(f.data)
	f.members = members{"chunkBytes": fmt.Sprint(chunk), "secret": quote(hex.EncodeToString(f.secret[:])),
		"sha256": quote(hex.EncodeToString(sum[:])), "size": fmt.Sprint(size)}
	switch {
	case f.chunks > 256:
		for i := f.chunks; int64(len(f.parts))*chunk < int64(len(f.index)); i++ {
			f.parts = append(f.parts, quote(f.piece(i).Hash.String()))
		}
		f.members["index"] = list(f.parts...)
	case f.chunks > 0:
		f.members["pieces"] = list(f.hashes...)
	}
	return f
}

func (f *patternFile) piece(i int64) pieceCase {
	whole, at := f.data, i*f.chunk
	if i >= f.chunks {
		whole, at = f.index, (i-f.chunks)*f.chunk
	}
	data := whole[at:min(at+f.chunk, int64(len(whole)))]
	number := binary.BigEndian.AppendUint64(nil, uint64(i))
	derive := func(tag string) [32]byte {
		return byHand(tag, append(f.secret[:len(f.secret):len(f.secret)], number...))
	}
	id := derive("relaymarket/v1/piece-id")
	secret := derive("relaymarket/v1/piece-reader")
	key := derive("relaymarket/v1/piece-key")
	plain := make([]byte, min(f.chunk, int64(protocol.PaddedSize(len(data)))))
	copy(plain, data)
	gcm := must(cipher.NewGCM(must(aes.NewCipher(key[:]))))
	content := append([]byte{2}, gcm.Seal(nil, make([]byte, 12), plain, nil)...)
	return pieceCase{Piece: i, ID: base64.RawURLEncoding.EncodeToString(id[:16]), Reader: must(protocol.NewPrivateKey(secret)).Public(),
		Bytes: int64(len(data)), Content: base64.StdEncoding.EncodeToString(content), Hash: byHand("relaymarket/v1/piece", content)}
}

// altered is a piece with one bit of its content changed, and its hash as if nothing were.
func altered(p pieceCase, at int) pieceCase {
	content := must(base64.StdEncoding.DecodeString(p.Content))
	content[at] ^= 1
	p.Content, p.Hash = base64.StdEncoding.EncodeToString(content), byHand("relaymarket/v1/piece", content)
	return p
}

func filesTopic() topic {
	t := topic{Description: "Manifests of files, and pieces of those that are valid. Byte i of each file is i mod 251. A valid piece has the id, " +
		"reader and content that the manifest's secret gives, its hash is in the manifest or the index, and it opens to the bytes of the file, or of the index. " +
		"An invalid case has a manifest that is refused, or a piece that does not open."}
	add := func(v verdict, m members, pieces ...pieceCase) {
		t.Cases = append(t.Cases, fileCase{v, object(m), pieces})
	}
	three := newPatternFile(2500, 1024)
	add(good("three-chunks"), three.members, three.piece(0), three.piece(1), three.piece(2))
	add(good("empty"), newPatternFile(0, 1024).members)
	one := newPatternFile(1, 4<<20)
	add(good("one-byte"), one.members, one.piece(0))
	full := newPatternFile(2048, 1024)
	add(good("last-chunk-full"), full.members, full.piece(1))
	add(good("member-of-the-future"), full.members.with(members{"zzz": "1"}), full.piece(0))
	listed := newPatternFile(256*1024, 1024)
	add(good("all-listed"), listed.members, listed.piece(255))
	indexed := newPatternFile(256*1024+1, 1024)
	add(good("index"), indexed.members, indexed.piece(0), indexed.piece(256), indexed.piece(257), indexed.piece(265))

	m := three.members
	refused := func(code protocol.Code, changes map[string]members) {
		for _, name := range slices.Sorted(maps.Keys(changes)) {
			t.Cases = append(t.Cases, fileCase{verdict: bad(name, code), Manifest: object(m.with(changes[name]))})
		}
	}
	refused(protocol.CodeInvalidValue, map[string]members{
		"size-negative": {"size": "-1"}, "size-huge": {"size": "9007199254740991"}, "size-of-more-chunks": {"size": "3073"},
		"size-of-fewer-chunks": {"size": "2048"}, "chunks-too-small": {"chunkBytes": "1023"}, "chunks-cut-hashes": {"chunkBytes": "1040"},
		"chunks-too-large": {"chunkBytes": "4194336"}, "chunks-zero": {"chunkBytes": "0"}, "piece-missing": {"pieces": list(three.hashes[:2]...)},
		"no-pieces": {"pieces": ""}, "piece-too-many": {"pieces": list(append(three.hashes[:3:3], three.hashes[0])...)},
		"index-for-few": {"pieces": "", "index": list(three.hashes...)}, "both": {"index": list(three.hashes[0])},
		"empty-with-pieces": {"size": "0"},
	})
	add(bad("all-listed-and-one-more", protocol.CodeInvalidValue), listed.members.with(members{"size": fmt.Sprint(256*1024 + 1),
		"pieces": list(append(listed.hashes[:256:256], listed.hashes[0])...)}))
	refused(protocol.CodeMalformed, map[string]members{
		"secret-short": {"secret": `"00"`}, "secret-missing": {"secret": ""}, "sum-missing": {"sha256": ""}, "size-missing": {"size": ""},
		"chunk-bytes-missing": {"chunkBytes": ""}, "size-is-text": {"size": `"2500"`}, "piece-is-upper-case": {"pieces": upper(list(three.hashes...))},
		"pieces-is-object": {"pieces": "{}"},
	})
	t.Cases = append(t.Cases, fileCase{verdict: bad("with-space", protocol.CodeNotCanonical), Manifest: " " + object(m)})
	add(bad("piece-altered", protocol.CodeBadSignature), m, altered(three.piece(0), 1))
	add(bad("piece-tag-altered", protocol.CodeBadSignature), m, altered(three.piece(2), 480))
	add(bad("piece-of-another-suite", protocol.CodeMalformed), m, altered(three.piece(0), 0))
	cut := three.piece(0)
	short := must(base64.StdEncoding.DecodeString(cut.Content))
	short = short[:len(short)-1]
	cut.Content, cut.Hash = base64.StdEncoding.EncodeToString(short), byHand("relaymarket/v1/piece", short)
	add(bad("piece-cut", protocol.CodeMalformed), m, cut)
	moved := three.piece(1)
	moved.Piece = 0
	add(bad("piece-moved", protocol.CodeBadSignature), m, moved)
	return t
}
