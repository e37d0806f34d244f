package protocol

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"testing"
)

// pattern is the file of the vectors.
func pattern(size int64) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i % 251)
	}
	return data
}

func judgeFile(t *testing.T, _ *vectorFile, raw []byte) error {
	var c struct {
		vectorHead
		Manifest string
		Pieces   []struct {
			Piece   int64
			ID      RecordID
			Reader  PublicKey
			Bytes   int64
			Content []byte
			Hash    Hash
		}
	}
	decodeCase(t, raw, &c)
	m, err := ParseFileManifest([]byte(c.Manifest))
	if err != nil {
		return err
	}
	file := pattern(m.Size)
	equal(t, "sha256", Hash(sha256.Sum256(file)), m.SHA256)
	hashes := chunkHashes(t, m, file)
	for _, want := range c.Pieces {
		piece, err := m.Secret.Piece(want.Piece)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "hash", PieceHash(want.Content), want.Hash)
		data, err := piece.Open(bytes.Clone(want.Content), m.PieceBytes(want.Piece), m.ChunkBytes)
		if err != nil {
			return err
		}
		equal(t, "id", piece.ID, want.ID)
		equal(t, "reader", piece.Reader.Public(), want.Reader)
		equal(t, "bytes", m.PieceBytes(want.Piece), want.Bytes)
		whole, at, said := file, want.Piece*m.ChunkBytes, m.Pieces
		if want.Piece >= m.Chunks() {
			whole, at, said = hashes, (want.Piece-m.Chunks())*m.ChunkBytes, m.Index
		}
		if !bytes.Equal(data, whole[at:at+want.Bytes]) {
			t.Errorf("piece %d opens to other bytes", want.Piece)
		}
		if said != nil {
			equal(t, "hash in the manifest", said[at/m.ChunkBytes], want.Hash)
		}
		again, err := piece.Seal(data, m.ChunkBytes)
		if err != nil || !bytes.Equal(again, want.Content) {
			t.Errorf("piece %d seals to %s, %v", want.Piece, base64.StdEncoding.EncodeToString(again), err)
		}
	}
	return nil
}

// chunkHashes are those of all chunks, one after the other.
func chunkHashes(t *testing.T, m *FileManifest, file []byte) (all []byte) {
	t.Helper()
	for i := range m.Chunks() {
		piece, err := m.Secret.Piece(i)
		if err != nil {
			t.Fatal(err)
		}
		at := i * m.ChunkBytes
		content, err := piece.Seal(file[at:at+m.PieceBytes(i)], m.ChunkBytes)
		if err != nil {
			t.Fatal(err)
		}
		h := PieceHash(content)
		all = append(all, h[:]...)
	}
	return all
}

// What parses has as many pieces as it says, each within bounds, and they add up to the file.
func FuzzParseFileManifest(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := ParseFileManifest(body)
		if err != nil {
			return
		}
		all, sum := m.AllPieces(), int64(0)
		if all > 2*MaxListedPieces {
			all = 2 * MaxListedPieces
		}
		for i := range all {
			n := m.PieceBytes(i)
			if n < 1 || n > m.ChunkBytes || PiecePadded(n, m.ChunkBytes) > m.ChunkBytes {
				t.Fatalf("piece %d has %d bytes", i, n)
			}
			if i < m.Chunks() {
				sum += n
			}
		}
		if all >= m.Chunks() && sum != m.Size {
			t.Fatalf("the chunks have %d bytes, the file %d", sum, m.Size)
		}
	})
}
