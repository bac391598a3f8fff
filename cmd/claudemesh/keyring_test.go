package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zalando/go-keyring"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// The commands on keys that a keyring holds, which may be locked. They share the
// keyring of this process, so the test is not parallel.
func TestKeyringCommands(t *testing.T) {
	keyring.MockInit()
	dir := t.TempDir()
	var out, errw bytes.Buffer
	do := func(exit int, in string, args ...string) string {
		t.Helper()
		out.Reset()
		errw.Reset()
		args = append([]string{"claudemesh", "--config-dir", filepath.Join(dir, "me")}, args...)
		if got := run(t.Context(), args, strings.NewReader(in), &out, &errw, func(string) string { return "" }); got != exit {
			t.Fatalf("%v: exit code %d, want %d: %s%s", args[3:], got, exit, out.String(), errw.String())
		}
		return out.String() + errw.String()
	}
	says := func(text string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%q is not in:\n%s", w, text)
			}
		}
	}
	p, err := profile.Open(filepath.Join(dir, "me"))
	if err != nil {
		t.Fatal(err)
	}
	m := client.Membership{
		Mesh: "acme", MeshID: wire.ID{1}, Broker: "ws://127.0.0.1:1/ws", Member: "alice", Role: "owner",
		MemberSeed: client.Secret{0xab}, OwnerSeed: client.Secret{0xcd}, Owner: trust.SecretKeyFromSeed(client.Secret{0xcd}).Public(),
	}
	if err := keep(p, m, true); err != nil {
		t.Fatal(err)
	}

	says(do(0, "", "list"), "keyring")
	says(do(0, "", "list", "--json"), `"keys": "keyring"`, m.MemberKey().String())
	says(do(1, "", "doctor"), "in the keyring of the operating system", "the owner key of acme is in no backup")
	file, pass := filepath.Join(dir, "file"), "correct horse battery\n"
	says(do(0, pass, "backup", file, "--low-memory", "--passphrase-stdin"), "with its owner key")

	keyring.MockInitWithError(errors.New("it is locked"))
	says(do(0, "", "list"), "acme", "keyring")
	says(do(0, "", "whoami"), "alice in acme")
	says(do(1, "", "peers"), "the keys of acme are in it: it is locked", "try: unlock the keyring")
	says(do(1, "", "doctor"), "it is locked", "holds every key")
	says(do(1, pass, "backup", file+"2", "--passphrase-stdin"), "it is locked")
	says(do(7, "", "leave", "acme", "--local", "--yes"), "its owner key is here alone")
	says(do(1, pass, "restore", file, "--passphrase-stdin", "--yes", "--keyring"), "it is locked")

	// Its keys are lost: they come back out of the backup, into the file or another keyring.
	do(0, pass, "restore", file, "--passphrase-stdin", "--yes")
	says(do(0, "", "list"), "file")
	says(do(0, "", "whoami"), "alice in acme")
	keyring.MockInit()
	do(0, pass, "restore", file, "--passphrase-stdin", "--yes", "--keyring")
	says(do(0, "", "whoami"), "alice in acme")
	says(do(0, "", "list"), "keyring")
	raw, err := os.ReadFile(filepath.Join(dir, "me", "config.json"))
	if err != nil || !strings.Contains(string(raw), `"keyring"`) || strings.Contains(string(raw), `Seed":"ab`) || strings.Contains(string(raw), `Seed":"cd`) {
		t.Errorf("%v: %s", err, raw)
	}

	// Left while it is locked: the mesh is forgotten, and what is not is said.
	keyring.MockInitWithError(errors.New("it is locked"))
	says(do(1, "", "leave", "acme", "--local", "--yes", "--force"), "delete the entry alice@acme/", "it is locked")
	says(do(0, "", "list"), "no mesh was joined here")
}

// doctor nags for an owner key that is in no backup, and for a mesh that was joined after the last.
func TestCheckBackup(t *testing.T) {
	t.Parallel()
	p, err := profile.Open(filepath.Join(t.TempDir(), "me"))
	if err != nil {
		t.Fatal(err)
	}
	owner := trust.SecretKeyFromSeed(client.Secret{0xcd}).Public()
	step := func(m client.Membership, save bool, want verdict, text string) {
		t.Helper()
		if err := p.Add(m); err != nil {
			t.Fatal(err)
		}
		entries, err := p.Entries()
		if err != nil {
			t.Fatal(err)
		}
		if f := checkBackup(p, entries); f.Verdict != want || !strings.Contains(f.Text, text) || (f.Mend == "") != (want == fine) {
			t.Errorf("%+v, want %s and %q", f, want, text)
		}
		if s, err := p.Snapshot(); !save {
			return
		} else if err = errors.Join(err, p.RememberBackup(s, time.Now())); err != nil {
			t.Fatal(err)
		}
		if f := checkBackup(p, entries); f.Verdict != fine || !strings.Contains(f.Text, "holds every key") {
			t.Errorf("after a backup: %+v", f)
		}
	}
	step(client.Membership{Mesh: "a", MeshID: wire.ID{1}, MemberSeed: client.Secret{1}}, false, fine, "none was made")
	step(client.Membership{Mesh: "b", MeshID: wire.ID{2}, MemberSeed: client.Secret{2}, Owner: owner, OwnerSeed: client.Secret{0xcd}}, true, warning, "owner key of b is in no backup")
	step(client.Membership{Mesh: "c", MeshID: wire.ID{3}, MemberSeed: client.Secret{3}}, true, warning, "lacks the keys of c")
}
