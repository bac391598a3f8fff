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

func TestRosterKeyHash(t *testing.T) {
	t.Parallel()
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
