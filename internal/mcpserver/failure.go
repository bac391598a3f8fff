package mcpserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/render"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// failure is why a tool did not do what it was asked, and what to do next. It is
// the structured result of a failed call, in the shape of the CLI's errors.
type failure struct {
	OK         bool        `json:"ok"` // false
	Code       string      `json:"code"`
	Message    string      `json:"message"`
	Hint       string      `json:"hint"`
	Candidates []candidate `json:"candidates,omitempty"`
}

// candidate is a peer that a target could have meant, ready to paste.
type candidate struct {
	Name   string `json:"name"`
	Pubkey string `json:"pubkey,omitempty"` // 16 hex digits
	Cwd    string `json:"cwd,omitempty"`
}

func (f *failure) Error() string { return f.Message }

var noMesh = &failure{
	Code: "no_mesh", Message: "no mesh joined",
	Hint: "Your user can run `claudemesh new` or `claudemesh join` in a terminal; these tools work from then on.",
}

// text is the failure for the model.
func (f *failure) text() string {
	var b strings.Builder
	b.WriteString(f.Message)
	for _, c := range f.Candidates {
		b.WriteString("\n- " + c.line())
	}
	if f.Hint != "" {
		b.WriteString("\n" + f.Hint)
	}
	return b.String()
}

func (c *candidate) line() string {
	s := c.Name
	if c.Pubkey != "" {
		s += "  pubkey: " + c.Pubkey
	}
	if c.Cwd != "" {
		s += "  cwd: " + c.Cwd
	}
	return s
}

// result is the failure as a tool's answer.
func (f *failure) result() *result { return &result{text: f.text(), data: f, failed: true} }

// explain puts an error into words for the model.
func (c *call) explain(err error) *failure {
	var done *failure
	var target *client.TargetError
	var fault *client.Fault
	var held *client.HeldError
	var removed *client.RemovedError
	switch {
	case errors.As(err, &done):
		return done
	case errors.Is(err, errArguments):
		_, msg, _ := strings.Cut(err.Error(), errArguments.Error()+": ")
		return &failure{Code: "bad_arguments", Message: msg, Hint: "Correct the arguments and call again."}
	case errors.As(err, &target):
		return c.explainTarget(target)
	case errors.Is(err, client.ErrNoMesh):
		return &failure{
			Code: "not_found", Message: "no mesh of that name was joined here",
			Hint: "Joined here: " + strings.Join(c.meshNames(), ", ") + ".",
		}
	case errors.Is(err, client.ErrSeveralMeshes):
		return &failure{Code: "several_meshes", Message: err.Error(), Hint: "Call send_message once for each mesh."}
	case errors.Is(err, client.ErrNoMessage):
		return &failure{
			Code: "not_found", Message: "no message of that id was sent from this machine",
			Hint: "Use the id that send_message returned. For a message that you received, use check_messages with id.",
		}
	case errors.As(err, &removed):
		return &failure{
			Code: string(wire.CodeRemoved), Message: safe(removed), Hint: "This session is on that mesh no more. Tell your user, who may ask an admin for a new invite.",
		}
	case errors.As(err, &held):
		return &failure{
			Code: "held", Message: fmt.Sprintf("not sent: %s; it waits for your user as number %d", safe(held), held.Number),
			Hint: "Tell your user, who can look at it with `claudemesh held` and send or drop it. Do not send it another way.",
		}
	case errors.Is(err, client.ErrUnreachable):
		return &failure{Code: "unreachable", Message: safe(err), Hint: "It is tried again in the background; call again in a while."}
	case errors.As(err, &fault):
		return explainFault(fault)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &failure{Code: "canceled", Message: "the call was cancelled", Hint: "Call again if it is still wanted."}
	}
	return &failure{Code: "failed", Message: safe(err), Hint: "Try again; if it fails again, tell your user."}
}

// safe is an error's text, which may quote what others have sent.
func safe(err error) string { return render.Inline(err.Error(), 500) }

func (c *call) meshNames() (names []string) {
	for _, cl := range c.set {
		names = append(names, cl.Mesh())
	}
	return names
}

func explainFault(f *client.Fault) *failure {
	out := &failure{Code: string(f.Code), Message: safe(f), Hint: "Trying again will not help; tell your user what it says."}
	switch {
	case f.Code == wire.CodeWrongBroker || f.Code == wire.CodeWrongOwner:
		out.Hint = "Nothing goes over this mesh any more, and nothing you can do changes that. Tell your user, who alone can look into it: claudemesh verify"
	case f.Code == wire.CodeTooManyHops:
		out.Hint = "You and other agents have answered each other long enough: tell your user what it is about, and stop."
	case f.Code == wire.CodePaused:
		out.Hint = "An admin has stopped the mesh's messages; tell your user, and do not try again by yourself."
	case f.Code == wire.CodeTooLarge || f.Code == wire.CodeAudienceTooLarge:
		out.Hint = "Shorten or split it, or write the long part to a file that the other agent can read and send the path."
	case f.Code == wire.CodeBadCard:
		out.Hint = "Names are 1 to 32 of a-z 0-9 . _ - and start with a letter or digit; there are at most 32 groups."
	case f.Code.Info().Retryable:
		out.Hint = "Try again in a while."
	}
	return out
}

func (c *call) explainTarget(t *client.TargetError) *failure {
	f := &failure{Code: string(t.Reason), Candidates: c.candidates(t.Candidates)}
	quoted := `"` + render.Inline(t.Target, 128) + `"`
	switch t.Reason {
	case client.ReasonAmbiguous:
		f.Message = fmt.Sprintf("%s could be any of %d; nothing was sent to it:", quoted, len(t.Candidates))
		f.Hint = "Call again with the pubkey of the one you mean."
		if !oneMesh(t.Candidates) {
			f.Hint = "Call again with the name of the one you mean: it has its mesh in front."
		}
	case client.ReasonSelf:
		f.Message, f.Hint = quoted+" is you", "list_peers shows the others."
	case client.ReasonEmpty:
		f.Message = "nobody but you is in " + quoted
		f.Hint = "list_peers shows who is in which group; list_peers with include_offline also those who are away."
	case client.ReasonInvalid:
		f.Message = quoted + " is no name, @group, * or key"
		f.Hint = `to takes what list_peers prints: a name like "bob/api", a pubkey, "@group" or "*".`
	default:
		f.Message = "nobody here is called " + quoted
		f.Hint = "list_peers (with include_offline for those who are away) shows the names; they are case-sensitive."
		if len(f.Candidates) > 0 {
			f.Message += "; the nearest:"
		}
	}
	if t.Reason == client.ReasonNotFound || t.Reason == client.ReasonEmpty {
		f.Hint += c.offlineNote(c.set)
	}
	return f
}

// candidates makes peers ready to paste: with their mesh in front when several are joined.
func (c *call) candidates(peers []client.Peer) (out []candidate) {
	for i := range peers {
		p := &peers[i]
		if isGroup(p.Name) { // a group of that name in several meshes: once each
			group := candidate{Name: c.inMesh(p.Mesh, render.Inline(p.Name, 64))}
			if !slices.Contains(out, group) {
				out = append(out, group)
			}
			continue
		}
		if full := c.lookUp(p.Mesh, p.Key); full != nil {
			p = full
		}
		out = append(out, candidate{
			Name: c.inMesh(p.Mesh, render.Inline(p.FullName(), 128)), Pubkey: key16(p.Key), Cwd: render.Inline(p.Card.Cwd, 256),
		})
	}
	return out
}

// lookUp finds what is known of a session.
func (c *call) lookUp(mesh string, key client.Key) *client.Peer {
	set, err := c.set.Named(mesh)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, cl := range set {
		peers, _, err := cl.Peers(ctx, true)
		if i := slices.IndexFunc(peers, func(p client.Peer) bool { return p.Key == key }); err == nil && i >= 0 {
			return &peers[i]
		}
	}
	return nil
}

func oneMesh(peers []client.Peer) bool {
	return !slices.ContainsFunc(peers, func(p client.Peer) bool { return p.Mesh != peers[0].Mesh })
}

// inMesh prefixes a name with its mesh when several are joined.
func (c *call) inMesh(mesh, name string) string {
	if len(c.set) < 2 || mesh == "" {
		return name
	}
	return mesh + ":" + name
}

// key16 is the form of a key that is shown and taken.
func key16(k client.Key) string { return k.String()[:16] }
