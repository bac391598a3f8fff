package profile_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/zalando/go-keyring"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/backup"
	"github.com/claudemesh/claudemesh/internal/profile"
)

var when = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// carried is a snapshot that went through an archive.
func carried(t *testing.T, s profile.Snapshot) profile.Snapshot {
	t.Helper()
	files, err := s.Entries()
	check(t, err)
	s, err = profile.ParseSnapshot(backup.Archive{Entries: append(files, backup.Entry{Name: "mailbox/x.json", Data: []byte("?")})})
	check(t, err)
	return s
}

func TestRestore(t *testing.T) {
	keyring.MockInit()
	p, dir := open(t), t.TempDir()
	a, b := owned(1, "a"), membership(2, "b")
	check(t, p.Add(a))
	check(t, p.AddToKeyring(b))
	one := take(t, p, a.MeshID, dir, "box", "web")
	check(t, one.Close())
	s, err := p.Snapshot()
	check(t, err)
	s = carried(t, s)
	equal(t, say(len(s.Meshes), len(s.Seats), s.Seats[0].Label, s.Seats[0].Mesh == a.MeshID), "2 1 web true")

	// Onto nothing: meshes with their secrets, wherever these were; seats with labels,
	// and with their keys where the mailbox is theirs.
	fresh := open(t)
	kept, err := fresh.Restore(s, false, when)
	equal(t, say(len(kept), err), "0 <nil>")
	meshes, err := fresh.Meshes()
	check(t, err)
	if want := []client.Membership{a, b}; !reflect.DeepEqual(meshes, want) {
		t.Fatalf("got\n%+v, want\n%+v", meshes, want)
	}
	seat := take(t, fresh, a.MeshID, dir, "box", "")
	equal(t, say(seat.Label, seat.Key.Public() == one.Key.Public()), "web true")
	check(t, seat.Close())
	seat = take(t, fresh, a.MeshID, dir, "new box", "")
	equal(t, say(seat.Label, seat.Key.Public() == one.Key.Public()), "web false")
	check(t, seat.Close())

	// Onto others: they are kept, and each restore keeps its own.
	old, err := os.ReadFile(filepath.Join(fresh.Dir(), "config.json"))
	check(t, err)
	for i, tag := range []string{".before-restore-20261123T090000Z", ".before-restore-20261123T090000Z-2"} {
		kept, err = fresh.Restore(s, i == 1, when)
		check(t, err)
		config, seats := filepath.Join(fresh.Dir(), "config.json"), filepath.Join(fresh.Dir(), "seats")
		equal(t, say(kept), say([]profile.Kept{{seats, seats + tag}, {config, config + tag}}))
		have, err := os.ReadFile(config + tag)
		check(t, err)
		equal(t, string(have), string(old))
		names, err := filepath.Glob(filepath.Join(seats+tag, a.MeshID.String(), "*.json"))
		equal(t, say(len(names), err), "1 <nil>")
	}
	entries, err := fresh.Entries()
	check(t, err)
	equal(t, say(entries[0].Keyring != nil, entries[1].Keyring != nil), "true true")
	meshes, err = fresh.Meshes()
	equal(t, say(reflect.DeepEqual(meshes, []client.Membership{a, b}), err), "true <nil>")
	checkPrivate(t, fresh.Dir())
	// To undo it, what was kept is moved back.
	for _, k := range kept {
		check(t, os.RemoveAll(k.Place))
		check(t, os.Rename(k.Now, k.Place))
	}
	entries, err = fresh.Entries()
	equal(t, say(entries[0].Keyring != nil, err), "false <nil>")
}

// A restore that fails changes nothing.
func TestRestoreFails(t *testing.T) {
	keyring.MockInit()
	p := open(t)
	check(t, p.Add(membership(1, "a")))
	check(t, take(t, p, meshA, t.TempDir(), "box", "").Close())
	config := filepath.Join(p.Dir(), "config.json")
	check(t, os.Rename(config, config+".real"))
	if err := os.Symlink(config+".real", config); err != nil {
		t.Skip(err)
	}
	_, err := p.Restore(profile.Snapshot{Meshes: []client.Membership{owned(2, "b")}}, true, when)
	equal(t, errors.Is(err, profile.ErrLink), true)
	seats, err := p.AllSeats(meshA)
	equal(t, say(len(seats), err), "1 <nil>")
	keyring.MockInitWithError(errors.New("it is locked"))
	_, err = p.Restore(profile.Snapshot{Meshes: []client.Membership{owned(2, "b")}}, true, when)
	fails(t, err, "it is locked")
	rest, err := filepath.Glob(filepath.Join(p.Dir(), "*.[bt]*"))
	equal(t, say(len(rest), err), "0 <nil>")
}

// What is in a backup under our names is checked as what is in our files.
func TestParseSnapshot(t *testing.T) {
	p := open(t)
	check(t, p.Add(membership(1, "a")))
	check(t, take(t, p, membership(1, "a").MeshID, t.TempDir(), "box", "").Close())
	s, err := p.Snapshot()
	check(t, err)
	files, err := s.Entries()
	check(t, err)
	config, seat := files[0], files[1]
	as := func(name string, data string) backup.Entry { return backup.Entry{Name: name, Data: []byte(data)} }
	for want, bad := range map[string][]backup.Entry{
		"no such file":       {seat},
		"malformed":          {as("config.json", "{")},
		"newer":              {as("config.json", `{"version":9}`)},
		"lacks the keys":     {as("config.json", strings.Replace(strings.Replace(string(config.Data), `"memberSeed":"01`, `"memberSeed":"00`, 1), `"role"`, `"keyring":{"account":"x","member":"`+strings.Repeat("01", 32)+`"},"role"`, 1))},
		"seats/x.json":       {config, as("seats/x.json", string(seat.Data))},
		"not the file":       {config, as(strings.Replace(seat.Name, "-1.json", "-2.json", 1), string(seat.Data))},
		"seats/0101":         {config, as("seats/0101/"+filepath.Base(seat.Name), string(seat.Data))},
		"is not the file of": {config, as(strings.Replace(seat.Name, "-1.json", "/x-1.json", 1), string(seat.Data))},
	} {
		_, err := profile.ParseSnapshot(backup.Archive{Entries: bad})
		fails(t, err, want)
	}
}

func TestLastBackup(t *testing.T) {
	p := open(t)
	a, b := owned(1, "a"), membership(2, "b")
	b.MemberSeed = client.Secret{5}
	check(t, p.Add(a))
	missing := func() string {
		t.Helper()
		entries, err := p.Entries()
		check(t, err)
		last, err := p.LastBackup()
		check(t, err)
		return say(last.Missing(entries))
	}
	equal(t, missing(), "[a] [a]")
	s, err := p.Snapshot()
	check(t, err)
	check(t, p.RememberBackup(s, when))
	equal(t, missing(), "[] []")
	check(t, p.Add(b))
	equal(t, missing(), "[b] []")
	last, err := p.LastBackup()
	equal(t, say(last.Made, err), say(when.UnixMilli(), nil))
	check(t, os.WriteFile(filepath.Join(p.Dir(), "backup.json"), []byte("{"), 0o600))
	_, err = p.LastBackup()
	fails(t, err, "malformed")
}

// Alone and a process that announces itself exclude each other.
func TestAlone(t *testing.T) {
	p := open(t)
	leave, err := p.Announce()
	check(t, err)
	_, err = p.Alone()
	equal(t, errors.Is(err, profile.ErrRunning), true)
	check(t, leave())
	release, err := p.Alone()
	check(t, err)
	equal(t, p.Running(), true) // whoever asks meanwhile is told to wait
	check(t, release())
	equal(t, p.Running(), false)
}
