package broker_test

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// http sends one request and returns status, body and header.
func (w *world) http(method, path, body string, header http.Header) (int, string, http.Header) {
	w.t.Helper()
	base := strings.TrimSuffix(strings.Replace(w.URL, "ws://", "http://", 1), "/ws")
	req, err := http.NewRequest(method, base+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(raw), resp.Header
}

// code reads the code of an error answer.
func code(body string) wire.Code {
	var e wire.Error
	if wire.Unmarshal([]byte(body), &e) != nil || e.ReqID == "" || e.Message == "" {
		return ""
	}
	return e.Code
}

func foundBody(owner trust.SecretKey, name string) string {
	b, _ := wire.Marshal(wire.FoundRequest{
		Genesis: trust.SignGenesis(owner, name, 1), Founder: trust.SignFounder(owner, trust.NewSecretKey().Public(), "alice", 1),
	})
	return string(b)
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *broker.Config) {
		c.Limits.FailuresPerMinute = 1000
		c.PublicURL = "https://mesh.example.com"
	})
	a := w.founder.session()
	hour := w.Now().Add(time.Hour)
	in, closed, brief := w.capability(w.owner, trust.RoleMember, 1, hour), w.capability(w.owner, trust.RoleMember, 1, hour), w.capability(w.owner, trust.RoleMember, 1, w.Now().Add(time.Minute))
	many := w.capability(w.owner, trust.RoleMember, 9, hour)
	for _, i := range []invite{in, closed, brief, many} {
		ask[*wire.OK](a, i.put(1))
	}
	ask[*wire.OK](a, w.closeOf(w.owner, closed))
	path := func(i invite) string { return "/v2/invites/" + i.id.String() }
	if status, body, h := w.http("GET", path(in), "", nil); status != 200 || h.Get("Cache-Control") != "no-store" || strings.Contains(body, "blob") {
		t.Fatalf("invite: %d %s", status, body)
	}
	bob := w.newUser(in, "bob")
	for range 2 { // joining twice is joining once
		if status, body := w.postJoin(bob.cert); status != 200 {
			t.Fatalf("join: %d %s", status, body)
		}
	}
	if l := ask[*wire.MembersList](a, &wire.Members{}); len(l.Certificates) != 2 {
		t.Fatalf("%d members", len(l.Certificates))
	}
	w.Advance(2 * time.Minute)
	join := func(c wire.Certificate) string {
		b, _ := wire.Marshal(wire.JoinRequest{Certificate: c})
		return string(b)
	}
	spoil := func(i int) string {
		c := append(wire.Certificate{}, w.newUser(many, "eve").cert...)
		c[i].Sig[3] ^= 1
		return join(c)
	}
	conflict := trust.SignJoin(many.secret.InviteKey(), bob.key, many.capability, "bob2", 1)
	unknownMesh := func() string {
		owner, s := trust.NewSecretKey(), trust.NewSecret()
		k := s.InviteKey().Public()
		c := trust.SignCapability(owner, trust.Capability{Mesh: trust.MeshID(owner.Public()), Invite: trust.InviteID(k), Key: k, Role: "member", Expires: hour.UnixMilli(), MaxUses: 1, Broker: w.m.BrokerKey})
		return join(trust.SignJoin(s.InviteKey(), trust.NewSecretKey(), c, "eve", 1))
	}
	forgery := foundBody(w.owner, "acme")
	big := `{"x":"` + strings.Repeat("x", wire.MaxHTTPBytes) + `"}`
	fresh := trust.NewSecretKey()
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		code                     wire.Code
	}{
		{"health", "GET", "/health", "", 200, ""},
		{"ready", "GET", "/health/ready", "", 200, ""},
		{"root", "GET", "/", "", 404, ""},
		{"unknown path", "GET", "/v1/meshes", "", 404, ""},
		{"below a path", "GET", "/health/ready/x", "", 404, ""},
		{"wrong method, found", "GET", "/v2/meshes", "", 404, ""},
		{"wrong method, join", "PUT", "/v2/join", "", 404, ""},
		{"wrong method, health", "POST", "/health", "", 404, ""},
		{"wrong method, ws", "POST", "/ws", "", 404, ""},
		{"ws without upgrade", "GET", "/ws", "", 426, ""},
		{"invite page of nothing", "GET", "/i/xyz", "", 404, ""},
		{"pprof", "GET", "/debug/pprof/", "", 404, ""},

		{"found", "POST", "/v2/meshes", foundBody(fresh, "other"), 200, ""},
		{"found a taken id", "POST", "/v2/meshes", forgery, 409, wire.CodeMeshExists},
		{"found, no JSON", "POST", "/v2/meshes", "{", 400, wire.CodeBadFrame},
		{"found, duplicate key", "POST", "/v2/meshes", `{"genesis":null,"genesis":null}`, 400, wire.CodeBadFrame},
		{"found, bad name", "POST", "/v2/meshes", foundBody(trust.NewSecretKey(), "No Name"), 400, wire.CodeBadCertificate},
		{"found, oversize", "POST", "/v2/meshes", big, 413, wire.CodeTooLarge},

		{"invite unknown", "GET", "/v2/invites/" + strings.Repeat("0", 32), "", 404, wire.CodeInviteUnknown},
		{"invite no id", "GET", "/v2/invites/xyz", "", 404, wire.CodeInviteUnknown},
		{"invite used", "GET", path(in), "", 410, wire.CodeInviteUsedUp},
		{"invite closed", "GET", path(closed), "", 410, wire.CodeInviteClosed},
		{"invite expired", "GET", path(brief), "", 410, wire.CodeInviteExpired},
		{"invite open", "GET", path(many), "", 200, ""},

		{"join used", "POST", "/v2/join", join(w.newUser(in, "eve").cert), 410, wire.CodeInviteUsedUp},
		{"join closed", "POST", "/v2/join", join(w.newUser(closed, "eve").cert), 410, wire.CodeInviteClosed},
		{"join expired", "POST", "/v2/join", join(w.newUser(brief, "eve").cert), 410, wire.CodeInviteExpired},
		{"join, invite not stored", "POST", "/v2/join", join(w.newUser(w.capability(w.owner, trust.RoleMember, 1, hour), "eve").cert), 404, wire.CodeInviteUnknown},
		{"join, unknown mesh", "POST", "/v2/join", unknownMesh(), 404, wire.CodeUnknownMesh},
		{"join, name taken", "POST", "/v2/join", join(w.newUser(many, "bob").cert), 409, wire.CodeNameTaken},
		{"join, key taken", "POST", "/v2/join", join(conflict), 409, wire.CodeMemberConflict},
		{"join, capability forged", "POST", "/v2/join", spoil(0), 400, wire.CodeBadSignature},
		{"join, join forged", "POST", "/v2/join", spoil(1), 400, wire.CodeBadSignature},
		{"join, possession forged", "POST", "/v2/join", spoil(2), 400, wire.CodeBadSignature},
		{"join as founder", "POST", "/v2/join", join(w.m.Certificate), 400, wire.CodeBadCertificate},
		{"join, no JSON", "POST", "/v2/join", "[]", 400, wire.CodeBadFrame},
		{"join, oversize", "POST", "/v2/join", big, 413, wire.CodeTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body, _ := w.http(c.method, c.path, c.body, nil)
			if status != c.status || code(body) != c.code {
				t.Errorf("%d %s", status, body)
			}
		})
	}
	if n := len(ask[*wire.MembersList](a, &wire.Members{}).Certificates); n != 2 {
		t.Errorf("%d members after that", n)
	}
	status, page, h := w.http("GET", "/i/"+many.id.String(), "", nil)
	if status != 200 || h.Get("Content-Security-Policy") != "default-src 'none'" || h.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("page: %d %v", status, h)
	}
	for _, bad := range []string{"<script", "http://", "src=", "href=", "ic://join/ey"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if !strings.Contains(page, many.id.String()) || !strings.Contains(page, "mesh.example.com") {
		t.Errorf("page: %s", page)
	}
}

func TestFoundToken(t *testing.T) {
	t.Parallel()
	open := newWorld(t, nil)
	if status, body, _ := open.http("POST", "/v2/meshes", foundBody(trust.NewSecretKey(), "m"), nil); status != 200 {
		t.Errorf("open: %d %s", status, body)
	}
	open.down = true
	open.Stop()
	open.Config.Open, open.Config.AdminToken, open.Config.Limits.FailuresPerMinute = false, "s3cret", 4
	open.Start()
	http.DefaultClient.CloseIdleConnections() // they are the old broker's, on the same port
	bearer := func(s string) http.Header { return http.Header{"Authorization": {s}} }
	for _, c := range []struct {
		header http.Header
		status int
	}{{nil, 401}, {bearer("Bearer wrong"), 401}, {bearer("Bearer "), 401}, {bearer("Bearer s3cret"), 200}, {bearer("Basic s3cret"), 401}, {bearer("Bearer s3cret"), 429}} {
		if status, body, _ := open.http("POST", "/v2/meshes", foundBody(trust.NewSecretKey(), "m"), c.header); status != c.status {
			t.Errorf("%v: %d %s", c.header, status, body)
		}
	}
}

// Ten failures a minute and address, then 429; other addresses go on.
func TestFailureLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *broker.Config) { c.ClientIPHeader = "X-Forwarded-For" })
	from := func(ip string) http.Header { return http.Header{"X-Forwarded-For": {ip}} }
	look := func(ip string) (int, http.Header) {
		status, _, h := w.http("GET", fmt.Sprintf("/v2/invites/%032x", 1), "", from(ip))
		return status, h
	}
	for i := range 10 {
		if status, _ := look("203.0.113.7"); status != 404 {
			t.Fatalf("failure %d: %d", i, status)
		}
	}
	status, h := look("203.0.113.7")
	after, err := strconv.Atoi(h.Get("Retry-After"))
	if status != 429 || err != nil || after < 1 || after > 7 {
		t.Errorf("the eleventh: %d, Retry-After %q", status, h.Get("Retry-After"))
	}
	for ip, want := range map[string]int{"203.0.113.8": 404, "198.51.100.1, 203.0.113.7": 429, "203.0.113.7, 198.51.100.1": 404} {
		if status, _ := look(ip); status != want {
			t.Errorf("%s: %d", ip, status)
		}
	}
	for range 10 {
		look("2001:db8::1")
	}
	for ip, want := range map[string]int{"2001:db8::ffff": 429, "2001:db8:0:1::1": 404} { // a /64 counts as one
		if status, _ := look(ip); status != want {
			t.Errorf("%s: %d", ip, status)
		}
	}
	if status, body, _ := w.http("POST", "/v2/join", "{}", from("203.0.113.7")); status != 429 || code(body) != wire.CodeRateLimited {
		t.Errorf("join: %d %s", status, body)
	}
	w.Advance(time.Duration(after) * time.Second)
	if status, _ := look("203.0.113.7"); status != 404 {
		t.Errorf("later: %d", status)
	}
}

func TestHealthAndMetrics(t *testing.T) {
	t.Parallel()
	var disk atomic.Int64
	w := newWorld(t, func(c *broker.Config) { c.DiskUsage = func() (int, error) { return int(disk.Load()), nil } })
	a, b := w.founder.session(), w.founder.session()
	ask[*wire.Ack](a, a.dm(b.pub()))
	b.ackPush(want[*wire.Push](b))
	want[*wire.Receipt](a)
	a.refused(a.dm(trust.NewSecretKey().Public()), wire.CodeUnknownRecipient)
	_, body, _ := w.http("GET", "/metrics", "", nil)
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "claudemesh_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	for _, line := range []string{
		"claudemesh_messages_accepted_total 1", "claudemesh_deliveries_delivered_total 1", `claudemesh_connections{role="session"} 2`,
		`claudemesh_requests_refused_total{code="unknown_recipient"} 1`, "claudemesh_queue_deliveries 0", "claudemesh_meshes 1",
	} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
	disk.Store(95)
	w.tick()
	if status, body, _ := w.http("GET", "/health/ready", "", nil); status != 503 || !strings.Contains(body, "storage_full") {
		t.Errorf("full: %d %s", status, body)
	}
	if status, _, _ := w.http("GET", "/health", "", nil); status != 200 {
		t.Errorf("alive: %d", status)
	}
	disk.Store(10)
	w.tick()
	if status, _, _ := w.http("GET", "/health/ready", "", nil); status != 200 {
		t.Errorf("room again: %d", status)
	}
}
