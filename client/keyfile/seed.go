package keyfile

import (
	"fmt"
	"io"
	"strings"

	"github.com/tyler-smith/go-bip39"
)

const (
	// EntropySize is the length of a seed's entropy in bytes.
	EntropySize = 32
	// WordCount is the number of words that a seed has.
	WordCount = 24

	// maxWordsInput bounds what ParseWords looks at: 24 words of at most 8
	// letters fit many times over, with any white space between them.
	maxWordsInput = 4096
)

// Seed is the one secret behind all keys of a user. The zero value holds none
// and derives nothing. It is safe for concurrent use, except for Wipe.
type Seed struct {
	entropy [EntropySize]byte
	// set tells a seed from a wiped one. Without it a seed used after Wipe
	// would be the all-zero one, whose keys everybody knows.
	set bool
}

// NewSeed draws a seed from entropy, which is crypto/rand.Reader outside of
// tests.
func NewSeed(entropy io.Reader) (*Seed, error) {
	s := &Seed{}
	if _, err := io.ReadFull(entropy, s.entropy[:]); err != nil {
		s.Wipe()
		return nil, fmt.Errorf("draw a seed: %w", err)
	}
	s.set = true
	return s, nil
}

// SeedFromEntropy is the seed with these 32 bytes, a copy of which it keeps:
// what [Seed.Entropy] gave, and a key agent held.
func SeedFromEntropy(entropy []byte) (*Seed, error) {
	if len(entropy) != EntropySize {
		return nil, fmt.Errorf("%w, not %d", ErrEntropy, len(entropy))
	}
	s := &Seed{set: true}
	copy(s.entropy[:], entropy)
	return s, nil
}

// ParseWords restores a seed from its 24 words. Any white space may stand
// around them, and case does not matter. It fails with ErrWordCount, ErrChecksum
// or a [*WordError], which is an ErrUnknownWord.
func ParseWords(words string) (*Seed, error) {
	if len(words) > maxWordsInput {
		return nil, fmt.Errorf("%w: this text is too long for %d words", ErrWordCount, WordCount)
	}
	list := strings.Fields(strings.ToLower(words))
	if len(list) != WordCount {
		return nil, fmt.Errorf("%w: got %d, a seed has %d", ErrWordCount, len(list), WordCount)
	}
	for i, word := range list {
		if _, ok := bip39.GetWordIndex(word); !ok {
			return nil, &WordError{Position: i + 1}
		}
	}
	entropy, err := bip39.EntropyFromMnemonic(strings.Join(list, " "))
	if err != nil {
		// Count and words are known to be right: the checksum is all that is left.
		return nil, fmt.Errorf("%w: a word is wrong, or two are swapped", ErrChecksum)
	}
	defer clear(entropy)
	return SeedFromEntropy(entropy)
}

// Words gives the 24 words, lower case, one space between them.
func (s *Seed) Words() (string, error) {
	if !s.set {
		return "", ErrNoSeed
	}
	words, err := bip39.NewMnemonic(s.entropy[:])
	if err != nil {
		return "", fmt.Errorf("seed to words: %w", err)
	}
	return words, nil
}

// Entropy gives a copy of the seed's 32 bytes, for a key agent to keep. The
// caller wipes it.
func (s *Seed) Entropy() ([]byte, error) {
	if !s.set {
		return nil, ErrNoSeed
	}
	return append([]byte(nil), s.entropy[:]...), nil
}

// Wipe overwrites the seed, which then derives nothing more.
func (s *Seed) Wipe() {
	clear(s.entropy[:])
	s.set = false
}
