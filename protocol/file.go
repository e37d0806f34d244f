package protocol

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
)

// A file that is larger than a record travels as pieces and a manifest. The pieces are its chunks, of
// ChunkBytes each but the last, and, if there are more than [MaxListedPieces] of them, behind them
// the pieces of an index: the hashes of all chunks, one after the other, cut into chunks of the same
// size. The manifest is the body of an ordinary message of content type [FileType], whose header has
// the file's name. Each piece is a record of the same sender to a key made for this piece alone:
//
//	reader's secret key  H(relaymarket/v1/piece-reader; secret ‖ uint64be(i))
//	record id            base64url of the first 16 bytes of H(relaymarket/v1/piece-id; secret ‖ uint64be(i))
//	AES-256 key          H(relaymarket/v1/piece-key; secret ‖ uint64be(i))
//	content              base64( 0x02 ‖ AES-256-GCM(key, nonce of 12 zeros, chunk ‖ zeros) )
//	hash in the manifest H(relaymarket/v1/piece; content before base64)
//
// A key encrypts one plaintext, so the nonce may be fixed; and whoever has the file can make the
// same piece again, which is why a piece need not be kept to be repeated or put back. The secret is in the
// manifest, which is sealed to the receiver's X-Wing key: so are the pieces in effect.

// FileType is the content type of a message whose body is a [FileManifest].
const FileType = "application/vnd.relaymarket.file+json"

// SuitePiece is the first byte of the content of a piece.
const SuitePiece = 0x02

// Bounds of a manifest.
const (
	MaxListedPieces = 256     // hashes in the manifest itself: of chunks, or of pieces of the index
	MinChunkBytes   = 1 << 10 // also a multiple of 32, so that no hash of an index is cut
	MaxChunkBytes   = 4 << 20

	pieceTagSize = 16 // of AES-GCM
)

// FileSecret is what all keys of a file's pieces are made of: 64 lower-case hex digits in a manifest.
type FileSecret [32]byte

// Format implements fmt.Formatter: no verb prints the secret.
func (s FileSecret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "file secret") }

// MarshalText implements encoding.TextMarshaler.
func (s FileSecret) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts the wire form only.
func (s *FileSecret) UnmarshalText(text []byte) error { return decodeHex(s[:], text, "secret") }

// FileManifest says how a file is put together. It is a document: readers ignore members they do not know.
type FileManifest struct {
	ChunkBytes int64      `json:"chunkBytes"`       // plaintext of each chunk but the last
	Index      []Hash     `json:"index,omitempty"`  // of the index's pieces, if there is an index
	Pieces     []Hash     `json:"pieces,omitempty"` // of the chunks, if there is none
	Secret     FileSecret `json:"secret"`
	SHA256     Hash       `json:"sha256"` // of the whole file, plain SHA-256 as sha256sum has it
	Size       int64      `json:"size"`   // bytes, 0 … 2^53−1
}

// ParseFileManifest reads the body of a message of [FileType]. Errors have code [CodeMalformed],
// [CodeNotCanonical] or [CodeInvalidValue].
func ParseFileManifest(body []byte) (*FileManifest, error) {
	if err := CheckCanonical(body); err != nil {
		return nil, err
	}
	var m FileManifest
	if err := DecodeDocument(body, &m, "chunkBytes", "secret", "sha256", "size"); err != nil {
		return nil, err
	}
	return &m, m.Validate()
}

// Validate checks bounds, and that there are as many hashes as the size asks for. Errors have code [CodeInvalidValue].
func (m *FileManifest) Validate() error {
	switch {
	case m.Size < 0 || m.Size > MaxInteger:
		return Errorf(CodeInvalidValue, "a file has 0 to %d bytes", int64(MaxInteger))
	case m.ChunkBytes < MinChunkBytes || m.ChunkBytes > MaxChunkBytes || m.ChunkBytes%int64(len(Hash{})) != 0:
		return Errorf(CodeInvalidValue, "a chunk has %d to %d bytes, a multiple of %d", MinChunkBytes, MaxChunkBytes, len(Hash{}))
	case m.Size > MaxFileSize(m.ChunkBytes):
		return Errorf(CodeInvalidValue, "a file in chunks of %d bytes has at most %d bytes", m.ChunkBytes, MaxFileSize(m.ChunkBytes))
	}
	listed, indexed := m.Chunks(), int64(0)
	if m.IndexPieces() > 0 {
		listed, indexed = 0, m.IndexPieces()
	}
	if int64(len(m.Pieces)) != listed || int64(len(m.Index)) != indexed {
		return Errorf(CodeInvalidValue, "a file of %d chunks has %d hashes of chunks and %d of its index in the manifest, not %d and %d",
			m.Chunks(), listed, indexed, len(m.Pieces), len(m.Index))
	}
	return nil
}

// MaxFileSize is how large a file in chunks of this size can be: as many chunks as a full index names.
func MaxFileSize(chunkBytes int64) int64 {
	return MaxListedPieces * (chunkBytes / int64(len(Hash{}))) * chunkBytes
}

// Chunks is how many chunks the file has; 0 for an empty file.
func (m *FileManifest) Chunks() int64 { return (m.Size + m.ChunkBytes - 1) / m.ChunkBytes }

// IndexPieces is how many pieces the index has; 0 if the manifest names the chunks itself.
func (m *FileManifest) IndexPieces() int64 {
	if m.Chunks() <= MaxListedPieces {
		return 0
	}
	return (m.Chunks()*int64(len(Hash{})) + m.ChunkBytes - 1) / m.ChunkBytes
}

// AllPieces is how many pieces there are, those of the index included. The chunks come first.
func (m *FileManifest) AllPieces() int64 { return m.Chunks() + m.IndexPieces() }

// PieceBytes is the length of piece i before padding: of a chunk, or of a part of the index.
func (m *FileManifest) PieceBytes(i int64) int64 {
	whole := m.Size
	if i >= m.Chunks() {
		i, whole = i-m.Chunks(), m.Chunks()*int64(len(Hash{}))
	}
	return min(m.ChunkBytes, whole-i*m.ChunkBytes)
}

// Piece is the name and the keys of one piece.
type Piece struct {
	ID     RecordID
	Reader *PrivateKey // to whom its record is written
	key    Hash
}

// Piece derives those of piece i.
func (s FileSecret) Piece(i int64) (Piece, error) {
	derive := func(tag string) Hash { return TaggedHash(tag, s[:], binary.BigEndian.AppendUint64(nil, uint64(i))) }
	reader, err := NewPrivateKey(derive(TagPieceReader))
	if err != nil {
		return Piece{}, err // one in 2^127 secrets
	}
	id := derive(TagPieceID)
	return Piece{ID: RecordID(base64.RawURLEncoding.EncodeToString(id[:16])), Reader: reader, key: derive(TagPieceKey)}, nil
}

// PiecePadded is the length to which n bytes of a piece are padded with zeros: that of a sealed message, but
// no more than a whole chunk.
func PiecePadded(n, chunkBytes int64) int64 { return min(chunkBytes, int64(PaddedSize(int(n)))) }

// Seal makes the content of the piece, before base64. The same bytes give the same content. Never give it other
// bytes than those whose hash is in the manifest: one key must not encrypt two texts that anybody sees.
func (p Piece) Seal(data []byte, chunkBytes int64) ([]byte, error) {
	aead, err := p.aead()
	if err != nil {
		return nil, err
	}
	padded := int(PiecePadded(int64(len(data)), chunkBytes))
	content := make([]byte, 1+padded, 1+padded+pieceTagSize)
	content[0] = SuitePiece
	copy(content[1:], data)
	return aead.Seal(content[:1], make([]byte, aead.NonceSize()), content[1:], nil), nil
}

// Open decrypts the content of a piece of n bytes, and takes the place of it. Any failure has code [CodeBadSignature]
// or [CodeMalformed].
func (p Piece) Open(content []byte, n, chunkBytes int64) ([]byte, error) {
	if n < 0 || n > chunkBytes || int64(len(content)) != 1+PiecePadded(n, chunkBytes)+pieceTagSize || content[0] != SuitePiece {
		return nil, Errorf(CodeMalformed, "the content is not that of a piece of %d bytes", n)
	}
	aead, err := p.aead()
	if err != nil {
		return nil, err
	}
	data, err := aead.Open(content[1:1], make([]byte, aead.NonceSize()), content[1:], nil)
	if err != nil {
		return nil, Errorf(CodeBadSignature, "the piece does not open with its key")
	}
	return data[:n], nil
}

func (p Piece) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(p.key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// PieceHash is what a manifest or an index says of a piece's content, before base64.
func PieceHash(content []byte) Hash { return TaggedHash(TagPiece, content) }
