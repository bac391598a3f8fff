// Package secrets finds what looks like a secret in text that is about to leave
// the machine: keys and tokens by their form, passwords in URLs, settings of .env
// files, and what opens a mesh. It says what and where, never the secret itself.
// It is pure, and its time is linear in the text.
package secrets

import (
	"fmt"
	"strings"
)

// Kind is what a secret looks like.
type Kind uint8

// The kinds.
const (
	PrivateKey Kind = iota + 1 // PEM, OpenPGP, PuTTY or age
	AWSKeyID
	AWSSecretKey
	GitHubToken
	GitLabToken
	SlackToken
	StripeKey
	GoogleKey
	AnthropicKey
	OpenAIKey
	NPMToken
	PyPIToken
	SendGridKey
	TwilioKey
	JWT
	TelegramToken
	AzureKey
	ServiceAccount // a cloud's service account in JSON
	URLPassword
	Setting // a line of a .env file
	InviteLink
	MeshSeed   // of config.json or a seat
	AdminToken // as a broker draws it
)

var kindNames = [...]string{
	PrivateKey: "a private key", AWSKeyID: "an AWS access key", AWSSecretKey: "an AWS secret key",
	GitHubToken: "a GitHub token", GitLabToken: "a GitLab token", SlackToken: "a Slack token",
	StripeKey: "a Stripe key", GoogleKey: "a Google API key", AnthropicKey: "an Anthropic key",
	OpenAIKey: "an OpenAI key", NPMToken: "an npm token", PyPIToken: "a PyPI token",
	SendGridKey: "a SendGrid key", TwilioKey: "a Twilio key", JWT: "a JSON web token",
	TelegramToken: "a Telegram bot token", AzureKey: "an Azure account key",
	ServiceAccount: "a service account's key", URLPassword: "a password in a URL",
	Setting: "a secret setting", InviteLink: "an invite link", MeshSeed: "a mesh's secret key",
	AdminToken: "a broker's admin token",
}

// String is the kind with its article: "an AWS access key".
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return "a secret"
}

// Finding says what was found and where.
type Finding struct {
	Kind Kind
	Line int // from 1
}

func (f Finding) String() string { return fmt.Sprintf("%s in line %d", f.Kind, f.Line) }

// maxFindings bounds what Find returns: who is told of so many needs no more.
const maxFindings = 50

// Find returns what looks like a secret, in the order of the lines, a kind once
// a line, and at most 50 of them.
func Find(text string) []Finding {
	var found []Finding
	lines := strings.Split(text, "\n")
	near := nearAWS(lines)
	for i, line := range lines {
		for _, k := range inLine(line, near[i]) {
			if found = append(found, Finding{k, i + 1}); len(found) == maxFindings {
				return found
			}
		}
	}
	return found
}

// inLine returns the kinds in one line, each once. nearAWS is whether an AWS
// access key or the name of its secret stands close by.
func inLine(line string, nearAWS bool) (kinds []Kind) {
	var seen [len(kindNames)]bool
	add := func(k Kind) {
		if !seen[k] {
			seen[k] = true
			kinds = append(kinds, k)
		}
	}
	tokens(line, add)
	runs(line, nearAWS, add)
	for _, p := range phrases {
		if p.hint != "" && !strings.Contains(line, p.hint) {
			continue
		}
		for _, m := range p.re.FindAllStringSubmatch(line, -1) {
			if len(m) == 1 || plausible(m[1], p.least) {
				add(p.kind)
				break
			}
		}
	}
	if setting(line) {
		add(Setting)
	}
	return kinds
}

// awsReach is how many lines an AWS secret key may stand from what names it.
const awsReach = 3

// nearAWS marks the lines where forty characters of base64 are an AWS secret key.
func nearAWS(lines []string) []bool {
	near := make([]bool, len(lines))
	marked := 0 // lines before it are decided
	for i, line := range lines {
		if !awsNamed(line) {
			continue
		}
		for j := max(i-awsReach, marked); j <= min(i+awsReach, len(lines)-1); j++ {
			near[j] = true
			marked = j + 1
		}
	}
	return near
}
