package trust

import (
	"crypto/sha256"
	"slices"
	"testing"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// role is signer's change of a member's role.
func role(signer, member, to string, issued int64, kept ...string) wire.Signed {
	return SignRole(key(signer), Role{Mesh: mesh, Member: pub(member), Role: to, Issued: issued, Kept: keys(kept...)})
}

func gives(member, to string, issued int64, kept ...string) event {
	return func(r *Roster) error { _, err := r.AddRole(role("owner", member, to, issued, kept...)); return err }
}

// A promoted member admits others; a demoted one no more, whatever it signs.
func TestPromotedAdmits(t *testing.T) {
	t.Parallel()
	r := roster(t, everyone...)
	invite := capability("alice", "new", RoleMember, 2)
	_, err := r.VerifyCapability(invite)
	wantCode(t, err, wire.CodeBadCertificate)
	wantCode(t, gives("alice", RoleAdmin, now)(r), "")
	must[Capability](t)(r.VerifyCapability(invite))
	must[Member](t)(r.Add(join(invite, "new", "dave")))
	if !r.MayRemove(pub("alice"), pub("bob")) || r.MayRemove(pub("alice"), pub("admin")) || r.MayRemove(pub("admin"), pub("alice")) {
		t.Error("a promoted member removes members, not admins, and no admin removes it")
	}
	wantCode(t, gives("alice", RoleMember, now+1, "dave")(r), "")
	_, err = r.VerifyCapability(invite)
	wantCode(t, err, wire.CodeBadCertificate)
	ghost := must[Member](t)(r.Add(join(invite, "new", "erin"))) // nobody can tell that it was signed later
	wantCode(t, r.Standing(ghost.Key), wire.CodeInviteClosed)
	wantCode(t, r.Standing(pub("dave")), "")
	if r.MayRemove(pub("alice"), pub("bob")) || !r.MayRemove(pub("admin"), pub("alice")) {
		t.Error("a demoted admin removes")
	}
	if r.RoleIssued(pub("alice")) != now+1 || r.RoleIssued(pub("bob")) != 0 {
		t.Error("when the newest was issued")
	}
}

func TestPauses(t *testing.T) {
	t.Parallel()
	r := roster(t, everyone...)
	paused := func(at int64) (until int64) { _, until = r.Pauses(at); return until }
	add := func(s wire.Signed) { t.Helper(); must[Pause](t)(r.AddPause(s)) }
	byAdmin, byOwner := SignPause(key("admin"), mesh, now+100), SignPause(key("owner"), mesh, now+50)
	add(byAdmin)
	add(byAdmin)
	add(byOwner)
	if paused(now) != now+100 || paused(now+99) != now+100 || paused(now+100) != 0 {
		t.Error("a pause lasts until its time")
	}
	add(SignResume(key("admin2"), mesh, sha256.Sum256(byAdmin.Body)))
	if paused(now) != now+50 || !r.Lifted(byAdmin) || r.Lifted(byOwner) {
		t.Error("a resume ends the pause that it names, and no other")
	}
	hashes, _ := r.Pauses(now)
	if !slices.Equal(hashes, [][32]byte{sha256.Sum256(byOwner.Body)}) {
		t.Error("which pauses are in force")
	}
	wantCode(t, gives("admin2", RoleMember, now)(r), "")
	if paused(now) != now+100 {
		t.Error("the resume of one that is no admin any more counts")
	}
	wantCode(t, removes("owner", "admin", genKept(2, "a", "bob", "carol"))(r), "")
	if paused(now) != now+50 {
		t.Error("the pause of a removed admin is in force")
	}
}
