package mcpserver

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/render"
)

// maxListed bounds the peers that one call lists.
const maxListed = 200

type listResult struct {
	Peers  []peerData `json:"peers"`
	Meshes []meshData `json:"meshes"`
	Hidden int        `json:"notShown,omitempty"`
}

type groupData struct {
	Name string `json:"name"`
	Role string `json:"role,omitempty"`
}

type peerData struct {
	Name        string      `json:"name"` // as send_message takes it
	Mesh        string      `json:"mesh"`
	Member      string      `json:"member"`
	Pubkey      string      `json:"pubkey"` // 16 hex digits
	ThisSession bool        `json:"thisSession"`
	Online      bool        `json:"online"`
	Person      bool        `json:"person,omitempty"` // at a terminal, not an agent
	Status      string      `json:"status,omitempty"`
	Groups      []groupData `json:"groups,omitempty"`
	Cwd         string      `json:"cwd,omitempty"`
	Summary     string      `json:"summary,omitempty"`
	LastSeen    string      `json:"lastSeen,omitempty"`
	reach
	Ambiguous bool          `json:"ambiguousName,omitempty"` // use the pubkey
	Verified  bool          `json:"verified,omitempty"`      // the user has compared keys with its member
	Blocked   bool          `json:"blocked,omitempty"`       // by the user: it is not heard
	Trust     mailbox.Level `json:"trust,omitempty"`         // where the user has said so

	seen time.Time
	key  client.Key // its member's
}

// trusts is what the user has said of the members of a mesh.
func (m *meshServer) trusts(ctx context.Context, cl *client.Client) (map[client.Key]mailbox.Trust, error) {
	list, err := m.box.Trusts(ctx, cl.MeshID())
	if err != nil {
		return nil, err
	}
	by := map[client.Key]mailbox.Trust{}
	for _, t := range list {
		by[t.Member] = t
	}
	return by, nil
}

// reach is how a message gets into a session that is online; empty when it is not known.
type reach struct {
	Wake    client.Path `json:"wake,omitempty"` // mod or rewake: it can be woken; hooks: at its next turn; none
	WokenAt string      `json:"wokenAt,omitempty"`
}

func reachOf(w client.Wakeability) reach {
	r := reach{Wake: w.Wake}
	if !w.Woken.IsZero() {
		r.WokenAt = w.Woken.UTC().Format(time.RFC3339)
	}
	return r
}

// word is it in a list of marks.
func (r reach) word() string {
	switch r.Wake {
	case client.ByMod, client.ByRewake:
		return "wakeable"
	case client.ByHooks:
		return "next turn"
	case client.ByNone:
		return "not wakeable"
	}
	return ""
}

type meshData struct {
	Mesh   string `json:"mesh"`
	You    string `json:"you"`
	Online bool   `json:"online"`
	Error  string `json:"error,omitempty"` // why it is not
	Final  bool   `json:"final,omitempty"` // it will not connect again
	// Caught is what the broker was caught at: nothing of it was taken.
	Caught string `json:"caught,omitempty"`
	// Away are members without a session here: a message to one waits for its next.
	Away []string `json:"membersWithoutSession,omitempty"`
}

func listPeers(ctx context.Context, c *call) (*result, error) {
	var a struct {
		Mesh           string `json:"mesh"`
		Group          string `json:"group"`
		IncludeOffline bool   `json:"include_offline"`
	}
	if err := arguments(c, &a); err != nil {
		return nil, err
	}
	set, err := c.set.Named(a.Mesh)
	if err != nil {
		return nil, err
	}
	c.settle(ctx, set)
	group := strings.TrimPrefix(a.Group, "@")
	data := listResult{Peers: []peerData{}}
	var text strings.Builder
	for _, cl := range set {
		peers, fresh, err := cl.Peers(ctx, a.IncludeOffline)
		if err == nil && !fresh && !a.IncludeOffline {
			peers, _, err = cl.Peers(ctx, true) // nobody is known to be online
		}
		if err != nil {
			return nil, err
		}
		md := c.meshState(cl)
		if group == "" {
			md.Away = c.away(cl, peers)
		}
		trusts, err := c.trusts(ctx, cl)
		if err != nil {
			return nil, err
		}
		listed := c.describePeers(cl, peers, group)
		for i := range listed {
			if t, ok := trusts[listed[i].key]; ok {
				listed[i].Verified, listed[i].Blocked, listed[i].Trust = t.Verified > 0, t.Blocked, t.Level
			}
		}
		if room := maxListed - len(data.Peers); len(listed) > room {
			data.Hidden += len(listed) - room
			listed = listed[:room]
		}
		data.Peers = append(data.Peers, listed...)
		data.Meshes = append(data.Meshes, md)
		c.writeMesh(&text, md, listed, fresh, group)
	}
	if data.Hidden > 0 {
		fmt.Fprintf(&text, "%d more are not shown; narrow it down with group or mesh.\n", data.Hidden)
	}
	return &result{text: strings.TrimSuffix(text.String(), "\n"), data: data}, nil
}

// meshState is how this session stands on a mesh.
func (c *call) meshState(cl *client.Client) meshData {
	s := cl.State()
	md := meshData{Mesh: cl.Mesh(), You: c.inMesh(cl.Mesh(), cl.Name()), Online: s.Online, Caught: cl.Caught()}
	if !s.Online {
		md.Error = "not connected yet"
		if s.Err != nil {
			md.Error, md.Final = safe(s.Err), s.Final
		}
	}
	return md
}

// away names the members of whom no session or person is listed.
func (c *call) away(cl *client.Client, peers []client.Peer) (names []string) {
	listed := map[client.Key]bool{}
	for i := range peers {
		listed[peers[i].Member] = true
	}
	for _, m := range cl.Members() {
		if !m.Self && !listed[m.Key] && len(names) < maxListed {
			names = append(names, c.inMesh(cl.Mesh(), m.Name))
		}
	}
	return names
}

// describePeers picks those of a group ("" for all) and says which names would not do.
func (c *call) describePeers(cl *client.Client, peers []client.Peer, group string) (out []peerData) {
	names, live := map[string]int{}, map[client.Key]bool{}
	for i := range peers {
		if p := &peers[i]; p.Key != cl.Key() {
			names[p.FullName()]++
			live[p.Member] = live[p.Member] || (p.Online && p.Role == client.Session)
		}
	}
	for i := range peers {
		p := &peers[i]
		if group != "" && !p.InGroup(group) {
			continue
		}
		d := c.describePeer(p)
		d.ThisSession = p.Key == cl.Key()
		d.Ambiguous = !d.ThisSession && (names[p.FullName()] > 1 || (p.Role != client.Session && live[p.Member]))
		out = append(out, d)
	}
	return out
}

func (c *call) describePeer(p *client.Peer) peerData {
	d := peerData{
		Name: c.inMesh(p.Mesh, p.FullName()), Mesh: p.Mesh, Member: p.Name, Pubkey: key16(p.Key), Online: p.Online,
		Person: p.Role != client.Session, Status: p.Card.Status,
		Cwd: render.Inline(p.Card.Cwd, 256), Summary: render.Inline(p.Card.Summary, 400), seen: p.LastSeen, key: p.Member, reach: reachOf(p.Wakeability()),
	}
	for _, g := range p.Card.Groups {
		d.Groups = append(d.Groups, groupData(g))
	}
	if !p.LastSeen.IsZero() {
		d.LastSeen = p.LastSeen.UTC().Format(time.RFC3339)
	}
	return d
}

func (c *call) writeMesh(b *strings.Builder, md meshData, peers []peerData, fresh bool, group string) {
	others := 0
	for i := range peers {
		if !peers[i].ThisSession {
			others++
		}
	}
	fmt.Fprintf(b, "Mesh %s: %s; you are %s.", md.Mesh, count(others, "other peer", "other peers"), md.You)
	switch {
	case md.Final:
		fmt.Fprintf(b, " OFFLINE FOR GOOD (%s): tell your user. This is what was known last.", md.Error)
	case !md.Online:
		fmt.Fprintf(b, " OFFLINE (%s): this is what was known last; messages are stored here until it is back.", md.Error)
	case !fresh:
		b.WriteString(" The broker does not answer now: this is what was known last.")
	case others == 0 && group != "":
		fmt.Fprintf(b, " Nobody else is in @%s; include_offline also looks among those who are away.", render.Inline(group, 64))
	case others == 0:
		b.WriteString(" Nobody else is connected; include_offline shows those who are away.")
	}
	if md.Caught != "" {
		fmt.Fprintf(b, " Tell your user: the broker shows what does not hold, and nothing of it was taken: %s.", md.Caught)
	}
	b.WriteString("\n")
	for i := range peers {
		b.WriteString(c.peerLine(&peers[i]))
	}
	if len(md.Away) > 0 {
		fmt.Fprintf(b, "Members without a session here (a message to one waits for it): %s\n", strings.Join(md.Away, ", "))
	}
}

func (c *call) peerLine(d *peerData) string {
	marks := []string{"online"}
	switch {
	case !d.Online && d.seen.IsZero():
		marks[0] = "offline"
	case !d.Online:
		marks[0] = "offline, last seen " + c.ago(d.seen)
	}
	if d.ThisSession {
		marks = append([]string{"this session (you)"}, marks...)
	}
	if d.Person {
		marks = append(marks, "a person at a terminal")
	} else {
		marks = append(marks, cmp.Or(d.Status, "no status"))
	}
	if word := d.word(); word != "" {
		marks = append(marks, word)
	}
	if d.Verified {
		marks = append(marks, "verified")
	}
	if d.Trust == mailbox.Quarantine || d.Trust == mailbox.Trusted {
		marks = append(marks, string(d.Trust))
	}
	if d.Blocked {
		marks = append(marks, "blocked by your user")
	}
	line := fmt.Sprintf("- %s [%s]  pubkey: %s", d.Name, strings.Join(marks, ", "), d.Pubkey)
	if d.Ambiguous {
		line += " (others share the name: use the pubkey)"
	}
	if len(d.Groups) > 0 {
		var names []string
		for _, g := range d.Groups {
			n := "@" + g.Name
			if g.Role != "" {
				n += " (" + g.Role + ")"
			}
			names = append(names, n)
		}
		line += "\n  groups: " + strings.Join(names, ", ")
	}
	if d.Cwd != "" {
		line += "\n  cwd: " + d.Cwd
	}
	if d.Summary != "" {
		line += "\n  says of itself: " + d.Summary
	}
	return line + "\n"
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// ago says how long something is past.
func (m *meshServer) ago(t time.Time) string {
	d := m.now().Sub(t)
	switch {
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}

// offlineNote says which meshes are offline; "" when none is.
func (c *call) offlineNote(set client.Set) string {
	var b strings.Builder
	for _, cl := range set {
		if md := c.meshState(cl); !md.Online {
			fmt.Fprintf(&b, "\nMesh %s is offline (%s): this is from what is stored on this machine.", md.Mesh, md.Error)
		}
	}
	return b.String()
}
