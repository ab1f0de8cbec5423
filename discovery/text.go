package discovery

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// nameMax is the longest display name in bytes. In base64 with its key it stays
// below 255 bytes, the longest TXT string: zeroconf cannot pack a longer one,
// says nothing, and the service cannot be seen at all.
const nameMax = 120

// cleanName makes a display name fit to be sent and to be shown: valid UTF-8,
// no control or format characters (they move a terminal's cursor or turn text
// around), no more than nameMax bytes, cut between characters.
func cleanName(name string) string {
	clean := strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsGraphic(r) {
			return -1
		}
		return r
	}, name)
	clean = strings.TrimSpace(clean)
	if len(clean) > nameMax {
		cut := nameMax
		for !utf8.RuneStart(clean[cut]) {
			cut--
		}
		clean = strings.TrimSpace(clean[:cut])
	}
	return clean
}

// The TXT record of _hearth._udp has the strings (RFC 6763, section 6)
//
//	v=1        version
//	p=HEX      pseudonym, 32 hexadecimal digits
//	n=BASE64   display name, only while visible; base64url, so that no escape
//	           of DNS, of which libraries have different ideas, can touch it
//
// The port is in the SRV record.
const (
	textVersion    = "1"
	textStringsMax = 16
	textStringMax  = 255
)

// text is the content of a TXT record.
type text struct {
	who  pseudonym
	name string
}

var errText = errors.New("not a record of hearth")

func (t text) strings() []string {
	out := []string{"v=" + textVersion, "p=" + t.who.String()}
	if t.name != "" {
		out = append(out, "n="+base64.RawURLEncoding.EncodeToString([]byte(t.name)))
	}
	return out
}

func parseText(record []string) (text, error) {
	if len(record) > textStringsMax {
		return text{}, fmt.Errorf("%w: %d strings", errText, len(record))
	}
	values := map[string]string{}
	for _, s := range record {
		if len(s) > textStringMax {
			return text{}, fmt.Errorf("%w: a string of %d bytes", errText, len(s))
		}
		key, value, _ := strings.Cut(s, "=")
		if _, again := values[key]; !again { // RFC 6763, section 6.4: the first counts
			values[key] = value
		}
	}
	if v := values["v"]; v != textVersion {
		return text{}, fmt.Errorf("%w: version %q", errText, v)
	}
	var t text
	if p := values["p"]; len(p) != 2*len(t.who) {
		return text{}, fmt.Errorf("%w: pseudonym of %d digits", errText, len(p))
	}
	if _, err := hex.Decode(t.who[:], []byte(values["p"])); err != nil {
		return text{}, fmt.Errorf("%w: pseudonym: %w", errText, err)
	}
	name, err := base64.RawURLEncoding.DecodeString(values["n"])
	if err != nil {
		return text{}, fmt.Errorf("%w: name: %w", errText, err)
	}
	if t.name = cleanName(string(name)); t.name != string(name) {
		return text{}, fmt.Errorf("%w: a name that no sender writes", errText)
	}
	return t, nil
}
