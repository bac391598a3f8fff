package wire

import (
	"bytes"
	"errors"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// constants returns the values of a file's constants of a named type.
func constants(t *testing.T, file, typ string) (out []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			if id, ok := v.Type.(*ast.Ident); !ok || id.Name != typ {
				continue
			}
			for _, x := range v.Values {
				lit, ok := x.(*ast.BasicLit)
				if !ok {
					t.Fatalf("%s is no literal", v.Names[0].Name)
				}
				value := lit.Value
				if lit.Kind == token.STRING {
					if value, err = strconv.Unquote(value); err != nil {
						t.Fatal(err)
					}
				}
				out = append(out, value)
			}
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s has no constants of type %s", file, typ)
	}
	return out
}

func unique(t *testing.T, values []string) {
	t.Helper()
	seen := map[string]bool{}
	for _, v := range values {
		if seen[v] {
			t.Errorf("%s stands for two constants", v)
		}
		seen[v] = true
	}
}

// wantDecodeError decodes raw and checks how it fails.
func wantDecodeError(t *testing.T, raw string, code Code, req string) {
	t.Helper()
	f, err := Decode([]byte(raw))
	var d *DecodeError
	if !errors.As(err, &d) {
		t.Fatalf("%s: decoded as %T, %v", raw, f, err)
	}
	if d.Code != code || d.ReqID != req || d.Error() == "" {
		t.Errorf("%s: %q of request %q (%v), want %q of %q", raw, d.Code, d.ReqID, err, code, req)
	}
	// The refusal itself can be sent.
	if _, err := Append(nil, Faultf(d.Code, d.Error()).Frame(d.ReqID)); err != nil {
		t.Errorf("%s: the answer cannot be encoded: %v", raw, err)
	}
}

func key(b byte) (k Key)       { copy(k[:], bytes.Repeat([]byte{b}, 32)); return }
func id(b byte) (i ID)         { copy(i[:], bytes.Repeat([]byte{b}, 16)); return }
func sig(b byte) (s Sig)       { copy(s[:], bytes.Repeat([]byte{b}, 64)); return }
func nonce(b byte) (n Nonce32) { copy(n[:], bytes.Repeat([]byte{b}, 32)); return }
func blob(n int) Blob          { return bytes.Repeat([]byte{0xfb, 0xff, 7}, n) }

// examples holds one frame of every type, each field set.
func examples() []Frame {
	req := Req{"r1"}
	st := func(b byte) Signed { return Signed{Body: blob(int(b)), Sig: sig(b)} }
	att, card := &Attestation{Issued: 1760000000000, Sig: sig(1)}, Card{Generation: 2, Seq: 1760000000001, Blob: blob(9), Sig: sig(2)}
	peer := Peer{key(1), key(2), RoleSession, att, &card, true, 1760000000002}
	receipt := Receipt{id(1), key(1), StateBounced, CodeExpired, 1760000000003}
	return []Frame{
		&Challenge{Version, nonce(1), key(9), sig(9)},
		&Hello{req, Version, RoleSession, id(1), key(2), key(1), nonce(1), att, &card, sig(3)},
		&HelloAck{req, "c1", 1760000000000, Limits{MaxMessageBytes, 40000, MaxWraps, 64, 2592000000}, 3, 12, 2, 12500, []Key{key(3)}},
		&Send{req, id(1), ModeGroup, key(3), key(4), PriorityNext, 1760000000004, blob(8), blob(20), []Wrap{{key(5), blob(7)}, {key(6), blob(7)}}},
		&Ack{req, id(1), true, true, []Recipient{{key(5), true, StateDelivered, CodeExpired}}, []Skipped{{key(6), CodeQueueFull}}},
		&Push{17, id(1), ModeGroup, key(1), key(2), key(3), PriorityNow, 1760000000005, blob(8), blob(20), blob(7), 1760000000006, 12},
		&ClientAck{[]int64{17, 18}},
		&ClientNack{17, CodeBadBox},
		&receipt,
		&MessageStatus{req, []ID{id(1), id(2)}},
		&StatusList{req, []Receipt{receipt}},
		&ListPeers{Req: req, Offline: true, Watch: true},
		&PeersList{Req: req, Peers: []Peer{peer}, More: true},
		&Presence{PresenceChanged, peer},
		&SetCard{req, card},
		&Members{req, 11},
		&MembersList{
			Req: req, Genesis: st(1), Roles: []Signed{st(8)}, Certificates: []Certificate{{st(2)}, {st(3), st(4), st(5)}},
			Removals: []Signed{st(6)}, Closes: []Signed{st(7)}, Pauses: []Signed{st(9)},
			Keys: []KeyBox{{2, key(1), blob(9), blob(8)}}, Version: 12, Generation: 2, More: true,
		},
		&MembersChanged{12},
		&InvitePut{req, st(1), blob(9), 2},
		&InviteList{req},
		&Invites{req, []InviteInfo{{st(1), 1, true, true, 1760000000007}}},
		&InviteClose{req, st(1)},
		&Remove{req, st(1), []Signed{st(2)}, key(3), []KeyBoxTo{{key(4), blob(9)}}, blob(8)},
		&SetRole{req, st(1), []Signed{st(2)}, 12},
		&Pause{req, st(1)},
		&Kick{req, key(2)},
		&Block{req, key(2), true},
		&Spread{12500},
		&OK{req, 12, []ID{id(3)}},
		&Error{req, CodeRateLimited, "slow down", true, 1500, id(1)},
	}
}
