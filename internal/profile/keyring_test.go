package profile_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/zalando/go-keyring"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/trust"
)

// owned is a membership with the owner's key.
func owned(n int, name string) client.Membership {
	m := membership(n, name)
	m.MemberSeed, m.OwnerSeed = client.Secret{0xab, byte(n)}, client.Secret{0xcd, byte(n)}
	m.Owner = trust.SecretKeyFromSeed(m.OwnerSeed).Public()
	return m
}

func TestKeyring(t *testing.T) {
	keyring.MockInit()
	check(t, profile.CheckKeyring())
	p := open(t)
	a, b := owned(1, "a"), membership(2, "b")
	check(t, p.AddToKeyring(a))
	check(t, p.Add(b))
	for _, q := range []*profile.Profile{p, profile.At(p.Dir())} { // with and without what was read before
		for range 2 {
			got, err := q.Meshes()
			check(t, err)
			if want := []client.Membership{a, b}; !reflect.DeepEqual(got, want) {
				t.Fatalf("got\n%+v, want\n%+v", got, want)
			}
		}
	}
	raw, err := os.ReadFile(filepath.Join(p.Dir(), "config.json"))
	check(t, err)
	for _, seed := range []client.Secret{a.MemberSeed, a.OwnerSeed} {
		text, _ := seed.MarshalText()
		equal(t, strings.Contains(string(raw), string(text)), false)
	}
	// Without secrets it says as much as with them.
	entries, err := p.Entries()
	check(t, err)
	equal(t, say(entries[0].MemberKey() == a.MemberKey(), entries[0].Owns(), entries[0].Keyring != nil, entries[0].MemberSeed.IsZero()), "true true true true")
	equal(t, say(entries[1].MemberKey() == b.MemberKey(), entries[1].Owns(), entries[1].Keyring != nil), "true false false")

	// A mesh that was refused leaves nothing there, one that was left neither.
	account := entries[0].Keyring.Account
	equal(t, errors.Is(p.AddToKeyring(a), profile.ErrJoined), true)
	check(t, p.Move(a.Broker, "wss://other.example"))
	got, err := p.Meshes()
	equal(t, say(got[0].MemberSeed == a.MemberSeed, got[0].Broker, err), "true wss://other.example <nil>")
	check(t, p.Remove(a.MeshID))
	_, err = keyring.Get("claudemesh", account)
	equal(t, errors.Is(err, keyring.ErrNotFound), true)
}

// A keyring that is locked, absent, empty or altered is an error that names the
// mesh; what needs no secrets goes on.
func TestKeyringFails(t *testing.T) {
	keyring.MockInit()
	p := open(t)
	a := owned(1, "a")
	check(t, p.AddToKeyring(a))
	entries, err := p.Entries()
	check(t, err)
	account := entries[0].Keyring.Account
	good, err := keyring.Get("claudemesh", account)
	check(t, err)
	member, owner, _ := strings.Cut(good, " ")
	for _, bad := range []string{"", "x", member, owner + " " + member, member + " " + member, strings.ToUpper(good), good + " "} {
		check(t, keyring.Set("claudemesh", account, bad))
		_, err := profile.At(p.Dir()).Meshes()
		equal(t, errors.Is(err, profile.ErrKeyring), true)
		fails(t, err, "does not hold the keys of a")
		equal(t, strings.Contains(err.Error(), member), false)
	}
	keyring.MockInit() // all of it is lost
	_, err = profile.At(p.Dir()).Meshes()
	equal(t, say(errors.Is(err, profile.ErrKeyring), errors.Is(err, keyring.ErrNotFound)), "true true")
	fails(t, err, "the keys of a are in it")

	keyring.MockInitWithError(errors.New("it is locked"))
	fails(t, profile.CheckKeyring(), "it is locked")
	fails(t, p.AddToKeyring(owned(3, "c")), "it is locked")
	q := profile.At(p.Dir())
	_, err = q.Meshes()
	fails(t, err, "it is locked")
	check(t, q.Add(membership(2, "b")))
	err = q.Remove(a.MeshID) // it is left, and that its keys are not gone is said
	equal(t, errors.Is(err, profile.ErrKeyring), true)
	fails(t, err, account)
	meshes, err := q.Meshes()
	equal(t, say(len(meshes), meshes[0].Mesh, err), "1 b <nil>")
}

// An entry has its secrets here or there, never in both places or in none.
func TestKeyringConfig(t *testing.T) {
	keyring.MockInit()
	p := open(t)
	check(t, p.AddToKeyring(owned(1, "a")))
	config := filepath.Join(p.Dir(), "config.json")
	good, err := os.ReadFile(config)
	check(t, err)
	zeros, seed := strings.Repeat("0", 64), strings.Repeat("01", 32)
	for _, bad := range []string{
		strings.Replace(string(good), `"memberSeed":"`+zeros, `"memberSeed":"`+seed, 1),
		strings.Replace(string(good), `"memberSeed"`, `"ownerSeed":"`+seed+`","memberSeed"`, 1),
		strings.Replace(string(good), `"account":"`, `"account":"","x":"`, 1),
		strings.Replace(string(good), `"keyring":{`, `"x":{`, 1),
	} {
		if bad == string(good) {
			t.Fatal("nothing was altered")
		}
		check(t, os.WriteFile(config, []byte(bad), 0o600))
		_, err := p.Meshes()
		fails(t, err, "lacks")
	}
}

// The real keyring of a machine that has none, as a container.
func TestNoKeyring(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the secret service is that of Linux")
	}
	cmd := command(t, "keyring", open(t), "")
	cmd.Env = append(cmd.Env, "DBUS_SESSION_BUS_ADDRESS=unix:path="+filepath.Join(t.TempDir(), "nobody"))
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), profile.ErrKeyring.Error()+": ") || !strings.Contains(string(out), "nobody") {
		t.Fatalf("%v: %s", err, out)
	}
}
