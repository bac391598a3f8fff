package wire

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

// FuzzRequest: what decodes as a body of the HTTP requests, or as an invite
// link's content, comes back as itself.
func FuzzRequest(f *testing.F) {
	s := Signed{Body: []byte("body"), Sig: Sig{1}}
	bodies := []any{
		&FoundRequest{s, s}, &FoundReply{ID{1}, Key{2}}, &InviteReply{Genesis: s, Capability: s, Issuer: []Certificate{{s}}, Roles: []Signed{s}},
		&JoinRequest{Certificate{s, s, s}}, &JoinReply{Blob("blob"), 7, Sig{2}}, &Link{2, "wss://host/ws", Key{1}, Key{2}, Blob("secret")},
	}
	for _, v := range bodies {
		b, err := Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"certificate":null,"blob":"AA==","v":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, like := range bodies {
			v, again := reflect.New(reflect.TypeOf(like).Elem()), reflect.New(reflect.TypeOf(like).Elem())
			if Unmarshal(b, v.Interface()) != nil {
				continue
			}
			one, err := Marshal(v.Interface())
			if err != nil {
				t.Fatalf("%q: %v", b, err)
			}
			if err := Unmarshal(one, again.Interface()); err != nil {
				t.Fatalf("%q became %q: %v", b, one, err)
			}
			if two, err := Marshal(again.Interface()); err != nil || !bytes.Equal(one, two) {
				t.Fatalf("%q, then %q: %v", one, two, err)
			}
		}
	})
}

// FuzzText: keys, ids, signatures and blobs have one encoding.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "AA==", "AB==", "QQ=\n=", ID{1}.String(), Key{1}.String(), Key{1}.String() + Key{2}.String(), strings.ToUpper(Key{0xab}.String())} {
		f.Add([]byte(s))
	}
	type text interface {
		UnmarshalText([]byte) error
		MarshalText() ([]byte, error)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range []text{new(Key), new(ID), new(Sig), new(Nonce32), new(Blob)} {
			if v.UnmarshalText(b) != nil {
				continue
			}
			if again, err := v.MarshalText(); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("%T: %q comes back as %q: %v", v, b, again, err)
			}
		}
	})
}
