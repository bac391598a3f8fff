package trust

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// Pause stops a mesh's messages until a time, or, with Lifts set, is a resume:
// it ends the pause whose T has that hash.
type Pause struct {
	Mesh   wire.ID
	Signer wire.Key
	Until  int64    // Unix ms; 0 in a resume
	Lifts  [32]byte // zero in a pause
}

// SignPause makes a pause.
func SignPause(signer SecretKey, mesh wire.ID, until int64) wire.Signed {
	pk := signer.Public()
	return sign(signer, T("pause", mesh[:], pk[:], U64(uint64(until))))
}

// SignResume makes the end of a pause, which is named by the SHA-256 of its T.
func SignResume(signer SecretKey, mesh wire.ID, pause [32]byte) wire.Signed {
	pk := signer.Public()
	return sign(signer, T("resume", mesh[:], pk[:], pause[:]))
}

// ParsePause checks shape and signature of a pause or a resume, not the
// signer's right: see Roster.
func ParsePause(s wire.Signed) (Pause, error) {
	resume := bytes.HasPrefix(s.Body, T("resume"))
	ds := "pause"
	if resume {
		ds = "resume"
	}
	r, err := open(ds, s.Body)
	if err != nil {
		return Pause{}, err
	}
	p := Pause{Mesh: r.id(), Signer: r.key()}
	if resume {
		p.Lifts = r.hash()
		r.bad = r.bad || p.Lifts == [32]byte{}
	} else {
		p.Until = r.time()
	}
	if err := r.done(); err != nil {
		return Pause{}, err
	}
	return p, check(p.Signer, s, ds)
}

// VerifyPause checks a pause or resume without applying it: it is signed by the
// owner or by who is, or was, an admin.
func (r *Roster) VerifyPause(s wire.Signed) (Pause, error) {
	p, err := ParsePause(s)
	if err != nil {
		return p, err
	}
	if p.Mesh != r.Genesis.Mesh {
		return p, fault(wire.CodeBadCertificate, "another mesh")
	}
	if p.Signer != r.Genesis.Owner && !r.wasAdmin(p.Signer) {
		return p, fault(wire.CodeForbidden, "only the owner or an admin pauses a mesh")
	}
	return p, nil
}

// AddPause verifies a pause or resume and applies it.
func (r *Roster) AddPause(s wire.Signed) (Pause, error) {
	p, err := r.VerifyPause(s)
	if err != nil {
		return p, err
	}
	if p.Lifts != [32]byte{} {
		if !slices.Contains(r.lifted[p.Lifts], p.Signer) {
			r.lifted[p.Lifts] = append(r.lifted[p.Lifts], p.Signer)
		}
		return p, nil
	}
	r.pauses[sha256.Sum256(s.Body)] = p
	return p, nil
}

// Pauses returns the hashes of the pauses in force at a time (Unix ms), which a
// resume names, and until when the last of them lasts; 0 when there is none.
// Those of a signer that is no admin any more are not in force, nor do its resumes count.
func (r *Roster) Pauses(now int64) (hashes [][32]byte, until int64) {
	for h, p := range r.pauses {
		if p.Until > now && r.Governs(p.Signer) && !slices.ContainsFunc(r.lifted[h], r.Governs) {
			hashes, until = append(hashes, h), max(until, p.Until)
		}
	}
	slices.SortFunc(hashes, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	return hashes, until
}

// Lifted reports whether a pause of this statement would be over before it began.
func (r *Roster) Lifted(s wire.Signed) bool {
	return slices.ContainsFunc(r.lifted[sha256.Sum256(s.Body)], r.Governs)
}

// Governs reports whether a key is the owner's or a standing admin's: whether it
// may invite, remove and pause now.
func (r *Roster) Governs(k wire.Key) bool {
	return k == r.Genesis.Owner || (r.isAdmin(k) && r.Standing(k) == nil)
}
