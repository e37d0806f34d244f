package protocol

// The trees of pages and of usage reports have one shape, that of RFC 9162 section 2.1.1: a list of
// n > 1 leaves splits at the largest power of two below n, and a node is TaggedHash([TagNode], left,
// right). One leaf is its own root. No leaf can be taken for a node, nor a node for a leaf, because
// each is hashed under a tag of its own.

// maxTreeDepth bounds a path: 2^53 leaves.
const maxTreeDepth = 53

// MerkleRoot is the root of the tree over leaves in their order. No leaves have no root (zero).
func MerkleRoot(leaves []Hash) Hash {
	switch len(leaves) {
	case 0:
		return Hash{}
	case 1:
		return leaves[0]
	}
	split := splitOf(int64(len(leaves)))
	return node(MerkleRoot(leaves[:split]), MerkleRoot(leaves[split:]))
}

func node(left, right Hash) Hash { return TaggedHash(TagNode, left[:], right[:]) }

// splitOf is the largest power of two below n, which is at least 2.
func splitOf(n int64) int64 {
	split := int64(1)
	for split*2 < n {
		split *= 2
	}
	return split
}

// MerklePath is the path from one leaf to the root: the hashes beside it, the lowest first. It is
// nil for an index that is not one of the leaves'.
func MerklePath(leaves []Hash, index int64) []Hash {
	if index < 0 || index >= int64(len(leaves)) {
		return nil
	}
	if len(leaves) == 1 {
		return []Hash{}
	}
	split := splitOf(int64(len(leaves)))
	if index < split {
		return append(MerklePath(leaves[:split], index), MerkleRoot(leaves[split:]))
	}
	return append(MerklePath(leaves[split:], index-split), MerkleRoot(leaves[:split]))
}

// MerklePaths are the paths of all leaves. It costs as many hashes as there are nodes.
func MerklePaths(leaves []Hash) (paths [][]Hash, root Hash) {
	switch len(leaves) {
	case 0:
		return nil, Hash{}
	case 1:
		return [][]Hash{{}}, leaves[0]
	}
	split := splitOf(int64(len(leaves)))
	paths, left := MerklePaths(leaves[:split])
	others, right := MerklePaths(leaves[split:])
	for i := range paths {
		paths[i] = append(paths[i], right)
	}
	for i := range others {
		others[i] = append(others[i], left)
	}
	return append(paths, others...), node(left, right)
}

// MerkleClimb is the root that a path leads to from a leaf, which stands at an index of so many
// leaves; ok is false when a tree of that size has no such path.
func MerkleClimb(leaf Hash, index, leaves int64, path []Hash) (root Hash, ok bool) {
	if index < 0 || index >= leaves || leaves > MaxInteger || len(path) > maxTreeDepth {
		return Hash{}, false
	}
	root, rest, ok := climb(leaf, index, leaves, path)
	return root, ok && len(rest) == 0
}

func climb(leaf Hash, index, leaves int64, path []Hash) (Hash, []Hash, bool) {
	if leaves == 1 {
		return leaf, path, true
	}
	split, right := splitOf(leaves), false
	below, under := index, split
	if index >= split {
		right, below, under = true, index-split, leaves-split
	}
	h, rest, ok := climb(leaf, below, under, path)
	if !ok || len(rest) == 0 {
		return Hash{}, nil, false
	}
	if right {
		return node(rest[0], h), rest[1:], true
	}
	return node(h, rest[0]), rest[1:], true
}

// MerkleTree computes a root from leaves that come one by one, in memory that grows with the
// logarithm of their number. The zero value is the tree without leaves.
type MerkleTree struct {
	leaves int64
	whole  []Hash // roots of complete subtrees, the largest first: one for each bit of leaves
}

// Add appends a leaf.
func (t *MerkleTree) Add(leaf Hash) {
	for n := t.leaves; n&1 == 1; n >>= 1 {
		last := len(t.whole) - 1
		leaf = node(t.whole[last], leaf)
		t.whole = t.whole[:last]
	}
	t.whole = append(t.whole, leaf)
	t.leaves++
}

// Leaves is how many were added.
func (t *MerkleTree) Leaves() int64 { return t.leaves }

// Root is the root over what was added so far, [MerkleRoot] of it.
func (t *MerkleTree) Root() Hash {
	if len(t.whole) == 0 {
		return Hash{}
	}
	root := t.whole[len(t.whole)-1]
	for i := len(t.whole) - 2; i >= 0; i-- {
		root = node(t.whole[i], root)
	}
	return root
}
