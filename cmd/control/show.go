package control

import (
	"strconv"
	"unicode"
	"unicode/utf8"
)

// Show makes a name or path safe to print: as it is when every character is
// printable, else as a Go string literal. A name is any bytes its maker
// liked; a terminal obeys some of them.
func Show(s string) string {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || !unicode.IsPrint(r) {
			return strconv.Quote(s)
		}
		i += n
	}
	return s
}
