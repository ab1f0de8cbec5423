package peer

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
)

func drives(names ...string) map[ID]Secret {
	m := map[ID]Secret{}
	for _, n := range names {
		m[id(n)] = secret(n)
	}
	return m
}

func id(name string) (d ID) { copy(d[:], "drive "+name); return d }

func secret(name string) (s Secret) { copy(s[:], "secret "+name); return s }

func TestTokens(t *testing.T) {
	t.Parallel()
	ca, cb := connect(t, listen(t, "a"), listen(t, "b"))
	token := ca.Token(id("x"), secret("x"))
	if !cb.CheckToken(id("x"), secret("x"), token) {
		t.Error("a good token does not pass")
	}
	for what, bad := range map[string]bool{
		"another drive":  cb.CheckToken(id("y"), secret("x"), token),
		"another secret": cb.CheckToken(id("x"), secret("y"), token),
		"nothing":        cb.CheckToken(id("x"), secret("x"), Token{}),
		// Reflection: what b gets from a proves nothing to a.
		"reflection": ca.CheckToken(id("x"), secret("x"), token),
	} {
		if bad {
			t.Errorf("a token passes: %s", what)
		}
	}
	if got := ca.MatchTokens(ca.OfferTokens(drives("x")), drives("x")); got != nil {
		t.Errorf("a's own tokens prove %v to a", got)
	}
}

func TestOffers(t *testing.T) {
	t.Parallel()
	a, b := listen(t, "a"), listen(t, "b")
	ca, cb := connect(t, a, b)
	for _, tt := range []struct{ drives, tokens int }{{0, 16}, {1, 16}, {16, 16}, {17, 32}, {100, 112}} {
		m := map[ID]Secret{}
		for i := range tt.drives {
			m[id(fmt.Sprint(i))] = secret(fmt.Sprint(i))
		}
		offer := ca.OfferTokens(m)
		if len(offer) != tt.tokens {
			t.Errorf("%d drives: %d tokens, want %d", tt.drives, len(offer), tt.tokens)
		}
		if !slices.IsSortedFunc(offer, func(a, b Token) int { return bytes.Compare(a[:], b[:]) }) {
			t.Errorf("%d drives: the order of tokens may say something", tt.drives)
		}
		if again := ca.OfferTokens(m); !slices.Equal(offer, again) {
			t.Errorf("%d drives: a second offer tells the fillers apart", tt.drives)
		}
		if got := cb.MatchTokens(offer, m); len(got) != tt.drives {
			t.Errorf("%d drives: %d match", tt.drives, len(got))
		}
	}

	// Each learns of what both have, and of nothing else.
	mine, theirs := drives("x", "y", "z"), drives("w", "y", "z")
	theirs[id("x")] = secret("not of x")
	want := []ID{id("y"), id("z")}
	if got := cb.MatchTokens(ca.OfferTokens(mine), theirs); !slices.Equal(got, want) {
		t.Errorf("b matches %v", got)
	}
	if got := ca.MatchTokens(cb.OfferTokens(theirs), mine); !slices.Equal(got, want) {
		t.Errorf("a matches %v", got)
	}
	if got := cb.MatchTokens(nil, theirs); got != nil {
		t.Errorf("nothing matches %v", got)
	}

	// Nothing of an offer comes again in another connection.
	seen := map[Token]bool{}
	for _, token := range ca.OfferTokens(mine) {
		seen[token] = true
	}
	other, _ := connect(t, a, b)
	for _, token := range other.OfferTokens(mine) {
		if seen[token] {
			t.Error("two connections have a token in common")
		}
	}
}

// Somebody in between, with a connection to each side, gets nothing from
// passing on what the sides say.
func TestTokensAreNotRelayed(t *testing.T) {
	t.Parallel()
	a, b, m := listen(t, "a"), listen(t, "b"), listen(t, "m")
	ca, ma := connect(t, a, m) // a thinks it found somebody new
	mb, cb := connect(t, m, b)
	am, bm := connect(t, m, a) // and m may dial a, too
	_ = am
	all := drives("x")
	for what, got := range map[string][]ID{
		"a's to b":             cb.MatchTokens(ca.OfferTokens(all), all),
		"b's to a":             ca.MatchTokens(cb.OfferTokens(all), all),
		"b's to a, same role":  bm.MatchTokens(ca.OfferTokens(all), all),
		"back to a, elsewhere": ca.MatchTokens(bm.OfferTokens(all), all),
	} {
		if got != nil {
			t.Errorf("relayed tokens prove something: %s", what)
		}
	}
	if got := ma.MatchTokens(ca.OfferTokens(all), all); len(got) != 1 {
		t.Error("with the secret, m would know") // so the above tests what it says
	}
	_ = mb
}

func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	s := secret("x")
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s", "%d", "%q"} {
		for _, v := range []any{s, &s, map[string]Secret{"k": s}, []Secret{s}} {
			got := fmt.Sprintf(verb, v)
			if bytes.Contains([]byte(got), []byte("secret x")) || bytes.Contains([]byte(got), []byte("736563")) || bytes.Contains([]byte(got), []byte("115 101")) {
				t.Errorf("%s of %T prints %s", verb, v, got)
			}
		}
	}
}
