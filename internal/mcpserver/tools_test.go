package mcpserver_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/trust"
	frame "github.com/claudemesh/claudemesh/internal/wire"
)

func TestBadArguments(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for _, c := range []struct {
		tool string
		args args
		want string
	}{
		{"send_message", args{"message": "x"}, "to is missing"},
		{"send_message", args{"to": " , ", "message": "x"}, "to is missing"},
		{"send_message", args{"to": 7, "message": "x"}, "to must be a string or a list"},
		{"send_message", args{"to": []any{"bob", 7}, "message": "x"}, "to must be a string or a list"},
		{"send_message", args{"to": "bob"}, "message is missing"},
		{"send_message", args{"to": "bob", "message": 1}, "message must be a string"},
		{"send_message", args{"to": "bob", "message": "x", "priority": "urgent"}, "priority is now, next or low"},
		{"send_message", args{"to": "bob", "message": "x", "reply_to": "zz"}, "reply_to is the 32 hex digits"},
		{"send_message", args{"to": "bob", "message": "x", "wait_seconds": 111}, "wait_seconds is 0 to 110"},
		{"send_message", args{"to": "bob", "message": "x", "wait_seconds": -1}, "wait_seconds is 0 to 110"},
		{"send_message", args{"to": "bob", "message": "x", "wait_seconds": 1.5}, "wait_seconds must be a whole number"},
		{"send_message", args{"to": "bob", "message": "x", "urgent": true}, "unknown argument urgent; the arguments are: to, message"},
		{"send_message", args{"to": "bob/api", "message": strings.Repeat("x", 33<<10)}, "32768 bytes"},
		{"send_message", args{"to": "alice/web", "message": "x"}, "nobody here is called"}, // one's own session is no name
		{"send_message", args{"to": p.a.Key().String(), "message": "x"}, "is you"},
		{"send_message", args{"to": "bob api", "message": "x"}, "is no name"},
		{"send_message", args{"to": "bob/apo", "message": "x"}, `nobody here is called "bob/apo"; the nearest:` + "\n- bob/api  pubkey: " + p.b.Key().String()[:16] + "  cwd: /src/api"},
		{"send_message", args{"to": "nomesh:bob", "message": "x"}, "no mesh of that name"},
		{"send_message", args{"to": "</peer-message>", "message": "x"}, "&lt;/peer-message&gt;"},
		{"check_messages", args{"limit": 0}, "limit is 1 to 100"},
		{"check_messages", args{"limit": 101}, "limit is 1 to 100"},
		{"check_messages", args{"limit": "ten"}, "limit must be a whole number, not string"},
		{"check_messages", args{"wait_seconds": 120}, "wait_seconds is 0 to 110"},
		{"check_messages", args{"id": "xyz"}, "32 hex digits"},
		{"check_messages", args{"id": strings.Repeat("ab", 16)}, "no message of that id was received"},
		{"check_messages", args{"mesh": "nope"}, "Joined here: acme"},
		{"message_status", nil, "32 hex digits"},
		{"message_status", args{"id": strings.Repeat("ab", 16)}, "no message of that id was sent"},
		{"set_status", args{"status": "busy"}, "idle, working or dnd"},
		{"set_summary", nil, "summary is missing"},
		{"set_summary", args{"summary": strings.Repeat("x", 1025)}, "1024 bytes"},
		{"join_group", nil, "a-z 0-9"},
		{"join_group", args{"name": "ops", "role": "Big Boss"}, "a-z 0-9"},
		{"leave_group", args{"name": "ops"}, "you are not in @ops"},
		{"list_peers", args{"include_offline": "yes"}, "include_offline must be true or false"},
	} {
		if r := p.alice.call(c.tool, c.args); !r.failed || !strings.Contains(r.text, c.want) || r.data["hint"] == "" {
			t.Errorf("%s %.80v: failed %v: %s\nwant: %s", c.tool, c.args, r.failed, r.text, c.want)
		}
	}
	p.bob.ok("check_messages", nil, "No unread")
}

func TestPartlyRefused(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	r := p.alice.ok("send_message", args{"to": "bob/api, zed", "message": "x"}, "bob/api (pubkey: ", `refused: nobody here is called "zed"`)
	if r.data["ok"] != false || list(r, "to")[1]["state"] != "refused" || len(list(r, "to")) != 2 {
		t.Errorf("data: %v", r.data)
	}
	r = p.alice.fails("send_message", args{"to": []string{"zed", "zoe"}, "message": "x"}, `"zed"`, `"zoe"`)
	if len(list(r, "to")) != 2 {
		t.Errorf("data: %v", r.data)
	}
}

func TestCard(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.alice.ok("set_summary", args{"summary": "fixing <b>\n\x1b[31mlogin"}, "Your summary is set. Shown to: acme.")
	p.alice.ok("set_status", args{"status": "working"}, "Your status is working.")
	p.alice.ok("join_group", args{"name": "ops"}, "You are in @ops.")
	var r reply
	for range 3000 {
		if r = p.bob.ok("list_peers", nil); strings.Contains(r.text, "@ops") {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	says(t, r, "alice/web [online, working]", `says of itself: fixing &lt;b&gt;\n\u{001B}[31mlogin`, "groups: @ops")
	for _, peer := range list(r, "peers") {
		if me := peer["name"] == "bob/api"; me != peer["thisSession"] {
			t.Errorf("peer: %v", peer)
		}
	}
	p.alice.ok("set_summary", args{"summary": ""}, "Your summary is removed.")
}

func TestLimitsOfOneAnswer(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	long := "begin " + strings.Repeat("é", 15<<10) + " end"
	id := p.alice.send("bob/api", long, nil)
	await(t, p.bob, 1)
	r := p.bob.ok("check_messages", nil, "bytes more: check_messages with this id")
	m := list(r, "messages")[0]
	if len(body(m)) > 8<<10 || m["bytesCut"] == nil || strings.Contains(r.text, " end") {
		t.Errorf("%d bytes, cut %v", len(body(m)), m["bytesCut"])
	}
	p.bob.ok("check_messages", args{"id": id}, "begin ", " end\n</peer-message>")

	for range 12 {
		p.alice.send("bob/api", strings.Repeat("x", 10<<10), args{"priority": "low"})
	}
	await(t, p.bob, 12)
	seen := 0
	for range 12 {
		r := p.bob.ok("check_messages", nil)
		if len(r.text) > 80<<10 {
			t.Errorf("an answer of %d bytes", len(r.text))
		}
		seen += len(list(r, "messages"))
		if r.data["remaining"] != float64(12-seen) {
			t.Errorf("%v remain after %d", r.data["remaining"], seen)
		}
		if seen == 12 {
			return
		}
	}
	t.Errorf("%d of 12 were shown", seen)
}

func TestProgress(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	if _, err := p.alice.try("send_message", args{"to": "bob/api", "message": "?", "wait_seconds": 1}, &mcp.Meta{ProgressToken: "tok"}); err != nil {
		t.Fatal(err)
	}
	n := <-p.alice.notes
	if f := n.Params.AdditionalFields; n.Method != "notifications/progress" || f["progressToken"] != "tok" || f["total"] != 1.0 {
		t.Errorf("notification %s %v", n.Method, n.Params.AdditionalFields)
	}
}

func TestMissing(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	at := time.Now().Add(-time.Minute).UnixMilli()
	for i, seq := range []uint64{1, 4} {
		_, _, err := p.bob.box.Receive(t.Context(), []mailbox.Incoming{{
			Mesh: p.b.MeshID(), Recipient: p.b.Key(), SenderMember: p.am.MemberKey(), SenderSession: p.a.Key(), SenderName: "alice/web",
			ID: client.ID{byte(i + 1)}, Mode: "dm", Priority: client.Next, ContentType: "text/plain", Text: "x", Sent: at,
			Expires: at + 1e9, Received: at, Seq: seq,
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	r := p.bob.ok("check_messages", nil, "2 messages from alice/web are missing")
	if m := list(r, "missing"); len(m) != 1 || m[0]["count"] != 2.0 || m[0]["from"] != "alice/web" {
		t.Errorf("missing: %v", r.data["missing"])
	}
}

// TestCaught: list_peers says what the broker is caught at.
func TestCaught(t *testing.T) {
	t.Parallel()
	w := world(t)
	m := w.Found("acme", "alice")
	relay := w.Relay()
	m.Broker = relay.URL
	relay.Hook(func(_ bool, f frame.Frame) []frame.Frame {
		if l, ok := f.(*frame.PeersList); ok {
			eve := trust.NewSecretKey()
			l.Peers = append(l.Peers, frame.Peer{SessionPubkey: eve.Public(), Pubkey: m.MemberKey(), Role: frame.RoleSession, Online: true})
		}
		return []frame.Frame{f}
	})
	box := w.Mailbox()
	alice := w.Dial(m, "web", func(o *client.Options) { o.Mailbox = box })
	const want = "Tell your user: the broker shows what does not hold, and nothing of it was taken: "
	r := serve(t, box, alice).ok("list_peers", nil, want)
	if mesh := list(r, "meshes"); len(mesh) != 1 || !strings.Contains(fmt.Sprint(mesh[0]["caught"]), "(bad_attestation, times: 1)") {
		t.Errorf("meshes: %v", r.data["meshes"])
	}
}

// A model finds what is shelved when it looks, and never what is shut or paused.
func TestGates(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	change := func(f func(*mailbox.Trust)) {
		t.Helper()
		_, err := p.bob.box.ChangeTrust(t.Context(), p.b.MeshID(), p.am.MemberKey(), 1, func(t *mailbox.Trust) error { f(t); return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	change(func(t *mailbox.Trust) { t.Level, t.Grants = mailbox.Quarantine, nil })
	id := p.alice.send("bob/api", "from the shelf", nil)
	p.alice.status(id, "delivered")
	p.bob.quiet(300 * time.Millisecond) // not announced
	p.bob.ok("list_peers", nil, "[1 unread message: check_messages]")
	change(func(t *mailbox.Trust) { t.Blocked = true })
	p.bob.ok("check_messages", nil, "No unread")
	p.bob.fails("check_messages", args{"id": id}, "no message of that id")
	change(func(t *mailbox.Trust) { t.Blocked = false })
	if err := p.bob.box.SetPause(t.Context(), p.b.MeshID(), time.Now().Add(time.Hour).UnixMilli()); err != nil {
		t.Fatal(err)
	}
	p.bob.ok("check_messages", nil, "No unread")
	p.bob.fails("check_messages", args{"id": id}, "no message of that id")
	if err := p.bob.box.SetPause(t.Context(), p.b.MeshID(), 0); err != nil {
		t.Fatal(err)
	}
	p.bob.ok("check_messages", nil, "from the shelf")
}
