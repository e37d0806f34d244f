package protocol

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func leavesOf(n int) []Hash {
	leaves := make([]Hash, n)
	for i := range leaves {
		leaves[i] = TaggedHash(TagLeaf, []byte{byte(i), byte(i >> 8)})
	}
	return leaves
}

// Every leaf of trees of every small size has the path that leads to the root, all ways to compute
// a path or root agree, and no other leaf, place, size or path leads there.
func TestMerklePaths(t *testing.T) {
	for n := 1; n <= 70; n++ {
		leaves := leavesOf(n)
		root := MerkleRoot(leaves)
		var tree MerkleTree
		for i, leaf := range leaves {
			if got, want := tree.Root(), MerkleRoot(leaves[:i]); got != want {
				t.Fatalf("the first %d of %d leaves", i, n)
			}
			tree.Add(leaf)
		}
		if tree.Root() != root || tree.Leaves() != int64(n) {
			t.Fatalf("%d leaves one by one have another root", n)
		}
		paths, same := MerklePaths(leaves)
		if same != root {
			t.Fatalf("%d leaves: paths have another root", n)
		}
		for i, leaf := range leaves {
			path := MerklePath(leaves, int64(i))
			if !slices.Equal(path, paths[i]) {
				t.Fatalf("leaf %d of %d has two paths", i, n)
			}
			if got, ok := MerkleClimb(leaf, int64(i), int64(n), path); !ok || got != root {
				t.Fatalf("leaf %d of %d does not lead to the root", i, n)
			}
			if got, ok := MerkleClimb(leaf, int64(i), int64(n), append(slices.Clone(path), leaf)); ok && got == root {
				t.Fatalf("leaf %d of %d: a longer path leads to the root", i, n)
			}
			if got, ok := MerkleClimb(leaf, int64(i+1)%int64(n), int64(n), path); n > 1 && ok && got == root {
				t.Fatalf("leaf %d of %d leads to the root from another place", i, n)
			}
			if got, ok := MerkleClimb(Hash{1}, int64(i), int64(n), path); ok && got == root {
				t.Fatalf("leaf %d of %d: another leaf leads to the root", i, n)
			}
		}
	}
	if MerkleRoot(nil) != (Hash{}) || (&MerkleTree{}).Root() != (Hash{}) || MerklePath(leavesOf(3), 3) != nil || MerklePath(nil, 0) != nil {
		t.Error("there is a root, or a path, without leaves")
	}
}

// A climb is bounded, whatever it is given.
func TestMerkleClimbTakesAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := make([]Hash, rapid.IntRange(0, 80).Draw(t, "path"))
		index, leaves := rapid.Int64().Draw(t, "index"), rapid.Int64().Draw(t, "leaves")
		if _, ok := MerkleClimb(Hash{}, index, leaves, path); ok && (index < 0 || index >= leaves) {
			t.Fatalf("leaf %d of %d has a place", index, leaves)
		}
	})
}
