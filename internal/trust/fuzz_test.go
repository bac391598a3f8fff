package trust

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"testing"

	"github.com/claudemesh/claudemesh/internal/vectors"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func sum(s string) [32]byte { return sha256.Sum256([]byte(s)) }

// FuzzFields: what Fields takes apart, T puts together again byte by byte; and
// what a statement's parser takes is canonical.
func FuzzFields(f *testing.F) {
	for _, c := range published(f, "statements") {
		for _, s := range statements(f, c) {
			f.Add([]byte(s.Body))
		}
	}
	k := key("owner")
	owner := k.Public()
	f.Add([]byte(SignPause(k, mesh, now).Body))
	f.Add([]byte(SignResume(k, mesh, sum("pause")).Body))
	f.Add([]byte(SignRole(k, Role{Mesh: mesh, Member: pub("bob"), Role: RoleMember, Issued: now, Kept: []wire.Key{pub("carol")}}).Body))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, ds := range []string{"genesis", "member", "invite", "join", "invite-close", "revoke", "role", "pause", "resume", "header", "mesh-key"} {
			fields, err := Fields(ds, body)
			if err != nil {
				wantCode(t, err, wire.CodeBadCertificate)
				continue
			}
			if !bytes.Equal(T(ds, fields...), body) {
				t.Fatalf("%s: %x comes back as %x", ds, body, T(ds, fields...))
			}
		}
		s := sign(k, body)
		if g, err := VerifyGenesis(s); err == nil {
			same(t, body, SignGenesis(k, g.Name, g.Created))
		}
		if c, err := ParseCapability(s); err == nil {
			same(t, body, SignCapability(k, c))
		}
		if c, err := ParseClose(s); err == nil {
			same(t, body, SignClose(k, c.Mesh, c.Invite, c.Admitted))
		}
		if m, err := ParseRemoval(s); err == nil {
			same(t, body, SignRemoval(k, m))
		}
		if r, err := ParseRole(owner, s); err == nil {
			same(t, body, SignRole(k, r))
		}
		switch p, err := ParsePause(s); {
		case err != nil:
		case p.Lifts == [32]byte{}:
			same(t, body, SignPause(k, p.Mesh, p.Until))
		default:
			same(t, body, SignResume(k, p.Mesh, p.Lifts))
		}
	})
}

func same(t *testing.T, body []byte, s wire.Signed) {
	t.Helper()
	if !bytes.Equal(body, s.Body) {
		t.Fatalf("%x is signed again as %x", body, s.Body)
	}
}

// FuzzCertificate: no certificate that the fuzzer makes admits a key that the
// seeds do not.
func FuzzCertificate(f *testing.F) {
	known := map[wire.Key]bool{}
	for _, v := range published(f, "statements") {
		c := statements(f, v)
		if len(c) > 3 {
			continue
		}
		b, err := wire.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		if m, err := roster(f, "admin").Add(c); err == nil {
			known[m.Key] = true
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var c wire.Certificate
		if wire.Unmarshal(b, &c) != nil {
			return
		}
		r := roster(t, "admin")
		m, err := r.Add(c)
		if err != nil {
			if codeOf(err) == "" {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		if !known[m.Key] || !ValidName(m.Name) {
			t.Fatalf("admitted %s %q", m.Key, m.Name)
		}
	})
}

// FuzzLink: a link that parses comes back as itself.
func FuzzLink(f *testing.F) {
	for _, c := range published(f, "links") {
		f.Add(input[struct{ Link string }](f, c).Link)
	}
	f.Add("ic://join/e30")
	f.Add("https://mesh.example/i/x#%41")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLink(s)
		if err != nil {
			return
		}
		if CheckKey(l.Owner) != nil || CheckKey(l.BrokerKey) != nil {
			t.Fatal("a bad key passed")
		}
		if again, err := ParseLink(l.String()); err != nil || again != l {
			t.Fatalf("%q: %v", l.String(), err)
		}
	})
}

// FuzzHello: only the hellos of the seeds verify, however their JSON is written.
func FuzzHello(f *testing.F) {
	good := map[wire.Sig]bool{}
	for _, c := range published(f, "connect") {
		if c.Kind != "hello" {
			continue
		}
		b := input[struct{ Frame json.RawMessage }](f, c).Frame
		f.Add([]byte(b))
		if fr, err := wire.Decode(b); err == nil && c.Class == "" {
			good[fr.(*wire.Hello).Sig] = true
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := wire.Decode(b)
		if err != nil {
			return
		}
		h, ok := fr.(*wire.Hello)
		if !ok {
			return
		}
		if err := VerifyHello(pub("broker"), h); err == nil && !good[h.Sig] {
			t.Fatalf("verified: %s", b)
		} else if err != nil && codeOf(err) == "" {
			t.Fatalf("an error without a code: %v", err)
		}
	})
}

// FuzzAttestation: an attestation has one encoding.
func FuzzAttestation(f *testing.F) {
	for _, c := range published(f, "connect") {
		if c.Kind == "attestation_bytes" {
			f.Add([]byte(input[struct{ Bytes vectors.Hex }](f, c).Bytes))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseAttestation(b)
		if err != nil {
			wantCode(t, err, wire.CodeBadAttestation)
			return
		}
		if again := AttestationBytes(a); !bytes.Equal(again, b) {
			t.Fatalf("%x comes back as %x", b, again)
		}
	})
}
