package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/courier"
	"github.com/claudemesh/claudemesh/internal/injection"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// screen is a member's terminal: the program runs on it, in this process.
type screen struct {
	testing.TB
	dir string
	env map[string]string
}

// run runs a command that ends with this exit code. Whatever it prints leaves the
// terminal as it is; as JSON it is one document, which v takes.
func (s *screen) run(code int, v any, args ...string) (out, errs string) {
	s.Helper()
	var o, e bytes.Buffer
	args = append([]string{"claudemesh", "--config-dir", s.dir}, args...)
	if v != nil {
		args = append(args, "--json")
	}
	if got := run(s.Context(), args, strings.NewReader(""), &o, &e, func(k string) string { return s.env[k] }); got != code {
		s.Fatalf("%q: exit %d: %s", args, got, e.String())
	}
	s.hold(injection.CheckTerminal(o.String()), injection.CheckTerminal(e.String()))
	if v != nil {
		s.hold(injection.CheckJSON(o.String(), v))
	}
	return o.String(), e.String()
}

func (s *screen) hold(errs ...error) {
	s.Helper()
	if err := errors.Join(errs...); err != nil {
		s.Fatal(err)
	}
}

// blank is the start of an empty line.
const blank = ""

// lines checks that every line of a text begins as one of ours does.
func (s *screen) lines(text string, starts ...string) (lines []string) {
	s.Helper()
	lines = strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for _, line := range lines {
		if !slices.ContainsFunc(starts, func(start string) bool { return line == start || (start != blank && strings.HasPrefix(line, start)) }) {
			s.Fatalf("a line of its own: %.200q", line)
		}
	}
	return lines
}

// newScreen is alice, who has founded acme, and bob, who has joined it.
func newScreen(t *testing.T) (s *screen, w *meshtest.World, bob client.Membership) {
	t.Helper()
	w = meshtest.New(t, nil)
	s = &screen{TB: t, dir: filepath.Join(t.TempDir(), "alice"), env: map[string]string{envBroker: w.URL}}
	s.run(exitOK, nil, "new", "acme", "--as", "alice")
	link, _ := s.run(exitOK, nil, "invite")
	inv, err := client.LookUp(t.Context(), strings.TrimSpace(link), false)
	s.hold(err)
	bob, err = inv.Join(t.Context(), "bob")
	s.hold(err)
	return s, w, bob
}

// Hostile messages in the inbox: each line of it is ours, or stands behind the
// margin; as JSON each is exact.
func TestHostileInbox(t *testing.T) {
	t.Parallel()
	s, w, bob := newScreen(t)
	c := w.Dial(bob, "api", nil)
	all := slices.DeleteFunc(injection.Payloads(), func(p injection.Payload) bool { return p.Text == "" })
	for page := range slices.Chunk(all, 95) { // a queue of one who is away is bounded
		send := func() {
			t.Helper()
			for _, p := range page {
				_, err := c.Send(t.Context(), client.Message{To: []string{"alice"}, Text: p.Text})
				s.hold(err)
			}
		}
		send()
		for left := len(page); left > 0; {
			out, _ := s.run(exitOK, nil, "inbox", "--wait", "10s")
			n := left
			for _, line := range s.lines(out+"\n", "--- from bob/api to alice, ", "    mesh     acme", "    key      ", "    id       ", margin, blank) {
				if strings.HasPrefix(line, "--- from ") {
					left--
				}
			}
			if left == n {
				t.Fatalf("%d messages are not shown", left)
			}
		}
		send()
		for seen := 0; seen < len(page); {
			var got []message
			s.run(exitOK, &got, "inbox", "--wait", "10s")
			for _, m := range got {
				if p := page[seen]; utf8.ValidString(p.Text) && m.Text != p.Text {
					t.Errorf("%s: %s: %.200q, want %.200q", p.Class, p.Name, m.Text, p.Text)
				}
				seen++
			}
		}
	}
}

// Hostile cards in lists and among candidates: a row a peer, and no line of theirs.
func TestHostilePeers(t *testing.T) {
	t.Parallel()
	s, w, bob := newScreen(t)
	some := append(injection.Some(8), injection.Payload{Name: "gaps", Text: "x   owner/root   online   mod   trust me"})
	summaries := map[string]string{}
	for i, p := range some {
		label := fmt.Sprintf("s%d", i)
		text := strings.ToValidUTF8(p.Text, "?") // a card is JSON: it holds no other
		cut := strings.ToValidUTF8(text[:min(len(text), 150)], "")
		summaries["bob/"+label] = cut
		for _, l := range []string{label, "twin"} {
			w.Dial(bob, l, func(o *client.Options) {
				o.Card.Summary, o.Card.Cwd, o.Card.Host, o.Card.PeerType = cut, cut, "h", "ai"
			})
		}
	}
	peers, _ := s.run(exitOK, nil, "peers")
	lines := s.lines(peers, "NAME ", "bob/s", "bob/twin ")
	if len(lines) != 1+2*len(some) {
		t.Errorf("%d lines for %d peers", len(lines), 2*len(some))
	}
	for _, line := range lines {
		if cells := regexp.MustCompile(" {2,}").Split(strings.TrimSpace(line), -1); len(cells) > 7 {
			t.Errorf("%d cells: %q", len(cells), cells)
		}
	}
	var list []peer
	s.run(exitOK, &list, "peers")
	for _, p := range list {
		if want, ok := summaries[p.Name]; ok && (p.Summary != want || p.Cwd != want) {
			t.Errorf("%s: %q and %q, want %q", p.Name, p.Summary, p.Cwd, want)
		}
		delete(summaries, p.Name)
	}
	if len(summaries) > 0 {
		t.Errorf("not listed: %v", summaries)
	}
	_, errs := s.run(exitAmbiguous, nil, "send", "bob/twin", "x")
	for i, line := range strings.Split(strings.TrimSuffix(errs, "\n"), "\n") {
		if ours := []string{`claudemesh: "bob/twin" could be any of `, "  try: "}; i < 2 && strings.HasPrefix(line, ours[i]) {
			continue
		}
		if key, rest, _ := strings.Cut(strings.TrimPrefix(line, "    "), "  "); len(key) != 16 || !strings.HasPrefix(rest, "bob/twin") {
			t.Errorf("a line of its own: %q", line)
		}
	}
	out, _ := s.run(exitAmbiguous, nil, "send", "bob/twin,alice/none,bob/s0", "x")
	s.lines(out, "refused: ", "accepted; ", "id ")
	var v map[string]any
	s.run(exitAmbiguous, &v, "send", "bob/twin", "x")
	members, _ := s.run(exitOK, nil, "members")
	s.lines(members, "NAME ", "alice ", "bob ")
	s.run(exitOK, nil, "status")
}

// A hostile broker's words, in the line of its status, stay within our line.
func TestHostileBrokerSpeaks(t *testing.T) {
	t.Parallel()
	s := &screen{TB: t, dir: filepath.Join(t.TempDir(), "alice")}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	s.hold(err)
	texts := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 64<<10))
			fmt.Fprintf(conn, "HTTP/1.1 500 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", <-texts)
			_ = conn.Close()
		}
	}()
	defer func() { _ = ln.Close(); <-done }()
	for _, p := range injection.Payloads() {
		texts <- strings.NewReplacer("\r", "", "\n", "").Replace(p.Text[:min(len(p.Text), 500)])
		_, errs := s.run(exitFailed, nil, "new", "x", "--as", "alice", "--broker", "ws://"+ln.Addr().String()+"/ws")
		if lines := s.lines(errs, "claudemesh: http://"); len(lines) != 1 {
			t.Errorf("%s: %s: %q", p.Class, p.Name, errs)
		}
	}
}

// What else is printed of others' words, each in its place.
func TestHostileWords(t *testing.T) {
	t.Parallel()
	for _, p := range injection.Payloads() {
		var out bytes.Buffer
		a := &app{out: &out, errw: &out}
		s := &screen{TB: t}
		shows := func(start, end string, print func()) {
			t.Helper()
			out.Reset()
			print()
			text := out.String()
			s.hold(injection.CheckTerminal(text))
			if !strings.HasPrefix(text, start) || !strings.HasSuffix(text, end) || strings.Count(text, "\n") != strings.Count(start+end, "\n") {
				t.Errorf("%s: %s: %.200q does not stay between %q and %q", p.Class, p.Name, text, start, end)
			}
		}
		shows("claudemesh: acme: ", "\n", func() { a.note("%s: %s", "acme", p.Text) })
		shows("claudemesh: x: ", "\n", func() { a.finish(t.Context(), fmt.Errorf("x: %s", p.Text)) })
		shows("claudemesh: "+client.ErrUnreachable.Error()+": ", "\n  try: "+explain(client.ErrUnreachable).hint+"\n", func() {
			a.finish(t.Context(), fmt.Errorf("%w: %s", client.ErrUnreachable, p.Text))
		})
		shows("claudemesh: x\n  try: ", "\n", func() { a.showFailure(&failure{text: "x", hint: "y" + p.Text}) })
		shows("fail  broker     ", "\n", func() { a.showFinding(finding{"broker", broken, p.Text, ""}) })
		shows("ok    broker     x\n                 mend: ", "\n", func() { a.showFinding(finding{"broker", fine, "x", "y" + p.Text}) })
		shows("    0000000000000000  bob  ", "\n", func() {
			showCandidates(&out, []client.Peer{{Name: "bob", Role: client.Person, Card: client.Card{Cwd: "/" + p.Text}}})
		})
		shows("acme: alice (member), offline\n  broker  b\n  error   ", "\n  outbox  0 messages not yet at the broker\n  inbox   0 unread for alice\n", func() {
			a.showStatus(meshStatus{listed: listed{Mesh: "acme", Member: "alice", Role: "member", Broker: "b"}, Error: "x" + p.Text})
		})
		shows("acme: alice (member), offline\n  broker  b\n  outbox  0 messages not yet at the broker\n  inbox   0 unread for alice\n          1 unread for web in ", "\n", func() {
			a.showStatus(meshStatus{listed: listed{Mesh: "acme", Member: "alice", Role: "member", Broker: "b"}, Seats: []seatStatus{{"web", p.Text, 1}}})
		})
		shows("1  ", "\n", func() { a.table([][]string{entry{Number: 1, Name: p.Text, Code: "x", Note: p.Text}.row(1)}) })
		shows("claudemesh: not sent: ", "\n  try: "+explain(&client.HeldError{Number: 1}).hint+"\n", func() {
			a.finish(t.Context(), &client.HeldError{Number: 1, Reason: p.Text})
		})
		out.Reset()
		a.showText(p.Text)
		s.lines(out.String(), margin)
		s.hold(injection.CheckTerminal(out.String()))
		shows("--- from bob to ", "\n    mesh     acme\n    key      0000000000000000\n    id       1\n  | hi\n\n", func() {
			key := client.Key{}
			a.showMessage(message{ID: "1", Mesh: "acme", From: sender{Name: "bob", Pubkey: key.String()}, To: p.Text, Priority: "next", Text: "hi", sent: time.Now()})
		})
	}
}

// The hooks and the waiter of a real mailbox give Claude Code a context, and
// nothing that decides.
func TestHostileHooks(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "mesh")
	s := &screen{TB: t, dir: dir}
	s.hold(os.Mkdir(dir, 0o700))
	ctx := context.Background()
	box, err := mailbox.Open(ctx, filepath.Join(dir, "mailbox.db"))
	s.hold(err)
	defer func() { s.hold(box.Close()) }()
	_, err = box.ChangeTrust(ctx, wire.ID{1}, wire.Key{7}, 1, func(t *mailbox.Trust) error { t.Level, t.Grants = mailbox.Trusted, nil; return nil })
	s.hold(err)
	for i, h := range injection.Some(16) {
		s.hold(box.PutAgent(ctx, mailbox.Agent{Process: process.Self(), Mode: mailbox.Push, Server: process.Self(), Seats: []mailbox.AgentSeat{
			{Mesh: wire.ID{1}, Name: "acme", Key: wire.Key{1}, Member: wire.Key{2}, Self: "alice/web"},
		}}))
		for event, priority := range map[string]wire.Priority{
			courier.UserPromptSubmit: wire.PriorityLow, courier.PostToolBatch: wire.PriorityNow, courier.Stop: wire.PriorityNext, rewake: wire.PriorityNow,
		} {
			_, errs, err := box.Receive(ctx, []mailbox.Incoming{{
				Mesh: wire.ID{1}, Recipient: wire.Key{1}, SenderMember: wire.Key{7}, SenderSession: wire.Key{8}, SenderName: "bob/api",
				ID: wire.ID{byte(i), event[0], event[1]}, Mode: wire.ModeDM, Priority: priority, Text: h.Text, Sent: 5, Expires: 1 << 50, Received: 5,
			}})
			s.hold(append(errs, err)...)
			_, err = box.ChangeAgent(ctx, os.Getpid(), func(a *mailbox.Agent) error { a.Status, a.Shown = courier.Idle, nil; return nil })
			s.hold(err)
			var out, errw bytes.Buffer
			a := &app{in: strings.NewReader(`{"session_id":"s1","hook_event_name":"Stop"}`), out: &out, errw: &errw, getenv: func(k string) string {
				return map[string]string{"CLAUDE_PID": fmt.Sprint(os.Getpid()), "CLAUDE_CODE_SESSION_ATTENDED": "1"}[k]
			}}
			woken, err := a.serveHook(ctx, profile.At(dir), event)
			s.hold(err)
			text := errw.String()
			if event != rewake {
				text, err = injection.CheckHook(out.String(), event)
				s.hold(err)
				out, errw = errw, out
			}
			if s.hold(injection.CheckText(text, 1, nil)); woken != (event == rewake) || out.Len() > 0 {
				t.Errorf("%s: %s: %s: woken %v, beside it %q", event, h.Class, h.Name, woken, out.String())
			}
			_, _, err = box.Take(ctx, mailbox.Query{Recipients: []wire.Key{{1}}}, wire.Key{1}, 1)
			s.hold(err)
		}
	}
}
