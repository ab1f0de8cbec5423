package discovery

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestBeaconBytes(t *testing.T) {
	who := pseudonym{0: 0xa0, 15: 0xaf}
	for _, c := range []struct {
		beacon
		hex string
	}{
		{beacon{kindHere, who, 4433, ""}, "484541525448" + "01" + "01" + "a00000000000000000000000000000af" + "1151" + "00"},
		{beacon{kindAsk, who, 1, "Zoë"}, "484541525448" + "01" + "02" + "a00000000000000000000000000000af" + "0001" + "04" + "5a6fc3ab"},
		{beacon{kindBye, who, 65535, ""}, "484541525448" + "01" + "03" + "a00000000000000000000000000000af" + "ffff" + "00"},
	} {
		b := c.beacon.append(nil)
		if got := hex.EncodeToString(b); got != c.hex {
			t.Errorf("%+v is %s, not %s", c.beacon, got, c.hex)
		}
		if back, err := parseBeacon(b); err != nil || back != c.beacon {
			t.Errorf("%s is %+v, %v", c.hex, back, err)
		}
	}
}

func TestBeaconRefused(t *testing.T) {
	good := beacon{kindHere, pseudonym{1}, 4433, "name"}.append(nil)
	change := func(at int, to byte) []byte {
		b := bytes.Clone(good)
		b[at] = to
		return b
	}
	for what, b := range map[string][]byte{
		"empty":            nil,
		"another protocol": []byte("M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n"),
		"magic":            change(0, 'h'),
		"kind 0":           change(7, 0),
		"kind 4":           change(7, 4),
		"port 0":           append(append(bytes.Clone(good[:24]), 0, 0), good[26:]...),
		"short":            good[:beaconHeader-1],
		"name cut":         good[:len(good)-1],
		"more":             append(bytes.Clone(good), 0),
		"not UTF-8":        change(beaconHeader, 0xff),
		"control":          change(beaconHeader, 0x1b),
		"space around":     change(beaconHeader, ' '),
		"too long":         beacon{kindHere, pseudonym{1}, 1, strings.Repeat("x", nameMax+1)}.append(nil),
	} {
		if a, err := parseBeacon(b); !errors.Is(err, errBeacon) || a != (beacon{}) {
			t.Errorf("%s: %+v, %v", what, a, err)
		}
	}
	if _, err := parseBeacon(change(6, 2)); !errors.Is(err, errVersion) {
		t.Errorf("version 2: %v", err)
	}
}

func FuzzBeacon(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(beacon{kindHere, pseudonym{1}, 4433, ""}.append(nil))
	f.Add(beacon{kindBye, pseudonym{2}, 1, strings.Repeat("ü", 60)}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseBeacon(b)
		if err != nil {
			return
		}
		if a.port == 0 || len(a.name) > nameMax || cleanName(a.name) != a.name {
			t.Fatalf("took %+v", a)
		}
		if again := a.append(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x is written as %x", b, again)
		}
	})
}

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{
		"":                                 "",
		"Anna's laptop":                    "Anna's laptop",
		"  two\twords\n":                   "twowords",
		"Zoë 🦊":                            "Zoë 🦊",
		"a\x1b[31mred":                     "a[31mred",
		"right\u202eleft":                  "rightleft",
		"bad\xff\xfebytes":                 "badbytes",
		strings.Repeat("x", 200):           strings.Repeat("x", nameMax),
		strings.Repeat("€", 60):            strings.Repeat("€", nameMax/3),
		"x" + strings.Repeat("🦊", 60):      "x" + strings.Repeat("🦊", (nameMax-1)/4),
		strings.Repeat("y", 119) + " \x00": strings.Repeat("y", 119),
	} {
		got := cleanName(in)
		if got != want {
			t.Errorf("%q becomes %q, not %q", in, got, want)
		}
		if cleanName(got) != got {
			t.Errorf("%q is not clean the second time", in)
		}
	}
}

func TestText(t *testing.T) {
	long := cleanName(strings.Repeat("🦊", 100))
	for _, name := range []string{"", "Anna", `back\slash "quoted" = ; \065`, long} {
		in := text{who: pseudonym{0xfe, 1}, name: name}
		for _, s := range in.strings() {
			if len(s) > textStringMax {
				t.Errorf("a string of %d bytes makes the service vanish", len(s))
			}
		}
		if out, err := parseText(in.strings()); err != nil || out != in {
			t.Errorf("%+v became %+v, %v", in, out, err)
		}
	}
	p := "p=" + pseudonym{}.String()
	for what, record := range map[string][]string{
		"nothing":          nil,
		"no version":       {p},
		"another version":  {"v=2", p},
		"first counts":     {"v=2", "v=1", p},
		"no pseudonym":     {"v=1"},
		"short pseudonym":  {"v=1", p[:len(p)-2]},
		"not hex":          {"v=1", "p=" + strings.Repeat("g", 32)},
		"not base64":       {"v=1", p, "n=!"},
		"a name not clean": {"v=1", p, "n=Gw"},
		"a long string":    {"v=1", p, strings.Repeat("x", 256)},
		"many strings":     append([]string{"v=1", p}, make([]string, 15)...),
	} {
		if got, err := parseText(record); !errors.Is(err, errText) || got != (text{}) {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("v=1\n" + "p=" + pseudonym{1}.String())
	f.Add(strings.Join(text{pseudonym{2}, "Zoë"}.strings(), "\n"))
	f.Add("v=1\nv\n=\nn=\xff")
	f.Fuzz(func(t *testing.T, joined string) {
		got, err := parseText(strings.Split(joined, "\n"))
		if err != nil {
			return
		}
		if len(got.name) > nameMax || cleanName(got.name) != got.name {
			t.Fatalf("took the name %q", got.name)
		}
		if again, err := parseText(got.strings()); err != nil || again != got {
			t.Fatalf("%+v became %+v, %v", got, again, err)
		}
	})
}

func TestPseudonym(t *testing.T) {
	// printf 'hearth pseudonym\0\0\0\0\0\x07\x82\x4d' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0101...
	const goldenPseudonym = "aa63a1fe6b132f49fe8880ac6eff05a3"
	secret := [32]byte{}
	for i := range secret {
		secret[i] = 1
	}
	if got := pseudonymOf(&secret, 492109).String(); got != goldenPseudonym {
		t.Errorf("the pseudonym of hour 492109 is %s, not %s", got, goldenPseudonym)
	}
	if got := pseudonymOf(&secret, 492109).id(); got != goldenPseudonym[:8] {
		t.Errorf("its id is %s", got)
	}
	for at, hour := range map[string]int64{
		"1970-01-01T00:00:00Z":      0,
		"1969-12-31T23:59:59Z":      -1,
		"1969-12-31T23:00:00Z":      -1,
		"1969-12-31T22:59:59Z":      -2,
		"2026-02-20T13:00:00Z":      492109,
		"2026-02-20T15:59:59+02:00": 492109,
		"2026-02-20T14:00:00Z":      492110,
	} {
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := hourOf(when); got != hour {
			t.Errorf("%s is in hour %d, not %d", at, got, hour)
		}
	}
}
