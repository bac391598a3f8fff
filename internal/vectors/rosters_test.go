package vectors_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/vectors"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// event is one thing that a roster is told: a statement, or a certificate.
type event struct {
	Kind       string           `json:"kind"`
	Statements wire.Certificate `json:"statements"`
}

type (
	rosterIn struct {
		Events   []event `json:"events"`
		AnyOrder bool    `json:"anyOrder,omitempty"` // the order changes nothing
		Now      int64   `json:"now"`                // Unix ms
	}
	rosterOut struct {
		Refused     *int              `json:"refused,omitempty"` // the index of the event that is
		Members     map[string]string `json:"members"`           // who stands, by name, and the role
		Gone        map[string]string `json:"gone"`              // who does not, and why
		Generation  uint64            `json:"generation"`
		PausedUntil int64             `json:"pausedUntil"`
	}
	standingIn struct {
		Events []event  `json:"events"`
		Key    wire.Key `json:"key"`
	}
)

// story is a roster's case: what is told and, for its maker to check, who is
// gone and has another role than the certificate's, or the generation.
type story struct {
	name       string
	anyOrder   bool
	events     []event
	class      string // of the one event that is refused
	gone       map[string]string
	roles      map[string]string
	generation uint64
}

func told(kind string, s ...wire.Signed) event { return event{kind, s} }

func removes(signer, member string, m trust.Removal) event {
	return told("removal", removal(signer, member, m))
}

func leaves(member string) event {
	return removes(member, member, trust.Removal{Reason: trust.ReasonLeft})
}

func closes(signer, invite string, admitted ...string) event {
	return told("close", trust.SignClose(key(signer), mesh, inviteID(invite), keys(admitted...)))
}

func gives(member, to string, issued int64, kept ...string) event {
	return told("role", role("owner", member, to, issued, kept...))
}

func gen(n uint64, k string) trust.Removal {
	return trust.Removal{Generation: n, KeyHash: trust.KeyHash(mesh, n, seed(k))}
}

func genKept(n uint64, k string, kept ...string) trust.Removal {
	m := gen(n, k)
	m.Kept = keys(kept...)
	return m
}

// tell gives one event to a roster.
func tell(r *trust.Roster, e event) (err error) {
	switch e.Kind {
	case "genesis": // of the same mesh, as a broker shows it again
		_, err = trust.NewRoster(r.Genesis.Owner, e.Statements[0])
	case "certificate":
		_, err = r.Add(e.Statements)
	case "removal":
		_, err = r.AddRemoval(e.Statements[0])
	case "close":
		_, err = r.AddClose(e.Statements[0])
	case "role":
		_, err = r.AddRole(e.Statements[0])
	case "pause":
		_, err = r.AddPause(e.Statements[0])
	default:
		err = fmt.Errorf("an event of kind %q", e.Kind)
	}
	return err
}

func verifyRoster(in rosterIn) (any, error) {
	r, out := newRoster(), rosterOut{Members: map[string]string{}, Gone: map[string]string{}}
	names := map[wire.Key]string{}
	for _, n := range everyone {
		names[pub(n)] = n
	}
	var refusal error
	for i, e := range in.Events {
		err := tell(r, e)
		if err != nil && refusal != nil {
			return nil, errors.Join(errors.New("two events are refused"), err)
		} else if err != nil {
			refusal, out.Refused = err, &i
		}
		if e.Kind == "certificate" && err == nil {
			m, _ := r.Verify(e.Statements)
			names[m.Key] = m.Name
		}
	}
	for k, n := range names {
		if m, ok := r.Member(k); ok {
			out.Members[n] = m.Role
		} else {
			out.Gone[n] = codeOf(r.Standing(k))
		}
	}
	_, out.PausedUntil = r.Pauses(in.Now)
	out.Generation = r.Generation()
	return out, refusal
}

// verifyStanding says whether a key is a member's after the events.
func verifyStanding(in standingIn) (any, error) {
	r := newRoster()
	for _, e := range in.Events {
		if err := tell(r, e); err != nil {
			return nil, fmt.Errorf("an event is refused: %w", err)
		}
	}
	return nil, r.Standing(in.Key)
}

const (
	removed = string(wire.CodeRemoved)
	shut    = string(wire.CodeInviteClosed)
)

func stories() []story {
	return append([]story{
		{name: "everyone stands", anyOrder: true},
		{name: "the owner removes a member", anyOrder: true, events: []event{removes("owner", "alice", gen(2, "a"))}, gone: map[string]string{"alice": removed}},
		{name: "an admin removes a member", anyOrder: true, events: []event{removes("admin2", "bob", gen(2, "a"))}, gone: map[string]string{"bob": removed}},
		{name: "the owner removes the founder", anyOrder: true, events: []event{removes("owner", "founder", gen(2, "a"))}, gone: map[string]string{"founder": removed}},
		{name: "a member leaves", anyOrder: true, events: []event{leaves("alice")}, gone: map[string]string{"alice": removed}},
		{name: "twice removed", anyOrder: true, events: []event{leaves("alice"), removes("owner", "alice", gen(2, "a"))}, gone: map[string]string{"alice": removed}},
		{name: "removing an admin takes those it admitted", anyOrder: true, events: []event{removes("owner", "admin", gen(2, "a"))}, gone: map[string]string{"admin": removed, "bob": removed, "carol": removed}},
		{name: "but for those it keeps", anyOrder: true, events: []event{removes("owner", "admin", genKept(2, "a", "bob"))}, gone: map[string]string{"admin": removed, "carol": removed}},
		{name: "an admin that leaves takes those it admitted", anyOrder: true, events: []event{leaves("admin")}, gone: map[string]string{"admin": removed, "bob": removed, "carol": removed}},
		{name: "the owner keeps whom an admin left", anyOrder: true, events: []event{leaves("admin"), removes("owner", "admin", genKept(2, "a", "bob"))}, gone: map[string]string{"admin": removed, "carol": removed}},
		{name: "a removed admin cannot undo it by leaving", anyOrder: true, events: []event{removes("owner", "admin", genKept(2, "a", "bob", "carol")), leaves("admin")}, gone: map[string]string{"admin": removed}},
		{name: "nor by a close", anyOrder: true, events: []event{removes("owner", "admin", genKept(2, "a", "bob", "carol")), closes("admin", "side")}, gone: map[string]string{"admin": removed}},
		{name: "but the owner may", anyOrder: true, events: []event{removes("owner", "admin", genKept(2, "a", "bob", "carol")), closes("owner", "side", "bob")}, gone: map[string]string{"admin": removed, "carol": shut}},
		{name: "two removals keep whom both keep", anyOrder: true, events: []event{removes("owner", "admin", genKept(2, "a", "bob")), removes("owner", "admin", genKept(2, "a", "bob", "carol"))}, gone: map[string]string{"admin": removed, "carol": removed}},
		{name: "a removal outlives its signer", anyOrder: true, events: []event{removes("admin", "alice", gen(2, "a")), removes("owner", "admin", genKept(3, "b", "bob", "carol"))}, gone: map[string]string{"alice": removed, "admin": removed}},
		{name: "the owner closes its invite", anyOrder: true, events: []event{closes("owner", "open")}, gone: map[string]string{"alice": shut}},
		{name: "whom a close lists stands", anyOrder: true, events: []event{closes("owner", "open", "alice")}},
		{name: "the owner closes an admin's invite", anyOrder: true, events: []event{closes("owner", "side", "bob")}, gone: map[string]string{"carol": shut}},
		{name: "its issuer closes it", anyOrder: true, events: []event{closes("admin", "side", "carol")}, gone: map[string]string{"bob": shut}},
		{name: "another admin's close is void", anyOrder: true, events: []event{closes("admin2", "side")}},
		{name: "an admin's close of the owner's invite is void", anyOrder: true, events: []event{closes("admin", "open")}},
		{name: "a close of another invite is no matter", anyOrder: true, events: []event{closes("owner", "other")}},
		{name: "two closes admit whom both list", anyOrder: true, events: []event{closes("owner", "side", "bob", "carol"), closes("admin", "side", "bob")}, gone: map[string]string{"carol": shut}},
		{name: "an admin by a closed invite admits nobody", anyOrder: true, events: []event{closes("owner", "admins", "admin2")}, gone: map[string]string{"admin": shut, "bob": shut, "carol": shut}},
		{name: "but for those that its removal keeps", anyOrder: true, events: []event{closes("owner", "admins", "admin2"), removes("owner", "admin", genKept(2, "a", "bob"))}, gone: map[string]string{"admin": removed, "carol": removed}},
		{name: "role: a promotion", anyOrder: true, events: []event{gives("alice", trust.RoleAdmin, now)}, roles: map[string]string{"alice": trust.RoleAdmin}},
		{name: "role: the newest counts", anyOrder: true, events: []event{gives("alice", trust.RoleAdmin, now), gives("alice", trust.RoleMember, now+1)}},
		{name: "role: of two at once the lower", anyOrder: true, events: []event{gives("alice", trust.RoleAdmin, now), gives("alice", trust.RoleMember, now)}},
		{name: "role: an older one changes nothing", anyOrder: true, events: []event{gives("alice", trust.RoleAdmin, now), gives("alice", trust.RoleMember, now-1)}, roles: map[string]string{"alice": trust.RoleAdmin}},
		{name: "role: a demotion takes whom it does not list", anyOrder: true, events: []event{gives("admin", trust.RoleMember, now, "bob")}, roles: map[string]string{"admin": trust.RoleMember}, gone: map[string]string{"carol": shut}},
		{name: "role: and keeps whom it lists", anyOrder: true, events: []event{gives("admin", trust.RoleMember, now, "bob", "carol")}, roles: map[string]string{"admin": trust.RoleMember}},
		{name: "role: the next promotion brings them back", anyOrder: true, events: []event{gives("admin", trust.RoleMember, now), gives("admin", trust.RoleAdmin, now+1)}},
		{name: "role: the demoted one cannot close what the owner kept", anyOrder: true, events: []event{gives("admin", trust.RoleMember, now, "bob", "carol"), closes("admin", "side")}, roles: map[string]string{"admin": trust.RoleMember}},
		{name: "role: what it removed stays out", anyOrder: true, events: []event{removes("admin", "alice", gen(2, "a")), gives("admin", trust.RoleMember, now, "bob", "carol")}, roles: map[string]string{"admin": trust.RoleMember}, gone: map[string]string{"alice": removed}},
		{name: "role: a demoted admin may be removed by another", events: []event{gives("admin", trust.RoleMember, now, "bob", "carol"), removes("admin2", "admin", genKept(2, "a", "bob", "carol"))}, roles: map[string]string{"admin": trust.RoleMember}, gone: map[string]string{"admin": removed}},
		{name: "generation: from the founding", generation: 1},
		{name: "generation: the owner's", events: []event{removes("owner", "alice", gen(2, "a"))}, generation: 2},
		{name: "generation: an admin's", events: []event{removes("admin", "alice", gen(2, "a"))}, generation: 2},
		{name: "generation: the highest", events: []event{removes("owner", "alice", gen(3, "b")), removes("admin", "bob", gen(2, "a"))}, generation: 3},
		{name: "generation: leaving issues none", events: []event{leaves("alice")}, generation: 1},
		{name: "generation: a fork", events: []event{removes("owner", "alice", gen(2, "a")), removes("admin", "bob", gen(2, "b"))}, class: string(wire.CodeGenerationFork), generation: 2},
		{name: "generation: a fork of an older one", events: []event{removes("owner", "alice", gen(2, "a")), removes("owner", "bob", gen(3, "b")), removes("owner", "carol", gen(2, "c"))}, class: string(wire.CodeGenerationFork), generation: 3},
		{name: "generation: one key by two", events: []event{removes("owner", "alice", gen(2, "a")), removes("admin", "bob", gen(2, "a"))}, generation: 2},
		{name: "generation: a removed signer's is not sealed to", events: []event{removes("admin", "alice", gen(2, "a")), removes("owner", "admin", trust.Removal{})}, generation: 1},
		{name: "generation: the next one is", events: []event{removes("admin", "alice", gen(2, "a")), removes("owner", "admin", gen(3, "b"))}, generation: 3},
		{name: "generation: nor one that it claims later", events: []event{removes("owner", "admin", gen(2, "a")), removes("admin", "alice", gen(3, "b"))}, generation: 2},
		{name: "generation: nor of a signer by a closed invite", events: []event{removes("admin", "alice", gen(2, "a")), closes("owner", "admins", "admin2")}, generation: 1},
		{name: "generation: a removed signer does not take the owner's along", events: []event{removes("owner", "admin", gen(2, "a")), removes("admin", "bob", gen(2, "a"))}, generation: 2}}, moreStories()...)
}

func moreStories() []story {
	one, byAlice := capability("owner", "one", trust.RoleMember, 2), capability("alice", "new", trust.RoleMember, 2)
	admits := func(c wire.Signed, invite, member string) event {
		return told("certificate", join(c, invite, member)...)
	}
	pause, byOwner := trust.SignPause(key("admin"), mesh, now+100), trust.SignPause(key("owner"), mesh, now+50)
	resume := func(signer string, s wire.Signed) event {
		return told("pause", trust.SignResume(key(signer), mesh, sha256.Sum256(s.Body)))
	}
	demoted := map[string]string{"admin": trust.RoleMember}
	return []story{
		{name: "overuse: the uses of an invite", events: []event{admits(one, "one", "dave"), admits(one, "one", "erin"), admits(one, "one", "dave")}},
		{name: "overuse: one more", class: string(wire.CodeInviteOverused),
			events: []event{admits(one, "one", "dave"), admits(one, "one", "erin"), admits(one, "one", "frank")}},
		{name: "conflict: the first certificate of a key counts", class: string(wire.CodeMemberConflict), events: []event{admits(one, "one", "alice")}},
		{name: "genesis: the same again", events: []event{told("genesis", genesis())}},
		{name: "genesis: a second owner's", class: badCertificate, events: []event{told("genesis", trust.SignGenesis(key("mallory"), "home", now))}},
		{name: "genesis: a second owner's under the mesh's id", class: badCertificate, events: []event{told("genesis", secondGenesis())}},
		{name: "role: a promoted member admits", events: []event{gives("alice", trust.RoleAdmin, now), admits(byAlice, "new", "dave")},
			roles: map[string]string{"alice": trust.RoleAdmin}},
		{name: "role: before its promotion it does not", class: badCertificate, events: []event{admits(byAlice, "new", "dave")}},
		{name: "role: what a demoted one signs admits nobody", gone: map[string]string{"erin": shut},
			events: []event{gives("alice", trust.RoleAdmin, now), admits(byAlice, "new", "dave"), gives("alice", trust.RoleMember, now+1, "dave"), admits(byAlice, "new", "erin")}},
		{name: "role: a removal by one that was an admin counts, whenever it is heard", anyOrder: true, roles: demoted, gone: map[string]string{"alice": removed},
			events: []event{gives("admin", trust.RoleMember, now, "bob", "carol"), removes("admin", "alice", gen(2, "a"))}},
		{name: "role: a promoted member removes no admin", class: forbidden, roles: map[string]string{"alice": trust.RoleAdmin},
			events: []event{gives("alice", trust.RoleAdmin, now), removes("alice", "admin", gen(2, "a"))}},
		{name: "role: no admin removes a promoted member", class: forbidden, roles: map[string]string{"alice": trust.RoleAdmin},
			events: []event{gives("alice", trust.RoleAdmin, now), removes("admin", "alice", gen(2, "a"))}},
		{name: "role: a removed member is promoted in vain", anyOrder: true, gone: map[string]string{"alice": removed},
			events: []event{removes("owner", "alice", gen(2, "a")), gives("alice", trust.RoleAdmin, now)}},
		{name: "removal: two admins issue one generation", class: string(wire.CodeGenerationFork), gone: map[string]string{"alice": removed, "bob": removed},
			events: []event{removes("admin", "alice", gen(2, "a")), removes("admin2", "bob", gen(2, "b"))}},
		{name: "removal: a member removes another", class: forbidden, events: []event{removes("alice", "bob", gen(2, "a"))}},
		{name: "pause: by an admin", events: []event{told("pause", pause)}},
		{name: "pause: the last one counts", anyOrder: true, events: []event{told("pause", pause), told("pause", byOwner)}},
		{name: "pause: over", events: []event{told("pause", trust.SignPause(key("owner"), mesh, now))}},
		{name: "pause: resumed by another admin", anyOrder: true, events: []event{told("pause", pause), resume("admin2", pause)}},
		{name: "pause: a resume ends the one that it names", anyOrder: true, events: []event{told("pause", pause), told("pause", byOwner), resume("owner", pause)}},
		{name: "pause: a removed admin's resume does not count", gone: map[string]string{"admin2": removed},
			events: []event{told("pause", pause), resume("admin2", pause), removes("owner", "admin2", gen(2, "a"))}},
		{name: "pause: a demoted admin's pause does not count", roles: demoted,
			events: []event{told("pause", pause), gives("admin", trust.RoleMember, now, "bob", "carol")}},
		{name: "pause: a member's resume", class: forbidden, events: []event{told("pause", pause), resume("alice", pause)}},
	}
}

// secondGenesis claims the mesh's id for another owner key.
func secondGenesis() wire.Signed {
	k := pub("mallory")
	return sign(key("mallory"), trust.T("genesis", mesh[:], k[:], []byte("home"), trust.U64(now)))
}

func rosterCases() (out []vectors.Case) {
	for _, s := range stories() {
		in := rosterIn{s.events, s.anyOrder, now}
		if in.Events == nil {
			in.Events = []event{}
		}
		yields, err := verifyRoster(in)
		if codeOf(err) != s.class {
			panic(fmt.Sprintf("%s: %v", s.name, err))
		}
		s.check(yields.(rosterOut))
		out = append(out, newCase("roster", "roster: "+s.name, s.class, in, yields))
	}
	kept := genKept(2, "a", "bob")
	for _, c := range []struct {
		name, class, who string
		events           []event
	}{
		{"a member", "", "alice", nil},
		{"a stranger", string(wire.CodeUnknownMember), "mallory", nil},
		{"the owner key is no member", string(wire.CodeUnknownMember), "owner", nil},
		{"a removed member", removed, "alice", []event{removes("owner", "alice", gen(2, "a"))}},
		{"a member that left", removed, "alice", []event{leaves("alice")}},
		{"a member of a removed admin", removed, "carol", []event{removes("owner", "admin", kept)}},
		{"one that the removal keeps", "", "bob", []event{removes("owner", "admin", kept)}},
		{"a member of a demoted admin", shut, "carol", []event{gives("admin", trust.RoleMember, now, "bob")}},
		{"a member by a closed invite", shut, "alice", []event{closes("owner", "open")}},
		{"a member of an admin by a closed invite", shut, "bob", []event{closes("owner", "admins", "admin2")}},
	} {
		if c.events == nil {
			c.events = []event{}
		}
		out = append(out, newCase("standing", "standing: "+c.name, c.class, standingIn{c.events, pub(c.who)}, nil))
	}
	return out
}

// check holds what a roster yields against what its story says.
func (s story) check(out rosterOut) {
	if s.generation != 0 {
		if out.Generation != s.generation {
			panic(fmt.Sprintf("%s: generation %d", s.name, out.Generation))
		}
		return
	}
	if s.gone == nil {
		s.gone = map[string]string{}
	}
	roles := map[string]string{"founder": trust.RoleOwner, "admin": trust.RoleAdmin, "admin2": trust.RoleAdmin}
	maps.Copy(roles, s.roles)
	for n, is := range out.Members {
		want := roles[n]
		if want == "" {
			want = trust.RoleMember
		}
		if is != want {
			panic(fmt.Sprintf("%s: %s is %s, want %s", s.name, n, is, want))
		}
	}
	if !maps.Equal(out.Gone, s.gone) {
		panic(fmt.Sprintf("%s: gone %v, want %v", s.name, out.Gone, s.gone))
	}
}

// TestAnyOrder: a story that says so comes to the same in reverse, and heard twice.
func TestAnyOrder(t *testing.T) {
	t.Parallel()
	stories := 0
	for _, c := range all(t) {
		var in rosterIn
		if c.Kind != "roster" {
			continue
		} else if err := json.Unmarshal(c.In, &in); err != nil {
			t.Fatal(err)
		}
		if !in.AnyOrder {
			continue
		}
		stories++
		back := slices.Clone(in.Events)
		slices.Reverse(back)
		for how, events := range map[string][]event{"in reverse": back, "heard twice": slices.Concat(in.Events, in.Events), "there and back": slices.Concat(in.Events, back)} {
			again := c
			again.In = marshal(rosterIn{events, true, in.Now})
			if err := judge(again, verifiers["roster"]); err != nil {
				t.Errorf("%s, %s: %v", c.Name, how, err)
			}
		}
	}
	if stories < 20 {
		t.Errorf("only %d stories", stories)
	}
}
