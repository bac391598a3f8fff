package secrets_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/internal/secrets"
)

const (
	hexDigits = "0123456789abcdef"
	base32    = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	alnum     = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	urlsafe   = alnum + "-_"
)

// draw returns n characters of a set, always the same: the secrets here are put
// together when the tests run, so that no scanner of repositories takes them for real.
func draw(n int, of string) string {
	r := rand.New(rand.NewPCG(7, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = of[r.IntN(len(of))]
	}
	return string(b)
}

var (
	begin = strings.Repeat("-", 5) + "BEGIN "
	end   = " KEY" + strings.Repeat("-", 5)
	jwt   = "ey" + "JhbGciOiJIUzI1NiJ9" + ".ey" + "JzdWIiOiIxMjM0NTY3ODkwIn0." + draw(43, urlsafe)
)

var positives = []struct {
	text string
	want secrets.Kind
}{
	{begin + "PRIVATE" + end, secrets.PrivateKey},
	{begin + "RSA PRIVATE" + end, secrets.PrivateKey},
	{begin + "EC PRIVATE" + end, secrets.PrivateKey},
	{begin + "DSA PRIVATE" + end, secrets.PrivateKey},
	{begin + "ENCRYPTED PRIVATE" + end, secrets.PrivateKey},
	{"> " + begin + "OPENSSH PRIVATE" + end, secrets.PrivateKey},
	{begin + "PGP PRIVATE KEY BLOCK" + strings.Repeat("-", 5), secrets.PrivateKey},
	{"PuTTY-User-Key-File-" + "3: ssh-ed25519", secrets.PrivateKey},
	{"AGE-SECRET-" + "KEY-1" + draw(58, base32), secrets.PrivateKey},
	{"AK" + "IA" + draw(16, base32), secrets.AWSKeyID},
	{"key id: AS" + "IA" + draw(16, base32) + ".", secrets.AWSKeyID},
	{"aws_secret_access_key = " + draw(40, alnum+"+/"), secrets.AWSSecretKey},
	{"AWS secret: " + draw(40, alnum), secrets.AWSSecretKey},
	{"remote uses gh" + "p_" + draw(36, alnum), secrets.GitHubToken},
	{"gh" + "o_" + draw(36, alnum), secrets.GitHubToken},
	{"gh" + "s_" + draw(36, alnum) + ", it says", secrets.GitHubToken},
	{`"gh` + "u_" + draw(36, alnum) + `"`, secrets.GitHubToken},
	{"gh" + "r_" + draw(36, alnum), secrets.GitHubToken},
	{"github" + "_pat_" + draw(22, alnum) + "_" + draw(59, alnum), secrets.GitHubToken},
	{"gl" + "pat-" + draw(20, urlsafe), secrets.GitLabToken},
	{"xo" + "xb-123456789012-" + draw(24, alnum), secrets.SlackToken},
	{"xo" + "xp-123456789012-" + draw(24, alnum), secrets.SlackToken},
	{"xo" + "xa-2-" + draw(30, alnum), secrets.SlackToken},
	{"xo" + "xe-1-" + draw(30, alnum), secrets.SlackToken},
	{"xo" + "xr-" + draw(30, alnum), secrets.SlackToken},
	{"xo" + "xs-" + draw(30, alnum), secrets.SlackToken},
	{"sk" + "_live_" + draw(24, alnum), secrets.StripeKey},
	{"rk" + "_live_" + draw(24, alnum), secrets.StripeKey},
	{"https://maps.example.com/?key=AI" + "za" + draw(35, urlsafe) + "&q=1", secrets.GoogleKey},
	{"sk-" + "ant-api03-" + draw(93, urlsafe), secrets.AnthropicKey},
	{"sk-" + draw(48, alnum), secrets.OpenAIKey},
	{"sk-" + "proj-" + draw(64, urlsafe), secrets.OpenAIKey},
	{"sk-" + "svcacct-" + draw(64, urlsafe), secrets.OpenAIKey},
	{"//packages.example/:_authToken=np" + "m_" + draw(36, alnum), secrets.NPMToken},
	{"py" + "pi-AgEIcHlwaS5vcmc" + draw(60, urlsafe), secrets.PyPIToken},
	{"SG" + "." + draw(22, urlsafe) + "." + draw(43, urlsafe), secrets.SendGridKey},
	{"SK" + draw(32, hexDigits), secrets.TwilioKey},
	{jwt, secrets.JWT},
	{"Authorization: Bearer " + jwt, secrets.JWT},
	{"123456789" + ":A" + "A" + draw(33, urlsafe), secrets.TelegramToken},
	{"https://api.telegram.org/bot123456789" + ":A" + "A" + draw(33, urlsafe) + "/getMe", secrets.TelegramToken},
	{"DefaultEndpointsProtocol=https;Account" + "Key=" + draw(86, alnum) + "==;", secrets.AzureKey},
	{`  "private` + `_key": "` + draw(40, alnum) + `",`, secrets.ServiceAccount},
	{"postgres://mesh:" + "s3cr3tQx" + "@db.internal:5432/mesh", secrets.URLPassword},
	{"redis://:" + draw(20, alnum) + "@10.0.0.7", secrets.URLPassword},
	{"git clone https://bob:" + draw(12, alnum) + "@git.internal/x.git", secrets.URLPassword},
	{"amqp://guest:" + "gu3stgu3stQ" + "@[::1]:5672", secrets.URLPassword},
	{"DB_PASSWORD" + "=correct-horse-battery", secrets.Setting},
	{"export MY_API" + "_KEY=" + draw(24, alnum), secrets.Setting},
	{"+SESSION_SEC" + `RET="` + draw(32, hexDigits) + `"`, secrets.Setting},
	{"  STRIPE_ACCESS" + "_KEY: '" + draw(20, alnum) + "'", secrets.Setting},
	{"docker run -e AUTH_TO" + "KEN=" + draw(24, urlsafe) + " image", secrets.Setting},
	{"db.pass" + "word=" + draw(16, alnum), secrets.Setting},
	{"SIGNING_PRIVATE" + "_KEY=" + draw(44, alnum) + "\r", secrets.Setting},
	{"join ic:" + "//join/ey" + draw(200, urlsafe), secrets.InviteLink},
	{"https://mesh.example.com/i/" + draw(32, hexDigits) + "#ey" + "J" + draw(200, urlsafe), secrets.InviteLink},
	{`"member` + `Seed": "` + draw(64, hexDigits) + `",`, secrets.MeshSeed},
	{`{"owner` + `Seed":"` + draw(64, hexDigits) + `"}`, secrets.MeshSeed},
	{"the broker said " + draw(26, base32), secrets.AdminToken},
}

func TestFinds(t *testing.T) {
	t.Parallel()
	for _, c := range positives {
		for before, text := range []string{c.text, "one\n\n" + c.text + "\nfour", "x\r\n" + c.text + "\r\n"} {
			line := []int{1, 3, 2}[before]
			found := false
			for _, f := range secrets.Find(text) {
				found = found || f == secrets.Finding{Kind: c.want, Line: line}
				if f.Line != line {
					t.Errorf("%q: %v", text, f)
				}
			}
			if !found {
				t.Errorf("%q: %v, not %v in line %d", text, secrets.Find(text), c.want, line)
			}
		}
	}
}

var negatives = []string{
	// Code.
	`package main`,
	`func token(ctx context.Context) (string, error) { return os.Getenv("API_TOKEN"), nil }`,
	`token := rand.Text()`,
	`password = request.form.password1`,
	`self.api_key = settings.OPENAI_API_KEY`,
	`const API_TOKEN_HEADER = "X-Api-Token-2024"`,
	`var tokenKey = "claudemesh-token-version-2"`,
	`if cfg.AdminToken != "" && id.TokenHash != fresh.TokenHash {`,
	`CODE_UNAUTHORIZED: {exitRefused, "give the broker's admin token"}`,
	`MAX_TOKENS=128000`,
	`TOKEN_TYPE=application/json+v2token`,
	`PASSWORD_FILE=/run/secrets/db_password_1`,
	`SECRET_PATH: /run/secrets/app7/token9`,
	`API_KEY=$(cat ~/.config/key1)`,
	`API_KEY=${API_KEY_1_FROM_VAULT}`,
	`GITHUB_TOKEN: ${{ secrets.GITHUB_TOKEN }}`,
	`DB_PASSWORD=$DB_PASSWORD_FROM_ENV1`,
	`SECRET_ARN=arn:aws:secretsmanager:eu-west-1:123456789012:secret:db-a1b2c3`,
	`ACCESS_TOKEN_URL=https://login.internal/oauth2/token`,
	`TOKEN_ENDPOINT = https://login.internal/oauth2/v2.0/token`,
	`API_KEY=process.env.API_KEY_2`,
	`ACCESS_TOKEN=os.environ["ACCESS_TOKEN_2"]`,
	`NEXT_PUBLIC_API_KEY=` + draw(24, alnum),
	`sk_test_` + draw(24, alnum),
	`task-` + draw(48, alnum),
	`x = sk-learn-style-names-of-packages-and-such`,
	`switch kind { case SECRET_KIND_A, SECRET_KIND_B: return 12345678 }`,
	`#define SECRET_TOKEN_LENGTH 32`,
	`import { createToken } from "./token-factory-1234.js"`,
	`assert token == "abc"`,
	// Placeholders.
	`PASSWORD=changeme`,
	`API_KEY=your-api-key-here-123`,
	`API_KEY=<your key 1234567890>`,
	`API_TOKEN=xxxxxxxxxxxxxxxx1234`,
	`SECRET_KEY=` + strings.Repeat("0", 32),
	`DB_PASSWORD=********`,
	`DB_PASSWORD=password`,
	`DB_PASSWORD=`,
	`AKIAIOSFODNN7` + `EXAMPLE`,
	`ghp_` + strings.Repeat("x", 36),
	`ghp_` + strings.Repeat("a", 40),
	`sk-ant-...`,
	`sk-ant-api03-your-key-goes-here-and-nowhere-else`,
	`postgres://user:password@localhost/db`,
	`https://user:pass@example.com/`,
	`postgres://mesh:${PG_PASSWORD}@db/mesh`,
	`postgres://mesh:<password>@db/mesh`,
	`claudemesh join ic://join/eyJ2Ijoy... --as bob`,
	`"memberSeed": "` + strings.Repeat("01", 32) + `"`,
	`"private_key": "..."`,
	`"private_key_id": "` + draw(40, hexDigits) + `"`,
	// Hashes, ids, data.
	`d4ab6f3 broker: a node that stops does not take its ending lease for a lost one`,
	`commit ` + draw(40, hexDigits),
	`index 83db48f..bf269f4 100644`,
	`sha256:` + draw(64, hexDigits),
	draw(64, hexDigits) + `  dist/claudemesh-linux-amd64`,
	`550e8400-e29b-41d4-a716-446655440000`,
	`"mesh_id": "` + draw(32, hexDigits) + `"`,
	`"owner": "` + draw(64, hexDigits) + `"`,
	`rsc.io/qr v0.2.0 h1:6vBLea5/NRMVTz8V66gipeLycZMl/+UlFmk8DvqQ6WY=`,
	`"integrity": "sha512-` + draw(86, alnum+"+/") + `=="`,
	`<img src="data:image/png;base64,` + draw(2000, alnum+"+/") + `">`,
	draw(76, alnum+"+/"),
	`ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI` + draw(43, alnum) + ` bob@laptop`,
	begin + `PUBLIC` + end,
	begin + `CERTIFICATE` + strings.Repeat("-", 5),
	`01ARZ3NDEKTSV4RRFFQ69G5FAV`, // a ULID
	`ABCDEFGHIJKLMNOPQRSTUVWXYZ`,
	`https://db.internal:5432/mesh?user=x@y`,
	`http://[::1]:8080/a@b`,
	`ssh://git@github.com:22/x.git`,
	`mailto:bob@example.com, 10:30@office`,
	`12:34:56.789 INFO 123456789:AABB`,
	`https://mesh.example.com/i/` + draw(32, hexDigits),
	// Talk.
	`Where does the admin token come from? The first start prints it; token reset draws another.`,
	`A private key never leaves the machine: PEM files begin with BEGIN PRIVATE KEY.`,
	`Set API_KEY in your environment, then TOKEN: it is read once.`,
	`Passwords: at least 12 characters; see docs/security.md#passwords`,
	`PASSWORD: required`,
	`GitHub tokens start with ghp_, GitLab's with glpat-, Slack's with xoxb-.`,
	`An eyJ at the start betrays a JSON web token: eyJhbGciOi.`,
	`The AWS secret access key has 40 characters, and the id starts with AKIA.`,
	`AWS secret rotated in commit ` + draw(40, hexDigits),
	`- TOKEN_TTL: 15 minutes; SECRET_VERSION: 2024-10-01T00:00:00Z`,
	"@@ -1,7 +1,7 @@ func readToken(path string) (string, error) {\n-\traw, err := read(path)\n+\traw, err := readSome(path, 4096)",
	"", "\n\n\n", "\x00\xff\xfe",
}

func TestPasses(t *testing.T) {
	t.Parallel()
	for _, text := range negatives {
		if got := secrets.Find(text); got != nil {
			t.Errorf("%q: %v", text, got)
		}
	}
	if len(positives) < 40 || len(negatives) < 60 {
		t.Errorf("%d positives, %d negatives", len(positives), len(negatives))
	}
}

// TestNear: forty characters are an AWS secret key only near what says so.
func TestNear(t *testing.T) {
	t.Parallel()
	key, id := draw(40, alnum), "AK"+"IA"+draw(16, base32)
	for text, want := range map[string]int{
		key:                               0,
		id + "\n" + key:                   2,
		key + "\n\n\n" + id:               2,
		id + "\n\n\n\n" + key:             1,
		id + "\n\n\n\n" + key + "\n" + id: 3,
	} {
		if got := secrets.Find(text); len(got) != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestFindingSaysNoSecret(t *testing.T) {
	t.Parallel()
	token := "gh" + "p_" + draw(36, alnum)
	got := secrets.Find("a\nb\n" + token + " " + token)
	if len(got) != 1 || got[0].String() != "a GitHub token in line 3" {
		t.Errorf("%v", got)
	}
	if s := secrets.Kind(200).String(); s != "a secret" {
		t.Errorf("%q", s)
	}
	if got := secrets.Find(strings.Repeat(token+"\n", 200)); len(got) != 50 {
		t.Errorf("%d findings", len(got))
	}
}

func FuzzFind(f *testing.F) {
	for _, c := range positives {
		f.Add(c.text)
	}
	for _, text := range negatives {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		found := secrets.Find(text)
		if len(found) > 50 {
			t.Fatalf("%d findings", len(found))
		}
		line := 1
		for _, g := range found {
			if g.Line < line || g.Line > strings.Count(text, "\n")+1 || strings.HasPrefix(g.String(), "a secret ") && g.Kind != secrets.Setting {
				t.Fatalf("%v after line %d", g, line)
			}
			line = g.Line
		}
	})
}
