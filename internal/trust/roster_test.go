package trust

import (
	"slices"
	"testing"

	"github.com/claudemesh/claudemesh/internal/wire"
	"pgregory.net/rapid"
)

// event is one statement that a roster is told.
type event func(r *Roster) error

func removes(signer, member string, m Removal) event {
	return func(r *Roster) error { _, err := r.AddRemoval(removal(signer, member, m)); return err }
}

func leaves(member string) event { return removes(member, member, Removal{Reason: ReasonLeft}) }

func closes(signer, invite string, admitted ...string) event {
	return func(r *Roster) error {
		_, err := r.AddClose(SignClose(key(signer), mesh, inviteID(invite), keys(admitted...)))
		return err
	}
}

func gen(n uint64, k string) Removal {
	return Removal{Generation: n, KeyHash: KeyHash(mesh, n, seed(k))}
}

func genKept(n uint64, k string, kept ...string) Removal {
	m := gen(n, k)
	m.Kept = keys(kept...)
	return m
}

func TestRosterStanding(t *testing.T) {
	t.Parallel()
	const removed, shut = wire.CodeRemoved, wire.CodeInviteClosed
	for _, tt := range []struct {
		name   string
		events []event
		gone   map[string]wire.Code // everybody else stands
	}{
		{"everyone stands", nil, nil},
		{"the owner removes a member", []event{removes("owner", "alice", gen(2, "a"))}, map[string]wire.Code{"alice": removed}},
		{"an admin removes a member", []event{removes("admin2", "bob", gen(2, "a"))}, map[string]wire.Code{"bob": removed}},
		{"the owner removes the founder", []event{removes("owner", "founder", gen(2, "a"))}, map[string]wire.Code{"founder": removed}},
		{"a member leaves", []event{leaves("alice")}, map[string]wire.Code{"alice": removed}},
		{"twice removed", []event{leaves("alice"), removes("owner", "alice", gen(2, "a"))}, map[string]wire.Code{"alice": removed}},
		{"removing an admin takes those it admitted", []event{removes("owner", "admin", gen(2, "a"))},
			map[string]wire.Code{"admin": removed, "bob": removed, "carol": removed}},
		{"but for those it keeps", []event{removes("owner", "admin", genKept(2, "a", "bob"))},
			map[string]wire.Code{"admin": removed, "carol": removed}},
		{"an admin that leaves takes those it admitted", []event{leaves("admin")},
			map[string]wire.Code{"admin": removed, "bob": removed, "carol": removed}},
		{"the owner keeps whom an admin left", []event{leaves("admin"), removes("owner", "admin", genKept(2, "a", "bob"))},
			map[string]wire.Code{"admin": removed, "carol": removed}},
		{"a removed admin cannot undo it by leaving", []event{removes("owner", "admin", genKept(2, "a", "bob", "carol")), leaves("admin")},
			map[string]wire.Code{"admin": removed}},
		{"nor by a close", []event{removes("owner", "admin", genKept(2, "a", "bob", "carol")), closes("admin", "side")},
			map[string]wire.Code{"admin": removed}},
		{"but the owner may", []event{removes("owner", "admin", genKept(2, "a", "bob", "carol")), closes("owner", "side", "bob")},
			map[string]wire.Code{"admin": removed, "carol": shut}},
		{"two removals keep whom both keep", []event{removes("owner", "admin", genKept(2, "a", "bob")), removes("owner", "admin", genKept(2, "a", "bob", "carol"))},
			map[string]wire.Code{"admin": removed, "carol": removed}},
		{"a removal outlives its signer", []event{removes("admin", "alice", gen(2, "a")), removes("owner", "admin", genKept(3, "b", "bob", "carol"))},
			map[string]wire.Code{"alice": removed, "admin": removed}},
		{"the owner closes its invite", []event{closes("owner", "open")}, map[string]wire.Code{"alice": shut}},
		{"whom a close lists stands", []event{closes("owner", "open", "alice")}, nil},
		{"the owner closes an admin's invite", []event{closes("owner", "side", "bob")}, map[string]wire.Code{"carol": shut}},
		{"its issuer closes it", []event{closes("admin", "side", "carol")}, map[string]wire.Code{"bob": shut}},
		{"another admin's close is void", []event{closes("admin2", "side")}, nil},
		{"an admin's close of the owner's invite is void", []event{closes("admin", "open")}, nil},
		{"a close of another invite is no matter", []event{closes("owner", "other")}, nil},
		{"two closes admit whom both list", []event{closes("owner", "side", "bob", "carol"), closes("admin", "side", "bob")},
			map[string]wire.Code{"carol": shut}},
		{"an admin by a closed invite admits nobody", []event{closes("owner", "admins", "admin2")},
			map[string]wire.Code{"admin": shut, "bob": shut, "carol": shut}},
		{"but for those that its removal keeps", []event{closes("owner", "admins", "admin2"), removes("owner", "admin", genKept(2, "a", "bob"))},
			map[string]wire.Code{"admin": removed, "carol": removed}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := roster(t, everyone...)
			for i := range 2 { // hearing everything again changes nothing
				for _, e := range tt.events {
					wantCode(t, e(r), "")
				}
				if i == 0 && len(tt.events) > 1 {
					slices.Reverse(tt.events) // nor does the order
				}
			}
			checkStanding(t, r, tt.gone)
			back := roster(t, everyone...)
			for _, e := range tt.events {
				wantCode(t, e(back), "")
			}
			checkStanding(t, back, tt.gone)
		})
	}
}

func checkStanding(t *testing.T, r *Roster, gone map[string]wire.Code) {
	t.Helper()
	var stand []string
	for _, n := range everyone {
		if code := codeOf(r.Standing(pub(n))); code != gone[n] {
			t.Errorf("%s: %q, want %q", n, code, gone[n])
		}
		m, ok := r.Member(pub(n))
		if ok != (gone[n] == "") || (ok && m.Name != n) {
			t.Errorf("Member(%s) = %v, %v", n, m.Name, ok)
		}
		if k, ok := r.Known(pub(n)); !ok || k.Name != n {
			t.Errorf("%s is forgotten", n)
		}
		if gone[n] == "" {
			stand = append(stand, n)
		}
	}
	var names []string
	for _, m := range r.Members() {
		names = append(names, m.Name)
	}
	slices.Sort(stand)
	if !slices.Equal(names, stand) {
		t.Errorf("members %v, want %v", names, stand)
	}
}

func TestRosterUnknown(t *testing.T) {
	t.Parallel()
	r := roster(t, "founder")
	wantCode(t, r.Standing(pub("mallory")), wire.CodeUnknownMember)
	if _, ok := r.Member(pub("mallory")); ok {
		t.Error("a stranger is a member")
	}
	if _, ok := r.Known(pub("mallory")); ok {
		t.Error("a stranger is known")
	}
	if m, err := r.Verify(certificates()["alice"]); err != nil || m.Name != "alice" {
		t.Error(m, err)
	}
	if _, ok := r.Known(pub("alice")); ok {
		t.Error("Verify admits")
	}
	_, err := NewRoster(pub("mallory"), genesis())
	wantCode(t, err, wire.CodeBadCertificate)
}

func TestRosterOveruse(t *testing.T) {
	t.Parallel()
	r := roster(t)
	one := capability("owner", "one", RoleMember, 2)
	for _, n := range []string{"dave", "erin", "dave", "erin"} { // the same again is no use
		must[Member](t)(r.Add(join(one, "one", n)))
	}
	_, err := r.Add(join(one, "one", "frank"))
	wantCode(t, err, wire.CodeInviteOverused)
	if _, ok := r.Known(pub("frank")); ok {
		t.Error("admitted beyond the uses")
	}
	must[Member](t)(r.Add(certificates()["alice"])) // another invite
}

func TestRosterGenerations(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		events []event
		code   wire.Code // of the last event
		want   uint64
	}{
		{"from the founding", nil, "", 1},
		{"the owner's", []event{removes("owner", "alice", gen(2, "a"))}, "", 2},
		{"an admin's", []event{removes("admin", "alice", gen(2, "a"))}, "", 2},
		{"the highest", []event{removes("owner", "alice", gen(3, "b")), removes("admin", "bob", gen(2, "a"))}, "", 3},
		{"leaving issues none", []event{leaves("alice")}, "", 1},
		{"a fork", []event{removes("owner", "alice", gen(2, "a")), removes("admin", "bob", gen(2, "b"))}, wire.CodeGenerationFork, 2},
		{"a fork of an older one", []event{removes("owner", "alice", gen(2, "a")), removes("owner", "bob", gen(3, "b")), removes("owner", "carol", gen(2, "c"))}, wire.CodeGenerationFork, 3},
		{"one key by two", []event{removes("owner", "alice", gen(2, "a")), removes("admin", "bob", gen(2, "a"))}, "", 2},
		{"a removed signer's is not sealed to", []event{removes("admin", "alice", gen(2, "a")), removes("owner", "admin", Removal{})}, "", 1},
		{"the next one is", []event{removes("admin", "alice", gen(2, "a")), removes("owner", "admin", gen(3, "b"))}, "", 3},
		{"nor one that it claims later", []event{removes("owner", "admin", gen(2, "a")), removes("admin", "alice", gen(3, "b"))}, "", 2},
		{"nor of a signer by a closed invite", []event{removes("admin", "alice", gen(2, "a")), closes("owner", "admins", "admin2")}, "", 1},
		// The hash is public: an admin that repeats the owner's issue must not
		// take it down when it is removed itself.
		{"a removed signer does not take the owner's along", []event{removes("owner", "admin", gen(2, "a")), removes("admin", "bob", gen(2, "a"))}, "", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := roster(t, everyone...)
			for i, e := range tt.events {
				code := wire.Code("")
				if i == len(tt.events)-1 {
					code = tt.code
				}
				wantCode(t, e(r), code)
			}
			if got := r.Generation(); got != tt.want {
				t.Errorf("generation %d, want %d", got, tt.want)
			}
		})
	}
	r := roster(t, everyone...)
	wantCode(t, removes("owner", "alice", gen(2, "a"))(r), "")
	if h, ok := r.KeyHash(2); !ok || h != KeyHash(mesh, 2, seed("a")) {
		t.Error("the hash is not the removal's")
	}
	if _, ok := r.KeyHash(3); ok {
		t.Error("a hash of nothing")
	}
}

func TestRosterVerifyChangesNothing(t *testing.T) {
	t.Parallel()
	r := roster(t, everyone...)
	must[Removal](t)(r.VerifyRemoval(removal("owner", "alice", gen(2, "a"))))
	must[Close](t)(r.VerifyClose(SignClose(key("owner"), mesh, inviteID("open"), nil)))
	checkStanding(t, r, nil)
	if _, ok := r.KeyHash(2); ok || r.Generation() != 1 {
		t.Error("a verified removal issued a key")
	}
}

func TestRosterUnkeyed(t *testing.T) {
	t.Parallel()
	r := roster(t, everyone...)
	if u := r.Unkeyed(); len(u) > 0 {
		t.Error(u)
	}
	for _, e := range []event{leaves("alice"), leaves("bob"), removes("owner", "carol", gen(2, "a"))} {
		wantCode(t, e(r), "")
	}
	if u := r.Unkeyed(); !slices.Equal(u, sortKeys(keys("alice", "bob"))) {
		t.Errorf("%v", u)
	}
	wantCode(t, removes("admin", "alice", gen(3, "b"))(r), "")
	if u := r.Unkeyed(); !slices.Equal(u, keys("bob")) {
		t.Errorf("%v", u)
	}
}

func TestRosterLists(t *testing.T) {
	t.Parallel()
	r := roster(t, everyone...)
	side := sortKeys(keys("bob", "carol"))
	if got := r.AdmittedBy(inviteID("side")); !slices.Equal(got, side) {
		t.Errorf("by the invite: %v", got)
	}
	if got := r.AdmittedUnder(pub("admin")); !slices.Equal(got, side) {
		t.Errorf("under the admin: %v", got)
	}
	wantCode(t, leaves("bob")(r), "")
	if got := r.AdmittedBy(inviteID("side")); !slices.Equal(got, keys("carol")) {
		t.Errorf("after one left: %v", got)
	}
	for _, tt := range []struct {
		signer, member string
		want           bool
	}{
		{"owner", "alice", true}, {"owner", "admin", true}, {"owner", "founder", true}, {"owner", "mallory", false},
		{"admin", "alice", true}, {"admin", "admin2", false}, {"admin", "founder", false}, {"alice", "carol", false},
		{"mallory", "alice", false}, {"admin", "mallory", false},
	} {
		if got := r.MayRemove(pub(tt.signer), pub(tt.member)); got != tt.want {
			t.Errorf("may %s remove %s: %v", tt.signer, tt.member, got)
		}
	}
}

// Whatever order the statements come in, who stands is the same.
func TestRosterOrder(t *testing.T) {
	t.Parallel()
	events := []event{
		removes("owner", "admin", genKept(2, "a", "bob")), leaves("admin"), closes("admin", "side"), closes("owner", "side", "bob"),
		removes("admin", "alice", gen(2, "a")), closes("admin2", "open"), leaves("carol"), closes("owner", "open", "alice"),
		closes("owner", "admins", "admin2"), removes("owner", "alice", gen(3, "b")),
	}
	rapid.Check(t, func(rt *rapid.T) {
		some := rapid.SliceOfDistinct(rapid.IntRange(0, len(events)-1), rapid.ID[int]).Draw(rt, "events")
		order := rapid.Permutation(some).Draw(rt, "order")
		a, b := roster(t, everyone...), roster(t, everyone...)
		for i := range some {
			if err := events[some[i]](a); err != nil {
				rt.Fatal(err)
			}
			if err := events[order[i]](b); err != nil {
				rt.Fatal(err)
			}
		}
		for _, n := range everyone {
			if x, y := codeOf(a.Standing(pub(n))), codeOf(b.Standing(pub(n))); x != y {
				rt.Fatalf("%s: %q or %q by order", n, x, y)
			}
		}
		if a.Generation() != b.Generation() {
			rt.Fatalf("generation %d or %d by order", a.Generation(), b.Generation())
		}
	})
}
