package seal

import (
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// now is the fixed time of every test, Unix ms.
const now = 1_760_000_000_000

func seed(name string) [32]byte       { return sha256.Sum256([]byte("claudemesh test " + name)) }
func key(name string) trust.SecretKey { return trust.SecretKeyFromSeed(seed(name)) }
func pub(name string) wire.Key        { return key(name).Public() }

var (
	mesh  = trust.MeshID(pub("owner"))
	msgID = wire.ID{1, 2, 3}
)

func codeOf(err error) wire.Code {
	var f *wire.Fault
	if errors.As(err, &f) {
		return f.Code
	}
	return ""
}

// wantCode checks that err is a Fault of this code, or nil for "".
func wantCode(t testing.TB, err error, code wire.Code) {
	t.Helper()
	if got := codeOf(err); got != code || (err != nil) != (code != "") {
		t.Errorf("got %q (%v), want %q", got, err, code)
	}
}

func shared(t testing.TB, own, peer string) *Shared {
	t.Helper()
	s, err := NewShared(key(own), pub(peer))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sender is a session of a member that is named like it: "alice/1" of "alice".
// A name without a slash is the member itself.
func sender(name string) (s Sender, member string) {
	for i := range name {
		if name[i] == '/' {
			a := trust.SignAttestation(key(name[:i]), mesh, pub(name), now)
			return Sender{key(name), &a}, name[:i]
		}
	}
	return Sender{Session: key(name)}, name
}

func header(mode wire.Mode, from, to string) Header {
	_, member := sender(from)
	h := Header{
		Mode: mode, Mesh: mesh, SenderMember: pub(member), SenderSession: pub(from), Target: to, ID: msgID,
		Sent: now, Expires: now + 60_000, Priority: wire.PriorityNext, Generation: 3,
	}
	if mode.Direct() {
		h.Recipient, h.Seq = pub(to), 9
	}
	return h
}

var text = Content{Type: "text/plain", Body: []byte("hello, peer")}

// push is the delivery that an honest broker makes of a sealed message.
func push(h Header, s Sealed, wrap int, to string) *wire.Push {
	p := &wire.Push{
		Delivery: 1, ID: h.ID, Mode: h.Mode, To: pub(to), SenderPubkey: h.SenderSession, SenderMember: h.SenderMember,
		Priority: h.Priority, Expires: h.Expires, Nonce: s.Nonce, Ciphertext: s.Ciphertext, CreatedAt: now,
	}
	if wrap >= 0 {
		p.Wrap = s.Wraps[wrap].Box
	}
	return p
}

// direct seals content in h and returns its delivery.
func direct(t testing.TB, h Header, c Content, from, to string) *wire.Push {
	t.Helper()
	s, _ := sender(from)
	out, err := Direct(h, c, s, shared(t, from, to))
	if err != nil {
		t.Fatal(err)
	}
	return push(h, out, -1, to)
}

// group seals content to all and returns a delivery for each.
func group(t testing.TB, h Header, c Content, from string, to ...string) []*wire.Push {
	t.Helper()
	var rs []GroupRecipient
	for i, n := range to {
		rs = append(rs, GroupRecipient{pub(n), shared(t, from, n), uint64(i + 20)})
	}
	s, _ := sender(from)
	out, err := Group(h, c, s, rs)
	if err != nil {
		t.Fatal(err)
	}
	var ps []*wire.Push
	for i, n := range to {
		ps = append(ps, push(h, out, i, n))
	}
	return ps
}

// openAs opens a push as its reader does: with the key that the broker names.
func openAs(own string, p *wire.Push) (Opened, error) {
	sh, err := NewShared(key(own), p.SenderPubkey)
	if err != nil {
		return Opened{}, err
	}
	return Open(p, pub(own), mesh, sh)
}
