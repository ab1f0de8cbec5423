package seal

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata/seal; released vectors must not change")

// vectors is testdata/seal/vectors.json. Read keys and random plaintexts are
// SHAKE128 of a name, to the length needed. A stored block is in the file
// NAME.block. Blocks that hold Zstandard frames must open, but another version
// of the compressor may seal them otherwise.
type vectors struct {
	ReadKey string   `json:"read_key"` // the name it is made of, with the epoch in decimal
	Blocks  []vector `json:"blocks"`
	Chunks  []int    `json:"chunks"` // of 2 MiB of SHAKE128("chunks"), gear of epoch 0
}

type vector struct {
	Name    string `json:"name"`
	Epoch   uint32 `json:"epoch"`
	Kind    Kind   `json:"kind"`
	Plain   string `json:"plain"` // random: SHAKE128(name); text: repeated; zero
	Length  int    `json:"length"`
	Stored  int    `json:"stored"`
	Uniform bool   `json:"uniform"`
	Exact   bool   `json:"exact"` // sealing must give the stored bytes
}

func (v vector) plaintext() []byte {
	switch v.Plain {
	case "random":
		return random(v.Name, v.Length)
	case "zero":
		return make([]byte, v.Length)
	case "mixed":
		half := v.Length / 2
		return append(make([]byte, half), random(v.Name, v.Length-half)...)
	}
	return bytes.Repeat([]byte("All work and no play makes Jack a dull boy.\n"), v.Length/44+1)[:v.Length]
}

func TestGolden(t *testing.T) {
	dir := filepath.Join("..", "..", "testdata", "seal")
	file := filepath.Join(dir, "vectors.json")
	if *update {
		writeGolden(t, dir, file)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all vectors
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	k := testKeyring(0, 7)
	for _, v := range all.Blocks {
		stored, err := os.ReadFile(filepath.Join(dir, v.Name+".block"))
		if err != nil {
			t.Fatal(err)
		}
		plain := v.plaintext()
		if got, err := k.Open(nil, v.Kind, stored); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s does not open: %v", v.Name, err)
		}
		if e := must(BlockEpoch(stored)); e != v.Epoch || len(stored) != v.Stored || Uniform(stored) != v.Uniform {
			t.Errorf("%s: epoch %d, %d bytes, uniform %v", v.Name, e, len(stored), Uniform(stored))
		}
		if v.Exact && !bytes.Equal(must(testKeyring(v.Epoch).Seal(nil, v.Kind, plain)), stored) {
			t.Errorf("%s seals otherwise than it did", v.Name)
		}
	}
	if got := chunks(k.Chunker(), random("chunks", 2<<20), 2<<20); !slices.Equal(got, all.Chunks) {
		t.Errorf("chunks %v, want %v", got, all.Chunks)
	}
}

func writeGolden(t *testing.T, dir, file string) {
	all := vectors{ReadKey: "read key EPOCH", Chunks: chunks(testKeyring().Chunker(), random("chunks", 2<<20), 2<<20)}
	for _, v := range []vector{
		{Name: "empty", Kind: Commit, Plain: "zero", Exact: true},
		{Name: "random-100", Kind: Data, Plain: "random", Length: 100, Epoch: 7, Exact: true},
		{Name: "random-32768", Kind: Data, Plain: "random", Length: 2 * PieceSize, Exact: true},
		{Name: "random-32769", Kind: Data, Plain: "random", Length: 2*PieceSize + 1, Epoch: 7, Exact: true},
		{Name: "text-3000", Kind: Page, Plain: "text", Length: 3000},
		{Name: "zero-245760", Kind: Data, Plain: "zero", Length: MaxPlain, Epoch: 7},
		{Name: "mixed-34000", Kind: Page, Plain: "mixed", Length: 34000},
	} {
		stored := must(testKeyring(v.Epoch).Seal(nil, v.Kind, v.plaintext()))
		v.Stored, v.Uniform = len(stored), Uniform(stored)
		all.Blocks = append(all.Blocks, v)
		if err := os.WriteFile(filepath.Join(dir, v.Name+".block"), stored, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out := append(must(json.MarshalIndent(all, "", "  ")), '\n')
	if err := os.WriteFile(file, out, 0o644); err != nil {
		t.Fatal(err)
	}
}
