package secrets

import (
	"math"
	"regexp"
	"strings"
)

// A charset is a set of ASCII characters.
type charset uint8

const (
	upper charset = 1 << iota
	lower
	digit
	under
	dash
	dot
	lowHex // a to f
	slash  // + and /

	alnum       = upper | lower | digit
	urlsafe     = alnum | under | dash
	hexadecimal = digit | lowHex
	base64Chars = alnum | under | slash
)

// sets holds for each byte the sets that it is of.
var sets = func() (of [256]charset) {
	for c := byte('A'); c <= 'Z'; c++ {
		of[c], of[c|0x20] = upper, lower
	}
	for c := byte('0'); c <= '9'; c++ {
		of[c] = digit
	}
	for c := byte('a'); c <= 'f'; c++ {
		of[c] |= lowHex
	}
	of['_'], of['-'], of['.'], of['+'], of['/'] = under, dash, dot, slash, slash
	return of
}()

func (s charset) has(c byte) bool { return sets[c]&s != 0 }

// run is how many characters of the set a string starts with.
func (s charset) run(text string) int {
	for i := range len(text) {
		if !s.has(text[i]) {
			return i
		}
	}
	return len(text)
}

// mixed reports whether s has capitals, small letters and digits: a hash in hex has not.
func mixed(s string) bool {
	var all charset
	for i := range len(s) {
		all |= sets[s[i]]
	}
	return all&alnum == alnum
}

// placeholders are what people write where a secret is to stand.
var placeholders = regexp.MustCompile(`(?i)example|sample|placeholder|change.?me|change.?this|your|xxxx|dummy|redacted|insert|todo|fake|` +
	`\.\.\.|…|\*\*\*|replace|^pass(?:word|wd)?[0-9]*$|^secret$|^hunter2$|^null$|^undefined$|^none$`)

// plausible reports whether s may be a secret: long enough, of varied
// characters, and not what people write in place of one.
func plausible(s string, least int) bool {
	if len(s) < least || strings.ContainsAny(s, "<>{}") || strings.HasPrefix(s, "$") || strings.HasPrefix(s, "%") {
		return false
	}
	// Short passwords repeat themselves more than tokens do.
	need := 3.0
	if least < 16 {
		need = min(2.5, math.Log2(float64(max(least, 2)))-0.2)
	}
	return entropy(s) >= need && !placeholders.MatchString(s)
}

// entropy is Shannon's, in bits a character.
func entropy(s string) (bits float64) {
	var count [256]int
	for i := range len(s) {
		count[s[i]]++
	}
	for _, n := range count {
		if n > 0 {
			p := float64(n) / float64(len(s))
			bits -= p * math.Log2(p)
		}
	}
	return bits
}

// An assignment is NAME=VALUE, NAME: VALUE or the like with a name in capitals,
// anywhere in a line; or with any name if it is the whole line.
var (
	capitals  = regexp.MustCompile(`\b([A-Z][A-Z0-9_]{2,})["']?\s{0,2}([=:])\s{0,2}["']?([^\s"',;]{8,})`)
	wholeLine = regexp.MustCompile(`^[+-]?\s*([A-Za-z][A-Za-z0-9_.-]{2,})(=)["']?([^\s"',;]{8,})["']?\r?$`)

	secretName = regexp.MustCompile(`(?i)SECRET|TOKEN|PASSWORD|PASSWD|API_?KEY|PRIVATE_?KEY|ACCESS_?KEY`)
	// otherName is of a name that tells something about a secret.
	otherName = regexp.MustCompile(`(?i)PUBLIC|(?:FILE|PATH|DIR|URL|URI|TYPE|NAME|HEADER|HASH|DIGEST|SHA256|FINGERPRINT|TTL|EXPIRY|EXPIRES|LENGTH|SIZE|` +
		`LIMIT|COUNT|ARN|REF|VERSION|ALGORITHM|ISSUER|AUDIENCE|ENDPOINT|PREFIX|POLICY|(?:KEY|TOKEN)_?IDS?|MODEL)$`)
	// reference is of a value that says where the secret is, or computes it.
	reference = regexp.MustCompile("^(?:[~.]?\\.?/|[A-Za-z]:\\\\|[a-z][a-z0-9+.-]*://|arn:|vault:|ref\\+)|[()\\[\\]`]|^[A-Za-z_]+(?:\\.[A-Za-z_]+)+[0-9]*$")
)

// setting reports whether a line sets something that is named like a secret to
// what looks like one.
func setting(line string) bool {
	if !strings.ContainsAny(line, "=:") {
		return false
	}
	for _, re := range []*regexp.Regexp{capitals, wholeLine} {
		for _, m := range re.FindAllStringSubmatch(line, -1) {
			if secretName.MatchString(m[1]) && !otherName.MatchString(m[1]) && secretValue(m[1], m[2], m[3]) {
				return true
			}
		}
	}
	return false
}

func secretValue(name, sign, value string) bool {
	if reference.MatchString(value) {
		return false
	}
	// People choose passwords, programs draw tokens: those have digits.
	if sign == "=" && strings.Contains(strings.ToUpper(name), "PASS") {
		return plausible(value, 8)
	}
	return plausible(value, 12) && strings.ContainsAny(value, "0123456789") && strings.IndexFunc(value, letter) >= 0
}

func letter(r rune) bool { return r < 0x80 && (upper | lower).has(byte(r)) }
