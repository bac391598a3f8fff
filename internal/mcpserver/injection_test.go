package mcpserver_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/injection"
	"github.com/claudemesh/claudemesh/internal/mailbox"
)

// line returns the next line of the server, which must be a message that grants
// nothing, and the announcement that it is, if any.
func (w *wire) line() (string, *injection.Channel) {
	w.t.Helper()
	line, err := w.out.ReadString('\n')
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := injection.CheckRPC(line)
	if err != nil {
		w.t.Fatal(err)
	}
	return line, c
}

// tool calls a tool and returns its text and its data, each checked for what may stand in it.
func (w *wire) tool(call string) (text string, data map[string]any) {
	w.t.Helper()
	w.write(`{"jsonrpc":"2.0","id":7,"method":"tools/call","params":` + call + "}\n")
	line, c := w.line()
	for c != nil {
		line, c = w.line()
	}
	var m struct {
		Result struct {
			Content []struct {
				Text string `json:"text"`
			} `json:"content"`
			Data map[string]any `json:"structuredContent"`
		} `json:"result"`
	}
	if err := json.Unmarshal([]byte(line), &m); err != nil || len(m.Result.Content) != 1 {
		w.t.Fatalf("%.300q: %v", line, err)
	}
	hold(w.t, injection.CheckData(m.Result.Data))
	hold(w.t, injection.CheckTerminal(m.Result.Content[0].Text))
	return m.Result.Content[0].Text, m.Result.Data
}

func hold(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Every hostile text travels from one session to another: it is announced as one
// block with our attributes, and the tools show it so, as text and as data.
func TestHostileTexts(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.bob.end()
	w := raw(t, p.bob.fleet, p.bob.box)
	w.write(hello)
	if line, _ := w.line(); strings.Contains(line, "claude/channel/permission") {
		t.Errorf("permissions are relayed: %s", line)
	}
	w.write(inited)
	all := slices.DeleteFunc(injection.Payloads(), func(p injection.Payload) bool { return p.Text == "" })
	want := map[string]map[string]string{}
	go func() {
		for _, h := range all {
			if _, err := p.a.Send(t.Context(), client.Message{To: []string{"bob/api"}, Text: h.Text}); err != nil {
				t.Errorf("%s: %v", h.Name, err)
			}
		}
	}()
	for range all {
		_, c := w.line()
		if c == nil {
			t.Fatal("no announcement")
		}
		attributes := map[string]string{
			"from": "alice/web", "mesh": "acme", "pubkey": p.a.Key().String()[:16], "id": c.Meta["message_id"], "priority": "next", "sent": c.Meta["sent"],
		}
		hold(t, injection.CheckBlock(c.Content, attributes))
		if len(c.Content) > 8<<10 || c.Meta["from"] != "alice/web" || c.Meta["kind"] != "dm" || len(c.Meta) != 7 {
			t.Fatalf("%d bytes, meta %q", len(c.Content), c.Meta)
		}
		want[c.Meta["message_id"]] = attributes
	}
	id := ""
	for left := len(all); left > 0; {
		text, data := w.tool(`{"name":"check_messages","arguments":{"limit":100}}`)
		messages := list(reply{data: data}, "messages")
		blocks, outside, err := injection.Split(text)
		hold(t, err)
		if len(blocks) != len(messages) || len(outside) == 0 || !strings.HasPrefix(outside[0], fmt.Sprintf("%d message", len(messages))) || len(outside) > 2 {
			t.Fatalf("%d blocks, %d messages; outside: %.300q", len(blocks), len(messages), outside)
		}
		for i, m := range messages {
			id, _ = m["id"].(string)
			hold(t, injection.CheckBlock(blocks[i], want[id]))
			hold(t, injection.CheckBlock(m["block"].(string), want[id]))
		}
		if left -= len(messages); len(messages) == 0 {
			t.Fatalf("%d are not shown", left)
		}
	}
	text, _ := w.tool(`{"name":"check_messages","arguments":{"id":"` + id + `"}}`)
	blocks, _, err := injection.Split(text)
	hold(t, err)
	hold(t, injection.CheckBlock(blocks[0], want[id]))
}

// An answer that a call waits for stands in its block; what is said of the message
// that it answers stays ours.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.bob.end()
	for _, h := range injection.Some(15) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for m, err := range p.b.Receive(t.Context()) {
				if err == nil {
					_, err = p.b.Send(t.Context(), client.Message{To: []string{"alice/web"}, Text: h.Text + " ", ReplyTo: m.ID})
				}
				if err == nil {
					err = m.Ack(t.Context())
				}
				if err != nil {
					t.Errorf("%s: %v", h.Name, err)
				}
				return
			}
		}()
		r := p.alice.ok("send_message", args{"to": "bob/api", "message": "?", "wait_seconds": 20})
		<-done
		blocks, outside, err := injection.Split(r.text)
		hold(t, err)
		if len(blocks) != 1 || len(outside) < 3 || !slices.Contains(outside, "The answer:") {
			t.Fatalf("%s: %d blocks; outside: %q", h.Name, len(blocks), outside)
		}
		hold(t, injection.CheckBlock(blocks[0], nil))
		hold(t, injection.CheckData(r.data))
		hold(t, injection.CheckData(p.alice.ok("message_status", args{"id": r.data["id"]}).data))
	}
}

// What a peer says of itself, and what a model names, stays within its line in
// lists, errors and candidates.
func TestHostileCards(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.w.Dial(p.bm, "api", nil) // of the same name
	p.bob.end()
	starts := []string{ // of every line that is ours
		"Mesh acme: 2 other peers; you are alice/web.", "- alice/web [", "  cwd: ", "- this session", "- bob/api [", "  says of itself: ",
		"Nothing was sent", "- refused: ", `"bob/api" could be any of 2`, "- bob/api  pubkey: ", "Call again with", "[claudemesh: ",
		`"!`, "nobody here is called ", "list_peers (with include_offline", "to takes what ", "no mesh of that name", "Joined here: ", "id is the 32 hex digits", "status is idle,", "Correct the arguments",
	}
	for i, h := range injection.Some(8) {
		mark := fmt.Sprintf("#%d", i)
		text := strings.ToValidUTF8(h.Text, "?") // a card is JSON: it holds no other
		cut, bit := strings.ToValidUTF8(text[:min(len(text), 150)], ""), strings.ToValidUTF8(text[:min(len(text), 20)], "")
		hold(t, p.b.SetCard(t.Context(), func(c *client.Card) {
			c.Summary, c.Cwd, c.Host, c.Repo, c.Branch, c.Model, c.PeerType = mark+cut, cut, bit, bit, bit, bit, bit
		}))
		var r reply
		for r = p.alice.ok("list_peers", nil); !strings.Contains(r.text, "says of itself: "+mark); r = p.alice.ok("list_peers", nil) {
			if t.Context().Err() != nil {
				t.Fatal("the card is not seen")
			}
			time.Sleep(2 * time.Millisecond)
		}
		if n := strings.Count(r.text, "\n"); n > 8 {
			t.Errorf("%s: %d lines:\n%s", h.Name, n, r.text)
		}
		refused := p.alice.fails("send_message", args{"to": "bob/api", "message": "x"})
		unknown := p.alice.fails("send_message", args{"to": "!" + strings.ReplaceAll(cut, ",", "."), "message": "x"})
		for _, r := range []reply{r, refused, unknown, p.alice.fails("message_status", args{"id": cut}), p.alice.fails("set_status", args{"status": cut})} {
			hold(t, injection.CheckTerminal(r.text))
			hold(t, injection.CheckData(r.data))
			if strings.ContainsAny(r.text, "<>") {
				t.Errorf("%s: markup in:\n%s", h.Name, r.text)
			}
			for line := range strings.SplitSeq(r.text, "\n") {
				if !slices.ContainsFunc(starts, func(s string) bool { return strings.HasPrefix(line, s) }) {
					t.Errorf("%s: %s: a line of its own: %q", h.Class, h.Name, line)
				}
			}
		}
	}
}

// A card whose names are hostile is refused whole: by who would show it, and by
// who is shown it, for a peer's own program need not be ours.
func TestHostileNamesAreRefused(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.alice.end()
	hold(t, p.a.Close())
	var known []mailbox.KnownPeer
	for i, h := range injection.Payloads() {
		cut := strings.ToValidUTF8("/"+h.Text[:min(len(h.Text), 250)], "?")
		if p.b.SetCard(t.Context(), func(c *client.Card) { c.Label = cut }) == nil || p.b.JoinGroup(t.Context(), cut, "") == nil ||
			p.b.JoinGroup(t.Context(), "g", cut) == nil || p.b.SetStatus(t.Context(), cut) == nil {
			t.Errorf("%s: %s: it is taken for a name", h.Class, h.Name)
		}
		card := client.Card{Label: "fine", Summary: "of a refused card", Status: client.StatusIdle}
		switch i % 4 {
		case 0:
			card.Label = cut
		case 1:
			card.Status = cut
		case 2:
			card.Groups = []client.Group{{Name: cut}}
		case 3:
			card.Groups = []client.Group{{Name: "g", Role: cut}}
		}
		raw, err := json.Marshal(card)
		hold(t, err)
		known = append(known, mailbox.KnownPeer{
			Key: client.Key{1, byte(i), byte(i >> 8)}, Member: p.bm.MemberKey(), Role: client.Session, CardSeq: 1, Card: raw, LastSeen: time.Now().UnixMilli(),
		})
	}
	hold(t, p.alice.box.SavePeers(t.Context(), p.am.MeshID, known))
	c := p.w.Dial(p.am, "again", func(o *client.Options) { o.Mailbox = p.alice.box })
	peers, _, err := c.Peers(t.Context(), true)
	hold(t, err)
	if len(peers) < len(known) {
		t.Fatalf("%d peers, %d were known", len(peers), len(known))
	}
	for _, peer := range peers {
		if name := peer.FullName(); peer.Card.Summary != "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz/") != "" {
			t.Errorf("%q with the card %+v", name, peer.Card)
		}
	}
}
