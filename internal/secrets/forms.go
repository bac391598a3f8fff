package secrets

import (
	"regexp"
	"strings"
)

// A form is a token that says by its prefix what it is.
type form struct {
	kind   Kind
	prefix string
	least  int     // characters after the prefix
	exact  bool    // and no more than those
	of     charset // what they are
}

// forms is in order: of two that fit, the first counts.
var forms = []form{
	{AWSKeyID, "AKIA", 16, true, upper | digit},
	{AWSKeyID, "ASIA", 16, true, upper | digit},
	{GitHubToken, "ghp_", 36, false, alnum},
	{GitHubToken, "gho_", 36, false, alnum},
	{GitHubToken, "ghu_", 36, false, alnum},
	{GitHubToken, "ghs_", 36, false, alnum},
	{GitHubToken, "ghr_", 36, false, alnum},
	{GitHubToken, "github_pat_", 40, false, alnum | under},
	{GitLabToken, "glpat-", 20, false, urlsafe},
	{SlackToken, "xoxa-", 20, false, urlsafe},
	{SlackToken, "xoxb-", 20, false, urlsafe},
	{SlackToken, "xoxe-", 20, false, urlsafe},
	{SlackToken, "xoxp-", 20, false, urlsafe},
	{SlackToken, "xoxr-", 20, false, urlsafe},
	{SlackToken, "xoxs-", 20, false, urlsafe},
	{StripeKey, "sk_live_", 20, false, alnum},
	{StripeKey, "rk_live_", 20, false, alnum},
	{GoogleKey, "AIza", 35, true, urlsafe},
	{AnthropicKey, "sk-ant-", 30, false, urlsafe},
	{OpenAIKey, "sk-proj-", 30, false, urlsafe},
	{OpenAIKey, "sk-svcacct-", 30, false, urlsafe},
	{OpenAIKey, "sk-", 40, false, alnum},
	{NPMToken, "npm_", 36, false, alnum},
	{PyPIToken, "pypi-", 50, false, urlsafe},
	{SendGridKey, "SG.", 60, false, urlsafe | dot},
	{TwilioKey, "SK", 32, true, hexadecimal},
	{PrivateKey, "AGE-SECRET-KEY-1", 50, false, upper | digit},
	{InviteLink, "ic://join/", 60, false, urlsafe},
}

// byFirst holds the forms by the first byte of their prefix.
var byFirst = func() (by [256][]form) {
	for _, f := range forms {
		by[f.prefix[0]] = append(by[f.prefix[0]], f)
	}
	return by
}()

// tokens finds the forms in a line. It looks no further than a form's least
// length, so that its time is linear however often a prefix repeats.
func tokens(line string, add func(Kind)) {
	for i := range len(line) {
		if len(byFirst[line[i]]) == 0 || i > 0 && (alnum|under).has(line[i-1]) {
			continue
		}
		for _, f := range byFirst[line[i]] {
			rest, ok := strings.CutPrefix(line[i:], f.prefix)
			if ok && f.fits(rest) {
				add(f.kind)
				break
			}
		}
	}
}

func (f form) fits(rest string) bool {
	if len(rest) < f.least || f.of.run(rest[:f.least]) < f.least {
		return false
	}
	if f.exact && len(rest) > f.least && (alnum | under).has(rest[f.least]) {
		return false
	}
	return plausible(rest[:f.least], f.least)
}

// runs finds the secrets that are known by their length alone: a broker's admin
// token, and where AWS is spoken of its secret keys.
func runs(line string, nearAWS bool, add func(Kind)) {
	for i := 0; i < len(line); i++ {
		n := base64Chars.run(line[i:])
		switch s := line[i : i+n]; {
		case n == 26 && adminToken(s):
			add(AdminToken)
		case n == 40 && nearAWS && mixed(s) && plausible(s, 40):
			add(AWSSecretKey)
		}
		i += n
	}
}

// adminToken reports whether s is what crypto/rand.Text draws.
func adminToken(s string) bool {
	return (upper|digit).run(s) == len(s) && !strings.ContainsAny(s, "0189") && strings.ContainsAny(s, "234567") && plausible(s, len(s))
}

// A phrase is a secret that is known by what stands around it. Its group, if
// there is one, has to look like a secret too. Everything in it is bounded.
type phrase struct {
	kind  Kind
	hint  string // what every match contains
	least int    // characters of the group
	re    *regexp.Regexp
}

var phrases = []phrase{
	{PrivateKey, "-----BEGIN ", 0, regexp.MustCompile(`-----BEGIN [A-Z0-9 ]{0,20}PRIVATE KEY(?: BLOCK)?-----`)},
	{PrivateKey, "PuTTY-User-Key-File-", 0, regexp.MustCompile(`PuTTY-User-Key-File-[0-9]: `)},
	{ServiceAccount, `"private_key"`, 20, regexp.MustCompile(`"private_key"\s*:\s*"([^"]{20,})`)},
	{AzureKey, "AccountKey=", 80, regexp.MustCompile(`AccountKey=([A-Za-z0-9+/]{80,})`)},
	{JWT, ".eyJ", 20, regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.([A-Za-z0-9_-]{20,})`)},
	{TelegramToken, ":AA", 33, regexp.MustCompile(`(?:\b|bot)[0-9]{8,10}:AA([A-Za-z0-9_-]{33})`)},
	{URLPassword, "://", 4, regexp.MustCompile(`\b[A-Za-z][A-Za-z0-9+.-]*://[^\s/@:"'<>]*:([^\s/@"'<>]{4,})@[A-Za-z0-9\[]`)},
	{InviteLink, "#eyJ", 60, regexp.MustCompile(`/i/[0-9a-f]{32}#(eyJ[A-Za-z0-9_-]{60,})`)},
	{MeshSeed, `eed"`, 64, regexp.MustCompile(`"(?:memberSeed|ownerSeed|seed)"\s*:\s*"([0-9a-f]{64})"`)},
}

var awsName = regexp.MustCompile(`(?i)aws.{0,12}secret|secret.?access.?key`)

// awsNamed reports whether a line holds an AWS access key or names its secret.
func awsNamed(line string) bool {
	return strings.Contains(line, "AKIA") || strings.Contains(line, "ASIA") || awsName.MatchString(line)
}
